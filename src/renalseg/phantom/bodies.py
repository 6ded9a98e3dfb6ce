"""Real bodies: CT whose own kidneys were replaced by fat, as ``warp`` lays them and ``implant`` paints them."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from renalseg.core.errors import InputError
from renalseg.core.volume import Volume
from renalseg.io.nifti import read_nifti
from renalseg.io.read import read_volume
from renalseg.phantom.anatomy import AIR_HU
from renalseg.phantom.fields import F32, Lattice, Noise, Vector, Window

CT, KIDNEYS, ORGANS = "ct.nii.gz", "kidneys.nii.gz", "organs.nii.gz"
KIDNEY_CLASSES = (2, 3, 23, 24)
"""Kidneys and their cysts among TotalSegmentator's classes (doi:10.1148/ryai.230024, task ``total`` of version 2)."""

MAP_MM = 3.0
"""Size of the voxels that organs, tissues and offsets are known on."""
REMOVAL_MM, CLOSING_MM, SOFT_EDGE_MM = 4.0, 18.0, 2.0
"""How far round the kidneys tissue goes with them, the half width of a sinus that does, and the width of the seam."""
FAT_HU, BONE_HU, GAS_HU = -105.0, 200.0, -300.0
FREE, SOFT, BONE, GAS = 0.0, 0.6, 2.0, 2.0
"""What a voxel of a new kidney costs in fat, in soft tissue, in bone and in gas."""


@dataclass(frozen=True)
class RealBody:
    """A CT without its kidneys, in mm from the point between them: (z, y, x) towards inferior, posterior, left.

    Attributes:
        name: the folder's name.
        hu: int16 [z, y, x], denoised, with fat where the kidneys were.
        lattice: grid of ``hu``.
        own: the box of the kidneys that were, its least and greatest corner.
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
    own: tuple[Vector, Vector]
    apart_mm: float
    width_mm: float
    coarse: Lattice
    smooth: F32
    obstacles: F32
    bone: F32
    organs: NDArray[np.int16] | None


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
    box = _corners(own, lattice)
    return RealBody(folder.name, array, lattice, box, apart, width, coarse, smooth, obstacles, bone, organs)


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
    centres = two_centres(own, spacing)
    if len(centres) == 2:
        middle = (centres[0] + centres[1]) / 2
        return (float(middle[0]), float(middle[1]), float(middle[2])), float(abs(centres[0][2] - centres[1][2]))
    (only,) = centres
    z = round(only[0] / spacing[0])
    midline = float(np.mean(np.nonzero(hu[z] > GAS_HU)[1])) * spacing[2]
    return (float(only[0]), float(only[1]), midline), max(2 * abs(float(only[2]) - midline), 100.0)


def two_centres(mask: NDArray[np.bool_], spacing: Vector) -> list[NDArray[np.float64]]:
    """Centres in mm of the two largest parts of ``mask``, of one where there is no second apart by 55 mm."""
    parts, count = ndimage.label(mask)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    big = [int(i) + 1 for i in np.argsort(sizes)[::-1][:2] if sizes[i] > 0.12 * sizes.max()]
    centres = [np.array(ndimage.center_of_mass(parts == i)) * np.array(spacing) for i in big]
    if len(centres) == 2 and abs(centres[0][2] - centres[1][2]) < 55:
        return [np.mean(centres, axis=0)]
    return centres


def _corners(own: NDArray[np.bool_], lattice: Lattice) -> tuple[Vector, Vector]:
    """The outer corners of the box round ``own``, in mm of ``lattice``."""
    (box,) = ndimage.find_objects(own.astype(np.uint8))
    z, y, x = (
        (o + s * (b.start - 0.5), o + s * (b.stop - 0.5))
        for o, s, b in zip(lattice.origin, lattice.spacing, box, strict=True)
    )
    return (z[0], y[0], x[0]), (z[1], y[1], x[1])


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
