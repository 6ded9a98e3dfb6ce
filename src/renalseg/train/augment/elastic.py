"""Elastic deformation by the law of MONAI's ``Rand3DElastic`` (paper 3.2), from noise on a coarse lattice.

MONAI draws an offset from uniform(-1, 1) for each voxel and axis, smooths it with a Gaussian of ``sigma`` voxels and
multiplies by ``magnitude``: displacements in voxels of the output, the same law along all three axes. The sum over
thousands of voxels is a Gaussian random field with

    standard deviation  magnitude / sqrt(3) * (2 * sqrt(pi) * sigma) ** -1.5      [voxels]
    autocorrelation     exp(-d**2 / (4 * sigma**2))                              at a distance of d voxels.

Here the same field comes from normal noise on a lattice with a point every ``sigma`` voxels: one Gaussian bump a point,
evaluated at the voxels, which is three small matrix products. By Poisson summation a lattice as coarse as that leaves
a ripple of 2 * exp(-pi**2), 1e-4 of the variance. The lattice goes on beyond the volume, so the law holds up to the
border and in volumes thinner than the bump; in MONAI displacements fade there, since it takes the outside for zero.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from renalseg.config import Augmentation

REACH = 3
"""Lattice points beyond the border, and so the bump's reach, in units of sigma; MONAI cuts off there too."""


@dataclass(frozen=True)
class Elastic:
    """One drawn deformation: noise float32 [3, k, m, n] for displacements along (x, y, z)."""

    sigma: float
    magnitude: float
    noise: NDArray[np.float32]


def draw_elastic(shape: tuple[int, int, int], config: Augmentation, generator: np.random.Generator) -> Elastic:
    """Draws a deformation of a volume [z, y, x]; smoothness and strength are uniform in their ranges, as in MONAI."""
    sigma = generator.uniform(*config.elastic_sigma)
    magnitude = generator.uniform(*config.elastic_magnitude)
    lattice = [len(_points(n, sigma)) for n in shape]
    return Elastic(sigma, magnitude, generator.standard_normal((3, *lattice), dtype=np.float32))


def displacement(elastic: Elastic, shape: tuple[int, int, int], mix: torch.Tensor) -> torch.Tensor:
    """The deformation, multiplied by a matrix.

    Args:
        elastic: what was drawn for this ``shape``.
        shape: of the volume, [z, y, x].
        mix: float32 [3, 3] on the device to compute on; the identity gives displacements in voxels.

    Returns:
        ``mix`` times the displacements along (x, y, z): float32 [3, z, y, x].
    """
    std = elastic.magnitude / math.sqrt(3) * (2 * math.sqrt(math.pi) * elastic.sigma) ** -1.5
    field = torch.tensordot(mix * std, torch.from_numpy(elastic.noise).to(mix.device, non_blocking=True), 1)
    bumps_z, bumps_y, bumps_x = (_bumps(n, elastic.sigma).to(mix.device, non_blocking=True) for n in shape)
    field = torch.matmul(bumps_z, field.flatten(2)).reshape(3, shape[0], *field.shape[2:])
    return torch.matmul(torch.matmul(bumps_y, field), bumps_x.T)


def _points(n: int, sigma: float) -> NDArray[np.float64]:
    """Lattice points round the voxels 0 to n - 1: ``sigma`` apart, in voxels, symmetric about the middle."""
    count = math.ceil((n - 1) / sigma) + 1 + 2 * REACH
    return np.asarray((n - 1) / 2 + (np.arange(count) - (count - 1) / 2) * sigma, np.float64)


def _bumps(n: int, sigma: float) -> torch.Tensor:
    """The bump of each lattice point at each voxel, float32 [n, points]; a row turns unit noise into unit variance."""
    weights = np.exp(-0.5 * ((np.arange(n)[:, None] - _points(n, sigma)) / sigma) ** 2)
    return torch.from_numpy((weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32))
