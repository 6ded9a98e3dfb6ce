"""A lesion of another case, set into a kidney of the sample: tumor copy-paste (Yang et al. 2021, arXiv:2107.09843).

Without it, a network learns a few dozen cases by heart: this kidney has that tumor. With it, any lesion may lie in any
kidney, several may, and a kidney that has none gets one.
"""

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from renalseg.core.labels import CYST, KIDNEY, TUMOR

MIN_VOXELS = 60
"""Smaller pieces are not cut out: a run of slices may graze a lesion."""
ON_KIDNEY, TRIES = 0.25, 3
"""The least share of a pasted lesion that replaces kidney, and how many places are tried for it."""
EDGE = (0.3, 0.7, 0.7)
"""Standard deviation of the blur of a lesion's edge in voxels (z, y, x), as partial volume has it."""


@dataclass(frozen=True)
class Lesion:
    """A lesion that was cut out of a case.

    Attributes:
        image: float32 [z, y, x] in [-1, 1].
        labels: uint8 of the same shape, tumor or cyst, 0 where the lesion is not; it has a margin of two voxels.
        kidney: mean of the image in the kidneys that it comes from, or None where there were none beside it.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    kidney: float | None


def cut_lesion(image: NDArray[np.float16], labels: NDArray[np.uint8], generator: np.random.Generator) -> Lesion | None:
    """One connected lesion of a run of slices [z, y, x], drawn at random, or None where there is none.

    Args:
        image: in [-1, 1].
        labels: of the label table; others are no lesion.
        generator: draws which, and along which axes it is mirrored.
    """
    pieces = cc3d.connected_components(np.isin(labels, (TUMOR, CYST)), connectivity=26)
    counts = np.bincount(pieces.ravel())
    large = [i for i in range(1, len(counts)) if counts[i] >= MIN_VOXELS]
    if not large:
        return None
    piece = pieces == large[int(generator.integers(len(large)))]
    box = tuple(slice(max(int(i.min()) - 2, 0), int(i.max()) + 3) for i in np.nonzero(piece))
    kidney = labels == KIDNEY
    flips = tuple(axis for axis in range(3) if generator.random() < 0.5)
    return Lesion(
        np.flip(image[box].astype(np.float32), flips),
        np.flip(np.where(piece[box], labels[box], 0).astype(np.uint8), flips),
        float(image[kidney].mean(dtype=np.float32)) if kidney.any() else None,
    )


def paste_lesion(
    image: NDArray[np.float16], labels: NDArray[np.uint8], lesion: Lesion, generator: np.random.Generator
) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """A sample with one lesion more, in new arrays; or as it was, where no place was found.

    A voxel of the lesion comes to lie on a voxel of a kidney, both at random, and at least ``ON_KIDNEY`` of what
    remains inside the sample lies on kidney. A tumor follows the contrast of its new kidney by a random part: the
    difference between the two kidneys is added to it, times a number from 0 to 1. A cyst takes up no contrast.

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
    image[there] = np.clip(image[there] + share * (values - image[there]), -1.0, 1.0)
    labels[there][mask] = lesion.labels[here][mask]
    return image, labels
