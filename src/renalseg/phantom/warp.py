"""How a real body lies in the scan: bent and scaled anew, its own kidneys where the new ones are, or out of view."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from renalseg.core.errors import InputError
from renalseg.core.labels import KIDNEY
from renalseg.phantom.bodies import GAS_HU, REMOVAL_MM, SOFT_EDGE_MM, RealBody, two_centres
from renalseg.phantom.fields import F32, Lattice, Noise, Vector, Window, resample
from renalseg.phantom.scene import Renal

BEND_MM, BEND_SCALE_MM = 4.0, 60.0
UNSEEN = 1.0
"""What a voxel of a new kidney costs beyond the scan's end; in the body, see ``bodies.FREE``."""
DISTANCE_COST = 0.04
"""What it costs to move the kidneys by 40 mm along z or 24 mm in plane."""
DRAWS, MIRROR_RATE, TURNS_DEGREES = 3, 0.1, np.array([6.0, 4.0, 4.0])
TRUNK_SHARE = (0.72, 0.95)
"""The trunk's width as a share of the field of view, where no second kidney tells the body's width."""
LEAST_SLICES = 8
"""A scan beside the body's kidneys has as many slices or more."""
CLEAR_MM = REMOVAL_MM + SOFT_EDGE_MM
"""So far from where the body's kidneys were its voxels tell nothing of their removal."""
SAMPLE_MM = 12.0
"""In plane, a scan is looked through for the place of the body's kidneys on points so far apart."""


@dataclass(frozen=True)
class Warp:
    """The way from patient mm to a body's mm: body = matrix (patient - centre) + bend(patient).

    Attributes:
        centre: the patient point that comes to lie between the body's kidneys.
        matrix: float64 [3, 3] over (z, y, x).
        bend: one displacement for each axis, unit noise of which ``BEND_MM`` mm are one standard deviation.
    """

    centre: Vector
    matrix: NDArray[np.float64]
    bend: tuple[Noise, Noise, Noise]

    def points(self, lattice: Lattice, window: Window | None = None) -> F32:
        """The body's mm of the points of ``lattice``, float32 [3, z, y, x]."""
        axes = [lattice.axis(i)[window[i] if window else slice(None)] - np.float32(self.centre[i]) for i in range(3)]
        out = np.stack([noise.on(lattice, window) for noise in self.bend])
        out *= np.float32(BEND_MM)
        for row, part in zip(self.matrix.astype(np.float32), out, strict=True):
            part += (row[0] * axes[0])[:, None, None] + (row[1] * axes[1])[None, :, None]
            part += (row[2] * axes[2])[None, None, :]
        return out


def draw_warp(rng: np.random.Generator, body: RealBody, grid: Lattice, renal: Renal) -> Warp:
    """Draws how the body is bent, so that its kidneys' place comes to lie where the new kidneys are.

    The width is scaled by the distance between the kidneys (or more, where they reach far), the rest is drawn. Then the
    new kidneys are moved to where they meet least bone, gas and organs and leave the scan least. The best of ``DRAWS``
    bodies is taken.

    Args:
        rng: source of randomness.
        body: the body.
        grid: the scan's voxels, in patient mm.
        renal: the kidneys that are set in, in patient mm.
    """
    middle, apart = _between_new(renal)
    low, high = renal.lattice.origin[2], last_point(renal.lattice)[2]
    least = 2 * max(middle[2] - low, high - middle[2])  # the lattice's margin leaves room for the wall
    best: tuple[float, Warp] | None = None
    for _ in range(DRAWS):
        shape = _draw_shape(rng, body, grid, apart, least)
        cost, warp = _settled(body, replace(shape, centre=middle), renal)
        if best is None or cost < best[0]:
            best = (cost, warp)
    assert best is not None
    return best[1]


