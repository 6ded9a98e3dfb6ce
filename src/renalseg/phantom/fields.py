"""Lattices in mm, band-limited noise on them, and signed distances of simple shapes.

Points are in patient millimetres, ordered (z, y, x) and growing towards inferior, posterior and left. A signed distance
is negative inside. Everything is float32 and separable, so that no large temporary is needed.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

F32 = NDArray[np.float32]
Vector = tuple[float, float, float]
Points = tuple[F32, F32, F32]
Window = tuple[slice, slice, slice]
Matrix = Any
"""A scipy sparse array [targets, nodes]."""

OUTSIDE_MM = 60.0
"""The signed distance that a field takes outside of its own lattice."""


@dataclass(frozen=True)
class Lattice:
    """A regular axis-aligned grid: ``origin`` is the centre of voxel 0, ``spacing`` the step, both (z, y, x) in mm."""

    origin: Vector
    spacing: Vector
    shape: tuple[int, int, int]

    @classmethod
    def covering(cls, low: Vector, high: Vector, spacing: Vector) -> "Lattice":
        """The lattice that starts at ``low`` and reaches at least ``high``."""
        n = [int(np.ceil((b - a) / s)) + 1 for a, b, s in zip(low, high, spacing, strict=True)]
        return cls(low, spacing, (max(n[0], 2), max(n[1], 2), max(n[2], 2)))

    def thinned(self, step: int) -> "Lattice":
        """A coarser lattice over the same extent."""
        n = [-(-(k - 1) // step) + 1 for k in self.shape]
        spacing = (self.spacing[0] * step, self.spacing[1] * step, self.spacing[2] * step)
        return Lattice(self.origin, spacing, (max(n[0], 2), max(n[1], 2), max(n[2], 2)))

    def axis(self, i: int) -> F32:
        """Positions in mm along axis ``i``."""
        return (self.origin[i] + self.spacing[i] * np.arange(self.shape[i])).astype(np.float32)

    def window(self, low: Vector, high: Vector) -> Window:
        """The index slices that cover the box from ``low`` to ``high``; empty where they do not meet."""
        cuts = []
        for o, s, n, a, b in zip(self.origin, self.spacing, self.shape, low, high, strict=True):
            start = min(max(int(np.floor((a - o) / s)), 0), n)
            cuts.append(slice(start, max(min(int(np.ceil((b - o) / s)) + 1, n), start)))
        return cuts[0], cuts[1], cuts[2]


def hat_matrix(targets: F32, origin: float, spacing: float, n: int) -> Matrix:
    """Linear interpolation as a sparse matrix [targets, n]; targets outside of the lattice take its edge."""
    t = np.clip((targets - origin) / spacing, 0, n - 1)
    first = np.minimum(t.astype(np.int64), max(n - 2, 0))
    part = (t - first).astype(np.float32)
    return _banded(first, [1 - part, part], n)


def _spline_matrix(targets: F32, origin: float, spacing: float, n: int) -> Matrix:
    """Cubic B-splines as a sparse matrix [targets, n]."""
    t = (targets - origin) / spacing
    first = np.floor(t).astype(np.int64) - 1
    f = (t - np.floor(t)).astype(np.float32)
    weights = [(1 - f) ** 3 / 6, 2 / 3 - f**2 + f**3 / 2, 2 / 3 - (1 - f) ** 2 + (1 - f) ** 3 / 2, f**3 / 6]
    return _banded(first, weights, n)


def _banded(first: NDArray[np.int64], weights: list[F32], n: int) -> Matrix:
    rows, k = len(first), len(weights)
    columns = np.clip(first[:, None] + np.arange(k), 0, n - 1)
    values = np.stack(weights, axis=1).astype(np.float32)
    return sparse.csr_array((values.ravel(), columns.ravel(), np.arange(0, rows * k + 1, k)), shape=(rows, n))


def separable(nodes: F32, mz: Matrix, my: Matrix, mx: Matrix) -> F32:
    """Applies one sparse matrix per axis to ``nodes`` [z, y, x]. Sparse products also keep clear of BLAS threads."""
    z, y, x = nodes.shape
    out = (mx @ nodes.reshape(-1, x).T).reshape(-1, z, y)
    out = my @ np.ascontiguousarray(out.transpose(2, 1, 0)).reshape(y, -1)
    out = out.reshape(-1, z, mx.shape[0]).transpose(1, 0, 2)
    out = mz @ np.ascontiguousarray(out).reshape(z, -1)
    return np.asarray(out.reshape(mz.shape[0], my.shape[0], mx.shape[0]), dtype=np.float32)


def upsample(plane: F32, my: Matrix, mx: Matrix) -> F32:
    """Applies one sparse matrix per axis to ``plane`` [y, x]."""
    return np.ascontiguousarray((mx @ np.ascontiguousarray((my @ plane).T)).T, dtype=np.float32)


def resample(values: F32, source: Lattice, target: Lattice) -> F32:
    """``values`` on ``source``, linearly interpolated on ``target``."""
    z, y, x = (hat_matrix(target.axis(i), source.origin[i], source.spacing[i], source.shape[i]) for i in range(3))
    return separable(values, z, y, x)


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of unit variance, smooth at the scale of ``spacing`` mm: a cubic B-spline over random nodes."""

    nodes: F32
    origin: Vector
    spacing: Vector

    @classmethod
    def draw(cls, rng: np.random.Generator, lattice: Lattice, scale_mm: float | Vector) -> "Noise":
        """Draws noise that covers ``lattice``; ``scale_mm`` is the distance of its nodes, one number or (z, y, x)."""
        step: Vector = scale_mm if isinstance(scale_mm, tuple) else (scale_mm,) * 3
        last = [lattice.axis(i)[-1] for i in range(3)]
        shape = [int((b - a) / s) + 6 for a, b, s in zip(lattice.origin, last, step, strict=True)]
        origin = (lattice.origin[0] - 2 * step[0], lattice.origin[1] - 2 * step[1], lattice.origin[2] - 2 * step[2])
        nodes = rng.standard_normal(shape, dtype=np.float32) * np.float32(3.0)  # 3 = 1 / sum(B3^2)^1.5
        return cls(nodes, origin, step)

    def on(self, lattice: Lattice, window: Window | None = None) -> F32:
        """The noise on ``lattice``, or on a window of it."""
        axes = [lattice.axis(i)[window[i] if window else slice(None)] for i in range(3)]
        z, y, x = (_spline_matrix(axes[i], self.origin[i], self.spacing[i], self.nodes.shape[i]) for i in range(3))
        return separable(self.nodes, z, y, x)


