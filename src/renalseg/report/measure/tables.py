"""Measurements of a cohort as two CSV tables: one row a kidney, one row a lesion.

A folder's tables are those of all cases in it, whichever run measured them.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from renalseg.core.errors import InputError
from renalseg.io.files import write_text
from renalseg.report.measure.results import HU_KEYS, SCHEMA
from renalseg.report.suffixes import MEASUREMENTS

Case = Mapping[str, Any]

KIDNEYS, LESIONS = "kidneys.csv", "lesions.csv"
TISSUES = ("parenchyma", "tumor", "cyst", "total")
AXES = ("x", "y", "z")
SCORES = ("renal", "padua", "spare")
RENAL_PARTS = ("R", "E", "N", "L")
"""The parts of R.E.N.A.L. that give points; its A is in the suffix."""

KIDNEY_COLUMNS = (
    "case",
    "side",
    *(f"{tissue}_ml" for tissue in TISSUES),
    "length_mm",
    *(f"centroid_{axis}_ras_mm" for axis in AXES),
    "touches_border",
    "note",
)
LESION_COLUMNS = (
    "case",
    "id",
    "kind",
    "side",
    "volume_ml",
    "voxels",
    "axial_diameter_mm",
    "axial_slice",
    "diameter_3d_mm",
    "craniocaudal_mm",
    *(f"centroid_{axis}_ras_mm" for axis in AXES),
    "polar",
    "face",
    *(f"hu_{key}" for key in HU_KEYS),
    "exophytic_share",
    "contact_area_mm2",
    "detached",
    "sinus_distance_mm",
    *SCORES,
    "renal_suffix",
    *(f"renal_{part.lower()}" for part in RENAL_PARTS),
    "c_index",
    "notes",
)


def write_tables(cohort: Sequence[Case], folder: Path) -> None:
    """Writes ``kidneys.csv`` and ``lesions.csv`` of all cases into ``folder``, each atomically.

    Args:
        cohort: of each case, ``Measurements.as_dict()`` or the JSON that was written of it.
        folder: created where needed.

    Raises:
        OutputError: a file could not be written.
    """
    write_text(kidneys_csv(cohort), folder / KIDNEYS)
    write_text(lesions_csv(cohort), folder / LESIONS)


def write_folder_tables(folder: Path) -> list[str]:
    """Writes ``kidneys.csv`` and ``lesions.csv`` of all NAME.measurements.json in ``folder``, by name.

    Returns:
        A sentence for each file that is left out.

    Raises:
        OutputError: a table could not be written.
    """
    cohort, left_out = [], []
    for path in sorted(folder.glob(f"*{MEASUREMENTS}")):
        try:
            cohort.append(read_measurements(path))
        except InputError as problem:
            left_out.append(str(problem))
    write_tables(cohort, folder)
    return left_out


def has_tables(folder: Path) -> bool:
    """Whether the tables in ``folder`` are ours."""
    try:
        return (folder / KIDNEYS).read_text(encoding="utf-8").startswith(",".join(KIDNEY_COLUMNS))
    except (OSError, ValueError):
        return False


def read_measurements(path: Path) -> dict[str, Any]:
    """What ``renalseg measure`` or ``renalseg segment`` wrote of a case.

    Raises:
        InputError: the file holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); measure the case again") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise InputError(f"{path} holds no measurements of this version; measure the case again")
    return found


def kidneys_csv(cohort: Iterable[Case]) -> str:
    """One row a kidney; ``touches_border`` lists its borders with spaces between."""
    rows = []
    for case in cohort:
        for kidney in case["kidneys"]:
            row = {"case": case["case"], **{key: kidney[key] for key in ("side", "length_mm", "note")}}
            row |= {f"{tissue}_ml": kidney["volumes_ml"][tissue] for tissue in TISSUES}
            row |= _centroid(kidney)
            rows.append(row | {"touches_border": " ".join(kidney["touches_border"])})
    return _csv(KIDNEY_COLUMNS, rows)


def lesions_csv(cohort: Iterable[Case]) -> str:
    """One row a lesion; empty where a value could not be had, which the notes explain."""
    rows = ({"case": case["case"], **_lesion_row(lesion)} for case in cohort for lesion in case["lesions"])
    return _csv(LESION_COLUMNS, rows)


def _lesion_row(lesion: dict[str, Any]) -> dict[str, Any]:
    row = {key: value for key, value in lesion.items() if key in LESION_COLUMNS}
    row |= {"axial_diameter_mm": lesion["axial_diameter"]["mm"], "axial_slice": lesion["axial_diameter"]["slice"]}
    row |= {"diameter_3d_mm": lesion["diameter_3d"]["mm"], "notes": " ".join(lesion["notes"])}
    row |= {f"hu_{key}": value for key, value in (lesion["hu"] or {}).items()}
    scores = lesion["nephrometry"] or {}
    row |= {name: scores.get(name, {}).get("total") for name in SCORES}
    renal = scores.get("renal", {})
    row |= {f"renal_{part.lower()}": renal.get("parts", {}).get(part, {}).get("points") for part in RENAL_PARTS}
    row |= {"renal_suffix": renal.get("suffix")}
    return row | _centroid(lesion) | {"c_index": scores.get("c_index", {}).get("value")}


def _centroid(thing: dict[str, Any]) -> dict[str, float]:
    return {f"centroid_{axis}_ras_mm": x for axis, x in zip(AXES, thing["centroid_ras_mm"], strict=True)}


def _csv(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
    """RFC 4180 with plain line ends; None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
