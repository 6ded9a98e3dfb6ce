"""A kidney's labels on a small grid with one spacing along right, anterior and superior, whatever grid they came on.

Estimates of shape (sinus, axes) work here: distances are the same along all axes, and oblique or sheared scans need no
further thought.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from renalseg.report.measure.diameters import to_world

Array = NDArray[np.float64]

GRID_MM = 2.0
"""Spacing: a sinus is some 20 mm wide, a kidney 110 mm long. Ours."""

MARGIN_MM = 6.0


@dataclass(frozen=True)
class WorldGrid:
    """Labels on the isotropic grid.

    Attributes:
        labels: uint8 [x, y, z], growing towards right, anterior, superior.
        origin: RAS mm of ``labels[0, 0, 0]``.
    """

    labels: NDArray[np.uint8]
    origin: Array

    def points(self, mask: NDArray[np.bool_]) -> Array:
        """RAS mm of the voxels of ``mask``, float64 [n, 3]."""
        return np.argwhere(mask) * GRID_MM + self.origin


def world_grid(labels: NDArray[np.uint8], affine: Array) -> WorldGrid:
    """Samples ``labels`` [z, y, x] with the [4, 4] ``affine`` (index to RAS mm) at the nearest voxel; 0 beyond them."""
    corners = np.array([[z, y, x] for z in (0, 1) for y in (0, 1) for x in (0, 1)]) * (np.array(labels.shape) - 1)
    world = to_world(affine, corners)
    low = np.floor((world.min(axis=0) - MARGIN_MM) / GRID_MM) * GRID_MM
    shape = np.ceil((world.max(axis=0) + MARGIN_MM - low) / GRID_MM).astype(int) + 1
    inverse = np.linalg.inv(affine)
    lines = [inverse[:3, axis] * GRID_MM for axis in range(3)]
    start = inverse[:3, :3] @ low + inverse[:3, 3]
    sampled = np.zeros(tuple(shape), np.uint8)
    plane = np.arange(shape[1])[:, None, None] * lines[1] + np.arange(shape[2])[None, :, None] * lines[2]
    limits = np.array(labels.shape)
    for i in range(shape[0]):
        index = np.rint(plane + (start + i * lines[0])).astype(np.intp)
        inside = ((index >= 0) & (index < limits)).all(axis=-1)
        z, y, x = index[inside].T
        sampled[i][inside] = labels[z, y, x]
    return WorldGrid(sampled, low)
