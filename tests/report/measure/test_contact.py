"""Areas by crossings against planes and balls of known area."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from renalseg.report.measure.contact import contact_area, crossings, direction_weights, lattice_steps, sphere

SPACINGS_MM = [(1.0, 1.0, 1.0), (3.0, 0.8, 0.8), (5.0, 0.7, 0.7), (0.5, 0.9, 0.9), (1.0, 2.0, 3.0)]
SHEARED = np.array([[2.0, 0.3, 0.2], [0, 1.0, 0.25], [0, 0, 1.2]])
AXES = [np.diag(s) for s in SPACINGS_MM] + [SHEARED, Rotation.from_euler("x", 20, degrees=True).as_matrix() @ SHEARED]


def grid(axes, reach_mm, rng):
    half = np.ceil(np.abs(np.linalg.inv(axes)).sum(axis=1) * reach_mm).astype(int)
    index = np.moveaxis(np.indices(tuple(2 * half + 1)), 0, -1) - half + rng.uniform(-0.5, 0.5, 3)
    return index @ axes.T


@pytest.mark.parametrize("axes", AXES)
def test_a_ball_has_its_area(axes):
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(4):
        inside = np.linalg.norm(grid(axes, 22, rng), axis=-1) <= 14
        areas.append(contact_area(inside, ~inside, axes))
    assert np.mean(areas) == pytest.approx(4 * np.pi * 14**2, rel=0.02)


@pytest.mark.parametrize("axes", AXES)
def test_planes_of_all_slants_have_their_area_on_average(axes):
    steps = lattice_steps(axes)
    per_area = np.abs(sphere(900) @ (np.array(steps) @ axes.T).T) / abs(np.linalg.det(axes))
    measured = per_area @ direction_weights(steps, axes)
    assert measured.mean() == pytest.approx(1, abs=0.01)
    assert measured.std() < 0.04
    assert measured.min() > 0.8
    assert measured.max() < 1.1


def test_only_the_shared_surface_counts():
    """Two halves of a ball: what they share is a disc; of one slant, so within the 7 % of the worst slant."""
    points = grid(np.eye(3), 20, np.random.default_rng(1))
    inside = np.linalg.norm(points, axis=-1) <= 15
    upper = points @ np.array([0.48, 0.6, 0.64]) > 0
    area = contact_area(inside & upper, inside & ~upper, np.eye(3))
    assert area == pytest.approx(np.pi * 15**2, rel=0.07)


def test_crossings_count_pairs_either_way():
    a, b = np.zeros((2, 3, 4), bool), np.zeros((2, 3, 4), bool)
    a[0, 1, 1] = b[0, 1, 2] = b[0, 1, 0] = b[1, 0, 2] = True
    assert crossings(a, b, (0, 0, 1)) == 2
    assert crossings(a, b, (1, -1, 1)) == 1
    assert crossings(a, b, (1, 1, 1)) == 0
    assert crossings(a, b, (0, 0, 4)) == 0
    assert crossings(b, a, (1, -1, 1)) == 1


def test_masks_apart_share_nothing():
    a, b = np.zeros((5, 9, 9), bool), np.zeros((5, 9, 9), bool)
    a[2, 2, 2] = b[2, 2, 6] = True
    assert contact_area(a, b, np.eye(3)) == 0
