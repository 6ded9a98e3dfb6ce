"""A lesion of another case, set into a kidney of the sample: tumor copy-paste (Yang et al. 2021, arXiv:2107.09843).

Without it, a network learns a few dozen cases by heart: this kidney has that tumor. With it, any lesion may lie in any
kidney, several may, and a kidney that has none gets one.
"""

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter

from renalseg.core.labels import BACKGROUND, KIDNEY, MASSES, TUMOR
from renalseg.image.boxes import bounding_box, grow
from renalseg.train.prepare import RIM

MIN_VOXELS = 27
"""Smaller lesions are not cut out."""
ON_KIDNEY, TRIES = 0.25, 10
"""The least share of a pasted lesion that replaces kidney, and how many places are tried for it."""
EDGE = (0.3, 0.7, 0.7)
"""Standard deviation of the blur of a lesion's edge in voxels (z, y, x), as partial volume has it."""
MARGIN = 2
"""Voxels round a lesion that are cut out with it."""


@dataclass(frozen=True)
class Lesion:
    """A lesion that was cut out of a case.

    Attributes:
        image: float32 [z, y, x] in [-1, 1].
        labels: uint8 of the same shape, tumor or cyst, 0 where the lesion is not: in its margin and in gaps.
        kidney: mean of the image in the kidneys in its slices, or None where there are none.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    kidney: float | None


def cut_lesion(image: NDArray[np.float16], labels: NDArray[np.uint8], generator: np.random.Generator) -> Lesion | None:
    """One connected lesion of a case [z, y, x], whole, drawn at random; None where there is none.

    Args:
        image: in [-1, 1].
        labels: of the label table; others are no lesion.
        generator: draws which, and along which axes it is mirrored.
    """
    mask = MASSES.mask(labels)
    whole = bounding_box(mask)
    if whole is None:
        return None
    pieces = cc3d.connected_components(np.ascontiguousarray(mask[whole.slices]), connectivity=26)
    counts = np.bincount(pieces.ravel())
    large = [i for i in range(1, len(counts)) if counts[i] >= MIN_VOXELS]
    if not large:
        return None
    piece = np.zeros(mask.shape, bool)
    piece[whole.slices] = pieces == large[int(generator.integers(len(large)))]
    own = bounding_box(piece)
    assert own is not None
    box = grow(
        own, (MARGIN, MARGIN, MARGIN), (1.0, 1.0, 1.0), (labels.shape[0], labels.shape[1], labels.shape[2])
    ).slices
    kidney = image[box[0]][labels[box[0]] == KIDNEY]
    flips = tuple(axis for axis in range(3) if generator.random() < 0.5)
    return Lesion(
        np.flip(image[box].astype(np.float32), flips),
        np.flip(np.where(piece[box], labels[box], 0).astype(np.uint8), flips),
        float(kidney.mean(dtype=np.float32)) if kidney.size else None,
    )


def paste_lesion(
    image: NDArray[np.float16], labels: NDArray[np.uint8], lesion: Lesion, generator: np.random.Generator
) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """A sample with one lesion more, in new arrays; or as it was, where no place was found.

    A voxel of the lesion comes to lie on a voxel of a kidney, both at random, and at least ``ON_KIDNEY`` of what
    remains inside the sample lies on kidney. A tumor follows the contrast of its new kidney by a random part: the
    difference between the two kidneys is added to it, times a number from 0 to 1. A cyst takes up no contrast.
    Voxels are taken as they are: where the two grids differ in spacing, the lesion is stretched. Background beside the
    lesion becomes ``RIM``, as it is beside a lesion of the case's own.

    Args:
        image: float16 [z, y, x] in [-1, 1].
        labels: uint8 of the same shape.
        lesion: from another case.
        generator: draws the place and that part.
    """
    kidney = np.argwhere(labels == KIDNEY)
    inside = np.argwhere(lesion.labels > 0)
    if len(kidney) == 0:
        return image, labels
    follow = float(generator.uniform())
    for _ in range(TRIES):
        offset = kidney[int(generator.integers(len(kidney)))] - inside[int(generator.integers(len(inside)))]
        first, last = np.maximum(offset, 0), np.minimum(offset + lesion.labels.shape, labels.shape)
        there = tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
        here = tuple(slice(int(a - o), int(b - o)) for a, b, o in zip(first, last, offset, strict=True))
        mask = lesion.labels[here] > 0
        if (labels[there][mask] == KIDNEY).sum() >= ON_KIDNEY * mask.sum():
            break
    else:
        return image, labels
    values = lesion.image[here].copy()
    if lesion.kidney is not None:
        own = float(image[labels == KIDNEY].mean(dtype=np.float32))
        values[lesion.labels[here] == TUMOR] += follow * (own - lesion.kidney)
    values[~mask] = values[mask].mean()
    share = gaussian_filter(mask.astype(np.float32), EDGE)
    share = np.where(mask, np.maximum(share, 0.5), np.minimum(share, 0.5))
    image, labels = image.copy(), labels.copy()
    beside = binary_dilation(mask, iterations=MARGIN) & (labels[there] == BACKGROUND)
    labels[there][beside] = RIM
    image[there] = np.clip(image[there] + share * (values - image[there]), -1.0, 1.0)
    labels[there][mask] = lesion.labels[here][mask]
    return image, labels
