"""A CT of a chosen size with two kidneys that a threshold finds, and networks that were never trained."""

from pathlib import Path

import numpy as np

from renalseg.config import STAGES, Config
from renalseg.core.volume import Volume
from renalseg.model.checkpoint import save_stage
from renalseg.model.resunet import build

CASES: dict[str, tuple[int, float]] = {"median": (104, 3.0), "thin": (635, 0.8), "largest": (1059, 0.5)}
"""Slices and their spacing in mm of KiTS23's median case, of a thin one, and of its largest; 512 x 512 each."""

IN_PLANE, PIXEL_MM = 512, 0.78
TISSUE_HU, KIDNEY_HU, NOISE_HU = 20, 180, 15
KIDNEY_FROM = 0.2
"""Normalised intensity from which a voxel of the drawn CT is kidney: 110 HU, half-way from tissue."""


def draw_ct(slices: int, spacing_mm: float) -> Volume:
    """A CT of ``slices`` x 512 x 512, int16: two enhanced kidneys of 110 mm in a body of soft tissue, with noise."""
    generator = np.random.default_rng(0)
    y, x = np.ogrid[-1 : 1 : IN_PLANE * 1j, -1 : 1 : IN_PLANE * 1j]
    noise = generator.normal(0, NOISE_HU, (IN_PLANE, IN_PLANE + 97)).astype(np.int16)
    inside = (y / 0.75) ** 2 + (x / 0.9) ** 2 < 1
    plain = np.where(inside, TISSUE_HU, -1000).astype(np.int16)
    array = np.empty((slices, IN_PLANE, IN_PLANE), np.int16)
    for z in range(slices):
        array[z] = plain + noise[:, z % 97 : z % 97 + IN_PLANE]
        height = ((z + 0.5 - slices / 2) * spacing_mm / 55) ** 2
        for side in (-0.35, 0.35):
            kidney = ((y - 0.2) / 0.16) ** 2 + ((x - side) / 0.14) ** 2 + height < 1
            array[z][kidney] += KIDNEY_HU - TISSUE_HU
    return Volume.from_array(array, (spacing_mm, PIXEL_MM, PIXEL_MM), f"{slices}_slices")


def untrained(config: Config, folder: Path) -> Path:
    """A weights folder of ``config`` with networks as they are before training, to measure with."""
    for stage in STAGES:
        save_stage(folder, config, stage, build(config.network(stage)), {"cases": 0})
    return folder
