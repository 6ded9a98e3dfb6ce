import numpy as np
import pytest

from renalseg.phantom.fields import Lattice, Noise, ellipsoid, hat_matrix, resample, smooth_min, superellipse, tube

LATTICE = Lattice((-20.0, -20.0, -20.0), (1.0, 1.0, 1.0), (41, 41, 41))


def points():
    z, y, x = (LATTICE.axis(i) for i in range(3))
    return z[:, None, None], y[None, :, None], x[None, None, :]


def test_sphere_distance() -> None:
    distance = ellipsoid(points(), (0, 0, 0), (10, 10, 10))
    assert distance[20, 20, 35] == pytest.approx(5, abs=1e-3)
    assert distance[20, 20, 25] == pytest.approx(-5, abs=1e-3)


def test_ellipsoid_follows_its_axes() -> None:
    axes = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    distance = ellipsoid(points(), (0, 0, 0), (15, 8, 4), axes)
    assert distance[20, 20, 34] < 0 < distance[34, 20, 20]


def test_tube_tapers() -> None:
    distance = tube(points(), [(-15, 0, 0), (15, 0, 0)], [2.0, 6.0])
    assert distance[20, 20, 24] == pytest.approx(0, abs=1e-4)


def test_superellipse_touches_its_half_axes() -> None:
    y, x = np.array([10.0, 0.0], np.float32), np.array([0.0, 17.0], np.float32)
    assert superellipse(y, x, (10, 17), 2.4) == pytest.approx([0, 0], abs=1e-2)


def test_smooth_union_is_larger_than_either() -> None:
    a, b = np.array([1.0, 30.0], np.float32), np.array([1.0, 2.0], np.float32)
    assert smooth_min(a, b, 4) == pytest.approx([0.0, 2.0])


def test_linear_resampling_is_exact_on_linear_fields() -> None:
    z, y, x = points()
    values = (2 * z + 3 * y - x).astype(np.float32)
    fine = Lattice((-3.3, 0.2, 1.7), (0.7, 0.4, 0.9), (5, 6, 7))
    a, b, c = (fine.axis(i) for i in range(3))
    wanted = 2 * a[:, None, None] + 3 * b[None, :, None] - c[None, None, :]
    assert np.allclose(resample(values, LATTICE, fine), wanted, atol=1e-4)


def test_hat_rows_sum_to_one_beyond_the_edge_too() -> None:
    matrix = hat_matrix(np.linspace(-50, 50, 33, dtype=np.float32), -20, 1, 41)
    assert np.allclose(matrix.sum(axis=1), 1)


@pytest.mark.parametrize("scale", [3.0, 5.0])
def test_noise_has_unit_variance_and_its_scale(scale: float) -> None:
    big = Lattice((0, 0, 0), (1.0, 1.0, 1.0), (60, 60, 60))
    values = Noise.draw(np.random.default_rng(0), big, scale).on(big)
    assert values.std() == pytest.approx(1, abs=0.15)
    lag = int(scale)
    assert np.corrcoef(values[:, :, lag:].ravel(), values[:, :, :-lag].ravel())[0, 1] > 0.2
    far = 5 * lag
    assert abs(np.corrcoef(values[:, :, far:].ravel(), values[:, :, :-far].ravel())[0, 1]) < 0.2


def test_noise_on_a_window_is_a_part_of_the_whole() -> None:
    noise = Noise.draw(np.random.default_rng(1), LATTICE, 6.0)
    window = (slice(3, 9), slice(10, 20), slice(0, 41))
    assert np.allclose(noise.on(LATTICE, window), noise.on(LATTICE)[window], atol=1e-5)


def test_windows_stay_within_the_lattice() -> None:
    assert LATTICE.window((-100, -100, -100), (100, 100, 100)) == (slice(0, 41),) * 3
    z, _, _ = LATTICE.window((90, 0, 0), (99, 5, 5))
    assert z.stop - z.start <= 1
