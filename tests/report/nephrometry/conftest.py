"""A kidney of known shape: an ellipsoid with an ellipsoidal hollow at its hilum, and balls as lesions."""

from collections.abc import Callable

import numpy as np
import pytest

from renalseg.core.labels import KIDNEY, TUMOR
from renalseg.core.volume import Volume

KIDNEY_MM = (26.0, 22.0, 52.0)
"""Half axes towards medial, anterior, superior."""

HOLLOW_AT_MM, HOLLOW_MM = (22.0, 0.0, 0.0), (20.0, 9.0, 18.0)
"""Centre and half axes of the sinus, from the kidney's centre: it reaches in to 2 mm medial of the centre."""

Ball = tuple[float, float, float, float]
"""Medial, anterior and superior of the kidney's centre, and radius, in mm."""

Make = Callable[..., Volume]


def phantom(
    *balls: Ball,
    side: str = "left",
    label: int = TUMOR,
    hollow: bool = True,
    spacing: float = 2.0,
    top_mm: float = 80.0,
) -> Volume:
    """A label map [z, y, x] of 160 x 100 x 240 mm with one kidney, whose centre lies at RAS (-170 or -70, -50, -80).

    Args:
        balls: lesions, painted over everything else.
        side: the patient's.
        label: of the lesions.
        hollow: whether the kidney has a sinus.
        spacing: of the grid in mm.
        top_mm: how far the volume reaches above the kidney's centre; with less than 52 the kidney is cut off.
    """
    sign = 1.0 if side == "left" else -1.0
    size = np.array([80.0 + top_mm, 100.0, 240.0])
    z, y, x = np.meshgrid(*(np.arange(0, n, spacing) for n in size), indexing="ij")
    across, forward, up = (170.0 if side == "left" else 70.0) - x, 50.0 - y, top_mm - z
    medial = sign * across
    labels = np.zeros(z.shape, np.uint8)
    labels[_within((medial, forward, up), (0, 0, 0), KIDNEY_MM)] = KIDNEY
    if hollow:
        labels[_within((medial, forward, up), HOLLOW_AT_MM, HOLLOW_MM)] = 0
    for *centre, radius in balls:
        labels[_within((medial, forward, up), centre, (radius,) * 3)] = label
    return Volume.from_array(labels, (spacing,) * 3, "phantom")


def _within(at, centre, half):
    """Where an ellipsoid is, bool."""
    return sum(((a - c) / h) ** 2 for a, c, h in zip(at, centre, half, strict=True)) < 1


@pytest.fixture(scope="session")
def make() -> Make:
    """``phantom``."""
    return phantom
