"""From a KiTS23-layout dataset to small arrays that training reads: each case resampled once to both grids.

The coarse arrays serve the coarse stage, the fine ones the kidney and lesion stages. Both keep the labels of the label
table, so that augmentation can tell lesions apart; ``targets`` turns them into what a stage learns.
"""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray

from renalseg.config import Config, Stage
from renalseg.core.labels import BACKGROUND, KIDNEY
from renalseg.core.volume import Volume
from renalseg.image.boxes import Box, bounding_box, grow
from renalseg.image.intensity import normalise
from renalseg.image.resample import resize
from renalseg.predict.coarse import perfect_mask

IGNORE = 255
"""Target value of voxels that do not enter the loss."""

RIM = 4
"""Cached label of background within ``ignore_beyond_mm`` of a kidney or mass: the lesion stage counts it, as other."""


def coarse_arrays(ct: Volume, labels: Volume, config: Config) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """The whole volume at the coarse shape: image in [-1, 1] and labels 0 to 3, both [z, y, x].

    A voxel is kidney or mass where they fill half of it or more, and then carries the largest of the three labels.
    """
    image = normalise(_resized(ct.array, config.coarse.shape), config.intensity)
    shares = _shares(labels.array, config.coarse.shape)
    which = shares[1:].argmax(0) + KIDNEY
    found = torch.where(perfect_mask(labels, config), which, BACKGROUND)
    return image.half().numpy(), found.to(torch.uint8).numpy()


def fine_arrays(
    ct: Volume, labels: Volume, config: Config, box: Box | None = None
) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """The region of interest resampled in plane only: image in [-1, 1] and labels 0 to 3 and ``RIM``, both [z, y, x].

    Args:
        ct: in HU.
        labels: of the label table, on the same grid.
        config: the settings.
        box: the region; None takes ``training_box``.
    """
    box = box or training_box(labels, config, seed=ct.name)
    shape = (box.shape[0], *config.fine.in_plane)
    image = normalise(_resized(ct.array[box.slices], shape), config.intensity).half().numpy()
    found = _shares(labels.array[box.slices], shape).argmax(0).to(torch.uint8).numpy()
    pixel = [s * n / m for s, n, m in zip(ct.spacing_mm, box.shape, shape, strict=True)]
    near = _within(found > BACKGROUND, config.training["lesion"].ignore_beyond_mm, pixel)
    return image, np.where(near & (found == BACKGROUND), RIM, found).astype(np.uint8)


def targets(labels: torch.Tensor, stage: Stage) -> torch.Tensor:
    """What a stage learns of cached ``labels``, uint8 of the same shape.

    Coarse and kidney: 1 for kidney and masses, else 0. Lesion: 0 other kidney (and the rim), 1 tumor, 2 cyst, and
    ``IGNORE`` in the background beyond the rim (method notes, section 3).
    """
    if stage == "lesion":
        table = torch.tensor([IGNORE, 0, 1, 2, 0], dtype=torch.uint8)
    else:
        table = torch.tensor([0, 1, 1, 1, 0], dtype=torch.uint8)
    return table.to(labels.device, non_blocking=True)[labels.long()]


def training_box(labels: Volume, config: Config, seed: str) -> Box:
    """The box round the true kidneys with the margin of testing, each side moved by the configured jitter.

    A case without kidneys gives a box in the middle of the volume, of a kidney pair's usual size: it teaches the
    fine stages what a false alarm of the coarse stage looks like.
    """
    generator = np.random.default_rng(list(hashlib.sha256(seed.encode()).digest()[:8]))
    exact = bounding_box(labels.array > 0)
    if exact is None:
        sizes = zip(labels.shape, (60, 50, 110), labels.spacing_mm, strict=True)
        half = [min(n // 2, round(mm / s)) for n, mm, s in sizes]
        z, y, x = (n // 2 for n in labels.shape)
        exact = Box((z - half[0], y - half[1], x - half[2]), (z + half[0], y + half[1], x + half[2]))
    jitter = config.preparation.margin_jitter
    low, high = (tuple(float(m * generator.uniform(*jitter)) for m in config.coarse.margin_mm) for _ in range(2))
    first = grow(exact, (low[0], low[1], low[2]), labels.spacing_mm, labels.shape)
    second = grow(exact, (high[0], high[1], high[2]), labels.spacing_mm, labels.shape)
    return Box(first.start, second.stop)


def _resized(hu: NDArray[np.generic], shape: tuple[int, int, int]) -> torch.Tensor:
    return resize(torch.from_numpy(np.ascontiguousarray(hu)), shape)


def _shares(labels: NDArray[np.uint8], shape: tuple[int, int, int]) -> torch.Tensor:
    """The share of each label in each new voxel, float32 [label, z, y, x]."""
    return torch.stack([_resized(labels == i, shape) for i in range(4)])


def _within(mask: NDArray[np.bool_], distance_mm: float, spacing_mm: list[float]) -> NDArray[np.bool_]:
    """Voxels within ``distance_mm`` of ``mask``."""
    from scipy.ndimage import distance_transform_edt

    if not mask.any():
        return mask
    result: NDArray[np.bool_] = distance_transform_edt(~mask, sampling=spacing_mm) <= distance_mm
    return result
