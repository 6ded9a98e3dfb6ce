"""An inspection as three files: CSV with a row a case, JSON for programs, Markdown for readers."""

import csv
import io
from pathlib import Path
from typing import Any

from renalseg import __version__
from renalseg.io.files import write_json, write_text
from renalseg.report.inspect.cohort import Inspection
from renalseg.report.inspect.quantities import (
    COLUMNS,
    KITS23_CASES,
    KITS23_COUNTS,
    PERCENTILES,
    QUANTITIES,
    Percentiles,
    Row,
    percentiles,
)


def write_tables(result: Inspection, folder: Path) -> None:
    """Writes ``inspect.csv``, ``inspect.json`` and ``inspect.md``, each atomically.

    Raises:
        OutputError: a file could not be written.
    """
    write_text(to_csv(result), folder / "inspect.csv")
    write_json(to_json(result), folder / "inspect.json")
    write_text(to_markdown(result), folder / "inspect.md")


def counts(rows: list[Row]) -> dict[str, int]:
    """How many of ``rows`` are as ``KITS23_COUNTS`` says; what was not measured does not count."""
    return {
        "axes I, P, L": sum(row["axis_codes"] == "IPL" for row in rows),
        "sform 2, qform 0": sum((row["sform_code"], row["qform_code"]) == (2, 0) for row in rows),
        "with tumor": sum(bool(row["tumor_ml"]) for row in rows),
        "with cyst": sum(bool(row["cyst_ml"]) for row in rows),
        "one component": sum(row["components"] == 1 for row in rows),
        "not 512 x 512 in plane": sum(
            row["in_plane_y"] is not None and (row["in_plane_y"], row["in_plane_x"]) != (512, 512) for row in rows
        ),
    }


def to_csv(result: Inspection) -> str:
    """One row a case, the broken ones too; empty where something could not be measured."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for case in result.cases:
        writer.writerow({k: str(v).lower() if isinstance(v, bool) else v for k, v in case.row.items()})
    return text.getvalue()


def to_json(result: Inspection) -> dict[str, Any]:
    """Everything in the inspection, JSON-ready."""
    rows = result.counted
    return {
        "renalseg_version": __version__,
        "dataset": result.name,
        "n_cases": len(result.cases),
        "n_usable": len(result.cases) - len(result.broken),
        "n_counted": len(rows),
        "broken": result.broken,
        "notes": list(result.notes),
        "counts": counts(rows),
        "counts_kits23": KITS23_COUNTS,
        "quantities": {
            quantity.name: {
                "title": quantity.title,
                "unit": quantity.unit,
                "n": len(values := quantity.values(rows)),
                "percentiles": _named(percentiles(values)),
                "n_kits23": quantity.n_published if quantity.published else None,
                "percentiles_kits23": _named(quantity.published) if quantity.published else None,
            }
            for quantity in QUANTITIES
        },
        "findings": [
            {"case_id": f.case_id, "file": f.file, "kind": f.kind, "is_error": f.is_error, "message": f.message}
            for f in result.findings
        ],
        "cases": [case.row for case in result.cases],
    }


def to_markdown(result: Inspection) -> str:
    """Percentiles of this dataset and of KiTS23 below each other, then counts, then every finding."""
    rows, n = result.counted, len(result.cases)
    lines = [
        f"# Inspection of {result.name}: {n} case{'s' if n != 1 else ''}, {n - len(result.broken)} usable",
        "",
        f"Percentiles and counts are over the {len(rows)} cases whose files are sound. KiTS23: its {KITS23_CASES} "
        "public training cases. Boxes hold kidneys, tumors and cysts; z runs from head to foot, y from front to back, "
        "x from right to left.",
        *(f"\n{note}" for note in result.notes),
        "",
        "| Quantity | Dataset | n | min | 5 % | 25 % | median | 75 % | 95 % | max |",
        "|---|---|" + "---:|" * 8,
    ]
    for quantity in QUANTITIES:
        values = quantity.values(rows)
        if values:
            lines.append(_line(quantity.label, result.name, len(values), percentiles(values)))
            if quantity.published:
                lines.append(_line("", "KiTS23", quantity.n_published, quantity.published))
    lines += ["", f"| Cases | {result.name}, of {len(rows)} | KiTS23, of {KITS23_CASES} |", "|---|---:|---:|"]
    lines += [f"| {name} | {found} | {KITS23_COUNTS[name]} |" for name, found in counts(rows).items()]
    for title, is_error in (("Broken cases", True), ("Odd, but usable", False)):
        sentences = [finding.message for finding in result.findings if finding.is_error is is_error]
        lines += ["", f"## {title}", "", *([f"- {sentence}" for sentence in sentences] or ["None."])]
    return "\n".join(lines) + "\n"


def _named(values: Percentiles) -> dict[str, float | None]:
    return {str(p): value for p, value in zip(PERCENTILES, values, strict=True)}


def _line(title: str, dataset: str, n: int, values: Percentiles) -> str:
    cells = ("" if value is None else f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}" for value in values)
    return f"| {title} | {dataset} | {n} | " + " | ".join(cells) + " |"
