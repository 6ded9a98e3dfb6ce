"""Diameters and extents of shapes whose true size is known, on grids of all kinds."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from renalseg.report.measure.diameters import (
    axial_diameter,
    craniocaudal_mm,
    diameter_3d,
    row_ends,
    shifted,
    slice_distance_mm,
    to_world,
)

SPACINGS_MM = [(1.0, 1.0, 1.0), (3.0, 0.8, 0.8), (5.0, 0.9, 0.9), (0.5, 0.9, 0.7), (3.0, 1.5, 0.6)]
SHEAR = np.array([[1, 0.2, 0.1], [0, 1, 0.15], [0, 0, 1]])


def affine_of(spacing_mm, turn=None):
    """Index (z, y, x) to RAS mm of a canonical grid, then ``turn``, a [3, 3] matrix in world space."""
    z, y, x = spacing_mm
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, -x], [0, -y, 0], [-z, 0, 0]])
    if turn is not None:
        affine[:3, :3] = turn @ affine[:3, :3]
    return affine


def voxelise(inside, reach_mm, affine, rng=None):
    """A mask and its affine: all voxels whose centre is ``inside``, a function of points [..., 3] in mm around 0.

    The grid reaches ``reach_mm`` from the origin, which lies anywhere within a voxel where ``rng`` is given.
    """
    columns = np.linalg.inv(affine[:3, :3])
    half = np.ceil(np.sqrt((columns**2).sum(axis=1)) * reach_mm).astype(int) + 1
    index = np.stack(np.meshgrid(*(np.arange(2 * n + 1) for n in half), indexing="ij"), axis=-1)
    offset = np.zeros(3) if rng is None else rng.uniform(-0.5, 0.5, 3)
    placed = affine.copy()
    placed[:3, 3] = -affine[:3, :3] @ (half + offset)
    return inside(index @ placed[:3, :3].T + placed[:3, 3]), placed


def ellipsoid(diameters_mm, turn):
    """Whether points lie within an ellipsoid with these three diameters, turned by the [3, 3] matrix."""
    return lambda points: (((points @ turn) / (np.array(diameters_mm) / 2)) ** 2).sum(axis=-1) <= 1


def largest_axial_mm(diameters_mm, turn):
    """The longest line of an ellipsoid in planes of equal z: that of its central ellipse, from its quadratic form."""
    form = turn @ np.diag(4 / np.array(diameters_mm, dtype=float) ** 2) @ turn.T
    return 2 / np.sqrt(np.linalg.eigvalsh(form[:2, :2])[0])


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
@pytest.mark.parametrize("diameter_mm", [15.0, 30.0])
def test_spheres_anywhere_on_the_grid_have_no_bias(spacing_mm, diameter_mm):
    rng = np.random.default_rng(4)
    sphere = ellipsoid((diameter_mm,) * 3, np.eye(3))
    errors = []
    for _ in range(8):
        mask, affine = voxelise(sphere, diameter_mm / 2, affine_of(spacing_mm), rng)
        found = axial_diameter(mask, affine).mm, diameter_3d(mask, affine).mm
        errors.append([mm - diameter_mm for mm in found])
    in_slices, in_all = np.mean(errors, axis=0)
    assert abs(in_slices) < 0.35  # thick slices miss the equator; a voxel in plane is 0.6 to 1.5 mm
    assert abs(in_all) < max(0.35, max(spacing_mm) / 10)
    assert np.abs(errors).max() < max(1.2, max(spacing_mm) / 4)


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
def test_turned_ellipsoids_are_measured_within_a_voxel(spacing_mm):
    rng = np.random.default_rng(5)
    size, errors = (45.0, 30.0, 24.0), []
    for turn in Rotation.random(8, random_state=rng).as_matrix():
        mask, affine = voxelise(ellipsoid(size, turn), 22.5, affine_of(spacing_mm), rng)
        errors.append(
            (axial_diameter(mask, affine).mm - largest_axial_mm(size, turn), diameter_3d(mask, affine).mm - 45)
        )
    assert np.abs(np.mean(errors, axis=0)).max() < max(0.5, max(spacing_mm) / 5)
    assert np.abs(np.array(errors)[:, 0]).max() < max(spacing_mm[1:]) + 0.2
    assert np.abs(np.array(errors)[:, 1]).max() < max(spacing_mm)


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
@pytest.mark.parametrize("degrees", [0, 20, 45, 70])
def test_turned_boxes_have_their_diagonals(spacing_mm, degrees):
    sides = np.array([36.0, 24.0, 30.0])  # x, y, z
    turn = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    mask, affine = voxelise(
        lambda p: (np.abs(p @ turn) <= sides / 2).all(axis=-1), 30, affine_of(spacing_mm), np.random.default_rng(6)
    )
    pixel = np.hypot(*spacing_mm[1:])  # each sharp corner may fall a voxel short
    assert axial_diameter(mask, affine).mm == pytest.approx(np.hypot(36, 24), abs=1.5 * pixel)
    assert diameter_3d(mask, affine).mm == pytest.approx(
        np.sqrt((sides**2).sum()), abs=1.5 * np.hypot(pixel, spacing_mm[0])
    )
    assert craniocaudal_mm(mask, affine) == pytest.approx(30, abs=spacing_mm[0])


def largest_section_mm(corners, heights):
    """The longest line in any section of a box by a plane of equal z, from the cuts of its edges."""
    pairs = np.array([(a, b) for a in range(8) for b in range(a) if bin(a ^ b).count("1") == 1])
    ends, found = corners[pairs], 0.0
    for z in heights:
        rise = ends[:, 1, 2] - ends[:, 0, 2]
        share = (z - ends[:, 0, 2]) / np.where(rise == 0, np.nan, rise)
        cuts = (ends[:, 0] + share[:, None] * (ends[:, 1] - ends[:, 0]))[(share >= 0) & (share <= 1)]
        if len(cuts):
            found = max(found, float(np.linalg.norm(cuts[:, None] - cuts, axis=-1).max()))
    return found


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
@pytest.mark.parametrize("angles", [(30, 0, 0), (0, 50, 0), (25, 40, 10), (-60, 15, 75)])
def test_boxes_turned_against_the_slices(spacing_mm, angles):
    """By 1.5 voxels: the diameter in any direction, the largest in an axial slice, and the extent along z."""
    sides = np.array([36.0, 24.0, 30.0])  # x, y, z
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    mask, affine = voxelise(
        lambda p: (np.abs(p @ turn) <= sides / 2).all(axis=-1), 30, affine_of(spacing_mm), np.random.default_rng(8)
    )
    corners = np.array([[x, y, z] for z in (-1, 1) for y in (-1, 1) for x in (-1, 1)]) * sides / 2 @ turn.T
    pixel = np.hypot(*spacing_mm[1:])
    expected = largest_section_mm(corners, np.linspace(corners[:, 2].min(), corners[:, 2].max(), 401))
    assert axial_diameter(mask, affine).mm == pytest.approx(expected, abs=1.5 * np.hypot(pixel, spacing_mm[0]))
    diagonal = float(np.sqrt((sides**2).sum()))
    assert diameter_3d(mask, affine).mm == pytest.approx(diagonal, abs=1.5 * np.hypot(pixel, spacing_mm[0]))
    assert craniocaudal_mm(mask, affine) == pytest.approx(np.ptp(corners[:, 2]), abs=1.5 * max(spacing_mm))


@pytest.mark.parametrize("turn", [Rotation.from_euler("xyz", (20, 35, 50), degrees=True).as_matrix(), SHEAR])
def test_oblique_and_sheared_grids_measure_the_same_sphere(turn):
    mask, affine = voxelise(ellipsoid((30, 30, 30), np.eye(3)), 15, affine_of((2.0, 0.8, 0.9), turn))
    assert axial_diameter(mask, affine).mm == pytest.approx(30, abs=0.6)
    assert diameter_3d(mask, affine).mm == pytest.approx(30, abs=0.6)
    assert craniocaudal_mm(mask, affine) == pytest.approx(30, abs=slice_distance_mm(affine))


def test_shear_brings_slices_closer_than_their_spacing():
    affine = affine_of((2.0, 1.0, 1.0), SHEAR)
    affine[:3, 0] = [0.6, 0, -2.0]  # the normal of these slices is not superior alone
    normal = np.cross(affine[:3, 1], affine[:3, 2])
    expected = abs(affine[:3, 0] @ normal) / np.linalg.norm(normal)
    assert slice_distance_mm(affine) == pytest.approx(expected)
    assert slice_distance_mm(affine) < np.linalg.norm(affine[:3, 0])
    assert slice_distance_mm(affine_of((2.5, 0.7, 0.8))) == pytest.approx(2.5)


def test_the_ends_lie_in_the_slice_as_far_apart_as_said():
    mask, affine = voxelise(ellipsoid((40, 22, 25), np.eye(3)), 20, affine_of((3.0, 0.8, 0.8)))
    for found in (axial_diameter(mask, affine), diameter_3d(mask, affine)):
        a, b = np.array(found.ends_ras_mm)
        assert np.linalg.norm(a - b) == pytest.approx(found.mm)
    found = axial_diameter(mask, affine, first_slice=7)
    ends = (np.array(found.ends_ras_mm) - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    np.testing.assert_allclose(ends[:, 0], found.slice - 7, atol=1e-9)
    reach = np.sqrt((affine[:3, :3] ** 2).sum(axis=0)).max()
    distances = np.linalg.norm(to_world(affine, np.argwhere(mask))[:, None] - np.array(found.ends_ras_mm), axis=-1)
    assert distances.min(axis=0).max() < reach / 2


def test_single_voxels_and_lines_have_a_size():
    mask = np.zeros((3, 4, 9), bool)
    mask[1, 2, 3] = True
    assert 0 < axial_diameter(mask, affine_of((3, 1, 1))).mm <= 1
    assert craniocaudal_mm(mask, affine_of((3, 1, 1))) == 3
    mask[1, 2, 1:8] = True
    assert axial_diameter(mask, affine_of((3, 1, 2))).mm == pytest.approx(2 * 6.25)
    assert axial_diameter(mask, affine_of((3, 1, 2))).slice == 1
    assert craniocaudal_mm(np.zeros((2, 2, 2), bool), affine_of((3, 1, 1))) == 0


def test_row_ends_are_all_that_a_hull_needs():
    mask = np.zeros((2, 3, 6), bool)
    mask[0, 1, [1, 3, 4]] = mask[1, 2, 5] = True
    assert {tuple(p) for p in row_ends(mask)} == {(0, 1, 1), (0, 1, 4), (1, 2, 5)}


def test_a_part_keeps_its_place_in_the_world():
    affine = affine_of((2.0, 0.8, 0.9), SHEAR)
    affine[:3, 3] = 10, -20, 30
    whole, part = np.array([[5, 7, 9]]), np.array([[1, 3, 4]])
    np.testing.assert_allclose(to_world(shifted(affine, (4, 4, 5)), part), to_world(affine, whole))
