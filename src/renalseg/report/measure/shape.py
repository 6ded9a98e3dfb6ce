"""What the position of a lesion is told by: contour, sinus, polar lines and frontal plane of its kidney."""

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray

from renalseg.core.labels import KIDNEY, MASSES
from renalseg.report.measure.contour import Contour, parenchyma_contour
from renalseg.report.measure.diameters import row_ends, to_world
from renalseg.report.measure.grid import WorldGrid, world_grid
from renalseg.report.measure.position import frontal_normal, polar_lines
from renalseg.report.measure.restore import restored
from renalseg.report.measure.results import PolarLines
from renalseg.report.measure.sinus import Sinus, find_sinus, inside
from renalseg.report.sides import Side

Array = NDArray[np.float64]

SMALLEST_PARENCHYMA_ML = 20.0
"""With less, no shape of a kidney is left to tell positions by: a whole one has 100 to 250 ml. Ours."""

SMALLEST_PART_ML = 1.0
"""Smaller detached pieces of parenchyma do not shape the contour. Ours."""


@dataclass(frozen=True)
class KidneyShape:
    """A kidney's landmarks; each is None where it could not be had, and ``reasons`` says why by its name.

    Attributes:
        contour: the estimated contour before lesions bulged out of it.
        sinus: the estimated renal sinus.
        lines: the polar lines.
        frontal: a point and the normal (forward) of the frontal plane.
        reasons: "contour", "sinus", "lines" or "frontal" to a sentence without its full stop.
    """

    contour: Contour | None
    sinus: Sinus | None
    lines: PolarLines | None
    frontal: tuple[Array, Array] | None
    reasons: dict[str, str]


def shape_of(
    labels: NDArray[np.uint8], affine: Array, side: Side, touches_border: tuple[str, ...], voxel_mm3: float
) -> KidneyShape:
    """The landmarks of one kidney.

    Args:
        labels: its label map [z, y, x], other kidneys 0.
        affine: float64 [4, 4], index (z, y, x, 1) of ``labels`` to RAS mm.
        side: "both" has no landmarks.
        touches_border: the borders of the volume that it reaches.
        voxel_mm3: volume of a voxel.
    """
    if side == "both":
        return _without("the two kidneys form one piece, whose landmarks are not told apart")
    parenchyma, ml = _parts(labels == KIDNEY, voxel_mm3)
    hull = parenchyma_contour(parenchyma, affine) if ml >= SMALLEST_PARENCHYMA_ML else None
    if hull is None:
        return _without(f"too little parenchyma is labelled ({ml:.1f} ml) to tell the shape of the kidney")
    grid, reasons = world_grid(labels, affine), dict[str, str]()
    found = find_sinus(grid, hull, side)
    sinus = None if isinstance(found, str) else found
    if isinstance(found, str):
        reasons["sinus"] = found
    contour = _contour(grid, hull)
    if contour is None:
        reasons["contour"] = "too little of the kidney's surface is left to restore its contour"
    lines = None
    if sinus is not None or not {"superior", "inferior"} & set(touches_border):
        lines = polar_lines(to_world(affine, row_ends(parenchyma))[:, 2], sinus)
    else:
        reasons["lines"] = "the kidney is cut off by the border, and its sinus was not found"
    frontal = frontal_normal(grid.points(inside(grid, contour or hull)), sinus)
    if frontal is None:
        reasons["frontal"] = "the kidney's frontal plane has no certain direction"
    return KidneyShape(contour, sinus, lines, frontal, reasons)


def _contour(grid: WorldGrid, hull: Contour) -> Contour | None:
    return restored(hull, grid.points(grid.labels == KIDNEY), grid.points(MASSES.mask(grid.labels)))


def _parts(parenchyma: NDArray[np.bool_], voxel_mm3: float) -> tuple[NDArray[np.bool_], float]:
    """The larger pieces of a mask [z, y, x], and their volume in ml."""
    pieces = cc3d.connected_components(np.ascontiguousarray(parenchyma), connectivity=26)
    ml = np.bincount(pieces.ravel()) * voxel_mm3 / 1000
    ml[0] = 0
    large = ml >= SMALLEST_PART_ML
    return large[pieces], float(ml[large].sum())


def _without(reason: str) -> KidneyShape:
    return KidneyShape(None, None, None, None, dict.fromkeys(("contour", "sinus", "lines", "frontal"), reason))
