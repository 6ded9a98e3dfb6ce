"""Slices to one regular stack: sorted along the normal, complete, evenly spaced, and its affine."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from renalseg.core.errors import GeometryError, InputError
from renalseg.io.dicom_slices import Slice
from renalseg.io.itk import LPS_TO_RAS

SAME_POSITION_MM = 0.01
UNEVEN_MM, UNEVEN_FRACTION = 0.1, 0.01
SHIFT_MM = 0.5
SHEAR_FRACTION = 0.01


def sort_slices(slices: list[Slice], path: Path) -> list[Slice]:
    """Sorts along the slice normal, after a check that all slices are parallel and of one shape and pixel spacing.

    Raises:
        InputError: mixed orientations (as with a localizer), shapes or pixel spacings.
    """
    first = slices[0]
    axes = np.array([np.concatenate([s.row, s.column]) for s in slices])
    turned = np.abs(axes - np.median(axes, axis=0)).max(axis=1) > 1e-2
    if turned.any():
        names = _listed([s.file for s, is_turned in zip(slices, turned, strict=True) if is_turned])
        raise InputError(f"{path} mixes slice orientations (see {names}); take localizers out of the series.")
    shapes = sorted({s.shape for s in slices})
    if len(shapes) > 1:
        listed = ", ".join(f"{rows} x {columns}" for rows, columns in shapes)
        raise InputError(f"{path} mixes slices of {listed} pixels; give a single series.")
    spacings = np.array([s.spacing_mm for s in slices])
    if not np.allclose(spacings, spacings[0], rtol=1e-3):
        listed = ", ".join(f"{a:g} x {b:g}" for a, b in np.unique(spacings, axis=0)[:4])
        raise InputError(f"{path} mixes pixel spacings ({listed} mm); give a single series.")
    normal = np.cross(first.row, first.column)
    return sorted(slices, key=lambda s: float(s.position_mm @ normal))


def same_position(slices: list[Slice]) -> list[tuple[int, int]]:
    """Pairs of neighbours, by index in the sorted list, that lie at one position."""
    positions = along_normal(slices)
    return [(i, i + 1) for i in range(len(slices) - 1) if positions[i + 1] - positions[i] < SAME_POSITION_MM]


def along_normal(slices: list[Slice]) -> NDArray[np.float64]:
    """Positions in mm along the slice normal."""
    normal = np.cross(slices[0].row, slices[0].column)
    return np.array([s.position_mm @ normal for s in slices])


def stack_affine(slices: list[Slice], path: Path) -> tuple[NDArray[np.float64], list[str]]:
    """The affine of sorted slices without duplicates, index (column, row, slice, 1) to RAS mm, and warnings.

    A tilted gantry gives a sheared affine: slices stay where they were taken.

    Raises:
        InputError: slices are missing.
        GeometryError: slices are unevenly spaced, or shifted against each other.
    """
    _check_even(along_normal(slices), path)
    first = slices[0]
    positions = np.array([s.position_mm for s in slices])
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    off = positions - (positions[0] + np.arange(len(slices))[:, None] * step)
    normal = np.cross(first.row, first.column)
    in_plane = np.linalg.norm(off - np.outer(off @ normal, normal), axis=1)
    if in_plane.max() > SHIFT_MM:
        worst = slices[int(in_plane.argmax())].file
        raise GeometryError(
            f"{path} holds slices shifted sideways by up to {in_plane.max():.2f} mm (see {worst}); export it again."
        )
    affine = np.eye(4)
    affine[:3, 0] = first.row * first.spacing_mm[1]
    affine[:3, 1] = first.column * first.spacing_mm[0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    warnings = _tilt_warnings(step, normal, first.tilt_deg) + _gap_warnings(slices, float(np.linalg.norm(step)))
    return LPS_TO_RAS @ affine, warnings


def _check_even(positions: NDArray[np.float64], path: Path) -> None:
    steps = np.diff(positions)
    step = float(np.median(steps))
    gaps = np.flatnonzero(steps > 1.5 * step)
    if gaps.size:
        listed = _listed([f"{positions[i]:.2f} and {positions[i + 1]:.2f} mm" for i in gaps])
        missing = int(np.rint(steps[gaps] / step - 1).sum())
        raise InputError(
            f"{path} lacks about {missing} slices (slice spacing {step:g} mm, nothing between {listed} along the "
            "slice normal); add them or export the series again."
        )
    if np.abs(steps - step).max() > max(UNEVEN_MM, UNEVEN_FRACTION * step):
        raise GeometryError(
            f"{path} has unevenly spaced slices ({steps.min():.3f} to {steps.max():.3f} mm apart); "
            "give a series with even spacing."
        )


def _gap_warnings(slices: list[Slice], step_mm: float) -> list[str]:
    """Whether every second slice, or so, seems to be missing: even steps hide that, the headers may tell."""
    stated = slices[0].step_mm
    numbers = [s.number for s in slices if s.number is not None]
    skipped = len(numbers) == len(slices) and np.abs(np.diff(numbers)).min() > 1
    if stated is None or step_mm <= 1.5 * stated or not skipped:
        return []
    return [
        f"Slices lie {step_mm:g} mm apart, the headers state {stated:g} mm and their numbers leave gaps: every second "
        "slice, or more, may be missing."
    ]


def _tilt_warnings(step: NDArray[np.float64], normal: NDArray[np.float64], tilt_deg: float) -> list[str]:
    length = float(np.linalg.norm(step))
    shear = float(np.linalg.norm(step - (step @ normal) * normal)) / length
    if shear > SHEAR_FRACTION:
        angle = np.degrees(np.arcsin(min(shear, 1.0)))
        return [f"The slices are stacked at {angle:.1f} degrees to their normal (tilted gantry); the grid is sheared."]
    if abs(tilt_deg) > np.degrees(np.arcsin(SHEAR_FRACTION)):
        return [f"The header states a gantry tilt of {tilt_deg:g} degrees, yet slices are stacked straight; no shear."]
    return []


def _listed(items: list[str], most: int = 3) -> str:
    return "; ".join(items[:most]) + (f"; and {len(items) - most} more" if len(items) > most else "")
