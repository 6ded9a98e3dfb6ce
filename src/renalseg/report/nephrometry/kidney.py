"""What the scores need of a kidney: polar lines, renal sinus, the way to the hilum, and its centre."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from renalseg.core.volume import Volume
from renalseg.report.measure.contour import Contour
from renalseg.report.measure.diameters import shifted
from renalseg.report.measure.results import KidneyMeasures
from renalseg.report.measure.shape import shape_of
from renalseg.report.measure.sinus import Sinus
from renalseg.report.sides import Kidney

Array = NDArray[np.float64]

CENTRE_STEP_MM = 1.0
"""Spacing of the points whose mean is the centre of a cross-section."""


@dataclass(frozen=True)
class Landmarks:
    """A kidney's landmarks, all of them found.

    Attributes:
        upper_mm: height of the upper polar line, superior in RAS mm: where the sinus begins to open.
        lower_mm: height of the lower one.
        sinus: the estimated renal sinus.
        contour: the estimated contour without its lesions' bulges.
        centre: RAS mm; the middle of the contour's cross-section halfway between the polar lines.
        medial: unit vector in the axial plane from the centre towards the sinus.
    """

    upper_mm: float
    lower_mm: float
    sinus: Sinus
    contour: Contour
    centre: Array
    medial: Array

    @property
    def midline_mm(self) -> float:
        """Height of the axial renal midline, halfway between the polar lines."""
        return (self.upper_mm + self.lower_mm) / 2


@dataclass(frozen=True)
class KidneyFacts:
    """One kidney as the scores see it.

    Attributes:
        labels: uint8 [z, y, x] of this kidney alone, without what is detached from it.
        affine: float64 [4, 4], index (z, y, x, 1) of ``labels`` to RAS mm.
        landmarks: None where one of them is missing.
        reason: why ``landmarks`` is None, as the end of a sentence.
    """

    labels: NDArray[np.uint8]
    affine: Array
    landmarks: Landmarks | None
    reason: str = ""


def kidney_facts(kidney: Kidney, measures: KidneyMeasures, labels: Volume) -> KidneyFacts:
    """Landmarks of ``kidney``, a part of the label map ``labels``, or the reason why there are none."""
    affine, own = shifted(labels.affine, kidney.start), kidney.attached
    if measures.touches_border:
        borders = " and ".join(measures.touches_border)
        reason = f"the kidney may be cut off by the {borders} border of the volume"
        return KidneyFacts(own, affine, None, reason)
    shape = shape_of(own, affine, measures.side, (), labels.voxel_mm3)
    if shape.sinus is None or shape.contour is None:
        reason = shape.reasons.get("sinus") or shape.reasons.get("contour", "its shape is not told")
        return KidneyFacts(own, affine, None, reason)
    if shape.lines is None or shape.lines.rule != "sinus":
        return KidneyFacts(own, affine, None, "the renal sinus has no opening to tell the polar lines by")
    found = _landmarks(shape.sinus, shape.contour, shape.lines.upper_mm, shape.lines.lower_mm)
    if isinstance(found, str):
        return KidneyFacts(own, affine, None, found)
    return KidneyFacts(own, affine, found)


def _landmarks(sinus: Sinus, contour: Contour, upper_mm: float, lower_mm: float) -> Landmarks | str:
    centre = section_centre(contour, (upper_mm + lower_mm) / 2)
    if centre is None:
        return "the kidney has no cross-section halfway between its polar lines"
    towards = (sinus.points.mean(axis=0) - centre) * (1, 1, 0)
    length = float(np.linalg.norm(towards))
    if length < CENTRE_STEP_MM:
        return "the renal sinus lies at the kidney's centre, so that medial and lateral are not told"
    return Landmarks(upper_mm, lower_mm, sinus, contour, centre, towards / length)


def section_centre(contour: Contour, height_mm: float) -> Array | None:
    """The middle in RAS mm of the contour's axial cross-section at a height; None where it does not reach there."""
    (left, back), (right, front) = contour.corners[:, :2].min(axis=0), contour.corners[:, :2].max(axis=0)
    x, y = np.meshgrid(np.arange(left, right, CENTRE_STEP_MM), np.arange(back, front, CENTRE_STEP_MM))
    points = np.column_stack([x.ravel(), y.ravel(), np.full(x.size, height_mm)])
    within = contour.contains(points)
    if not within.any():
        return None
    middle: Array = points[within].mean(axis=0)
    return middle
