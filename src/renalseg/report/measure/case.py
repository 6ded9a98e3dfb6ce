"""``measure``: everything that is measured of one label map."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from renalseg.core.errors import GeometryError
from renalseg.core.labels import KIDNEY, LABELS
from renalseg.core.volume import Volume
from renalseg.image.boxes import Box, bounding_box, clamp
from renalseg.report.measure.contact import contact_area, reach
from renalseg.report.measure.diameters import (
    axial_diameter,
    craniocaudal_mm,
    diameter_3d,
    sampled,
    shifted,
    surface,
    to_world,
)
from renalseg.report.measure.lesions import SMALLEST_LESION_ML, Piece, intensity, pieces
from renalseg.report.measure.position import face, polar_position
from renalseg.report.measure.results import KidneyMeasures, Kind, Lesion, Measurements, Point
from renalseg.report.measure.shape import KidneyShape, shape_of
from renalseg.report.sides import FARTHEST_PIECE_MM, Kidney, Side, kidney_sides

Array = NDArray[np.float64]

BORDERS = (("superior", "inferior"), ("anterior", "posterior"), ("right", "left"))
"""What lies before the first and after the last index of each axis of the canonical array."""

GRID_TOLERANCE_MM = 0.1

SMALLEST_DETACHED_ML = 1.0
"""What is detached from a kidney is told from here on. In 122 label maps of KiTS23 it is 0.43 ml at most."""

DETACHED = "The lesion is detached from the kidney, so that its place in it is not told."


@dataclass(frozen=True)
class _Part:
    """A kidney at work: its ``labels`` [z, y, x] begin at ``start``; ``affine`` maps their index to RAS mm.

    ``body`` [z, y, x] is the piece that its ``shape`` is told of.
    """

    labels: NDArray[np.uint8]
    body: NDArray[np.bool_]
    start: tuple[int, int, int]
    affine: Array
    side: Side
    shape: KidneyShape


def measure(labels: Volume, ct: Volume | None = None) -> Measurements:
    """Measures kidneys, tumors and cysts; how is told in docs/measurements.md.

    Args:
        labels: label map [z, y, x] on its grid; see ``core.labels``. Oblique and sheared grids are measured truly.
        ct: the CT on the same grid in HU, for the intensities under the lesions.

    Raises:
        GeometryError: the CT lies on another grid.
    """
    if ct is not None and not labels.same_grid(ct, GRID_TOLERANCE_MM):
        raise GeometryError(
            f"{labels.name}: the labels {labels.shape} and the CT {ct.shape} lie on different grids; "
            "give the CT that was segmented."
        )
    kidneys: list[KidneyMeasures] = []
    lesions: list[Lesion] = []
    warnings: list[str] = []
    for kidney in kidney_sides(labels):
        measures, part = _kidney(kidney, labels)
        found, fragments = pieces(kidney.labels, labels.voxel_mm3)
        kidneys.append(measures)
        lesions += [_lesion(piece, part, labels, ct) for piece in found]
        warnings += _warnings(kidney, measures, fragments, labels.voxel_mm3)
    order = sorted(lesions, key=lambda lesion: -lesion.voxels)
    numbered = tuple(replace(lesion, id=i) for i, lesion in enumerate(order, 1))
    return Measurements(labels.name, tuple(kidneys), numbered, tuple(warnings))


def _kidney(kidney: Kidney, labels: Volume) -> tuple[KidneyMeasures, _Part]:
    """Measures of a kidney, and what its lesions need of it."""
    side, start = kidney.side, kidney.start
    affine = shifted(labels.affine, start)
    attached = kidney.attached
    around = bounding_box(attached > 0)
    assert around is not None
    touches = tuple(
        name
        for (first, last), offset, a, b, n in zip(BORDERS, start, around.start, around.stop, labels.shape, strict=True)
        for name, hit in ((first, offset + a == 0), (last, offset + b == n))
        if hit
    )
    shape = shape_of(attached, affine, side, touches, labels.voxel_mm3)
    parenchyma = attached == KIDNEY
    volumes = {_name(label.id, label.name): kidney.volumes_ml[label.name] for label in LABELS}
    measures = KidneyMeasures(
        side=side,
        note=kidney.note,
        volumes_ml={**volumes, "total": sum(volumes.values())},
        length_mm=craniocaudal_mm(parenchyma if parenchyma.any() else attached > 0, affine),
        touches_border=touches,
        centroid_ras_mm=_mean(to_world(affine, np.argwhere(kidney.labels > 0))),
        polar_lines=shape.lines,
    )
    return measures, _Part(kidney.labels, kidney.body, start, affine, side, shape)


def _lesion(piece: Piece, part: _Part, labels: Volume, ct: Volume | None) -> Lesion:
    """Everything about one lesion; its ``id`` is set later."""
    affine = shifted(part.affine, piece.box.start)
    start = [a + b for a, b in zip(part.start, piece.box.start, strict=True)]
    box = Box((start[0], start[1], start[2]), _add(start, piece.box.shape))
    centroid = _mean(to_world(affine, np.argwhere(piece.mask)))
    lesion = Lesion(
        id=1,
        kind=piece.kind,
        side=part.side,
        volume_ml=piece.voxels * labels.voxel_mm3 / 1000,
        voxels=piece.voxels,
        centroid_ras_mm=centroid,
        box=box,
        axial_diameter=axial_diameter(piece.mask, affine, box.start[0]),
        diameter_3d=diameter_3d(piece.mask, affine),
        craniocaudal_mm=craniocaudal_mm(piece.mask, affine),
        hu=None if ct is None else intensity(ct.array[box.slices][piece.mask]),
        contact_area_mm2=_contact(piece, part),
        detached=not part.body[piece.box.slices][piece.mask].any(),
    )
    notes = ["hu: no CT was given."] if ct is None else []
    if ct is not None and lesion.hu is None:
        notes = ["hu: the CT holds no finite value here."]
    if any(a == 0 or b == n for a, b, n in zip(box.start, box.stop, labels.shape, strict=True)):
        notes.append("The lesion reaches the border of the volume: its measures are those of the part that is seen.")
    return _positioned(replace(lesion, notes=tuple(notes)), piece, affine, part.shape, labels.voxel_mm3)


def _positioned(lesion: Lesion, piece: Piece, affine: Array, shape: KidneyShape, voxel_mm3: float) -> Lesion:
    """Adds what is told by the kidney's landmarks, or the notes that say why not."""
    if lesion.detached:
        return replace(lesion, notes=(*lesion.notes, DETACHED))
    points = sampled(piece.mask, affine)
    side = face(points, *shape.frontal) if shape.frontal else None
    reasons = {
        "exophytic_share": shape.reasons.get("contour"),
        "sinus_distance_mm": shape.reasons.get("sinus"),
        "polar": shape.reasons.get("lines"),
        "face": shape.reasons.get("frontal"),
    }
    if shape.frontal and side is None:
        reasons["face"] = "the lesion lies astride the kidney's frontal plane"
    notes = [f"{name}: {reason}." for name, reason in reasons.items() if reason]
    if shape.lines is not None and shape.lines.rule == "thirds":
        missing = "has no opening" if shape.sinus else "was not found"
        notes.append(f"polar: told by the thirds of the kidney's length, since the renal sinus {missing}.")
    return replace(
        lesion,
        polar=polar_position(points[:, 2], shape.lines) if shape.lines else None,
        face=side,
        exophytic_share=1 - float(shape.contour.contains(points).mean()) if shape.contour else None,
        sinus_distance_mm=shape.sinus.nearest(surface(piece.mask, affine), voxel_mm3)[0] if shape.sinus else None,
        notes=(*lesion.notes, *notes),
    )


