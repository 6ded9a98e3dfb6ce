"""Kidneys: bean-shaped hull, sinus that opens to the hilum, cortex, and medullary pyramids."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from renalseg.phantom.draws import Contrast
from renalseg.phantom.fields import F32, Lattice, Noise, Points, Vector, ellipsoid_local, smooth_min
from renalseg.phantom.findings import Findings

WIDTH_SHARE, THICKNESS_SHARE = 0.29, 0.245
PARENCHYMA_PER_LENGTH3 = 0.128
"""Volume of parenchyma over the cube of the kidney's length, measured on this model."""
MALROTATED_SHARE, PTOTIC_SHARE, UNEQUAL_SHARE, PATCHY_SHARE = 0.06, 0.05, 0.08, 0.05


@dataclass(frozen=True)
class KidneyShape:
    """One kidney.

    Attributes:
        side: 1 for the patient's left, -1 for the right.
        centre: (z, y, x) in mm.
        half: half axes along its own axes (long, lateral, thickness) in mm.
        axes: unit axes as rows (z, y, x): long axis towards inferior, lateral, and across.
        bend: how far the poles curve to the medial side, as a share of the half width.
        sinus: size of the sinus, 1 is usual.
    """

    side: int
    centre: Vector
    half: Vector
    axes: NDArray[np.float64]
    bend: float
    sinus: float

    def local(self, points: Points) -> Points:
        """Patient points in the kidney's own coordinates (long, lateral, across) in mm."""
        d = [p - np.float32(c) for p, c in zip(points, self.centre, strict=True)]
        u, v, w = (sum((np.float32(a) * q for a, q in zip(row, d, strict=True)), np.float32(0)) for row in self.axes)
        return np.asarray(u), np.asarray(v), np.asarray(w)

    def world(self, local: Vector) -> Vector:
        """The patient position of a point in the kidney's own coordinates."""
        z, y, x = np.asarray(self.centre) + np.asarray(local) @ self.axes
        return float(z), float(y), float(x)

    @property
    def hilum(self) -> Vector:
        """The point where the vessels leave."""
        return self.world((0.0, -0.95 * self.half[1], 0.0))


def draw_kidney(rng: np.random.Generator, side: int, volume_ml: float, spine_y: float, fat_mm: float) -> KidneyShape:
    """Draws one kidney beside the spine; z = 0 is the height between both kidneys."""
    length = (volume_ml * 1000 / PARENCHYMA_PER_LENGTH3) ** (1 / 3) * rng.uniform(0.95, 1.05)
    squeeze = rng.uniform(0.92, 1.08)
    half = (length / 2, length * WIDTH_SHARE * squeeze, length * THICKNESS_SHARE / squeeze)
    tilt, pitch, turn = rng.uniform(0.1, 0.38), rng.uniform(-0.5, 0.0), rng.uniform(0.25, 0.85)
    if rng.uniform() < MALROTATED_SHARE:
        turn = rng.uniform(-1.4, 2.4)
    long = np.array([1.0, np.tan(pitch), side * np.tan(tilt)])
    long /= np.linalg.norm(long)
    lateral = np.array([0.0, np.sin(turn), side * np.cos(turn)])
    lateral -= (lateral @ long) * long
    lateral /= np.linalg.norm(lateral)
    z = rng.normal(8 if side < 0 else -8, 9) + (rng.uniform(30, 110) if rng.uniform() < PTOTIC_SHARE else 0.0)
    x = side * (22 + half[1] + rng.uniform(6, 16) + 0.3 * fat_mm)
    centre = (float(z), float(spine_y + rng.uniform(-16, 2) - 0.2 * fat_mm), float(x))
    axes = np.stack([long, lateral, np.cross(long, lateral)])
    return KidneyShape(side, centre, half, axes, float(rng.uniform(0.2, 0.45)), float(rng.uniform(0.75, 1.25)))


def kidney_fields(shape: KidneyShape, points: Points, lobes: F32, wobble: F32) -> tuple[F32, F32]:
    """Signed distances in mm of the kidney's hull and of its sinus, both [z, y, x] like ``points``.

    Args:
        shape: the kidney.
        points: patient coordinates.
        lobes, wobble: unit noise that makes the surface lobulated and the calyces irregular.
    """
    u, v, w = shape.local(points)
    a, b, c = shape.half
    bent = v + np.float32(shape.bend * b) * (u / np.float32(a)) ** 2
    bent = bent - np.float32(shape.bend * b * 0.25)
    hull = ellipsoid_local(u, bent, w, shape.half) + lobes * np.float32(1.3)
    s = shape.sinus
    core = ellipsoid_local(u, v + np.float32(0.4 * b), w, (0.5 * a * s, 0.52 * b * s, 0.36 * c * s))
    mouth = ellipsoid_local(u, v + np.float32(1.05 * b), w, (0.36 * a * s, 0.6 * b * s, 0.4 * c * s))
    return hull, smooth_min(core, mouth, 5.0) + wobble * np.float32(2.6)


