"""Random changes of a training sample (paper 3.2), on tensors of any device: spatial, then intensity, clipped last.

Every number is drawn from the generator that is given, before anything is computed: a sample depends on its seed alone
and on no device. ``spatial`` composes mirror, crop, scale, turn, shift and ``elastic`` into one sampling; ``intensity``
changes the whole volume, then each kind of lesion, and adds noise last. ``operations`` names them; ``preview`` shows
each alone.
"""

from dataclasses import replace

import numpy as np
import torch

from renalseg.config import Augmentation
from renalseg.core.labels import MASSES
from renalseg.train.augment.intensity import adjust, adjust_inside, draw_factors, draw_noise
from renalseg.train.augment.operations import OPERATIONS, Operation, is_on, only
from renalseg.train.augment.spatial import draw_warp, warp

__all__ = ["OPERATIONS", "Operation", "augment", "is_on", "only"]


def augment(
    image: torch.Tensor, labels: torch.Tensor, config: Augmentation, generator: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """One random version of a sample (paper 3.2).

    Args:
        image: float32 [z, y, x] in [-1, 1], on any device.
        labels: uint8 [z, y, x] with the ids of ``core.labels``; other values are carried along.
        config: ranges and probabilities.
        generator: the only source of chance; equal draws on every device.

    Returns:
        Image in [-1, 1] and labels: shapes, types and device as given. The arguments are not changed; what no operation
        touched may be the very tensor that was given.
    """
    z, y, x = image.shape
    spatial = draw_warp((z, y, x), config, generator)
    whole = draw_factors(config, config.intensity_probability, generator)
    lesions = [(label, draw_factors(config, config.lesion_intensity_probability, generator)) for label in MASSES.ids]
    noise = draw_noise((z, y, x), config, generator)  # these two came later, and leave the draws above as they were
    spatial = replace(spatial, mirror_x=bool(generator.random() < config.mirror_x))

    image, labels = warp(image, labels, spatial)
    image = adjust(image, whole)
    for label, factors in lesions:
        image = adjust_inside(image, labels == label, factors)
    if noise is not None:
        image = image + noise.to(image.device, non_blocking=True)
    return image.clamp(-1.0, 1.0), labels
