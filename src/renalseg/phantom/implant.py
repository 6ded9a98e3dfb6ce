"""Paints a real body round new kidneys: bent, pushed aside, shaded anew for the contrast phase, with a bed of fat."""

import numpy as np
from scipy import ndimage

from renalseg.phantom.bodies import BONE_HU, FAT_HU, SOFT_EDGE_MM, RealBody
from renalseg.phantom.draws import Contrast
from renalseg.phantom.fields import F32, Lattice, Noise, Window, resample
from renalseg.phantom.scene import Renal
from renalseg.phantom.warp import Warp, indices, last_point

ORGAN_TISSUE = {
    1: "spleen", 5: "liver", 7: "pancreas", 6: "bowel", 18: "bowel", 19: "bowel", 20: "bowel", 52: "aorta",
    63: "ivc", 64: "portal", 65: "aorta", 66: "aorta", 67: "ivc", 68: "ivc", 86: "muscle", 87: "muscle",
    88: "muscle", 89: "muscle",
}  # fmt: skip
"""Those of TotalSegmentator's classes whose attenuation the contrast phase tells, by the name in ``Contrast.hu``."""
SOFT_QUANTILES = (0.1, 0.35, 0.65, 0.9, 0.99)
PUSH_MM, PUSH_REACH_MM = 13.0, 26.0
"""How far the new kidneys push aside what is at their surface, and the distance at which a third of it is left."""


def paint_real(
    rng: np.random.Generator, lattice: Lattice, body: RealBody, warp: Warp, contrast: Contrast, renal: Renal | None
) -> F32:
    """Paints everything but the kidneys: the bent body, its tissues shaded anew, with a bed of fat for the kidneys.

    Args:
        rng: source of randomness.
        lattice: the grid, in patient mm.
        body: the body.
        warp: how it is bent.
        contrast: phase and attenuation.
        renal: the kidneys that the body gives way to; None for a scan without.

    Returns:
        float32 [z, y, x] in HU.
    """
    half = lattice.thinned(2)
    points = warp.points(half)
    bone = _sample(body.bone, indices(points, body.coarse))
    if renal is not None:
        points += _push(warp, half, renal, bone)
    hu = bent(lattice, body, half, points)
    shade = _sample(_offsets(rng, body, contrast), indices(points, body.coarse))
    shade += Noise.draw(rng, lattice, 50.0).on(half) * np.float32(rng.uniform(0, 6))
    gain, fat = np.float32(rng.uniform(-0.1, 0.1)), np.float32(rng.uniform(-8, 12))
    for plane, more in zip(hu, resample(shade, half, lattice), strict=True):
        soft = _soft(plane)
        plane += soft * (more + gain * plane) + (1 - soft) * fat * _fatty(plane)
    if renal is not None:
        _clear_bed(rng, hu, lattice, bone, half, renal)
    return hu


def bent(lattice: Lattice, body: RealBody, half: Lattice, points: F32) -> F32:
    """The body's HU on ``lattice``, float32 [z, y, x]; beyond its field of view the edge goes on.

    Args:
        lattice: the grid.
        body: the body.
        half: a coarser grid of the same extent.
        points: the body's mm of the points of ``half``, float32 [3, z, y, x].
    """
    out = np.empty(lattice.shape, np.float32)
    for start in range(0, lattice.shape[0], 8):
        window = (
            slice(start, min(start + 8, lattice.shape[0])),
            slice(0, lattice.shape[1]),
            slice(0, lattice.shape[2]),
        )
        part = _part(lattice, window)
        fine = np.stack([resample(axis, half, part) for axis in points])
        ndimage.map_coordinates(body.hu, indices(fine, body.lattice), out[window], order=1, mode="nearest")
    return out


def _push(warp: Warp, lattice: Lattice, renal: Renal, bone: F32) -> F32:
    """What the new kidneys push aside: displacement in the body's mm, float32 [3, z, y, x], towards their inside.

    A point at the new kidneys' surface shows what lay ``PUSH_MM`` under it, so that organs and vessels bend round a
    kidney that is larger than the body's own, instead of being cut off. Near bone nothing moves.
    """
    window = lattice.window(renal.lattice.origin, last_point(renal.lattice))
    out = np.zeros((3, *lattice.shape), np.float32)
    if min(w.stop - w.start for w in window) < 2:
        return out
    near = resample(renal.occupied, renal.lattice, _part(lattice, window))
    smooth = ndimage.gaussian_filter(near, [3.0 / s for s in lattice.spacing])
    normal = np.stack(np.gradient(smooth, *lattice.spacing))
    normal /= np.maximum(np.sqrt((normal**2).sum(axis=0)), np.float32(0.3))
    stiff = ndimage.gaussian_filter(bone[window], [6.0 / s for s in lattice.spacing])
    amount = np.float32(PUSH_MM) * np.exp(-np.maximum(near, 0) / np.float32(PUSH_REACH_MM))
    amount *= np.clip(1 - 4 * stiff, 0, 1) * _fading(near.shape)
    out[(slice(None), *window)] = np.einsum("ij,j...->i...", warp.matrix.astype(np.float32), -amount * normal)
    return out