def draw_warp_beside(rng: np.random.Generator, body: RealBody, grid: Lattice) -> tuple[Warp, slice] | None:
    """Draws how the body is bent, so that the scan lies above or below the place where its kidneys were.

    The scan's side of z = 0 tells which; where the body is too short there, the other one is taken.

    Args:
        rng: source of randomness.
        body: the body.
        grid: the scan's voxels, in patient mm, without kidneys.

    Returns:
        The warp and the slices of ``grid`` that show the body and no trace of its kidneys; None where, on either side,
        these are fewer than ``LEAST_SLICES``.
    """
    shape, part = _draw_shape(rng, body, grid), float(rng.uniform())
    first = grid.origin[0] < 0
    for above in (first, not first):
        warp = _beside(body, shape, grid, above, part)
        slices = _untouched(body, warp, grid)
        if slices.stop - slices.start >= LEAST_SLICES:
            return warp, slices
    return None


def covered(body: RealBody, warp: Warp, grid: Lattice) -> slice:
    """The slices of ``grid`` that lie within the body's scan; of tilted slices, those of which 90 % do.

    Raises:
        InputError: there are not two of them.
    """
    found = np.flatnonzero(_seen(body, warp.points(_sparse(grid))))
    if found.size < 2:
        raise InputError(f"the body {body.name} is too short along z for the kidneys set in; leave it out.")
    return slice(int(found[0]), int(found[-1]) + 1)


def last_point(lattice: Lattice) -> Vector:
    """Position in mm of the last voxel."""
    z, y, x = (float(lattice.axis(i)[-1]) for i in range(3))
    return z, y, x


def indices(points: F32, lattice: Lattice) -> F32:
    """Indices of ``lattice`` for points in mm, both [3, ...]."""
    origin, spacing = (np.array(v, np.float32).reshape(3, 1, 1, 1) for v in (lattice.origin, lattice.spacing))
    return np.asarray((points - origin) / spacing, dtype=np.float32)


