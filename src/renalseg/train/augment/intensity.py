"""Brightness, contrast and gamma, of a whole volume or inside one kind of lesion (paper 3.2), and noise.

MONAI's formulas in the window's units, where -1 is the lower end of the CT window and 1 the upper: ``ScaleIntensity``
of the distance from the lower end, ``ScaleIntensityFixedMean``, and ``AdjustContrast`` with the window as range.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from renalseg.config import Augmentation


@dataclass(frozen=True)
class Factors:
    """What was drawn for one region; 1 changes nothing."""

    brightness: float = 1.0
    contrast: float = 1.0
    gamma: float = 1.0


def draw_factors(config: Augmentation, probability: float, generator: np.random.Generator) -> Factors:
    """Draws each of the three with ``probability``, log-uniformly: in a range about 1, x is as likely as 1/x."""

    def factor(limits: tuple[float, float]) -> float:
        if generator.random() >= probability:
            return 1.0
        return math.exp(generator.uniform(math.log(limits[0]), math.log(limits[1])))

    return Factors(factor(config.brightness), factor(config.contrast), factor(config.gamma))


def adjust(values: torch.Tensor, factors: Factors, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Changes values of any shape in the window's units; the result may leave [-1, 1].

    Brightness multiplies the distance from the window's lower end, contrast the distance from the mean of the values,
    or of those in ``mask``, and gamma is the power on the window's [0, 1], to which it clips first.
    """
    if factors.brightness != 1.0:
        values = (values + 1.0) * factors.brightness - 1.0
    if factors.contrast != 1.0:
        mean = values.mean() if mask is None else (values * mask).sum() / mask.sum().clamp_min(1)
        values = (values - mean) * factors.contrast + mean
    if factors.gamma != 1.0:
        values = ((values.clamp(-1.0, 1.0) + 1.0) / 2.0) ** factors.gamma * 2.0 - 1.0
    return values


def adjust_inside(image: torch.Tensor, mask: torch.Tensor, factors: Factors) -> torch.Tensor:
    """``adjust`` for the voxels of ``mask`` alone, about their own mean; all others keep their bits.

    Nothing is read back from the device: a GPU that is still busy with the step before need not be awaited.

    Args:
        image: float32 of any shape.
        mask: bool of the same shape; where it holds nothing, the image comes back as it is.
        factors: of this region.
    """
    if factors == Factors():
        return image
    return torch.where(mask, adjust(image, factors, mask), image)


def draw_noise(shape: tuple[int, ...], config: Augmentation, generator: np.random.Generator) -> torch.Tensor | None:
    """White noise to add to an image, float32 on the CPU; None where none is drawn."""
    if generator.random() >= config.noise_probability:
        return None
    sd = np.float32(generator.uniform(*config.noise))
    return torch.from_numpy(generator.standard_normal(shape, np.float32) * sd)