def _fading(shape: tuple[int, ...]) -> F32:
    """1 inside, 0 at the border of an array [z, y, x], so that what ends there ends softly."""
    ramps = [np.minimum(np.arange(n), np.arange(n)[::-1]) / np.float32(6) for n in shape]
    z, y, x = (np.minimum(ramp, 1).astype(np.float32) for ramp in ramps)
    return np.asarray(z[:, None, None] * y[None, :, None] * x[None, None, :], dtype=np.float32)


def _offsets(rng: np.random.Generator, body: RealBody, contrast: Contrast) -> F32:
    """HU to add to soft tissue, float32 [z, y, x] on the coarse lattice.

    Where organs are known, each is moved to the attenuation of the drawn phase. Elsewhere a random curve over the mean
    HU moves the quantiles of soft tissue part of the way: the lower ones are mostly muscle, the upper ones liver and
    spleen, the uppermost of an enhanced scan vessels.
    """
    aim = contrast.hu
    soft = body.smooth[(body.smooth > 0) & (body.smooth < BONE_HU)]
    knots = np.quantile(soft, SOFT_QUANTILES) if soft.size else np.arange(5.0)
    enhanced = knots[4] > 1.6 * knots[2]
    goals = [knots[0], aim["muscle"], (aim["muscle"] + aim["liver"]) / 2, aim["liver"]]
    goals.append(aim["aorta"] if enhanced else aim["spleen"])
    part = rng.uniform(0.8, 1.0) if contrast.phase == "native" else rng.uniform(0.3, 0.7)
    moves = part * (np.array(goals) - knots) + rng.normal(0, 4, 5)
    smooth = ndimage.gaussian_filter(body.smooth, 1.2)
    out = np.asarray(np.interp(smooth, knots, moves), dtype=np.float32)
    if body.organs is None:
        return out
    for organ in np.unique(body.organs[body.organs > 0]):
        inside = body.organs == organ
        tissue = ORGAN_TISSUE.get(int(organ))
        mean = float(np.median(body.smooth[inside]))
        out[inside] = (aim[tissue] - mean if tissue else float(np.median(out[inside]))) + rng.normal(0, 5)
    return np.asarray(ndimage.gaussian_filter(out, 0.5), dtype=np.float32)


def _soft(hu: F32) -> F32:
    """Share of soft tissue: 1 from 10 to 220 HU, 0 in fat and in bone."""
    above, below = (hu + np.float32(60)) / np.float32(70), (np.float32(320) - hu) / np.float32(100)
    return np.asarray(np.clip(above, 0, 1) * np.clip(below, 0, 1), dtype=np.float32)


def _fatty(hu: F32) -> F32:
    """1 in fat, 0 in gas and outside of the body."""
    return np.asarray(np.clip((hu + np.float32(220)) / np.float32(80), 0, 1) * (hu < 0), dtype=np.float32)


def _clear_bed(rng: np.random.Generator, hu: F32, lattice: Lattice, bone: F32, half: Lattice, renal: Renal) -> None:
    """Fills the surroundings of kidneys and masses with perirenal fat, in place; bone stays.

    Unlike ``anatomy.clear_bed``, it finds a body that has fat already: thin, of that fat's HU, and never brighter than
    what it covers.
    """
    window = lattice.window(renal.lattice.origin, last_point(renal.lattice))
    if hu[window].size == 0:
        return
    part = _part(lattice, window)
    near = resample(renal.occupied, renal.lattice, part)
    uneven = Noise.draw(rng, lattice, 22.0).on(lattice, window)
    bed = near - np.maximum(np.float32(rng.uniform(1.0, 5.0)) * (1 + np.float32(0.6) * uneven), np.float32(0.4))
    own = hu[window][(near < 25) & (hu[window] > -140) & (hu[window] < -60)]
    base = np.float32(np.median(own) if own.size > 100 else FAT_HU)
    strands = np.clip(Noise.draw(rng, lattice, 7.0).on(lattice, window) - np.float32(1.4), 0, 1) * np.float32(45)
    share = np.clip(np.float32(0.5) - bed / np.float32(SOFT_EDGE_MM), 0, 1)
    share *= np.clip(1 - 1.5 * resample(bone, half, part), 0, 1)
    hu[window] += share * np.minimum(base + strands - hu[window], 0)


def _part(lattice: Lattice, window: Window) -> Lattice:
    start = [o + s * w.start for o, s, w in zip(lattice.origin, lattice.spacing, window, strict=True)]
    size = [w.stop - w.start for w in window]
    return Lattice((start[0], start[1], start[2]), lattice.spacing, (size[0], size[1], size[2]))


def _sample(values: F32, points: F32) -> F32:
    return np.asarray(ndimage.map_coordinates(values, points, order=1, mode="nearest"), dtype=np.float32)
