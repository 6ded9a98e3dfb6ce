"""Words of the pages: titles of kidneys and lesions, the figures at the top, provenance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from renalseg.report.page.environment import ABSENT, number, with_unit
from renalseg.report.sides import SIDES

SMALLEST_ML = 0.5
"""Pieces below this (a ball 10 mm wide) are no lesions to be counted; they are listed apart. Our choice."""

TITLES: dict[str, str] = {side: title for title, side in SIDES.items()}


@dataclass(frozen=True)
class Tile:
    """A figure at the top of a page: label, value, what stands below it, and a share to draw as a bar."""

    label: str
    value: str
    note: str = ""
    share: float | None = None


def kidney_title(side: str) -> str:
    """As in "Right kidney"; a side of another name as it is."""
    return TITLES.get(side, side)


def lesion_title(lesion: Mapping[str, Any]) -> str:
    """As in "Tumor 1, right kidney, upper pole"."""
    parts = [f"{str(lesion['kind']).capitalize()} {lesion['id']}", kidney_title(str(lesion["side"])).lower()]
    if polar := lesion.get("polar"):
        parts.append("interpolar" if polar == "mid" else f"{polar} pole")
    return ", ".join(parts)


def renal_score(lesion: Mapping[str, Any]) -> str:
    """As in "8p"; a dash where it was not told."""
    renal = (lesion.get("nephrometry") or {}).get("renal") or {}
    return ABSENT if renal.get("total") is None else f"{renal['total']}{renal.get('suffix') or ''}"


def axial_mm(lesion: Mapping[str, Any]) -> float | None:
    """The largest axial diameter in mm."""
    value: float | None = (lesion.get("axial_diameter") or {}).get("mm")
    return value


def counted(measurements: Mapping[str, Any] | None, kind: str) -> list[Mapping[str, Any]]:
    """The tumors, or cysts, of at least ``SMALLEST_ML``, largest first."""
    lesions = (measurements or {}).get("lesions", ())
    return [x for x in lesions if x["kind"] == kind and x["volume_ml"] >= SMALLEST_ML]


def tiles(record: Mapping[str, Any], measurements: Mapping[str, Any] | None) -> list[Tile]:
    """The figures at the top of a case: kidneys, lesions, the largest tumor, confidence."""
    made = _kidney_tiles(record, measurements)
    if measurements is not None:
        made += _lesion_tiles(measurements)
    confidence = (record.get("confidence") or {}).get("value")
    if confidence is not None:
        made.append(Tile("Confidence", number(confidence, 2), "ranks cases; no probability", confidence))
    return made


def _kidney_tiles(record: Mapping[str, Any], measurements: Mapping[str, Any] | None) -> list[Tile]:
    if measurements is not None:
        made = []
        for kidney in measurements["kidneys"]:
            note = f"{with_unit(kidney.get('length_mm'), 'mm', 0)} long" if kidney.get("length_mm") else ""
            if kidney.get("touches_border"):
                note += ", cut off by the scan"
            parenchyma = with_unit(kidney["volumes_ml"]["parenchyma"], "ml", 0)
            made.append(Tile(kidney_title(kidney["side"]), parenchyma, f"parenchyma; {note}".rstrip("; ")))
        return made or [Tile("Kidneys", "none found")]
    volumes = record.get("volumes_ml") or {}
    return [Tile(str(name).capitalize(), with_unit(ml, "ml"), "both sides") for name, ml in volumes.items()]


def _lesion_tiles(measurements: Mapping[str, Any]) -> list[Tile]:
    found, cysts = counted(measurements, "tumor"), counted(measurements, "cyst")
    counts = f"{_count(len(found), 'tumor')}, {_count(len(cysts), 'cyst')}" if found or cysts else "none"
    smaller = len(measurements["lesions"]) - len(found) - len(cysts)
    note = f"{counts}; {smaller} under {SMALLEST_ML:g} ml" if smaller else counts
    made = [Tile("Lesions", str(len(found) + len(cysts)), note)]
    if found:
        score = renal_score(found[0])
        note = f"{with_unit(found[0]['volume_ml'], 'ml')}, {kidney_title(found[0]['side']).lower()}"
        made.append(Tile("Largest tumor", with_unit(axial_mm(found[0]), "mm", 0), note))
        if score != ABSENT:
            made.append(Tile("R.E.N.A.L.", score, "largest tumor"))
    return made


def _count(n: int, noun: str) -> str:
    return f"{n or 'no'} {noun}{'' if n == 1 else 's'}"


def provenance(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What made the result, as pairs of name and text; only what the record holds."""
    weights = record.get("weights") or ()
    memory, times = record.get("peak_memory_mb") or {}, record.get("timings_s") or {}
    rows = {
        "renalseg": record.get("renalseg"),
        "PyTorch": record.get("torch"),
        "Preset": record.get("preset"),
        "Configuration": _hash(record.get("config_sha256")),
        "Weights": ", ".join(str(w.get("path")) for w in weights),
        "Weights hash": _hash(record.get("weights_sha256")),
        "Input": record.get("input"),
        "CT grid": _grid(record),
        "Seed": record.get("seed", "none needed: the prediction draws no random numbers" if weights else None),
        "Device": " · ".join(str(v) for v in (record.get("device"), record.get("precision")) if v),
        "Mirror averaging": _mirroring(record.get("mirror_z")),
        "Time": ", ".join(f"{step} {with_unit(seconds, 's', 2)}" for step, seconds in times.items()),
        "Peak memory": with_unit(memory["host"], "MB", 0) if memory.get("host") is not None else None,
    }
    return [(name, str(text)) for name, text in rows.items() if text not in (None, "")]


def _mirroring(is_on: Any) -> str:
    return "" if is_on is None else "along z" if is_on else "off"


def _grid(record: Mapping[str, Any]) -> str:
    shape: Sequence[int] = record.get("shape_zyx") or ()
    spacing: Sequence[float] = record.get("spacing_mm_zyx") or ()
    sizes = " × ".join(map(str, shape[::-1]))
    return f"{sizes} voxels of {' × '.join(f'{s:.3g}' for s in spacing[::-1])} mm (x, y, z)" if shape else ""


def _hash(digest: Any) -> str:
    return f"SHA-256 {digest}" if digest else ""
