import numpy as np
import pytest

from renalseg.phantom.acquisition import NoiseTiles, average_slices, correlated_noise, draw_scanner, subslices
from renalseg.phantom.fields import Lattice


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


@pytest.mark.parametrize(("thickness", "low", "high"), [(5.0, 7, 15), (3.0, 8, 18), (0.5, 15, 34)])
def test_noise_level(thickness: float, low: float, high: float) -> None:
    rng = np.random.default_rng(2)
    grid = Lattice((0, 0, 0), (thickness, 0.8, 0.8), (4, 8, 8))
    levels = [draw_scanner(rng, grid).noise_hu for _ in range(200)]
    assert low <= min(levels)
    assert max(levels) <= high
