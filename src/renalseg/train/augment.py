"""Random changes of a sample, on tensors of any device: mirror, crop along z, scale and turn, intensity.

Every function draws from the generator that it is given, so a sample depends only on its seed. Sources: paper 3.2.
"""

import math
from functools import partial

import numpy as np
import torch
from torch.nn import functional

from renalseg.config import Training


def augment(
    image: torch.Tensor, target: torch.Tensor, config: Training, generator: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """One random version of a sample: image float32 [z, y, x] in [-1, 1], target uint8 of the same shape."""
    if generator.random() < config.mirror_z:
        image, target = image.flip(0), target.flip(0)
    if config.depth_crop < 1 and generator.random() < 0.5:
        image, target = depth_crop(image, target, generator.uniform(config.depth_crop, 1.0), generator)
    if generator.random() < config.scale_probability:
        image, target = in_plane_affine(image, target, draw_affine(config, generator))
    return intensity(image, config, generator), target


def depth_crop(
    image: torch.Tensor, target: torch.Tensor, share: float, generator: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A random run of slices, ``share`` of all, stretched to the old depth: what a shorter scan looks like.

    Only the coarse stage stretches along z, in testing too. Kidneys may be cut, or not be there at all.
    """
    depth = image.shape[0]
    kept = max(2, round(share * depth))
    start = int(generator.integers(0, depth - kept + 1))
    cut = image[start : start + kept], target[start : start + kept].float()
    size = tuple(image.shape)
    stretched = functional.interpolate(cut[0][None, None], size, mode="trilinear", align_corners=False)[0, 0]
    labels = functional.interpolate(cut[1][None, None], size, mode="nearest-exact")[0, 0]
    return stretched, labels.to(target.dtype)


def draw_affine(config: Training, generator: np.random.Generator) -> torch.Tensor:
    """A random in-plane map [2, 3] for ``affine_grid``: output to input, in units of half the size, (x, y) order.

    Those units differ between y and x where the plane of ``config.patch`` is no square; a turn has to allow for it.
    """
    ratio = config.patch[1] / config.patch[2]
    scale = generator.uniform(*config.scale)
    angle = math.radians(generator.uniform(-config.rotate_degrees, config.rotate_degrees))
    shift = generator.uniform(-2 * config.shift, 2 * config.shift, size=2)
    cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
    rows = [[cosine, -sine * ratio, shift[0]], [sine / ratio, cosine, shift[1]]]
    return torch.tensor(rows, dtype=torch.float32)


def in_plane_affine(
    image: torch.Tensor, target: torch.Tensor, affine: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Resamples every slice by ``affine`` [2, 3]: linear for the image, nearest for the target; edges repeat."""
    z, y, x = image.shape
    theta = affine.to(image.device)[None].expand(z, 2, 3)
    grid = functional.affine_grid(theta, [z, 1, y, x], align_corners=False)
    sample = partial(functional.grid_sample, grid=grid, padding_mode="border", align_corners=False)
    moved = sample(image[:, None], mode="bilinear")[:, 0]
    labels = sample(target[:, None].float(), mode="nearest")[:, 0]
    return moved, labels.to(target.dtype)


def intensity(image: torch.Tensor, config: Training, generator: np.random.Generator) -> torch.Tensor:
    """Brightness, contrast and gamma, each with its probability and a factor from the range; clipped to [-1, 1] last.

    Brightness scales the distance from the lower end of the window, contrast the distance from the mean, and gamma is a
    power on the window's [0, 1]. Factors are drawn so that a factor and its inverse are equally likely.
    """
    if generator.random() < config.intensity_probability:
        image = (image + 1.0) * _factor(config, generator) - 1.0
    if generator.random() < config.intensity_probability:
        mean = image.mean()
        image = (image - mean) * _factor(config, generator) + mean
    if generator.random() < config.intensity_probability:
        image = ((image.clamp(-1.0, 1.0) + 1.0) / 2.0) ** _factor(config, generator) * 2.0 - 1.0
    return image.clamp(-1.0, 1.0)


def _factor(config: Training, generator: np.random.Generator) -> float:
    low, high = config.intensity
    return float(math.exp(generator.uniform(math.log(low), math.log(high))))
