"""The contour that a kidney had before a lesion bulged out of it, as a convex hull of its parenchyma.

A kidney is convex but for the hilum, so the hull of its parenchyma follows its surface, fills the sinus, and bridges
the craters that lesions leave; ``restore`` raises it there.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from renalseg.report.measure.diameters import hull_points, row_ends, to_world

Array = NDArray[np.float64]

CHUNK = 1 << 16


@dataclass(frozen=True)
class Contour:
    """A convex region.

    Attributes:
        corners: float64 [n, 3], RAS mm.
        facets: float64 [m, 4]; a point p lies inside where facet . (p, 1) <= 0 for all of them.
    """

    corners: Array
    facets: Array

    def contains(self, points: Array) -> NDArray[np.bool_]:
        """Which of ``points`` [n, 3] in RAS mm lie inside."""
        inside = np.ones(len(points), np.bool_)
        low, high = self.corners.min(axis=0), self.corners.max(axis=0)
        inside &= ((points >= low) & (points <= high)).all(axis=1)
        candidates = np.flatnonzero(inside)
        for start in range(0, len(candidates), CHUNK):
            part = candidates[start : start + CHUNK]
            inside[part] = (points[part] @ self.facets[:, :3].T + self.facets[:, 3]).max(axis=1) <= 0
        return inside

    def radii(self, centre: Array, directions: Array) -> Array:
        """Distance in mm from ``centre`` [3], which lies inside, to the surface along unit vectors [n, 3]."""
        depth = -(self.facets[:, :3] @ centre + self.facets[:, 3])
        closing = np.maximum(directions @ self.facets[:, :3].T, 1e-9)
        found: Array = (depth / closing).min(axis=1)
        return found

    @cached_property
    def middle(self) -> Array:
        """Mean of the corners: a point well inside."""
        mean: Array = self.corners.mean(axis=0)
        return mean


def contour_of(points: Array) -> Contour | None:
    """The convex hull of ``points`` [n, 3] in RAS mm; None where they do not span a volume."""
    try:
        hull = ConvexHull(points)
    except (QhullError, ValueError):
        return None
    facets = np.unique(hull.equations.round(9), axis=0)
    return Contour(np.asarray(points[hull.vertices], np.float64), facets)


def parenchyma_contour(parenchyma: NDArray[np.bool_], affine: Array) -> Contour | None:
    """The hull of a mask; None where it does not span a volume.

    Half a voxel to each side of its outermost centres counts, along each axis of the grid.

    Args:
        parenchyma: bool [z, y, x].
        affine: float64 [4, 4], index (z, y, x, 1) to RAS mm.
    """
    if not parenchyma.any():
        return None
    corners = hull_points(to_world(affine, row_ends(parenchyma)))
    halves = affine[:3, :3].T / 2
    return contour_of(np.concatenate([corners + sign * half for half in halves for sign in (-1, 1)]))
