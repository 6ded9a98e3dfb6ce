"""Real bodies: CT whose own kidneys were replaced by fat, bent and shaded anew for every case."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from renalseg.core.errors import InputError
from renalseg.core.labels import KIDNEY
from renalseg.core.volume import Volume
from renalseg.io.nifti import read_nifti
from renalseg.io.read import read_volume
from renalseg.phantom.anatomy import AIR_HU
from renalseg.phantom.draws import Contrast
from renalseg.phantom.fields import F32, Lattice, Noise, Vector, Window, resample
from renalseg.phantom.scene import Renal

CT, KIDNEYS, ORGANS = "ct.nii.gz", "kidneys.nii.gz", "organs.nii.gz"
KIDNEY_CLASSES = (2, 3, 23, 24)
"""Kidneys and their cysts among TotalSegmentator's classes (doi:10.1148/ryai.230024, task ``total`` of version 2)."""
ORGAN_TISSUE = {
    1: "spleen", 5: "liver", 7: "pancreas", 6: "bowel", 18: "bowel", 19: "bowel", 20: "bowel", 52: "aorta",
    63: "ivc", 64: "portal", 65: "aorta", 66: "aorta", 67: "ivc", 68: "ivc", 86: "muscle", 87: "muscle",
    88: "muscle", 89: "muscle",
}  # fmt: skip
"""Those of TotalSegmentator's classes whose attenuation the contrast phase tells, by the name in ``Contrast.hu``."""

MAP_MM = 3.0
"""Size of the voxels that organs, tissues and offsets are known on."""
REMOVAL_MM, CLOSING_MM, SOFT_EDGE_MM = 4.0, 18.0, 2.0
"""How far round the kidneys tissue goes with them, the half width of a sinus that does, and the width of the seam."""
FAT_HU, BONE_HU, GAS_HU = -105.0, 200.0, -300.0
BEND_MM, BEND_SCALE_MM = 4.0, 60.0
SOFT_QUANTILES = (0.1, 0.35, 0.65, 0.9, 0.99)
PUSH_MM, PUSH_REACH_MM = 13.0, 26.0
"""How far the new kidneys push aside what is at their surface, and the distance at which a third of it is left."""
FREE, SOFT, BONE, GAS, UNSEEN = 0.0, 0.6, 2.0, 2.0, 1.0
"""What a voxel of a new kidney costs in fat, in soft tissue, in bone, in gas, and beyond the scan's end."""
DISTANCE_COST = 0.04
"""What it costs to move the kidneys by 40 mm along z or 24 mm in plane."""
DRAWS, MIRROR_RATE, TURNS_DEGREES = 3, 0.1, np.array([6.0, 4.0, 4.0])
TRUNK_SHARE = (0.72, 0.95)
"""The trunk's width as a share of the field of view, where no second kidney tells the body's width."""


@dataclass(frozen=True)
class RealBody:
    """A CT without its kidneys, in mm from the point between them: (z, y, x) towards inferior, posterior, left.

    Attributes:
        name: the folder's name.
        hu: int16 [z, y, x], denoised, with fat where the kidneys were.
        lattice: grid of ``hu``.
        apart_mm: distance between the kidneys that were, along x.
        width_mm: width of the trunk.
        coarse: grid of the maps below, about ``MAP_MM``.
        smooth: mean HU, float32 [z, y, x].
        obstacles: what a new kidney would cost there, float32 [z, y, x].
        bone: share of bone, float32 [z, y, x].
        organs: TotalSegmentator's classes, [z, y, x], or None.
    """

    name: str
    hu: NDArray[np.int16]
    lattice: Lattice
    apart_mm: float
    width_mm: float
    coarse: Lattice
    smooth: F32
    obstacles: F32
    bone: F32
    organs: NDArray[np.int16] | None


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


def list_bodies(folder: Path) -> list[Path]:
    """The subfolders with a CT, sorted by name.

    Raises:
        InputError: there is none.
    """
    bodies = sorted(path.parent for path in folder.glob(f"*/{CT}"))
    if not bodies:
        raise InputError(f"{folder} holds no NAME/{CT}; give a folder with a subfolder for each body.")
    return bodies


