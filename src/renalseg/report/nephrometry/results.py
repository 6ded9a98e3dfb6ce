"""Nephrometry scores as frozen dataclasses: points, the value each rests on, and the geometry it was taken from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Geometry = Mapping[str, Any]
"""Names to numbers or lists of them. ``..._ras_mm`` are points in RAS mm, ``..._s_mm`` heights of axial planes."""


@dataclass(frozen=True)
class Part:
    """One part of a score.

    Attributes:
        points: None where the part gives none (the A of R.E.N.A.L.) or could not be told.
        value: the continuous value behind the points; None where it could not be had.
        unit: "mm", "share" or "ml".
        why: a sentence: the value and the rule it meets, or why there is none.
        geometry: where the value was taken.
    """

    points: int | None
    value: float | None
    unit: str
    why: str
    geometry: Geometry = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "points": self.points,
            "value": _rounded(self.value),
            "unit": self.unit,
            "why": self.why,
            "geometry": {name: _rounded(value) for name, value in self.geometry.items()},
        }


@dataclass(frozen=True)
class Score:
    """A sum of points; ``total`` is None as soon as one part that counts is.

    Attributes:
        parts: in the order of the publication.
        suffix: letters after the total, e.g. "a" or "ph"; empty where it has none or it could not be told.
        unscored: names of parts that give no points.
        source: where the rules were published.
    """

    parts: Mapping[str, Part]
    suffix: str
    unscored: tuple[str, ...]
    source: str

    @property
    def total(self) -> int | None:
        """The sum of points, or None."""
        points = [part.points for name, part in self.parts.items() if name not in self.unscored]
        return None if None in points else sum(p for p in points if p is not None)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        parts = {name: part.as_dict() for name, part in self.parts.items()}
        return {"total": self.total, "suffix": self.suffix, "parts": parts, "source": self.source}


@dataclass(frozen=True)
class Centrality:
    """The C-index with what it is the quotient of.

    Attributes:
        value: distance over radius; None where it could not be told.
        why: a sentence.
        distance_mm: between the centres of kidney and tumor.
        radius_mm: of the tumor.
        geometry: both centres.
    """

    value: float | None
    why: str
    distance_mm: float | None = None
    radius_mm: float | None = None
    geometry: Geometry = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "value": _rounded(self.value),
            "why": self.why,
            "distance_mm": _rounded(self.distance_mm),
            "radius_mm": _rounded(self.radius_mm),
            "geometry": {name: _rounded(value) for name, value in self.geometry.items()},
            "source": "doi:10.1016/j.juro.2010.01.005",
        }


@dataclass(frozen=True)
class Nephrometry:
    """All scores of one lesion.

    Attributes:
        lesion: its id in ``Measurements``.
        renal: R.E.N.A.L.
        padua: PADUA.
        spare: SPARE.
        c_index: the centrality index.
        abstained: sentences that say which scores have no total, and why.
    """

    lesion: int
    renal: Score
    padua: Score
    spare: Score
    c_index: Centrality
    abstained: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: the value of "nephrometry" in ``renalseg.report.measure``."""
        return {
            "renal": self.renal.as_dict(),
            "padua": self.padua.as_dict(),
            "spare": self.spare.as_dict(),
            "c_index": self.c_index.as_dict(),
            "abstained": list(self.abstained),
        }


def _rounded(value: Any) -> Any:
    """Numbers to 4 digits, in sequences too."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_rounded(one) for one in value]
    return round(float(value), 4) if isinstance(value, float) else value
