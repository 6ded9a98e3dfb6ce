"""Label maps painted from shapes in world space, on grids of any slant."""

from collections.abc import Callable

import numpy as np
import pytest

from renalseg.core.volume import Grid, Volume

LOW, HIGH = np.array([-96.0, -36.0, -64.0]), np.array([96.0, 36.0, 64.0])
"""The corner points of the painted space, RAS mm."""


def canonical(spacing_mm, turn=None):
    """Axes [3, 3] of a grid towards inferior, posterior, left with a spacing (z, y, x), turned by ``turn`` [3, 3]."""
    z, y, x = spacing_mm
    axes = np.array([[0, 0, -x], [0, -y, 0], [-z, 0, 0]], np.float64)
    return axes if turn is None else turn @ axes


@pytest.fixture(scope="session")
def painted() -> Callable[..., Volume]:
    """A function of shapes [(label, function of points [..., 3] in RAS mm)], later ones on top, and a grid's axes."""

    def paint(shapes, axes, low=LOW, high=HIGH):
        corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
        index = corners @ np.linalg.inv(axes).T
        shape = np.ceil(np.ptp(index, axis=0)).astype(int) + 1
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = axes, axes @ (index.min(axis=0) + 0.31)
        grid = np.moveaxis(np.indices(tuple(shape)), 0, -1) @ axes.T + affine[:3, 3]
        labels = np.zeros(tuple(shape), np.uint8)
        for label, inside in shapes:
            labels[inside(grid)] = label
        return Volume.from_stored(labels, Grid(labels.shape, affine), "painted")

    return paint


def ellipsoid(centre, radii):
    """Whether points [..., 3] lie in an ellipsoid along the patient's axes."""
    return lambda points: (((points - np.array(centre)) / np.array(radii)) ** 2).sum(axis=-1) <= 1


def ball(centre, radius):
    """Whether points [..., 3] lie in a ball."""
    return ellipsoid(centre, (radius, radius, radius))
