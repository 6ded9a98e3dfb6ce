"""CT and labels as small NIfTI files for the viewer: the region of the kidneys, 8 bits, a bounded number of voxels."""

import gzip
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from renalseg.core.volume import Volume, spacing_of
from renalseg.image.boxes import Box, bounding_box, grow
from renalseg.image.resample import resize

MARGIN_MM = 40.0
"""Context around the kidneys. Settled."""

MOST_VOXELS = 3_500_000
"""Above this the region is reduced, its finest axes first. 8 bits of noisy CT pack to at most 3.5 MB. Settled."""

LOWEST_HU, HIGHEST_HU = -250.0, 450.0
"""What 8 bits stand for, in steps of 2.7 HU; values outside are clipped. Holds every window that the viewer offers."""

STEP_HU = (HIGHEST_HU - LOWEST_HU) / 255
_NIFTI_DATA_AT = 352


@dataclass(frozen=True)
class Scene:
    """What the viewer shows.

    Attributes:
        ct: gzipped NIfTI, uint8 with slope and intercept to HU.
        labels: gzipped NIfTI, uint8 (see ``core.labels``), on the same grid.
        shape: voxels along (z, y, x).
        spacing_mm: voxel size along (z, y, x).
        is_reduced: whether voxels are larger than in the CT.
        is_cropped: whether it is the region of the kidneys, not the whole CT.
    """

    ct: bytes
    labels: bytes
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    is_reduced: bool
    is_cropped: bool


def make_scene(ct: Volume, labels: Volume, most_voxels: int = MOST_VOXELS) -> Scene:
    """Crops to the labels with a margin (the whole volume where there are none), reduces and packs.

    Args:
        ct: CT [z, y, x] in HU; what is no number is drawn as air.
        labels: label map on the same grid; nearest neighbours where it is reduced.
        most_voxels: the largest number of voxels of the result.
    """
    box = _region(labels)
    shape = reduced_shape(box.shape, ct.spacing_mm, most_voxels)
    affine = _affine(ct.affine, box, shape)
    hu = np.nan_to_num(ct.array[box.slices].astype(np.float32), nan=-1024.0, posinf=HIGHEST_HU, neginf=LOWEST_HU)
    reduced = resize(torch.from_numpy(np.ascontiguousarray(hu)), shape).numpy()
    grey = np.rint((reduced.clip(LOWEST_HU, HIGHEST_HU) - LOWEST_HU) / STEP_HU).astype(np.uint8)
    nearest = np.ix_(*(_centres(n, m) for n, m in zip(box.shape, shape, strict=True)))
    return Scene(
        _nifti(grey, affine, STEP_HU, LOWEST_HU),
        _nifti(labels.array[box.slices][nearest].astype(np.uint8), affine),
        shape,
        spacing_of(affine),
        shape != box.shape,
        box.shape != ct.shape,
    )


def reduced_shape(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], most_voxels: int
) -> tuple[int, int, int]:
    """The largest grid of at most ``most_voxels`` whose finest axes share one spacing; ``shape`` where that fits."""
    target_mm, new = min(spacing_mm), shape
    while new[0] * new[1] * new[2] > most_voxels:
        target_mm *= 1.01
        z, y, x = (max(1, int(n * s / max(s, target_mm))) for n, s in zip(shape, spacing_mm, strict=True))
        new = z, y, x
    return new


def _region(labels: Volume) -> Box:
    found = bounding_box(labels.array > 0)
    if found is None:
        return Box((0, 0, 0), labels.shape)
    return grow(found, (MARGIN_MM, MARGIN_MM, MARGIN_MM), labels.spacing_mm, labels.shape)


def _centres(n: int, n_out: int) -> NDArray[np.int64]:
    """The input voxels that hold the centres of ``n_out`` equal parts of ``n``."""
    return ((np.arange(n_out) + 0.5) * n / n_out).astype(np.int64)


def _affine(affine: NDArray[np.float64], box: Box, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """Index (z, y, x, 1) of the reduced region to RAS mm."""
    step = np.array(box.shape) / np.array(shape)
    to_old = np.diag([*step, 1.0])
    to_old[:3, 3] = np.array(box.start) + step / 2 - 0.5
    return affine @ to_old


def _nifti(array: NDArray[np.uint8], affine: NDArray[np.float64], slope: float = 1.0, intercept: float = 0.0) -> bytes:
    """``array`` [z, y, x] as a gzipped NIfTI of (x, y, z) without any text; the same bytes each time."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(array.shape[::-1])
    header.set_zooms(spacing_of(affine)[::-1])
    header.set_sform(affine[:, [2, 1, 0, 3]], code="scanner")
    header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"], header["vox_offset"] = slope, intercept, _NIFTI_DATA_AT
    data: bytes = header.binaryblock + bytes(4) + array.tobytes()
    return gzip.compress(data, compresslevel=9, mtime=0)
