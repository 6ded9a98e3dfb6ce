import numpy as np
import pytest

from renalseg.core.labels import KIDNEY
from renalseg.phantom.acquisition import (
    NoiseTiles,
    Scanner,
    SliceRenderer,
    average_slices,
    correlated_noise,
    draw_scanner,
    subslices,
)
from renalseg.phantom.fields import Lattice
from renalseg.phantom.findings import Findings
from renalseg.phantom.scene import Layer, Renal


def test_thick_slices_average_thin_ones() -> None:
    thin = [np.full((4, 5), v, np.float32) for v in (0, 100, 50, 10)]
    assert np.array_equal(average_slices(thin), np.full((4, 5), 40, np.float32))


@pytest.mark.parametrize(("thickness", "count"), [(0.5, 1), (1.25, 1), (2.5, 2), (3.0, 2), (5.0, 4)])
def test_subslices_fill_the_slice_evenly(thickness: float, count: int) -> None:
    heights = subslices(7.0, thickness)
    assert len(heights) == count
    assert np.mean(heights) == pytest.approx(7)
    assert np.diff(heights) == pytest.approx([thickness / count] * (count - 1))
    assert heights[0] - thickness / count / 2 == pytest.approx(7 - thickness / 2)


def test_noise_is_correlated_over_neighbours_only() -> None:
    noise = correlated_noise(np.random.default_rng(0), (256, 256), 0.9)
    assert noise.std() == pytest.approx(1, abs=1e-3)
    near = np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]
    far = np.corrcoef(noise[:, 12:].ravel(), noise[:, :-12].ravel())[0, 1]
    assert 0.2 < near < 0.9
    assert abs(far) < 0.1


def test_tiled_noise_differs_between_slices() -> None:
    rng = np.random.default_rng(1)
    tiles = NoiseTiles(rng, (128, 160), 0.9)
    a, b = tiles.draw(rng), tiles.draw(rng)
    assert a.shape == (128, 160)
    assert a.std() == pytest.approx(1, abs=0.15)
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.2


@pytest.mark.parametrize(("thickness", "low", "high"), [(5.0, 6, 25), (3.0, 6, 30), (0.5, 11, 43)])
def test_noise_level(thickness: float, low: float, high: float) -> None:
    rng = np.random.default_rng(2)
    levels = [draw_scanner(rng, grid(thickness)).noise_hu for _ in range(200)]
    assert min(levels) >= 5
    assert max(levels) <= 45
    assert np.percentile(levels, 2) < low
    assert np.percentile(levels, 99) > high * 0.75


def grid(thickness: float) -> Lattice:
    return Lattice((0, 0, 0), (thickness, 1.0, 1.0), (6, 48, 48))


def scanner(**changes) -> Scanner:
    usual = {
        "grid": grid(3.0), "blur_px": 0.5, "noise_hu": 10.0, "grain_px": 0.8, "edge": 0.0, "overlap": 1.0,
        "noise_along": 0.0, "offset_hu": 0.0, "padding": None, "shading": np.zeros((48, 48), np.float32),
    }  # fmt: skip
    return Scanner(**{**usual, **changes})


def render(scanner: Scanner, renal: Renal | None = None, given=None, around=None) -> np.ndarray:
    body = Lattice((-5.0, 0.0, 0.0), (2.5, 4.0, 4.0), (12, 13, 13))
    rng = np.random.default_rng(0)
    noise = NoiseTiles(rng, (48, 48), scanner.grain_px)
    renderer = SliceRenderer(scanner, np.full(body.shape, 50.0, np.float32), body, renal, noise)
    return np.stack([renderer.render(i, rng, given, around)[0] for i in range(4)]).astype(np.float32)


def test_kernels_scanners_and_padding_vary() -> None:
    rng = np.random.default_rng(3)
    drawn = [draw_scanner(rng, grid(1.0)) for _ in range(300)]
    blur = [s.blur_px for s in drawn]
    assert min(blur) < 0.4
    assert max(blur) > 0.95
    assert 0.08 < np.mean([s.padding is not None for s in drawn]) < 0.22
    assert {s.padding for s in drawn} == {None, -1024, -2000, -3024}
    assert max(abs(s.offset_hu) for s in drawn) <= 5
    assert max(s.overlap for s in drawn) > 1.3
    assert 0.3 < np.mean([s.noise_along > 0 for s in drawn]) < 0.8
    assert all(s.noise_along == 0 for s in (draw_scanner(rng, grid(5.0)) for _ in range(20)))


def test_padding_lies_outside_of_the_circle() -> None:
    ct = render(scanner(padding=-2000))
    assert (ct[:, 0, 0] == -2000).all()
    assert ct[:, 24, 24].min() > -100


def test_noise_goes_on_in_the_next_slice() -> None:
    def correlation(along: float) -> float:
        ct = render(scanner(noise_along=along))
        return float(np.corrcoef(ct[1].ravel(), ct[2].ravel())[0, 1])

    assert correlation(0.8) > 0.5
    assert abs(correlation(0.0)) < 0.3


def test_the_offset_shifts_tissue() -> None:
    assert render(scanner(offset_hu=4.0)).mean() - render(scanner()).mean() == pytest.approx(4, abs=0.2)


def kidney(metal=()) -> Renal:
    lattice = Lattice((-4.0, 8.0, 8.0), (1.5, 1.5, 1.5), (16, 20, 20))
    distance = np.full(lattice.shape, -5.0, np.float32)
    layers = (Layer(KIDNEY, distance, np.full(lattice.shape, 200.0, np.float32)),)
    return Renal(lattice, layers, distance, (), Findings(metal=metal))


def test_overlapping_slices_see_their_neighbours() -> None:
    given, empty = np.zeros((48, 48), np.uint8), np.zeros((48, 48), np.uint8)
    given[16:30, 16:30] = KIDNEY
    alone = render(scanner(overlap=1.5), kidney(), given)[:, 20:26, 20:26].mean()
    between = render(scanner(overlap=1.5), kidney(), given, (empty, empty))[:, 20:26, 20:26].mean()
    assert alone == pytest.approx(200, abs=4)
    assert between == pytest.approx(50 + 150 * 2 / 3, abs=4)


def test_clips_are_bright_and_cast_streaks() -> None:
    plain, metal = render(scanner()), render(scanner(), kidney(((0.0, 24.0, 24.0),)), np.zeros((48, 48), np.uint8))
    assert metal[0].max() > 800
    assert metal[0, :12].std() > 1.2 * plain[0, :12].std()
    assert metal[3].max() < 200
