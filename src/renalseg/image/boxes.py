"""Boxes of voxels: from a mask, with a margin in mm, clamped to the volume."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Box:
    """A half-open box of voxels: ``start`` <= index < ``stop``, each (z, y, x)."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x)."""
        z, y, x = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """For indexing an array [z, y, x]."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x


def bounding_box(mask: NDArray[np.bool_]) -> Box | None:
    """The smallest box that holds every true voxel of ``mask`` [z, y, x]; None if there is none."""
    spans = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if hit.size == 0:
            return None
        spans.append((int(hit[0]), int(hit[-1]) + 1))
    (z0, z1), (y0, y1), (x0, x1) = spans
    return Box((z0, y0, x0), (z1, y1, x1))


def scale_box(box: Box, from_shape: tuple[int, int, int], to_shape: tuple[int, int, int]) -> Box:
    """The box on another sampling of the same field of view, rounded outwards."""
    ratio = [n / m for n, m in zip(to_shape, from_shape, strict=True)]
    start = [int(np.floor(a * r + 1e-9)) for a, r in zip(box.start, ratio, strict=True)]
    stop = [int(np.ceil(b * r - 1e-9)) for b, r in zip(box.stop, ratio, strict=True)]
    return clamp(Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])), to_shape)


def grow(
    box: Box,
    margin_mm: tuple[float, float, float],
    spacing_mm: tuple[float, float, float],
    shape: tuple[int, int, int],
) -> Box:
    """The box with ``margin_mm`` (z, y, x) more on each side, rounded outwards, clamped to ``shape``."""
    pad = [int(np.ceil(m / s - 1e-9)) for m, s in zip(margin_mm, spacing_mm, strict=True)]
    start = [a - p for a, p in zip(box.start, pad, strict=True)]
    stop = [b + p for b, p in zip(box.stop, pad, strict=True)]
    return clamp(Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])), shape)


def clamp(box: Box, shape: tuple[int, int, int]) -> Box:
    """The part of the box inside a volume of ``shape``; at least one voxel along each axis."""
    start = [min(max(a, 0), n - 1) for a, n in zip(box.start, shape, strict=True)]
    stop = [min(max(b, a + 1), n) for a, b, n in zip(start, box.stop, shape, strict=True)]
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
