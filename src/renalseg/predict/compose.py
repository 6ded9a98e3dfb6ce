"""Step 5 and 6: two probability maps to one label map on the original grid (method notes, section 3)."""

import numpy as np
import torch
from numpy.typing import NDArray

from renalseg.core.labels import BACKGROUND, CYST, KIDNEY, TUMOR
from renalseg.core.volume import Volume
from renalseg.image.boxes import Box
from renalseg.image.resample import resize

SLAB = 32
"""Slices that are turned back to the original resolution at a time."""


def compose(
    kidney: torch.Tensor, lesion: torch.Tensor, volume: Volume, box: Box, device: torch.device | None = None
) -> NDArray[np.uint8]:
    """Labels uint8 [z, y, x] on the grid of ``volume``: ``kidney? argmax(other kidney, tumor, cyst) : background``.

    Args:
        kidney: probabilities [2, d, y, x] on the fine grid of ``box``.
        lesion: probabilities [3, d, y, x] of other kidney, tumor, cyst, in the order of the label ids from 1.
        device: where to compute, slab by slab; where the probabilities are by default.

    Probabilities are interpolated, not labels; the largest is taken on the device, so only labels leave it.
    """
    labels = np.full(volume.shape, BACKGROUND, dtype=np.uint8)
    target = labels[box.slices]
    for z in range(0, box.shape[0], SLAB):
        part = slice(z, z + SLAB)
        shape = (kidney[0, part].shape[0], *box.shape[1:])
        inside = resize(kidney[1, part], shape, device=device) >= 0.5
        target[part] = (inside * _largest(resize(lesion[:, part], shape, device=device))).cpu().numpy()
    return labels


def _largest(lesion: torch.Tensor) -> torch.Tensor:
    """Label uint8 [z, y, x] of the largest of other kidney, tumor, cyst [3, z, y, x]; the first of equal ones.

    Comparing finds it: over three channels, ``argmax`` was measured to be many times as slow on a CPU.
    """
    other, tumor, cyst = lesion
    tumors = (tumor > other).to(torch.uint8) * (TUMOR - KIDNEY)
    cysts = (cyst > torch.maximum(other, tumor)).to(torch.uint8) * CYST
    return torch.maximum(tumors + KIDNEY, cysts)
