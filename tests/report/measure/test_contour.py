"""The hull of a mask, and what is put back where a lesion left a crater."""

import numpy as np
import pytest

from renalseg.report.measure.contact import sphere
from renalseg.report.measure.contour import contour_of, parenchyma_contour
from renalseg.report.measure.restore import restored

RADII = np.array([26.0, 24.0, 50.0])


def body(step=2.0):
    """Points of an ellipsoid on a grid, float64 [n, 3]."""
    low = np.ceil(-RADII / step - 1)
    points = (np.moveaxis(np.indices(tuple((-2 * low + 1).astype(int))), 0, -1).reshape(-1, 3) + low) * step
    return points[((points / RADII) ** 2).sum(axis=1) <= 1]


def hull_of(points, step=2.0):
    return contour_of(np.concatenate([points + s * step / 2 * e for e in np.eye(3) for s in (-1, 1)]))


def test_a_hull_tells_inside_and_outside():
    cube = contour_of(np.array([[x, y, z] for x in (0, 2) for y in (0, 2) for z in (0, 2)], float))
    points = np.array([[1, 1, 1], [1.99, 0.01, 1], [2.01, 1, 1], [-1, 1, 1], [1, 5, 1]])
    assert cube.contains(points).tolist() == [True, True, False, False, False]
    along = np.array([[1, 0, 0], [0, -1, 0], [1 / np.sqrt(2), 1 / np.sqrt(2), 0]])
    np.testing.assert_allclose(cube.radii(np.ones(3), along), [1, 1, np.sqrt(2)])


def test_points_in_one_plane_span_no_contour():
    assert contour_of(np.array([[x, y, 0] for x in range(4) for y in range(4)], float)) is None
    assert contour_of(np.zeros((2, 3))) is None
    assert parenchyma_contour(np.zeros((3, 3, 3), bool), np.eye(4)) is None


def test_the_hull_of_a_mask_reaches_half_a_voxel_beyond_the_centres():
    affine = np.diag([3.0, 2.0, 1.0, 1.0])
    contour = parenchyma_contour(np.ones((4, 5, 6), bool), affine)
    np.testing.assert_allclose(contour.corners.min(axis=0), [-1.5, -1, -0.5])
    np.testing.assert_allclose(contour.corners.max(axis=0), [10.5, 9, 5.5])


@pytest.mark.parametrize("direction", [(1, 0, 0), (0.6, 0.8, 0), (0, 0, 1)])
@pytest.mark.parametrize("radius", [8, 14, 20])
def test_a_crater_is_filled_to_the_surface_that_was_there(direction, radius):
    direction = np.array(direction, float)
    top = direction / np.sqrt(((direction / RADII) ** 2).sum())
    points = body()
    lesion = np.linalg.norm(points - top, axis=1) <= radius
    hull = hull_of(points[~lesion])
    filled = restored(hull, points[~lesion], points[lesion])
    true = np.linalg.norm(top)
    flat = hull.radii(np.zeros(3), direction[None])[0]
    found = filled.radii(np.zeros(3), direction[None])[0]
    assert flat < true - 0.1
    assert found >= flat
    assert found == pytest.approx(true, abs=max(0.8, 0.5 * (true - flat)))  # at least half of the crater


def test_a_contour_without_lesions_stays():
    hull = hull_of(body())
    assert restored(hull, body(), np.zeros((0, 3))) is hull


def test_with_too_little_surface_there_is_no_contour():
    points = body()
    rim = points[:, 2] < -30
    assert restored(hull_of(points[rim][::9]), points[rim][:1], points[~rim]) is None


def test_directions_are_even():
    directions = sphere(500)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    np.testing.assert_allclose(directions.mean(axis=0), 0, atol=0.01)
