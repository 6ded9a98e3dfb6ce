"""The continuous values of one lesion that all scores are made of."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from renalseg.core.volume import Volume
from renalseg.report.measure.contour import contour_of
from renalseg.report.measure.diameters import sampled, shifted, surface
from renalseg.report.measure.lesions import lesion_mask
from renalseg.report.measure.results import Lesion, Point
from renalseg.report.measure.sinus import half_voxels_mm
from renalseg.report.nephrometry.kidney import Landmarks

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Findings:
    """One lesion against its kidney's landmarks.

    Attributes:
        between: share of its volume between the polar lines, 0 to 1.
        above_midline: share of its volume above the axial renal midline, 0 to 1.
        bottom_mm, top_mm: its lowest and highest voxel, superior in RAS mm.
        sinus_mm: distance between its surface and the sinus; 0 where they touch.
        nearest: the voxel of the lesion and the point of the sinus that are nearest to each other, RAS mm.
        outside: the middle of what lies outside the kidney's contour, RAS mm; None where nothing does.
        dent_ml: its volume within the convex hull of the sinus: what has been pressed in or has grown in.
        dent: the middle of that, RAS mm; None where there is none.
        hilum_mm: distance from its surface to the middle of the sinus's opening.
        hilum: that middle, RAS mm.
        medial_mm: how far its centre lies to the medial side of the kidney's centre; negative on the lateral side.
        centre_mm: distance between both centres.
    """

    between: float
    above_midline: float
    bottom_mm: float
    top_mm: float
    sinus_mm: float
    nearest: tuple[Point, Point]
    outside: Point | None
    dent_ml: float
    dent: Point | None
    hilum_mm: float
    hilum: Point
    medial_mm: float
    centre_mm: float


def findings(lesion: Lesion, labels: Volume, marks: Landmarks) -> Findings:
    """Measures ``lesion`` of the label map ``labels`` against the landmarks of its kidney.

    Raises:
        InputError: the label map has no such lesion.
    """
    mask = lesion_mask(labels, lesion)
    affine = shifted(labels.affine, lesion.box.start)
    points, own = sampled(mask, affine), surface(mask, affine)
    heights = points[:, 2]
    sinus_mm, here, there = marks.sinus.nearest(own, labels.voxel_mm3)
    hilum = marks.sinus.opening.mean(axis=0)
    away = np.asarray(lesion.centroid_ras_mm) - marks.centre
    hull = contour_of(marks.sinus.points)
    dent = points[hull.contains(points)] if hull else points[:0]
    outside = points[~marks.contour.contains(points)]
    return Findings(
        between=float(((heights >= marks.lower_mm) & (heights <= marks.upper_mm)).mean()),
        above_midline=float((heights > marks.midline_mm).mean()),
        bottom_mm=float(heights.min()),
        top_mm=float(heights.max()),
        sinus_mm=sinus_mm,
        nearest=(point(here), point(there)),
        outside=point(outside.mean(axis=0)) if len(outside) else None,
        dent_ml=lesion.volume_ml * len(dent) / len(points),
        dent=point(dent.mean(axis=0)) if len(dent) else None,
        hilum_mm=max(0.0, float(np.linalg.norm(own - hilum, axis=1).min()) - half_voxels_mm(labels.voxel_mm3)),
        hilum=point(hilum),
        medial_mm=float(away @ marks.medial),
        centre_mm=float(np.linalg.norm(away)),
    )


def point(where: Array) -> Point:
    """Three coordinates as a tuple."""
    x, y, z = where.tolist()
    return float(x), float(y), float(z)
