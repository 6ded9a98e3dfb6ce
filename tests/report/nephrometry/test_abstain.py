"""When no score is told, the other orientations of a file, and measurements that belong elsewhere."""

import json
from itertools import permutations, product

import numpy as np
import pytest

from renalseg.core.errors import InputError
from renalseg.core.volume import Grid, Volume
from renalseg.report.measure import measure
from renalseg.report.nephrometry import nephrometry

BALL = (-26, 0, 0, 15)


@pytest.mark.parametrize(
    ("how", "reason"),
    [({"hollow": False}, "sinus"), ({"top_mm": 40.0}, "cut off by the superior border")],
    ids=["no sinus", "cut off"],
)
def test_without_landmarks_only_the_size_is_told(make, how, reason):
    labels = make(BALL, **how)
    (found,) = nephrometry(labels, measure(labels))
    for score, size in ((found.renal, "R"), (found.padua, "Tumor size"), (found.spare, "Tumor size")):
        assert score.total is None
        assert score.suffix == ""
        for name, part in score.parts.items():
            assert (part.points is not None) == (name == size), name
            assert name == size or (reason in part.why and part.value is None)
    assert found.c_index.value is None
    assert len(found.abstained) == 1
    assert found.abstained[0].startswith("R.E.N.A.L., PADUA, SPARE and C-index are not told: ")
    assert reason in found.abstained[0]


def test_lesions_keep_the_order_of_the_measurements(make):
    labels = make(BALL, (-6, 0, 52, 10))
    measurements = measure(labels)
    found = nephrometry(labels, measurements)
    assert [one.lesion for one in found] == [lesion.id for lesion in measurements.lesions] == [1, 2]
    assert (found[0].renal.total, found[1].renal.total) == (6, 4)


def test_no_lesion_no_score(make):
    labels = make()
    assert nephrometry(labels, measure(labels)) == ()


def test_all_48_orientations_give_the_same_scores(make):
    """Scores follow from array and affine alone, and all 48 files give the same; so three of them are scored."""
    labels = make(BALL)
    expected = nephrometry(labels, measure(labels))[0].as_dict()
    turns = list(product(permutations(range(3)), product((1, -1), repeat=3)))
    assert len(turns) == 48
    for i, (order, signs) in enumerate(turns):
        turned = _turned(labels, order, signs)
        assert np.array_equal(turned.array, labels.array)
        assert np.allclose(turned.affine, labels.affine)
        if i in (0, 21, 47):
            assert nephrometry(turned, measure(turned))[0].as_dict() == expected


def test_measurements_of_another_map_are_refused(make):
    labels, other = make(BALL), make((-6, 0, 52, 10), side="right")
    with pytest.raises(InputError, match=r"measurements have the kidneys \['left'\], the label map \['right'\]"):
        nephrometry(other, measure(labels))


def test_the_dictionary_is_json_and_has_the_agreed_keys(make):
    labels = make(BALL)
    measurements = measure(labels)
    found = json.loads(json.dumps(nephrometry(labels, measurements)[0].as_dict(), allow_nan=False))
    assert list(found) == ["renal", "padua", "spare", "c_index", "abstained"]
    for name in ("renal", "padua", "spare"):
        assert {"total", "suffix", "parts"} <= set(found[name])
        for part in found[name]["parts"].values():
            assert set(part) == {"points", "value", "unit", "why", "geometry"}
            assert part["why"].endswith(".")
    distance = measurements.lesions[0].sinus_distance_mm
    assert found["renal"]["parts"]["N"]["value"] == pytest.approx(distance, abs=1e-3), "one sinus for both"


def _turned(labels: Volume, order: tuple[int, ...], signs: tuple[int, ...]) -> Volume:
    """The same map as a file with permuted and flipped axes would give it."""
    array, affine = labels.array.transpose(order), labels.affine[:, [*order, 3]].copy()
    for axis, sign in enumerate(signs):
        if sign < 0:
            array = np.flip(array, axis)
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
    return Volume.from_stored(np.ascontiguousarray(array), Grid(array.shape, affine), "phantom")
