"""Step 2: the box round both kidneys, and the image inside it at the fine grid (paper 2.1)."""

import numpy as np
import torch
from numpy.typing import NDArray

from renalseg.config import Config
from renalseg.core.volume import Volume
from renalseg.image.boxes import Box, bounding_box, grow, scale_box
from renalseg.image.intensity import normalise
from renalseg.image.resample import resize


def find_box(mask: NDArray[np.bool_], volume: Volume, config: Config) -> Box | None:
    """One box of voxels of ``volume`` round a coarse mask [z, y, x], with the margin in mm; None for an empty mask."""
    box = bounding_box(mask)
    if box is None:
        return None
    coarse_shape = (mask.shape[0], mask.shape[1], mask.shape[2])
    on_volume = scale_box(box, coarse_shape, volume.shape)
    return grow(on_volume, config.coarse.margin_mm, volume.spacing_mm, volume.shape)


def fine_input(volume: Volume, box: Box, config: Config, device: torch.device) -> torch.Tensor:
    """The image in the box, resampled in plane and never along z: float32 [1, 1, d, y, x] in [-1, 1], on ``device``."""
    cut = torch.from_numpy(np.require(volume.array[box.slices], requirements=("C", "W")))
    return normalise(resize(cut, (box.shape[0], *config.fine.in_plane), device=device), config.intensity)[None, None]
