"""From Hounsfield units to the network's input."""

import torch

from renalseg.config import Intensity


def normalise(hu: torch.Tensor, intensity: Intensity) -> torch.Tensor:
    """Clips HU to ``intensity.clip_hu`` and scales to [-1, 1] (paper 2.1). Any shape; float32 out."""
    low, high = intensity.clip_hu
    return hu.float().clamp(low, high).sub_(low).mul_(2.0 / (high - low)).sub_(1.0)
