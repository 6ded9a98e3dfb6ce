"""Step 5 and 6: two probability maps to one label map on the original grid (method notes, section 3)."""

import numpy as np
import torch
from numpy.typing import NDArray

from renalseg.core.labels import BACKGROUND, KIDNEY
from renalseg.core.volume import Volume
from renalseg.image.boxes import Box
from renalseg.image.resample import resize

SLAB = 32
"""Slices that are turned back to the original resolution at a time."""


def compose(kidney: torch.Tensor, lesion: torch.Tensor, volume: Volume, box: Box) -> NDArray[np.uint8]:
    """Labels uint8 [z, y, x] on the grid of ``volume``: ``kidney? argmax(other kidney, tumor, cyst) : background``.

    Args:
        kidney: probabilities [2, d, y, x] on the fine grid of ``box``.
        lesion: probabilities [3, d, y, x] of other kidney, tumor, cyst, in the order of the label ids from 1.

    Probabilities are interpolated, not labels; the largest is taken on the device, so only labels leave it.
    """
    labels = np.full(volume.shape, BACKGROUND, dtype=np.uint8)
    target = labels[box.slices]
    for z in range(0, box.shape[0], SLAB):
        part = slice(z, z + SLAB)
        shape = (kidney[0, part].shape[0], *box.shape[1:])
        inside = resize(kidney[1, part], shape) >= 0.5
        which = resize(lesion[:, part], shape).argmax(0) + KIDNEY
        target[part] = torch.where(inside, which, BACKGROUND).to(torch.uint8).cpu().numpy()
    return labels
