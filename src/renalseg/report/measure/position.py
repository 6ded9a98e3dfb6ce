"""Where in its kidney a lesion lies: pole or middle, front or back.

Polar lines part a kidney at the axial levels where the renal sinus interrupts its medial lip (Kutikov and Uzzo 2009,
doi:10.1016/j.juro.2009.05.035). Front and back are told by the kidney's own frontal plane, which holds its long axis
and the direction to the hilum, since kidneys are turned about their long axis.
"""

import numpy as np
from numpy.typing import NDArray

from renalseg.report.measure.results import Face, Polar, PolarLines
from renalseg.report.measure.sinus import Sinus

Array = NDArray[np.float64]

LEAST_MAJORITY = 0.6
"""A lesion of which neither side of the frontal plane holds this share lies astride it. Ours."""

LEAST_ELONGATION = 1.15
"""Ratio of two axes of a cross-section below which it has no direction of its own. Ours."""

LEAST_FRONTAL = 0.3
"""Share of the frontal plane's normal that must point forward. Ours."""


def polar_lines(heights: Array, sinus: Sinus | None) -> PolarLines:
    """The polar lines: at the ends of the sinus's opening, else at the thirds of the kidney's length.

    Args:
        heights: S of RAS in mm of the parenchyma's voxels, float64 [n]; at least one.
        sinus: None where it was not found.
    """
    if sinus is not None and len(sinus.opening) and np.ptp(sinus.opening[:, 2]) > 0:
        return PolarLines(float(sinus.opening[:, 2].max()), float(sinus.opening[:, 2].min()), "sinus")
    low, high = float(heights.min()), float(heights.max())
    return PolarLines(low + (high - low) * 2 / 3, low + (high - low) / 3, "thirds")


def polar_position(heights: Array, lines: PolarLines) -> Polar:
    """The part that holds most of a lesion with voxels at ``heights`` (S of RAS, mm); the middle wins a draw."""
    upper, lower = int((heights > lines.upper_mm).sum()), int((heights < lines.lower_mm).sum())
    middle = len(heights) - upper - lower
    if middle >= max(upper, lower):
        return "mid"
    return "upper" if upper >= lower else "lower"


def frontal_normal(kidney: Array, sinus: Sinus | None) -> tuple[Array, Array] | None:
    """A point of the kidney's frontal plane and its normal, a unit vector that points forward.

    Args:
        kidney: points that fill its contour evenly, float64 [n, 3] in RAS mm.
        sinus: None where it was not found; then the wider axis of the cross-section stands for the hilum's direction.

    Returns:
        None where the plane has no certain direction.
    """
    middle = kidney.mean(axis=0)
    strength, axes = np.linalg.eigh(np.cov((kidney - middle).T))
    spread = np.sqrt(strength)
    long = axes[:, 2] if spread[2] > LEAST_ELONGATION * spread[1] else np.array([0.0, 0.0, 1.0])
    if sinus is not None:
        hilum = sinus.points.mean(axis=0) - middle
    elif spread[1] > LEAST_ELONGATION * spread[0]:
        hilum = axes[:, 1]
    else:
        return None
    normal = np.cross(long, hilum)
    length = float(np.linalg.norm(normal))
    if length < 1e-6 or abs(normal[1]) < LEAST_FRONTAL * length:
        return None
    return middle, normal / length * np.sign(normal[1])


def face(lesion: Array, middle: Array, normal: Array) -> Face | None:
    """The side of the frontal plane that holds most of a lesion's points [n, 3]; None where it lies astride."""
    before = float(((lesion - middle) @ normal > 0).mean())
    if max(before, 1 - before) < LEAST_MAJORITY:
        return None
    return "anterior" if before > 0.5 else "posterior"