def ellipsoid(points: Points, centre: Vector, half: Vector, axes: NDArray[np.float64] | None = None) -> F32:
    """Approximate signed distance to an ellipsoid; ``axes`` are its unit axes as rows (z, y, x).

    The first-order distance k0 (k0 - 1) / k1: https://iquilezles.org/articles/ellipsoids/.
    """
    d = [p - np.float32(c) for p, c in zip(points, centre, strict=True)]
    if axes is not None:
        d = [np.float32(r[0]) * d[0] + np.float32(r[1]) * d[1] + np.float32(r[2]) * d[2] for r in axes]
    return ellipsoid_local(d[0], d[1], d[2], half)


def ellipsoid_local(u: F32, v: F32, w: F32, half: Vector) -> F32:
    """``ellipsoid`` for coordinates that are already along its axes."""
    a, b, c = (np.float32(h) for h in half)
    k0 = np.sqrt((u / a) ** 2 + (v / b) ** 2 + (w / c) ** 2)
    k1 = np.sqrt((u / a**2) ** 2 + (v / b**2) ** 2 + (w / c**2) ** 2)
    return np.asarray(k0 * (k0 - 1) / np.maximum(k1, np.float32(1e-4)), dtype=np.float32)


def superellipse(y: F32, x: F32, half: tuple[float, float], power: float) -> F32:
    """Approximate signed distance to the cylinder |y / half[0]|^power + |x / half[1]|^power = 1."""
    ay, ax = np.abs(y) / np.float32(half[0]), np.abs(x) / np.float32(half[1])
    ay, ax = np.maximum(ay, np.float32(1e-3)), np.maximum(ax, np.float32(1e-3))
    p = np.float32(power)
    yq, xq = ay ** (p - 1), ax ** (p - 1)
    r = (yq * ay + xq * ax) ** (1 / p)
    slope = r ** (1 - p) * np.sqrt((yq / np.float32(half[0])) ** 2 + (xq / np.float32(half[1])) ** 2)
    return np.asarray((r - 1) / slope, dtype=np.float32)


def tube(points: Points, path: list[Vector], radius: float | list[float]) -> F32:
    """Signed distance to a round tube along the polyline ``path``; ``radius`` may change along it."""
    radii = radius if isinstance(radius, list) else [radius] * len(path)
    out: F32 | None = None
    for (a, b), (ra, rb) in zip(pairwise(path), pairwise(radii), strict=True):
        step = np.subtract(b, a)
        rel = [p - np.float32(c) for p, c in zip(points, a, strict=True)]
        along = sum((r * np.float32(s) for r, s in zip(rel, step, strict=True)), np.float32(0))
        t = np.clip(along / np.float32(max(float(step @ step), 1e-6)), 0, 1)
        d = np.sqrt(sum(((r - t * np.float32(s)) ** 2 for r, s in zip(rel, step, strict=True)), np.float32(0)))
        d = d - (np.float32(ra) + t * np.float32(rb - ra))
        out = d if out is None else np.minimum(out, d)
    assert out is not None
    return np.asarray(out, dtype=np.float32)


def smooth_min(a: F32, b: F32, width: float) -> F32:
    """The union of two shapes with a fillet of about ``width`` mm."""
    h = np.clip(np.float32(width) - np.abs(a - b), 0, None) / np.float32(width)
    return np.asarray(np.minimum(a, b) - h * h * np.float32(width / 4), dtype=np.float32)