def _contact(piece: Piece, part: _Part) -> float:
    """Area in mm2 that a lesion shares with the parenchyma of its kidney."""
    steps = reach(part.affine[:3, :3])
    low = [a - r for a, r in zip(piece.box.start, steps, strict=True)]
    high = [b + r for b, r in zip(piece.box.stop, steps, strict=True)]
    around = clamp(Box((low[0], low[1], low[2]), (high[0], high[1], high[2])), _shape(part.labels))
    lesion = np.zeros(around.shape, np.bool_)
    inner = tuple(slice(a - o, b - o) for a, b, o in zip(piece.box.start, piece.box.stop, around.start, strict=True))
    lesion[inner] = piece.mask
    return contact_area(lesion, part.labels[around.slices] == KIDNEY, part.affine[:3, :3])


def _warnings(
    kidney: Kidney, measures: KidneyMeasures, fragments: dict[Kind, list[float]], voxel_mm3: float
) -> list[str]:
    name = {"right": "The right kidney", "left": "The left kidney", "both": "The piece of both kidneys"}[kidney.side]
    found = [
        f"{name}: {len(ml)} fragment{'s' if len(ml) > 1 else ''} labelled {kind} under {SMALLEST_LESION_ML} ml "
        f"({sum(ml):.4f} ml together) are in the volumes and not in the lesions."
        for kind, ml in fragments.items()
    ]
    detached = int(((kidney.labels > 0) & ~kidney.body).sum()) * voxel_mm3 / 1000
    if detached >= SMALLEST_DETACHED_ML:
        found.append(
            f"{name}: {detached:.1f} ml lie more than {FARTHEST_PIECE_MM:.0f} mm away from it; "
            "they are in the volumes, but not in its length, its landmarks and the nephrometry."
        )
    if measures.touches_border:
        borders = " and ".join(measures.touches_border)
        found.append(f"{name} reaches the {borders} border of the volume: it may be cut off.")
    return found


def _name(label: int, name: str) -> str:
    return "parenchyma" if label == KIDNEY else name


def _add(start: list[int], size: tuple[int, int, int]) -> tuple[int, int, int]:
    return start[0] + size[0], start[1] + size[1], start[2] + size[2]


def _shape(array: NDArray[np.uint8]) -> tuple[int, int, int]:
    return array.shape[0], array.shape[1], array.shape[2]


def _mean(points: Array) -> Point:
    x, y, z = points.mean(axis=0)
    return float(x), float(y), float(z)