def parenchyma_hu(
    rng: np.random.Generator, lattice: Lattice, points: Points, depth: F32, inner: F32, contrast: Contrast
) -> F32:
    """Attenuation of kidney tissue: pyramids of medulla, parted by columns, under a shell of cortex.

    Args:
        rng: source of randomness.
        lattice: grid of the arrays.
        points: patient coordinates of the voxels, [z, y, x] each.
        depth: depth under the kidney's outer surface in mm, positive inside.
        inner: distance to the sinus in mm, positive inside the parenchyma.
        contrast: phase and mean attenuation.

    Returns:
        float32 [z, y, x] in HU; meaningful inside the kidney only.
    """
    shell = float(rng.uniform(3.0, 9.0))
    medulla = pyramids(rng, points, depth, shell)
    medulla = np.minimum(medulla, inner - np.float32(rng.uniform(0.0, 2.5)))
    share = np.clip(medulla / np.float32(rng.uniform(1.2, 5.0)) + np.float32(0.5), 0, 1)
    cortex, pyramid = contrast.hu["cortex"], contrast.hu["medulla"]
    hu = np.float32(cortex) + share * np.float32(pyramid - cortex)
    scale, amplitude = float(np.exp(rng.uniform(np.log(3.5), np.log(16)))), float(rng.uniform(0.5, 2 + 0.06 * cortex))
    hu = hu + Noise.draw(rng, lattice, scale).on(lattice) * np.float32(amplitude)
    return np.asarray(hu * _perfusion(rng, lattice, points), dtype=np.float32)


def _perfusion(rng: np.random.Generator, lattice: Lattice, points: Points) -> F32:
    """A factor of the attenuation: one kidney may lag behind the other, and parts of both may (infarct, infection)."""
    factor = np.ones((1, 1, 1), np.float32)
    if rng.uniform() < UNEQUAL_SHARE:
        lag = np.float32(rng.uniform(0.45, 0.95))
        factor = np.where(points[2] * np.float32(rng.choice([-1, 1])) > 0, lag, np.float32(1))
    if rng.uniform() < PATCHY_SHARE:
        patches = Noise.draw(rng, lattice, float(rng.uniform(12, 28))).on(lattice)
        share = np.clip((patches - np.float32(rng.uniform(0.8, 1.8))) / np.float32(0.4), 0, 1)
        factor = factor * (1 - share * np.float32(rng.uniform(0.1, 0.5)))
    return np.asarray(factor, dtype=np.float32)


def pyramids(rng: np.random.Generator, points: Points, depth: F32, shell: float) -> F32:
    """Signed distance, positive inside the pyramids: cells round seeds at medullary depth, shrunk by the columns."""
    reach = float(rng.uniform(9, 17))
    candidates = np.argwhere((depth > shell + 1) & (depth < shell + 7))
    out = np.full(depth.shape, -20.0, np.float32)
    if len(candidates) < 50:
        return out
    seeds = _spread(rng, candidates, points, apart_mm=rng.uniform(12, 23))
    inside = depth > shell - 2
    flat = [p[inside] for p in np.broadcast_arrays(*points)]
    first = np.full(flat[0].shape, 1e6, np.float32)
    second = first.copy()
    for z, y, x in seeds:
        d = (flat[0] - z) ** 2 + (flat[1] - y) ** 2 + (flat[2] - x) ** 2
        second = np.minimum(second, np.maximum(d, first))
        first = np.minimum(first, d)
    column = np.float32(rng.uniform(2.0, 7.0))
    cell = (np.sqrt(second) - np.sqrt(first) - column) / 2
    out[inside] = np.minimum(np.minimum(cell, depth[inside] - np.float32(shell)), np.float32(reach) - np.sqrt(first))
    return out


def _spread(rng: np.random.Generator, candidates: NDArray[np.int64], points: Points, apart_mm: float) -> list[Vector]:
    full = np.broadcast_arrays(*points)
    seeds: list[Vector] = []
    for index in rng.permutation(len(candidates))[:3000]:
        here = tuple(candidates[index])
        p = (float(full[0][here]), float(full[1][here]), float(full[2][here]))
        if all((p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2 + (p[2] - q[2]) ** 2 > apart_mm**2 for q in seeds):
            seeds.append(p)
    return seeds


def sinus_hu(rng: np.random.Generator, lattice: Lattice, contrast: Contrast, findings: Findings) -> F32:
    """Attenuation of the renal sinus: fat, with vessels and the collecting system winding through it.

    The collecting system fills the sinus where it is dilated.
    """
    hu = np.float32(rng.uniform(-110, -65)) + Noise.draw(rng, lattice, 4.0).on(lattice) * np.float32(8)
    water = np.float32(rng.uniform(0.15, 0.75)) + np.float32(3.0) * findings.dilation(lattice.axis(2))
    for name, width in (("pelvis", water), ("renal_vein", rng.uniform(0.15, 0.4)), ("aorta", rng.uniform(0.05, 0.2))):
        winding = np.abs(Noise.draw(rng, lattice, 9.0).on(lattice)) + np.float32(0.6) * np.abs(
            Noise.draw(rng, lattice, 14.0).on(lattice)
        )
        share = np.clip((np.asarray(width, np.float32) - winding) / np.float32(0.25) + np.float32(0.5), 0, 1)
        hu = hu + share * (np.float32(contrast.hu[name]) - hu)
    return np.asarray(hu, dtype=np.float32)
