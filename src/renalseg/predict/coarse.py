"""Step 1: where the kidneys are. The whole volume at the coarse shape, one network pass, cleaned (paper 2.2, 2.3)."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from renalseg.config import Config
from renalseg.core.volume import Volume
from renalseg.image.components import Component, drop_small
from renalseg.image.intensity import normalise
from renalseg.image.resample import resize
from renalseg.model.runtime import Runtime


def coarse_input(volume: Volume, config: Config, runtime: Runtime) -> torch.Tensor:
    """The network's input: float32 [1, 1, z, y, x] of ``config.coarse.shape``, on the device."""
    hu = torch.from_numpy(np.require(volume.array, requirements=("C", "W")))
    return normalise(resize(hu, config.coarse.shape, device=runtime.device), config.intensity)[None, None]


@torch.inference_mode()
def coarse_probability(image: torch.Tensor, networks: Sequence[torch.nn.Module], runtime: Runtime) -> torch.Tensor:
    """Probability of kidney or mass, float32 [z, y, x]: the mean over ``networks``.

    Args:
        image: [1, 1, z, y, x] from ``coarse_input``.
    """
    image = image.contiguous(memory_format=runtime.memory_format)
    total = torch.zeros(image.shape[2:], device=image.device)
    for network in networks:
        with runtime.autocast():
            logits = network(image)
        total += logits.float().softmax(1)[0, 1]
    return total / len(networks)


def clean_coarse(
    probability: torch.Tensor, volume: Volume, config: Config
) -> tuple[NDArray[np.bool_], list[Component]]:
    """The coarse mask [z, y, x] without components too small to be a kidney, and what was dropped."""
    mask = (probability >= config.coarse.threshold).cpu().numpy()
    voxel_mm3 = volume.voxel_mm3 * volume.array.size / mask.size
    cleaned, _, dropped = drop_small(mask, voxel_mm3, 0, config.coarse.min_component_mm3)
    return cleaned, dropped


def perfect_mask(labels: Volume, config: Config) -> torch.Tensor:
    """What a perfect coarse network would answer, and what one learns: bool [z, y, x] at the coarse shape.

    A voxel is kidney or mass where these fill half of it or more.
    """
    foreground = torch.from_numpy(np.ascontiguousarray(labels.array > 0))
    return resize(foreground, config.coarse.shape) >= 0.5
