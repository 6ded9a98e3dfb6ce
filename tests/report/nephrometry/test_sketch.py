"""The drawing shows what was scored: sides as in radiology, landmarks where they were found, every score in words."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from renalseg.core.errors import InputError
from renalseg.core.labels import LABELS, TUMOR
from renalseg.report.measure import measure
from renalseg.report.nephrometry import nephrometry
from renalseg.report.nephrometry.score import kidneys_of
from renalseg.report.nephrometry.sketch import _shapes, _words, sketch

RED = np.array(next(label.colour for label in LABELS if label.id == TUMOR)) / 255


@pytest.fixture(scope="module")
def scored(make):
    """Label map, measurements and scores of a left kidney with a ball at its lateral side, above the middle."""
    labels = make((-24.0, 0.0, 25.0, 12.0))
    measurements = measure(labels)
    return labels, measurements, nephrometry(labels, measurements)[0]


def test_the_lesion_is_drawn_at_its_place_seen_from_the_front(scored):
    labels, measurements, score = scored
    image = imread(BytesIO(sketch(score, labels, measurements)))[..., :3]
    assert image.shape[:2] == (484, 704)
    rows, columns = np.nonzero(np.abs(image - RED).max(axis=-1) < 0.15)
    green = np.nonzero((image[..., 1] > image[..., 0] + 0.1) & (image[..., 1] > image[..., 2] + 0.1))
    assert len(rows) > 500
    assert rows.mean() < green[0].mean()  # above the middle
    assert columns.mean() > green[1].mean()  # lateral of a left kidney: on the right of the picture


def test_the_axis_holds_the_whole_kidney_in_mm(scored):
    labels, measurements, _ = scored
    axes = Figure().subplots()
    _shapes(axes, kidneys_of(labels, measurements)["left"], labels, measurements.lesions[0])
    low, high = sorted(axes.get_ylim())
    assert low < -80 - 50
    assert high > -80 + 50
    assert axes.get_xlim()[0] > axes.get_xlim()[1]  # the patient's right on the left


def test_words_hold_every_total_and_say_why_one_is_missing(make, scored):
    _, measurements, score = scored
    text = _words(score, measurements.lesions[0])
    for words in (f"R.E.N.A.L. {score.renal.total}{score.renal.suffix}", f"PADUA {score.padua.total}", "C-index"):
        assert words in text
    assert "not told" not in text
    solid = make((-24.0, 0.0, 25.0, 12.0), hollow=False)
    found = measure(solid)
    (untold,) = nephrometry(solid, found)
    text = _words(untold, found.lesions[0])
    assert "R.E.N.A.L. not told" in text
    assert untold.abstained
    assert all(" ".join(reason.split()) in " ".join(text.split()) for reason in untold.abstained)
    assert sketch(untold, solid, found).startswith(b"\x89PNG")


def test_scores_of_a_lesion_that_was_not_measured_are_refused(scored):
    labels, measurements, score = scored
    with pytest.raises(InputError, match="no lesion 9"):
        sketch(replace(score, lesion=9), labels, measurements)
