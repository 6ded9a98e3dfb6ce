"""Largest diameters (maximum Feret diameters) and extents of a mask, in the grid's true geometry.

A Feret diameter is the distance between two parallel planes that touch an object; the largest one is the longest line
between two of its points (Merkus 2009, Particle Size Measurements, doi:10.1007/978-1-4020-9016-5). Which points stand
for a voxel decides the bias: the longest line between voxel centres comes out short, between voxel corners or faces
long, since the longest of many candidates profits from every voxel's reach. Here a voxel reaches ``REACH_AXIAL`` or
``REACH_3D`` of its size from its centre along each axis. Both were chosen on voxelised spheres and ellipsoids of 10 to
60 mm at spacings from 0.5 to 5 mm (docs/measurements.md).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import cdist

from renalseg.report.measure.results import Diameter, Point

REACH_AXIAL = 1 / 8
REACH_3D = 1 / 16
ROWS = 512

MOST_POINTS = 40000
"""Of larger masks every n-th voxel stands for the others where shares are counted."""


def axial_diameter(mask: NDArray[np.bool_], affine: NDArray[np.float64], first_slice: int = 0) -> Diameter:
    """The largest diameter within one axial slice, ``mask[z]``, over all slices; the first of equal ones.

    Args:
        mask: bool [z, y, x], not empty.
        affine: float64 [4, 4], index (z, y, x, 1) of ``mask`` to RAS mm; may be oblique or sheared.
        first_slice: index of ``mask[0]`` in the whole volume, added to the slice that is returned.
    """
    best, best_z = (-1.0, np.zeros((2, 3))), -1
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        corners = _hull(row_ends(mask[z]), REACH_AXIAL)
        found = _longest(np.column_stack([np.full(len(corners), z), corners]), affine)
        if found[0] > best[0] + 1e-9:
            best, best_z = found, int(z)
    return Diameter(best[0], _ends(best[1]), first_slice + best_z)


def diameter_3d(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> Diameter:
    """The largest diameter in any direction.

    Args:
        mask: bool [z, y, x], not empty.
        affine: float64 [4, 4], index (z, y, x, 1) of ``mask`` to RAS mm; may be oblique or sheared.
    """
    millimetres, ends = _longest(_hull(row_ends(mask), REACH_3D), affine)
    return Diameter(millimetres, _ends(ends))


def craniocaudal_mm(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> float:
    """Extent across the axial slices: from the first to the last slice that holds a voxel, both included."""
    z = np.flatnonzero(mask.any(axis=(1, 2)))
    return float((z[-1] - z[0] + 1) * slice_distance_mm(affine)) if len(z) else 0.0


def slice_distance_mm(affine: NDArray[np.float64]) -> float:
    """Distance between neighbouring axial slices, perpendicular to them: less than the spacing where sheared."""
    normal = np.cross(affine[:3, 1], affine[:3, 2])
    return float(abs(affine[:3, 0] @ normal) / np.sqrt(normal @ normal))


def row_ends(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Indices [n, dimensions] of the first and last voxel of each row (last axis): all that a convex hull needs."""
    rows = np.argwhere(mask.any(axis=-1))
    lines = mask[tuple(rows.T)]
    first, last = lines.argmax(axis=1), lines.shape[1] - 1 - lines[:, ::-1].argmax(axis=1)
    ends = [np.column_stack([rows, column]) for column in (first, last)]
    return np.concatenate(ends).astype(np.int64)


def to_world(affine: NDArray[np.float64], indices: NDArray[Any]) -> NDArray[np.float64]:
    """Indices [n, 3] (z, y, x), whole or not, as points [n, 3] in RAS mm."""
    points: NDArray[np.float64] = indices @ affine[:3, :3].T + affine[:3, 3]
    return points


def sampled(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Voxel centres of a mask [z, y, x] as points [n, 3] in RAS mm, evenly thinned to ``MOST_POINTS`` at most."""
    voxels = np.argwhere(mask)
    return to_world(affine, voxels[:: -(-len(voxels) // MOST_POINTS)])


def surface(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centres of the voxels on the surface of a mask [z, y, x] as points [n, 3] in RAS mm."""
    return to_world(affine, np.argwhere(mask & ~binary_erosion(mask)))


def shifted(affine: NDArray[np.float64], start: tuple[int, int, int]) -> NDArray[np.float64]:
    """The affine [4, 4] of a part that begins at the index ``start`` (z, y, x) of the whole."""
    moved = np.array(affine, dtype=np.float64)
    moved[:3, 3] = affine[:3, :3] @ np.array(start) + affine[:3, 3]
    return moved


def hull_points(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those of ``points`` [n, d] that are corners of their convex hull; all of them where they span none."""
    return points[_corners(points)]


def _hull(indices: NDArray[np.int64], reach: float) -> NDArray[np.float64]:
    """Corners [n, d] of the convex hull of voxels that reach ``reach`` of a voxel along each axis.

    It is found in index space: an affine map keeps hulls. Even one voxel spans a hull, since it has some reach.
    """
    d = indices.shape[1]
    if len(indices) > 4 * d:
        indices = indices[_corners(indices.astype(np.float64))]
    steps = np.concatenate([np.eye(d), -np.eye(d)]) * reach
    return hull_points((indices[:, None, :] + steps).reshape(-1, d))


def _corners(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which points are corners of the hull; all of them where they lie in one plane or on one line."""
    try:
        corners: NDArray[np.int64] = np.sort(ConvexHull(points).vertices)
    except QhullError:
        corners = np.arange(len(points))
    return corners


def _longest(indices: NDArray[np.float64], affine: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """The longest distance in mm between two of ``indices`` [n, 3], and these two points [2, 3] in RAS mm."""
    points = to_world(affine, indices)
    best, pair = -1.0, [0, 0]
    for start in range(0, len(points), ROWS):  # in parts: the large hulls have thousands of corners
        distances = cdist(points[start : start + ROWS], points)
        a, b = np.unravel_index(int(distances.argmax()), distances.shape)
        if distances[a, b] > best:
            best, pair = float(distances[a, b]), [start + int(a), int(b)]
    return best, points[pair]


def _ends(points: NDArray[np.float64]) -> tuple[Point, Point]:
    (a, b, c), (d, e, f) = points.tolist()
    return (a, b, c), (d, e, f)