def _sparse(grid: Lattice, step: int = 16) -> Lattice:
    """All slices of ``grid``, of their rows and columns one in ``step``."""
    thin = (grid.shape[0], max(grid.shape[1] // step, 1), max(grid.shape[2] // step, 1))
    return Lattice(grid.origin, (grid.spacing[0], grid.spacing[1] * step, grid.spacing[2] * step), thin)


def _seen(body: RealBody, points: F32) -> NDArray[np.bool_]:
    """Slices [z] of which 90 % lie within the body's scan, by their points in the body's mm [3, z, y, x]."""
    half = body.lattice.spacing[0] / 2
    seen = (points[0] >= body.lattice.origin[0] - half) & (points[0] <= last_point(body.lattice)[0] + half)
    return np.asarray(seen.mean(axis=(1, 2)) >= 0.9)


def _untouched(body: RealBody, warp: Warp, grid: Lattice) -> slice:
    """The slices of ``grid`` within the body's scan that do not reach the box of its kidneys, or an empty slice."""
    thin = _sparse(grid, max(int(SAMPLE_MM / grid.spacing[1]), 1))
    points = warp.points(thin)
    reach = (_clear_mm(body) + grid.spacing[0] / 2, *(CLEAR_MM + s for s in thin.spacing[1:]))
    near = np.ones(thin.shape, np.bool_)
    for p, low, high, more in zip(points, *body.own, reach, strict=True):
        near &= (p > low - more) & (p < high + more)
    found = np.flatnonzero(_seen(body, points) & ~near.any(axis=(1, 2)))
    return slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, 0)


def _clear_mm(body: RealBody) -> float:
    """How far above and below the box of its kidneys the body, interpolated, shows that they were removed."""
    return CLEAR_MM + body.lattice.spacing[0] / 2


def _beside(body: RealBody, warp: Warp, grid: Lattice, above: bool, part: float) -> Warp:
    """Lays the body so that ``grid`` lies beside its kidneys, the trunk's centre in that of the field of view.

    ``part`` of the way that the body's length leaves: 0 is next to the kidneys. A scan that is longer than what the
    body has on this side starts next to them and reaches beyond its end.
    """
    side = -1.0 if above else 1.0
    start = body.own[0 if above else 1][0] + side * _clear_mm(body)
    end = body.lattice.origin[0] if above else last_point(body.lattice)[0]
    back = np.linalg.inv(warp.matrix)
    first, last = grid.origin[0], last_point(grid)[0]
    room = max((end - start) * side * float(back[0, 0]) - (last - first), 0.0)
    _, y, x = np.argwhere(body.smooth > GAS_HU).mean(axis=0) * body.coarse.spacing + body.coarse.origin
    z0, y0, x0 = back @ (start, y, x)
    z, y, x = float((last if above else first) - side * part * room - z0), float(-y0), float(-x0)
    return replace(warp, centre=(z, y, x))


def _draw_shape(
    rng: np.random.Generator, body: RealBody, grid: Lattice, apart: float = 0.0, least: float = 0.0
) -> Warp:
    """Draws size, turn and bend of the body; where it comes to lie is left open.

    Args:
        rng: source of randomness.
        body: the body.
        grid: the scan's voxels, in patient mm.
        apart: distance of the new kidneys, which tells the width; 0 for the field of view to tell it.
        least: the trunk's least width in mm.
    """
    field = grid.spacing[2] * grid.shape[2] * rng.uniform(*TRUNK_SHARE)
    width = apart / body.apart_mm if apart else field / body.width_mm
    width = float(np.clip(max(width, least / body.width_mm), 0.8, 1.25))
    scale = np.array([rng.uniform(0.85, 1.2), np.clip(width * rng.uniform(0.88, 1.12), 0.85, 1.2), width])
    mirror = np.diag([1.0, 1.0, -1.0 if rng.uniform() < MIRROR_RATE else 1.0])
    matrix = mirror @ np.diag(1 / scale) @ _rotation(np.radians(rng.uniform(-1, 1, 3) * TURNS_DEGREES))
    bend = [Noise.draw(rng, grid, BEND_SCALE_MM) for _ in range(3)]
    return Warp((0.0, 0.0, 0.0), matrix, (bend[0], bend[1], bend[2]))


def _between_new(renal: Renal) -> tuple[Vector, float]:
    """The point between the new kidneys, in patient mm, and their distance along x; 0 for a solitary or fused one."""
    kidney = next(layer.distance for layer in renal.layers if layer.label == KIDNEY) < 0
    centres = [c + np.array(renal.lattice.origin) for c in two_centres(kidney, renal.lattice.spacing)]
    middle = np.mean(centres, axis=0)
    apart = abs(centres[0][2] - centres[-1][2])
    return (float(middle[0]), float(middle[1]), float(middle[2]) if apart else 0.0), float(apart)


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotations about z, y and x one after the other, [3, 3] over (z, y, x)."""
    out = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        a, b = (i for i in range(3) if i != axis)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        out = turn @ out
    return out


def _settled(body: RealBody, warp: Warp, renal: Renal) -> tuple[float, Warp]:
    """Moves the kidneys in the body to where they meet the fewest obstacles; what they meet there, and the new warp."""
    step, counts = 4.0, (10, 6, 6)
    reach = tuple(step * n for n in counts)
    near = Lattice.covering(renal.lattice.origin, last_point(renal.lattice), (step, step, step))
    low, high = near.origin, last_point(near)
    wide = Lattice.covering(
        (low[0] - reach[0], low[1] - reach[1], low[2] - reach[2]),
        (high[0] + reach[0], high[1] + reach[1], high[2] + reach[2]),
        near.spacing,
    )
    points = indices(warp.points(wide), body.coarse)
    cost = ndimage.map_coordinates(body.obstacles, points, order=1, mode="constant", cval=UNSEEN)
    occupied = np.argwhere(resample(renal.occupied, renal.lattice, near) < 0)
    best, shift = np.inf, np.zeros(3)
    for index in np.ndindex(counts[0] + 1, counts[1] + 1, counts[2] + 1):
        move = 2 * np.array(index)
        z, y, x = (occupied + move).T
        far = (move - counts) / np.array(counts)
        value = float(cost[z, y, x].mean()) + DISTANCE_COST * float(far @ far)
        if value < best:
            best, shift = value, (move - counts) * step
    z, y, x = (float(c - s) for c, s in zip(warp.centre, shift, strict=True))
    return best, replace(warp, centre=(z, y, x))
