"""Every part of every score on kidneys and balls of known size and place."""

import numpy as np
import pytest

from renalseg.core.labels import CYST
from renalseg.report.measure import measure
from renalseg.report.nephrometry import nephrometry


@pytest.fixture(scope="session")
def scored(make):
    """A function: the scores of the only lesion of a phantom, remembered by its arguments."""
    known = {}

    def score(*balls, **how):
        key = (balls, tuple(how.items()))
        if key not in known:
            labels = make(*balls, **how)
            (known[key],) = nephrometry(labels, measure(labels))
        return known[key]

    return score


LATERAL = (-26, 0, 0, 15)
UPPER_POLE = (-6, 0, 52, 14)
ANTERIOR = (-2, 22, 0, 12)
ENDOPHYTIC = (-12, 0, 3, 9)
HILAR = (24, 0, 0, 9)
ACROSS_A_LINE = (-20, 0, 20, 10)

POINTS = {
    LATERAL: ("6x", (1, 1, 1, 3), (2, 1, 1, 1, 1, 1), (0, 0, 0, 0)),
    UPPER_POLE: ("4x", (1, 1, 1, 1), (1, 1, 1, 1, 1, 1), (0, 0, 0, 0)),
    ANTERIOR: ("7a", (1, 1, 2, 3), (2, 1, 1, 1, 1, 1), (0, 0, 0, 0)),
    ENDOPHYTIC: ("9x", (1, 3, 2, 3), (2, 3, 1, 1, 1, 1), (2, 0, 0, 0)),
    HILAR: ("9xh", (1, 2, 3, 3), (2, 2, 2, 2, 2, 1), (1, 1, 3, 0)),
}
"""R.E.N.A.L. and its R, E, N, L; PADUA's parts; SPARE's parts, from where the balls lie."""


@pytest.mark.parametrize("ball", POINTS, ids=["lateral", "upper pole", "anterior", "endophytic", "hilar"])
def test_points_of_balls_at_known_places(scored, ball):
    found = scored(ball)
    total, renal, padua, spare = POINTS[ball]
    assert f"{found.renal.total}{found.renal.suffix}" == total
    assert tuple(found.renal.parts[name].points for name in "RENL") == renal
    assert tuple(part.points for part in found.padua.parts.values()) == padua
    assert tuple(part.points for part in found.spare.parts.values()) == spare
    assert (found.padua.total, found.spare.total) == (sum(padua), sum(spare))
    assert found.renal.parts["A"].points is None
    assert found.abstained == ()


def test_a_ball_across_a_polar_line(scored):
    location = scored(ACROSS_A_LINE).renal.parts["L"]
    assert location.points == 2
    upper, (bottom, top) = location.geometry["upper_line_s_mm"], location.geometry["lesion_s_mm"]
    assert bottom < upper < top
    share = (lambda h: h * h * (30 - h) / 4000)(upper - (-60 - 10))
    assert location.value == pytest.approx(share, abs=0.08), "the cap of a ball of 10 mm below the line"


def test_the_posterior_face(scored):
    assert scored((-2, -22, 0, 12)).renal.suffix == "p"


@pytest.mark.parametrize(
    ("radius", "points"), [(19.0, (1, 1, 0)), (22.0, (2, 2, 2)), (36.5, (3, 3, 4))], ids=["38 mm", "44 mm", "73 mm"]
)
def test_size(scored, radius, points):
    found = scored((-25, 0, 0, radius))
    size = found.renal.parts["R"], found.padua.parts["Tumor size"], found.spare.parts["Tumor size"]
    assert tuple(part.points for part in size) == points
    assert size[0].value == pytest.approx(2 * radius, abs=1.5)


def test_the_distance_to_the_sinus_is_the_true_one(scored):
    """The hollow reaches in to 2 mm medial of the centre; the ball's near side lies 11 mm lateral of it."""
    nearness = scored(LATERAL).renal.parts["N"]
    assert nearness.value == pytest.approx(13, abs=1.5)
    ends = np.array([nearness.geometry["lesion_ras_mm"], nearness.geometry["sinus_ras_mm"]])
    assert np.linalg.norm(ends[0] - ends[1]) == pytest.approx(nearness.value + 2, abs=0.1), "between voxel centres"


def test_polar_lines_and_midline_are_those_of_the_hollow(scored):
    """The hollow is 36 mm high around the kidney's centre at -80 mm; its lips lie a little inside."""
    geometry = scored(LATERAL).renal.parts["L"].geometry
    assert geometry["upper_line_s_mm"] == pytest.approx(-80 + 17, abs=3)
    assert geometry["lower_line_s_mm"] == pytest.approx(-80 - 17, abs=3)
    assert geometry["midline_s_mm"] == pytest.approx(-80, abs=1.5)


def test_c_index_is_distance_over_radius(scored):
    found = scored(LATERAL).c_index
    assert found.value == pytest.approx(26 / 15, abs=0.06)
    assert found.geometry["kidney_centre_ras_mm"] == pytest.approx((-170, -50, -80), abs=1)
    assert found.distance_mm / found.radius_mm == pytest.approx(found.value)


def test_a_cyst_is_scored_as_a_tumor_is(scored):
    assert scored(LATERAL, label=CYST).as_dict() == scored(LATERAL).as_dict()


def test_the_mirrored_patient_has_the_same_points(scored):
    for ball in (LATERAL, HILAR):
        left, right = scored(ball), scored(ball, side="right")
        for one, other in ((left.renal, right.renal), (left.padua, right.padua), (left.spare, right.spare)):
            assert (one.total, one.suffix) == (other.total, other.suffix)
            for name, part in one.parts.items():
                assert part.points == other.parts[name].points
                assert part.value == pytest.approx(other.parts[name].value, abs=0.7), name
        assert left.c_index.value == pytest.approx(right.c_index.value, abs=0.1)