@lru_cache(maxsize=4)
def load_body(folder: Path) -> RealBody:
    """Reads a body, takes its noise away and replaces its kidneys by fat.

    Args:
        folder: holds ``ct.nii.gz`` and ``kidneys.nii.gz`` (not 0 in the kidneys) or ``organs.nii.gz``
            (TotalSegmentator's classes) on the same grid.

    Raises:
        InputError: a file is missing, lies on another grid, or marks no kidney.
    """
    ct = read_volume(folder / CT)
    classes, path = _read_mask(folder, ct)
    own = np.isin(classes, KIDNEY_CLASSES) if path.name == ORGANS else classes > 0
    if not own.any():
        raise InputError(f"{path} marks no kidney; mark the scan's own kidneys, so that they can be taken out.")
    hu = _denoised(np.clip(ct.array, AIR_HU, 3071).astype(np.float32))
    _close_field(hu)
    middle, apart = _between(own, hu, ct.spacing_mm)
    rows = (hu[round(middle[0] / ct.spacing_mm[0])] > GAS_HU).sum(axis=1)
    width = max(float(np.percentile(rows, 90)), 1.0) * ct.spacing_mm[2]
    _fill_with_fat(hu, own, ct.spacing_mm)
    lattice = Lattice((-middle[0], -middle[1], -middle[2]), ct.spacing_mm, ct.shape)
    step, coarse = _map_lattice(lattice)
    smooth = _block_means(hu, step)
    obstacles, bone = _tissues(smooth)
    organs = classes[_block_centres(step, ct.shape)] if path.name == ORGANS else None
    array = np.rint(hu).astype(np.int16)
    return RealBody(folder.name, array, lattice, apart, width, coarse, smooth, obstacles, bone, organs)


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
    low, high = renal.lattice.origin[2], _last(renal.lattice)[2]
    least = 2 * max(middle[2] - low, high - middle[2])  # the lattice's margin leaves room for the wall
    best: tuple[float, Warp] | None = None
    for _ in range(DRAWS):
        field = grid.spacing[2] * grid.shape[2] * rng.uniform(*TRUNK_SHARE)
        width = apart / body.apart_mm if apart else field / body.width_mm
        width = float(np.clip(max(width, least / body.width_mm), 0.8, 1.25))
        scale = np.array([rng.uniform(0.85, 1.2), np.clip(width * rng.uniform(0.88, 1.12), 0.85, 1.2), width])
        mirror = np.diag([1.0, 1.0, -1.0 if rng.uniform() < MIRROR_RATE else 1.0])
        matrix = mirror @ np.diag(1 / scale) @ _rotation(np.radians(rng.uniform(-1, 1, 3) * TURNS_DEGREES))
        bend = [Noise.draw(rng, grid, BEND_SCALE_MM) for _ in range(3)]
        cost, warp = _settled(body, Warp(middle, matrix, (bend[0], bend[1], bend[2])), renal)
        if best is None or cost < best[0]:
            best = (cost, warp)
    assert best is not None
    return best[1]


