"""The renal sinus, estimated from the hollow of the parenchyma at the hilum.

Label maps of kidneys leave out fat, vessels and collecting system of the sinus, so the sinus is a hollow: inside the
hull of the parenchyma, and neither parenchyma nor lesion. Of its hollows the largest is taken if it looks like one:
deep, on the medial side, not at a pole, neither tiny nor huge. Else there is no answer. All limits are ours, from
looking at the hollows of 41 real label maps.
"""

from dataclasses import dataclass
from typing import Literal

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import KDTree

from renalseg.report.measure.contour import Contour
from renalseg.report.measure.grid import GRID_MM, WorldGrid

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

OPENING_MM = 3.0
"""Hollows narrower than twice this do not connect: gaps between the lobes of the surface."""

DEEP_MM = 8.0
"""Depth below the hull that a sinus reaches; connected hollows at this depth belong to it (calyces)."""

SMALLEST_ML, LARGEST_ML = 1.0, 100.0
LEAST_MEDIAL_MM = 3.0
POLE_SHARE = 0.35
"""A sinus's centre lies within this share of the kidney's length from the middle."""

LIP_MM = 4.0
"""The sinus opens where it comes this near to the hull."""


@dataclass(frozen=True)
class Sinus:
    """An estimated renal sinus.

    Attributes:
        points: its voxels on the grid of 2 mm, float64 [n, 3] in RAS mm.
        opening: those of ``points`` at the hull's surface, between the lips of the parenchyma.
    """

    points: Array
    opening: Array

    def nearest(self, surface: Array, voxel_mm3: float) -> tuple[float, Array, Array]:
        """The distance in mm to a lesion, of voxel centres less half a voxel each, and its two ends [3].

        Args:
            surface: centres of the voxels on the lesion's surface, float64 [n, 3] in RAS mm.
            voxel_mm3: volume of one of them.
        """
        distances, at = KDTree(self.points).query(surface)
        closest = int(distances.argmin())
        mm = max(0.0, float(distances[closest]) - half_voxels_mm(voxel_mm3))
        return mm, surface[closest], self.points[at[closest]]


def half_voxels_mm(voxel_mm3: float) -> float:
    """Half a voxel of the grid and half of another's, along no axis in particular."""
    return float(GRID_MM + voxel_mm3 ** (1 / 3)) / 2


def find_sinus(grid: WorldGrid, contour: Contour, side: Literal["right", "left"]) -> Sinus | str:
    """The sinus of one kidney, or a sentence that says why there is none.

    Args:
        grid: its labels.
        contour: the hull of its parenchyma.
        side: the patient's.
    """
    hull = inside(grid, contour)
    hollow, depth = hull & (grid.labels == 0), distance_transform_edt(hull) * GRID_MM
    candidates = _hollows(hollow)
    if candidates is None:
        return "no hollow of the parenchyma could be the renal sinus"
    points, middle = grid.points(candidates), grid.points(hull).mean(axis=0)
    away = points.mean(axis=0) - middle
    length = np.ptp(grid.points(hull)[:, 2])
    ml = len(points) * GRID_MM**3 / 1000
    if not SMALLEST_ML <= ml <= LARGEST_ML or depth[candidates].max() < DEEP_MM:
        return f"the largest hollow of the parenchyma ({ml:.1f} ml) is no likely renal sinus by its size or depth"
    if away[0] * (-1 if side == "right" else 1) < LEAST_MEDIAL_MM or abs(away[2]) > POLE_SHARE * length:
        return "the largest hollow of the parenchyma does not lie where a renal sinus does"
    deep = cc3d.connected_components(np.ascontiguousarray(candidates | (hollow & (depth > DEEP_MM))), connectivity=26)
    found = deep == deep[tuple(np.argwhere(candidates)[0])]
    return Sinus(grid.points(found), grid.points(candidates & (depth <= LIP_MM)))


def inside(grid: WorldGrid, contour: Contour) -> Mask:
    """The voxels of the grid within the contour, bool [x, y, z].

    Each row along x enters and leaves a convex region once: where, its facets tell, without a look at single voxels.
    """
    x, y, z = (start + np.arange(n) * GRID_MM for start, n in zip(grid.origin, grid.labels.shape, strict=True))
    along, facets = contour.facets[:, 0], contour.facets
    rising, falling, flat = along > 0, along < 0, along == 0
    found = np.zeros(grid.labels.shape, np.bool_)
    for j in range(len(y)):
        rest = z[:, None] * facets[:, 2] + (facets[:, 1] * y[j] + facets[:, 3])  # [z, facets]
        upper = (-rest[:, rising] / along[rising]).min(axis=1)
        lower = (-rest[:, falling] / along[falling]).max(axis=1)
        possible = (rest[:, flat] <= 0).all(axis=1)
        found[:, j] = (x[:, None] >= lower) & (x[:, None] <= upper) & possible
    return found


def _hollows(hollow: Mask) -> Mask | None:
    """The largest hollow after opening it with a ball; None where nothing is left."""
    core = distance_transform_edt(hollow) * GRID_MM > OPENING_MM
    if not core.any():
        return None
    pieces = cc3d.connected_components(np.ascontiguousarray(core), connectivity=26)
    counts = np.bincount(pieces.ravel())
    counts[0] = 0
    largest = pieces == int(counts.argmax())
    return np.asarray(hollow & (distance_transform_edt(~largest) * GRID_MM <= OPENING_MM), np.bool_)
