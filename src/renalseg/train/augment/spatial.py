"""Mirror, crop along z, in-plane scale, turn and shift, elastic deformation, composed into one sampling (paper 3.2).

An output voxel at p shows the input at A(p + u), in MONAI's order: u is the elastic displacement in output voxels, A
the affine part. Coordinates are those of ``grid_sample`` with ``align_corners=False``: (x, y, z) in units of half the
size, from the middle of the volume.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from renalseg.config import Augmentation
from renalseg.train.augment.elastic import Elastic, displacement, draw_elastic

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Warp:
    """What was drawn for one volume; None where an operation does not apply.

    Attributes:
        mirror: whether z is reversed, before all else.
        mirror_x: whether x is.
        crop: the run of slices (start, stop) that is stretched to the whole depth.
        plane: in-plane map [2, 3] from output (x, y, 1) to input (x, y).
        elastic: the deformation.
    """

    mirror: bool = False
    crop: tuple[int, int] | None = None
    plane: NDArray[np.float64] | None = None
    elastic: Elastic | None = None
    mirror_x: bool = False


def draw_warp(shape: Shape, config: Augmentation, generator: np.random.Generator) -> Warp:
    """Draws the spatial changes of one volume [z, y, x], but for ``mirror_x``."""
    mirror = generator.random() < config.mirror_z
    crop = plane = elastic = None
    if config.depth_crop < 1 and generator.random() < config.depth_crop_probability:
        crop = draw_crop(shape[0], config, generator)
    if generator.random() < config.scale_probability:
        plane = draw_plane(shape, config, generator)
    if generator.random() < config.elastic_probability:
        elastic = draw_elastic(shape, config, generator)
    return Warp(bool(mirror), crop, plane, elastic)


def draw_crop(depth: int, config: Augmentation, generator: np.random.Generator) -> tuple[int, int]:
    """A random run of slices, which is stretched to the whole depth.

    To the coarse stage, which stretches along z in testing too, it is a shorter scan: kidneys may be cut, or not be
    there at all. To the fine stages, which never do, it is a scan of thinner slices.
    """
    kept = min(depth, max(2, round(generator.uniform(config.depth_crop, 1.0) * depth)))
    start = int(generator.integers(0, depth - kept + 1))
    return start, start + kept


def draw_plane(shape: Shape, config: Augmentation, generator: np.random.Generator) -> NDArray[np.float64]:
    """A random scale, turn and shift, as a map [2, 3] from output to input.

    A unit of y is not as long as a unit of x where the plane is no square; a turn has to allow for it.
    """
    ratio = shape[1] / shape[2]
    scale = generator.uniform(*config.scale)
    angle = math.radians(generator.uniform(-config.rotate_degrees, config.rotate_degrees))
    right, down = generator.uniform(-2 * config.shift, 2 * config.shift, size=2)
    cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
    return np.array([[cosine, -sine * ratio, right], [sine / ratio, cosine, down]])


def warp(image: torch.Tensor, labels: torch.Tensor, drawn: Warp) -> tuple[torch.Tensor, torch.Tensor]:
    """Applies a warp by one resampling: trilinear for the image, nearest for the labels; the edges repeat.

    Without crop, scale and elastic deformation nothing is resampled, and a mirror is exact.

    Args:
        image: float32 [z, y, x].
        labels: uint8 [z, y, x].
        drawn: for this shape.
    """
    for axis in [0] * drawn.mirror + [2] * drawn.mirror_x:
        image, labels = image.flip(axis), labels.flip(axis)
    if drawn.crop is None and drawn.elastic is None:
        if drawn.plane is None:
            return image, labels
        grid = _grid_2d(image, drawn.plane)
    else:
        grid = _grid_3d(image, drawn)
    return _sample(image, grid, "bilinear"), _sample(labels.float(), grid, "nearest").to(labels.dtype)


def _sample(volume: torch.Tensor, grid: torch.Tensor, mode: str) -> torch.Tensor:
    """Values [z, y, x] at a grid [z, y, x, 3] or, for all slices alike, [y, x, 2]; "bilinear" is trilinear in 3D."""
    channels = volume[None] if grid.ndim == 3 else volume[None, None]  # a grid for one plane takes slices as channels
    moved = functional.grid_sample(channels, grid[None], mode, padding_mode="border", align_corners=False)
    return moved.reshape(volume.shape)


def _grid_2d(image: torch.Tensor, plane: NDArray[np.float64]) -> torch.Tensor:
    """Where each pixel of a slice comes from: float32 [y, x, 2]."""
    theta = torch.from_numpy(plane.astype(np.float32)).to(image.device, non_blocking=True)
    return functional.affine_grid(theta[None], [1, 1, *image.shape[1:]], align_corners=False)[0]


def _grid_3d(image: torch.Tensor, drawn: Warp) -> torch.Tensor:
    """Where each voxel comes from: float32 [z, y, x, 3], in (x, y, z) order."""
    z, y, x = image.shape
    start, stop = drawn.crop or (0, z)
    plane = np.eye(2, 3) if drawn.plane is None else drawn.plane
    depth = (stop - start) / z
    if drawn.elastic is None:
        source = torch.zeros((3, z, y, x), device=image.device)
    else:
        mix = np.zeros((3, 3), np.float32)
        mix[:2, :2], mix[2, 2] = plane[:, :2], depth
        mix *= 2 / np.array([x, y, z], np.float32)
        source = displacement(drawn.elastic, (z, y, x), torch.from_numpy(mix).to(image.device, non_blocking=True))
    source[:2] += _grid_2d(image, plane).permute(2, 0, 1)[:, None]
    source[2] += (depth * _centres(0, z, z, image.device) + (start + stop) / z - 1)[:, None, None]
    if drawn.crop is not None:  # what is beyond the crop is not there
        first, last = _centres(start, stop, z, "cpu")[[0, -1]].tolist()
        source[2].clamp_(first, last)
    return source.permute(1, 2, 3, 0)


def _centres(start: int, stop: int, size: int, device: torch.device | str) -> torch.Tensor:
    """Voxel centres of an axis of ``size`` voxels in units of half of it: float32."""
    return (torch.arange(start, stop, device=device) * 2 + 1) / size - 1
