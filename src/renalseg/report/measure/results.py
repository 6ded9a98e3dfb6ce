"""What is measured of a label map, as frozen dataclasses, and the dictionary that ``schema.json`` describes.

Points are world coordinates in mm, right-anterior-superior as in NIfTI; lengths are mm, areas mm2, volumes ml.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from json import loads
from typing import Any, Literal

from renalseg.core.errors import InputError
from renalseg.core.notice import NOTICE
from renalseg.image.boxes import Box
from renalseg.report.sides import Side

SCHEMA = "renalseg-measurements/1"
HU_KEYS = ("mean", "sd", "p5", "p25", "median", "p75", "p95")

Point = tuple[float, float, float]
Kind = Literal["tumor", "cyst"]
Polar = Literal["upper", "mid", "lower"]
Face = Literal["anterior", "posterior"]


@dataclass(frozen=True)
class Diameter:
    """A largest diameter.

    Attributes:
        mm: its length.
        ends_ras_mm: its two ends, RAS mm; they lie ``mm`` apart.
        slice: the axial slice ``array[slice]`` it was measured in; None for one through the volume.
    """

    mm: float
    ends_ras_mm: tuple[Point, Point]
    slice: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        ends = [_point(end) for end in self.ends_ras_mm]
        found: dict[str, Any] = {"mm": round(self.mm, 3), "ends_ras_mm": ends}
        return found if self.slice is None else {**found, "slice": self.slice}


@dataclass(frozen=True)
class PolarLines:
    """The two axial levels that part a kidney into upper pole, middle and lower pole.

    Attributes:
        upper_mm: height of the upper line, superior in RAS mm.
        lower_mm: height of the lower line, superior in RAS mm.
        rule: "sinus" where the lines bound the sinus's opening, "thirds" of the kidney's length where it was not found.
    """

    upper_mm: float
    lower_mm: float
    rule: Literal["sinus", "thirds"]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"upper_mm": round(self.upper_mm, 3), "lower_mm": round(self.lower_mm, 3), "rule": self.rule}


@dataclass(frozen=True)
class KidneyMeasures:
    """One kidney with its masses.

    Attributes:
        side: the patient's; "both" where two form one piece.
        note: what is special about it, or an empty string.
        volumes_ml: of "parenchyma", "tumor", "cyst" and "total".
        length_mm: extent of the parenchyma from cranial to caudal; of everything where no parenchyma is labelled.
            What is detached does not count.
        touches_border: borders of the volume that the kidney or a mass of it reaches, so that it may be cut off.
        centroid_ras_mm: of all its voxels, masses included.
        polar_lines: None where no parenchyma is labelled.
    """

    side: Side
    note: str
    volumes_ml: Mapping[str, float]
    length_mm: float
    touches_border: tuple[str, ...]
    centroid_ras_mm: Point
    polar_lines: PolarLines | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "side": self.side,
            "note": self.note,
            "volumes_ml": {name: round(ml, 4) for name, ml in self.volumes_ml.items()},
            "length_mm": round(self.length_mm, 3),
            "touches_border": list(self.touches_border),
            "centroid_ras_mm": _point(self.centroid_ras_mm),
            "polar_lines": None if self.polar_lines is None else self.polar_lines.as_dict(),
        }


@dataclass(frozen=True)
class Lesion:
    """One lesion: a connected piece of one kind. ``notes`` say why a value is None.

    Attributes:
        id: from 1, the largest lesion first.
        kind: tumor or cyst, as labelled.
        side: of the kidney that it belongs to.
        volume_ml: of its voxels.
        voxels: their number.
        centroid_ras_mm: of its voxels.
        box: half-open box of its voxels in the canonical array, [z, y, x].
        axial_diameter: the largest in any axial slice.
        diameter_3d: the largest in any direction.
        craniocaudal_mm: its extent from cranial to caudal.
        polar: the part of the kidney that holds most of it.
        face: the side of the kidney's frontal plane that holds most of it.
        hu: ``HU_KEYS`` of the CT under it; None without a CT.
        exophytic_share: share of its volume beyond the kidney's estimated original contour, 0 to 1.
        contact_area_mm2: area of its surface that borders on parenchyma.
        detached: whether it lies too far away from the kidney to belong to it; then its place in it is not told.
        sinus_distance_mm: from its surface to the estimated renal sinus; 0 where they touch.
        nephrometry: scores from ``report.nephrometry``, set by the caller.
        notes: sentences.
    """

    id: int
    kind: Kind
    side: Side
    volume_ml: float
    voxels: int
    centroid_ras_mm: Point
    box: Box
    axial_diameter: Diameter
    diameter_3d: Diameter
    craniocaudal_mm: float
    polar: Polar | None = None
    face: Face | None = None
    hu: Mapping[str, float] | None = None
    exophytic_share: float | None = None
    contact_area_mm2: float | None = None
    detached: bool = False
    sinus_distance_mm: float | None = None
    nephrometry: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "id": self.id,
            "kind": self.kind,
            "side": self.side,
            "volume_ml": round(self.volume_ml, 4),
            "voxels": self.voxels,
            "centroid_ras_mm": _point(self.centroid_ras_mm),
            "box_zyx": {"start": list(self.box.start), "stop": list(self.box.stop)},
            "axial_diameter": self.axial_diameter.as_dict(),
            "diameter_3d": self.diameter_3d.as_dict(),
            "craniocaudal_mm": round(self.craniocaudal_mm, 3),
            "polar": self.polar,
            "face": self.face,
            "hu": None if self.hu is None else {key: round(self.hu[key], 2) for key in HU_KEYS},
            "exophytic_share": _rounded(self.exophytic_share),
            "contact_area_mm2": _rounded(self.contact_area_mm2),
            "detached": self.detached,
            "sinus_distance_mm": _rounded(self.sinus_distance_mm),
            "nephrometry": None if self.nephrometry is None else dict(self.nephrometry),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Measurements:
    """Everything measured of one case.

    Attributes:
        case: its name.
        kidneys: right before left; one for a solitary or fused kidney; none without labels.
        lesions: of all kidneys, largest first.
        warnings: what a reader must know, in sentences: fragments that were left out, kidneys cut off.
    """

    case: str
    kidneys: tuple[KidneyMeasures, ...] = ()
    lesions: tuple[Lesion, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    def with_nephrometry(self, scores: Sequence[Mapping[str, Any] | None]) -> "Measurements":
        """The same with one dictionary of scores for each lesion, in the order of ``lesions``.

        Raises:
            InputError: their numbers differ.
        """
        if len(scores) != len(self.lesions):
            raise InputError(
                f"{self.case}: {len(scores)} nephrometry scores for {len(self.lesions)} lesions; give one a lesion."
            )
        lesions = (replace(lesion, nephrometry=s) for lesion, s in zip(self.lesions, scores, strict=True))
        return replace(self, lesions=tuple(lesions))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, as ``schema.json`` describes it."""
        return {
            "schema": SCHEMA,
            "case": self.case,
            "kidneys": [kidney.as_dict() for kidney in self.kidneys],
            "lesions": [lesion.as_dict() for lesion in self.lesions],
            "warnings": list(self.warnings),
            "notice": NOTICE,
        }


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of ``Measurements.as_dict``; do not change the dictionary."""
    loaded: dict[str, Any] = loads((files("renalseg.report.measure") / "schema.json").read_text(encoding="utf-8"))
    return loaded


def _point(point: Point) -> list[float]:
    return [round(value, 3) for value in point]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
