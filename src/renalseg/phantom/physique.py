"""The proportions of one body."""

from dataclasses import dataclass

import numpy as np

PERIRENAL_MM = (1.0, 40.0)
"""Thickness of the fat round the kidneys, from lean to obese."""
TRUNCATED_SHARE = 0.08
"""The share of bodies that are wider than the field of view."""


@dataclass(frozen=True)
class Physique:
    """Lengths in mm, in patient coordinates: x = 0 the midline, y = 0 the trunk's centre, z = 0 between the kidneys.

    Attributes:
        half: half depth and half width (y, x) of the skin.
        wall_half: half depth and half width of the muscular wall's outside.
        centre_y: y of that wall's centre.
        wall_mm: thickness of the muscular wall at the flank.
        cavity_half, cavity_y: the same for the abdominal cavity.
        spine_y: y of the vertebral bodies' centre.
        fat_mm: thickness of the fat round the kidneys.
        dome_z: height of the diaphragm's dome.
        crest_z: height of the iliac crests.
    """

    half: tuple[float, float]
    wall_half: tuple[float, float]
    centre_y: float
    wall_mm: float
    cavity_half: tuple[float, float]
    cavity_y: float
    spine_y: float
    fat_mm: float
    dome_z: float
    crest_z: float


def draw_physique(rng: np.random.Generator, field_mm: float, least: tuple[float, float] = (0.0, 0.0)) -> Physique:
    """Draws a body that fits a field of view; ``least`` is the half depth and width the kidneys need."""
    fills = rng.uniform(1.0, 1.2) if rng.uniform() < TRUNCATED_SHARE else rng.uniform(0.74, 1.0)
    width = float(np.clip(field_mm / 2 * fills, 145, 245))
    obesity = float(np.clip((width - 140) / 80 + rng.normal(0, 0.15), 0.02, 1.0))
    width = max(width, least[1] + 30)
    depth = max(width * float(rng.uniform(0.64, 0.82)), least[0] + 35)
    front, back, flank = (5 + o * obesity * float(rng.uniform(0.4, 1.3)) for o in (32, 22, 26))
    wall = (depth - (front + back) / 2, width - flank)
    centre = (front - back) / 2
    thick = float(rng.uniform(9, 17))
    spine = centre + wall[0] - float(rng.uniform(57, 67))
    top, bottom = centre - wall[0] + 0.7 * thick, spine + float(rng.uniform(27, 36))
    return Physique(
        half=(depth, width),
        wall_half=wall,
        centre_y=centre,
        wall_mm=thick,
        cavity_half=((bottom - top) / 2, wall[1] - thick),
        cavity_y=(top + bottom) / 2,
        spine_y=spine,
        fat_mm=float(np.interp(min(obesity * rng.uniform(0, 1.3), 1.0) ** 1.4, (0, 1), PERIRENAL_MM)),
        dome_z=float(rng.uniform(-165, -115)),
        crest_z=float(rng.uniform(75, 115)),
    )