def covered(body: RealBody, warp: Warp, grid: Lattice) -> slice:
    """The slices of ``grid`` that lie within the body's scan; of tilted slices, those of which 90 % do.

    Raises:
        InputError: there are not two of them.
    """
    thin = (grid.shape[0], max(grid.shape[1] // 16, 1), max(grid.shape[2] // 16, 1))
    plane = Lattice(grid.origin, (grid.spacing[0], grid.spacing[1] * 16, grid.spacing[2] * 16), thin)
    z = warp.points(plane)[0]
    half = body.lattice.spacing[0] / 2
    seen = (z >= body.lattice.origin[0] - half) & (z <= _last(body.lattice)[0] + half)
    found = np.flatnonzero(seen.mean(axis=(1, 2)) >= 0.9)
    if found.size < 2:
        raise InputError(f"the body {body.name} is too short along z for the kidneys set in; leave it out.")
    return slice(int(found[0]), int(found[-1]) + 1)


def paint_real(
    rng: np.random.Generator, lattice: Lattice, body: RealBody, warp: Warp, contrast: Contrast, renal: Renal
) -> F32:
    """Paints everything but the kidneys: the bent body, its tissues shaded anew, with a bed of fat for the kidneys.

    Args:
        rng: source of randomness.
        lattice: the grid, in patient mm.
        body: the body.
        warp: how it is bent.
        contrast: phase and attenuation.
        renal: the kidneys that the body gives way to.

    Returns:
        float32 [z, y, x] in HU.
    """
    half = lattice.thinned(2)
    points = warp.points(half)
    bone = _sample(body.bone, _indices(points, body.coarse))
    points += _push(warp, half, renal, bone)
    hu = bent(lattice, body, half, points)
    shade = _sample(_offsets(rng, body, contrast), _indices(points, body.coarse))
    shade += Noise.draw(rng, lattice, 50.0).on(half) * np.float32(rng.uniform(0, 6))
    gain, fat = np.float32(rng.uniform(-0.1, 0.1)), np.float32(rng.uniform(-8, 12))
    for plane, more in zip(hu, resample(shade, half, lattice), strict=True):
        soft = _soft(plane)
        plane += soft * (more + gain * plane) + (1 - soft) * fat * _fatty(plane)
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
        ndimage.map_coordinates(body.hu, _indices(fine, body.lattice), out[window], order=1, mode="nearest")
    return out


def _push(warp: Warp, lattice: Lattice, renal: Renal, bone: F32) -> F32:
    """What the new kidneys push aside: displacement in the body's mm, float32 [3, z, y, x], towards their inside.

    A point at the new kidneys' surface shows what lay ``PUSH_MM`` under it, so that organs and vessels bend round a
    kidney that is larger than the body's own, instead of being cut off. Near bone nothing moves.
    """
    window = lattice.window(renal.lattice.origin, _last(renal.lattice))
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


def _read_mask(folder: Path, ct: Volume) -> tuple[NDArray[np.int16], Path]:
    path = next((folder / name for name in (KIDNEYS, ORGANS) if (folder / name).is_file()), None)
    if path is None:
        raise InputError(f"{folder} holds neither {KIDNEYS} nor {ORGANS}; mark the scan's own kidneys in one of them.")
    mask = read_nifti(path)
    if not ct.same_grid(mask, tolerance_mm=0.1):
        raise InputError(f"{path} {mask.shape} lies on another grid than {CT} {ct.shape}; resample it to the CT's.")
    return mask.array.astype(np.int16), path


def _close_field(hu: F32) -> None:
    """Sets the in-plane faces that are mostly gas to air, in place, so that no arm or table goes on beyond them."""
    for face in (hu[:, 0], hu[:, -1], hu[:, :, 0], hu[:, :, -1]):
        if np.mean(face < GAS_HU) > 0.8:
            face[...] = AIR_HU


def _denoised(hu: F32) -> F32:
    """Takes the scan's own noise out, slice by slice: a guided filter (doi:10.1109/TPAMI.2012.213), in place.

    The noise is estimated from the Laplacian's median in soft tissue (doi:10.1006/cviu.1996.0060).
    """
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    middle = hu[:: max(hu.shape[0] // 8, 1)]
    rough = np.stack([ndimage.convolve(plane, kernel) for plane in middle])
    tissue = np.abs(rough[np.abs(middle) < 150])
    sigma = float(np.median(tissue)) * 1.4826 / 6 if tissue.size else 0.0
    if sigma == 0:
        return hu
    floor = np.float32((2.5 * sigma) ** 2)
    for plane in hu:
        mean = ndimage.uniform_filter(plane, 5)
        spread = np.maximum(ndimage.uniform_filter(plane * plane, 5) - mean * mean, 0)
        trust = spread / (spread + floor)
        plane[...] = ndimage.uniform_filter(trust, 5) * plane + ndimage.uniform_filter(mean * (1 - trust), 5)
    return hu


def _fill_with_fat(hu: F32, own: NDArray[np.bool_], spacing: Vector) -> None:
    """Replaces the kidneys, their sinus and their rim by fat, in place; bone stays."""
    reach = [int(np.ceil((CLOSING_MM + 2 * REMOVAL_MM) / s)) for s in spacing]
    box = ndimage.find_objects(own.astype(np.uint8))[0]
    box = tuple(slice(max(b.start - r, 0), b.stop + r) for b, r in zip(box, reach, strict=True))
    part = hu[box]
    outside = ndimage.distance_transform_edt(~own[box], sampling=spacing)
    closed = ndimage.distance_transform_edt(outside < CLOSING_MM, sampling=spacing) > CLOSING_MM
    distance = ndimage.distance_transform_edt(~(own[box] | closed), sampling=spacing)
    fat = part[(distance > REMOVAL_MM) & (part > -140) & (part < -70)]
    base = float(np.median(fat)) if fat.size > 100 else FAT_HU
    lattice = Lattice((0, 0, 0), spacing, (part.shape[0], part.shape[1], part.shape[2]))
    texture = Noise.draw(np.random.default_rng(0), lattice, 7.0).on(lattice)
    share = np.clip((REMOVAL_MM + SOFT_EDGE_MM / 2 - distance) / SOFT_EDGE_MM, 0, 1)
    share[(part > BONE_HU) & ~own[box] & (distance > 0)] = 0
    part += share.astype(np.float32) * (np.float32(base) + np.float32(5) * texture - part)


def _between(own: NDArray[np.bool_], hu: F32, spacing: Vector) -> tuple[Vector, float]:
    """The point between the scan's kidneys, in mm from its first voxel, and their distance along x."""
    centres = _two_centres(own, spacing)
    if len(centres) == 2:
        middle = (centres[0] + centres[1]) / 2
        return (float(middle[0]), float(middle[1]), float(middle[2])), float(abs(centres[0][2] - centres[1][2]))
    (only,) = centres
    z = round(only[0] / spacing[0])
    midline = float(np.mean(np.nonzero(hu[z] > GAS_HU)[1])) * spacing[2]
    return (float(only[0]), float(only[1]), midline), max(2 * abs(float(only[2]) - midline), 100.0)


def _between_new(renal: Renal) -> tuple[Vector, float]:
    """The same for the kidneys that are set in, in patient mm; 0 for a solitary or fused one."""
    kidney = next(layer.distance for layer in renal.layers if layer.label == KIDNEY) < 0
    centres = [c + np.array(renal.lattice.origin) for c in _two_centres(kidney, renal.lattice.spacing)]
    middle = np.mean(centres, axis=0)
    apart = abs(centres[0][2] - centres[-1][2])
    return (float(middle[0]), float(middle[1]), float(middle[2]) if apart else 0.0), float(apart)


def _two_centres(mask: NDArray[np.bool_], spacing: Vector) -> list[NDArray[np.float64]]:
    """Centres in mm of the two largest parts of ``mask``, of one where there is no second apart by 55 mm."""
    parts, count = ndimage.label(mask)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    big = [int(i) + 1 for i in np.argsort(sizes)[::-1][:2] if sizes[i] > 0.12 * sizes.max()]
    centres = [np.array(ndimage.center_of_mass(parts == i)) * np.array(spacing) for i in big]
    if len(centres) == 2 and abs(centres[0][2] - centres[1][2]) < 55:
        return [np.mean(centres, axis=0)]
    return centres


def _map_lattice(lattice: Lattice) -> tuple[tuple[int, int, int], Lattice]:
    step = [min(max(round(MAP_MM / s), 1), n) for s, n in zip(lattice.spacing, lattice.shape, strict=True)]
    shape = [n // k for n, k in zip(lattice.shape, step, strict=True)]
    origin = [o + s * (k - 1) / 2 for o, s, k in zip(lattice.origin, lattice.spacing, step, strict=True)]
    spacing = [s * k for s, k in zip(lattice.spacing, step, strict=True)]
    coarse = Lattice(
        (origin[0], origin[1], origin[2]), (spacing[0], spacing[1], spacing[2]), (shape[0], shape[1], shape[2])
    )
    return (step[0], step[1], step[2]), coarse


def _block_means(hu: F32, step: tuple[int, int, int]) -> F32:
    n = [size // k for size, k in zip(hu.shape, step, strict=True)]
    cut = hu[: n[0] * step[0], : n[1] * step[1], : n[2] * step[2]]
    blocks = cut.reshape(n[0], step[0], n[1], step[1], n[2], step[2])
    return np.asarray(blocks.mean(axis=(1, 3, 5)), dtype=np.float32)


def _block_centres(step: tuple[int, int, int], shape: tuple[int, int, int]) -> Window:
    z, y, x = (slice(k // 2, n // k * k, k) for k, n in zip(step, shape, strict=True))
    return z, y, x


def _tissues(smooth: F32) -> tuple[F32, F32]:
    """What a new kidney would cost, and the share of bone with its marrow, both [z, y, x]."""
    bright = ndimage.binary_closing(smooth > BONE_HU, iterations=2)
    bone = np.stack([ndimage.binary_fill_holes(plane) for plane in bright])
    cost = np.full(smooth.shape, FREE, np.float32)
    cost[smooth > -40] = SOFT
    cost[smooth < GAS_HU] = GAS
    cost[bone] = BONE
    return cost, ndimage.gaussian_filter(bone.astype(np.float32), 0.5)


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
    near = Lattice.covering(renal.lattice.origin, _last(renal.lattice), (step, step, step))
    low, high = near.origin, _last(near)
    wide = Lattice.covering(
        (low[0] - reach[0], low[1] - reach[1], low[2] - reach[2]),
        (high[0] + reach[0], high[1] + reach[1], high[2] + reach[2]),
        near.spacing,
    )
    points = _indices(warp.points(wide), body.coarse)
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
    """Fills the surroundings of kidneys and masses with perirenal fat, in place; bone stays."""
    window = lattice.window(renal.lattice.origin, _last(renal.lattice))
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


def _sixteenth(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    return shape[0], max(shape[1] // 16, 1), max(shape[2] // 16, 1)


def _last(lattice: Lattice) -> Vector:
    z, y, x = (float(lattice.axis(i)[-1]) for i in range(3))
    return z, y, x


def _indices(points: F32, lattice: Lattice) -> F32:
    """Indices of ``lattice`` for points in mm, both [3, ...]."""
    origin, spacing = (np.array(v, np.float32).reshape(3, 1, 1, 1) for v in (lattice.origin, lattice.spacing))
    return np.asarray((points - origin) / spacing, dtype=np.float32)


def _sample(values: F32, points: F32) -> F32:
    return np.asarray(ndimage.map_coordinates(values, points, order=1, mode="nearest"), dtype=np.float32)
