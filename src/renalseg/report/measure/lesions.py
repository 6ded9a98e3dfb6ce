"""The lesions of a kidney as connected pieces, what is too small to be one, and the CT under them."""

from collections.abc import Mapping
from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray

from renalseg.core.errors import InputError
from renalseg.core.labels import CYST, TUMOR
from renalseg.core.volume import Volume
from renalseg.image.boxes import Box, bounding_box
from renalseg.report.measure.results import Kind, Lesion

SMALLEST_LESION_ML = 0.025
"""A ball of 3.6 mm. In 122 label maps of KiTS23 every detached piece of tumor is either at most 0.021 ml, a rim of an
annotation (35 pieces of at most 19 voxels), or at least 0.28 ml; of 178 pieces of cyst 3 are smaller than this."""

KINDS: tuple[tuple[int, Kind], ...] = ((TUMOR, "tumor"), (CYST, "cyst"))


@dataclass(frozen=True)
class Piece:
    """A connected piece of one label.

    Attributes:
        kind: of the label.
        box: where ``mask`` lies in the array that was searched.
        mask: bool [z, y, x], its voxels within ``box``.
        voxels: their number.
    """

    kind: Kind
    box: Box
    mask: NDArray[np.bool_]
    voxels: int


def pieces(labels: NDArray[np.uint8], voxel_mm3: float) -> tuple[list[Piece], dict[Kind, list[float]]]:
    """The lesions in ``labels`` [z, y, x], 26-connected, and the volumes in ml of the fragments that were left out."""
    found: list[Piece] = []
    fragments: dict[Kind, list[float]] = {}
    for label, kind in KINDS:
        around = bounding_box(labels == label)
        if around is None:
            continue
        part = np.ascontiguousarray(labels[around.slices] == label)
        components = cc3d.connected_components(part, connectivity=26)
        statistics = cc3d.statistics(components)
        for i, voxels in enumerate(statistics["voxel_counts"].tolist()):
            if i == 0:
                continue
            if (ml := voxels * voxel_mm3 / 1000) < SMALLEST_LESION_ML:
                fragments.setdefault(kind, []).append(ml)
                continue
            slices = statistics["bounding_boxes"][i]
            box = _moved(Box(_start(slices), _stop(slices)), around.start)
            found.append(Piece(kind, box, components[slices] == i, voxels))
    return found, fragments


def find_piece(array: NDArray[np.uint8], kind: Kind, box: Box, voxels: int) -> NDArray[np.bool_] | None:
    """The connected piece of a label map [z, y, x] of this kind that fills ``box`` and has so many voxels.

    Returns:
        Bool [z, y, x] on ``box``; None where there is no such piece.
    """
    label = next(label for label, name in KINDS if name == kind)
    if any(b > n for b, n in zip(box.stop, array.shape, strict=True)):
        return None
    components = cc3d.connected_components(np.ascontiguousarray(array[box.slices] == label), connectivity=26)
    for i in np.flatnonzero(np.bincount(components.ravel()) == voxels):
        mask: NDArray[np.bool_] = components == i
        if i > 0 and bounding_box(mask) == Box((0, 0, 0), box.shape):
            return mask
    return None


def lesion_mask(labels: Volume, lesion: Lesion) -> NDArray[np.bool_]:
    """The voxels of a lesion, bool [z, y, x] on its ``box`` of the label map that it was measured on.

    Raises:
        InputError: the label map has no such lesion.
    """
    if any(b > n for b, n in zip(lesion.box.stop, labels.shape, strict=True)):
        raise InputError(f"{labels.name}: lesion {lesion.id} lies beyond the label map; measure this map again.")
    mask = find_piece(labels.array, lesion.kind, lesion.box, lesion.voxels)
    if mask is None:
        raise InputError(f"{labels.name}: lesion {lesion.id} is not in the label map; measure this map again.")
    return mask


def intensity(values: NDArray[np.generic]) -> Mapping[str, float] | None:
    """Mean, standard deviation and percentiles of HU; None where none of ``values`` [n] is finite."""
    hu = np.asarray(values, np.float64)
    hu = hu[np.isfinite(hu)]
    if not len(hu):
        return None
    p5, p25, median, p75, p95 = (float(v) for v in np.percentile(hu, (5, 25, 50, 75, 95)))
    return {
        "mean": float(hu.mean()),
        "sd": float(hu.std()),
        "p5": p5,
        "p25": p25,
        "median": median,
        "p75": p75,
        "p95": p95,
    }


def _moved(box: Box, by: tuple[int, int, int]) -> Box:
    start = [a + b for a, b in zip(box.start, by, strict=True)]
    stop = [a + b for a, b in zip(box.stop, by, strict=True)]
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def _start(slices: tuple[slice, slice, slice]) -> tuple[int, int, int]:
    z, y, x = (int(s.start) for s in slices)
    return z, y, x


def _stop(slices: tuple[slice, slice, slice]) -> tuple[int, int, int]:
    z, y, x = (int(s.stop) for s in slices)
    return z, y, x
