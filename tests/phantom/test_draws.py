"""The draws follow the distributions measured on the public KiTS23 label maps (METHOD, section 1)."""

import numpy as np
import pytest

from renalseg.phantom import draws

N = 4000


@pytest.fixture(scope="module")
def samplings() -> list[draws.Sampling]:
    rng = np.random.default_rng(0)
    return [draws.draw_sampling(rng) for _ in range(N)]


def test_slice_spacing(samplings: list[draws.Sampling]) -> None:
    spacing = [s.spacing_mm[0] for s in samplings]
    assert np.percentile(spacing, [0, 5, 25, 50, 75, 95, 100]) == pytest.approx([0.5, 0.5, 2, 3, 5, 5, 5])


def test_in_plane_spacing(samplings: list[draws.Sampling]) -> None:
    spacing = [s.spacing_mm[1] for s in samplings]
    assert np.percentile(spacing, [5, 25, 50, 75, 95]) == pytest.approx([0.64, 0.72, 0.78, 0.87, 0.98], abs=0.01)
    assert min(spacing) >= 0.39
    assert max(spacing) <= 1.04


def test_slice_count(samplings: list[draws.Sampling]) -> None:
    count = [s.shape[0] for s in samplings]
    found, measured = np.percentile(count, [5, 25, 50, 75, 95]), np.array([44, 84, 104, 211, 635])
    assert np.all(np.abs(np.log(found / measured)) < np.log(1.35)), found
    assert min(count) >= 29


@pytest.mark.parametrize(
    ("draw", "measured"),
    [
        (draws.draw_kidney_ml, (249, 395, 612)),
        (lambda rng: sum(draws.draw_tumors_ml(rng)), (2.9, 32, 664)),
        (lambda rng: sum(draws.draw_cysts_ml(rng)), (0.21, 4.4, 95)),
    ],
)
def test_volumes(draw, measured) -> None:
    rng = np.random.default_rng(1)
    values = np.array([draw(rng) for _ in range(N)])
    assert np.percentile(values[values > 0], [5, 50, 95]) == pytest.approx(measured, rel=0.2)


def test_counts_of_masses() -> None:
    rng = np.random.default_rng(2)
    cysts = [len(draws.draw_cysts_ml(rng)) for _ in range(N)]
    tumors = [len(draws.draw_tumors_ml(rng)) for _ in range(N)]
    assert np.mean(np.array(cysts) > 0) == pytest.approx(248 / 489, abs=0.03)
    assert set(cysts) == {0, 1, 2, 3, 4}
    assert set(tumors) == {1, 2}


def test_phases_are_mostly_arterial() -> None:
    rng = np.random.default_rng(3)
    phases = [draws.draw_contrast(rng).phase for _ in range(N)]
    assert np.mean(np.array(phases) == "arterial") == pytest.approx(0.7, abs=0.03)
    assert set(phases) == set(draws.HU_RANGES)


def test_tumor_is_not_told_by_its_mean() -> None:
    """In arterial scans, 40 % of the drawn tumor means lie among the middle 90 % of the medulla's."""
    rng = np.random.default_rng(4)
    drawn = [draws.draw_contrast(rng).hu for _ in range(N)]
    tumor, medulla = (np.array([hu[name] for hu in drawn]) for name in ("tumor", "medulla"))
    low, high = np.percentile(medulla, [5, 95])
    assert np.mean((tumor > low) & (tumor < high)) > 0.4


@pytest.mark.parametrize("bound", [20, 60, 150])
def test_max_slices_chooses_thicker_slices(bound: int) -> None:
    rng = np.random.default_rng(5)
    drawn = [draws.draw_sampling(rng, in_plane=64, max_slices=bound) for _ in range(300)]
    assert max(s.shape[0] for s in drawn) <= bound
    assert {s.shape[1:] for s in drawn} == {(64, 64)}
    fields = [64 * s.spacing_mm[1] for s in drawn]
    assert np.median(fields) == pytest.approx(512 * 0.78, rel=0.05)
