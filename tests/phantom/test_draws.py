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
    values = np.array([draw(rng) for _ in range(4 * N)])
    assert np.percentile(values[values > 0], [5, 50, 95]) == pytest.approx(measured, rel=0.2)


def test_counts_of_masses() -> None:
    rng = np.random.default_rng(2)
    cysts = [len(draws.draw_cysts_ml(rng)) for _ in range(N)]
    tumors = [len(draws.draw_tumors_ml(rng)) for _ in range(N)]
    assert np.mean(np.array(cysts) > 0) == pytest.approx(248 / 489, abs=0.03)
    assert set(cysts) == {0, 1, 2, 3, 4, 8}
    assert np.mean(np.array(tumors) == 0) == pytest.approx(0.06, abs=0.02)
    assert np.mean(np.array(tumors) > 1) == pytest.approx(0.14, abs=0.03)


def test_tumors_from_grains_to_giants() -> None:
    rng = np.random.default_rng(6)
    totals = [sum(draws.draw_tumors_ml(rng)) for _ in range(N)]
    assert min(t for t in totals if t) < 0.6
    assert max(totals) > 1500


@pytest.fixture(scope="module")
def contrasts() -> list[draws.Contrast]:
    rng = np.random.default_rng(3)
    return [draws.draw_contrast(rng) for _ in range(1000)]


def test_every_phase_is_drawn_and_many_are_native(contrasts: list[draws.Contrast]) -> None:
    share = {p: np.mean([c.phase == p for c in contrasts]) for p in draws.PHASES}
    assert 0.15 < share["native"] < 0.3
    assert share["arterial"] > 0.35
    assert share["nephrographic"] > 0.15
    assert share["excretory"] > 0.04


def test_cortex_above_medulla_spans_0_to_150(contrasts: list[draws.Contrast]) -> None:
    over = np.array([c.hu["cortex"] - c.hu["medulla"] for c in contrasts if c.phase == "arterial"])
    assert over.min() == pytest.approx(0, abs=6)
    assert over.max() > 125
    assert np.mean(over > 60) > 0.35
    assert np.mean(over < 5) > 0.08
    native = np.array([c.hu["cortex"] - c.hu["medulla"] for c in contrasts if c.phase == "native"])
    assert np.median(np.abs(native)) < 6


def test_contrast_is_continuous(contrasts: list[draws.Contrast]) -> None:
    """No gap of 15 HU between 30 and 220 in the cortex, nor of 30 HU up to 350 in the aorta."""
    for name, low, high, gap in (("cortex", 30, 220, 15), ("aorta", 35, 350, 30)):
        hu = np.sort([c.hu[name] for c in contrasts])
        assert np.diff(hu[(hu > low) & (hu < high)]).max() < gap


def test_some_tissues_leave_their_ranges(contrasts: list[draws.Contrast]) -> None:
    low, high = draws.HU_RANGES["native"]["liver"]
    native = np.array([c.hu["liver"] for c in contrasts if c.phase == "native"])
    beyond = np.mean((native < low - 0.5) | (native > high + 0.5))
    assert 0.03 < beyond < 0.4


def test_organs_overlap_with_the_kidney(contrasts: list[draws.Contrast]) -> None:
    for name in ("spleen", "liver", "muscle", "tumor"):
        assert np.mean([abs(c.hu[name] - c.hu["medulla"]) < 20 for c in contrasts]) > 0.15, name


@pytest.mark.parametrize("bound", [20, 60, 150])
def test_max_slices_chooses_thicker_slices(bound: int) -> None:
    rng = np.random.default_rng(5)
    drawn = [draws.draw_sampling(rng, in_plane=64, max_slices=bound) for _ in range(300)]
    assert max(s.shape[0] for s in drawn) <= bound
    assert {s.shape[1:] for s in drawn} == {(64, 64)}
    fields = [64 * s.spacing_mm[1] for s in drawn]
    assert np.median(fields) == pytest.approx(512 * 0.78, rel=0.05)
