"""The page of a cohort: distributions, a table that sorts, links to the pages of the cases, what failed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from renalseg.io.files import write_text
from renalseg.predict.confidence import LOW
from renalseg.report.page.environment import number, render
from renalseg.report.page.histogram import histogram
from renalseg.report.page.wording import SMALLEST_ML, Tile, axial_mm, counted, renal_score


@dataclass(frozen=True)
class Entry:
    """A case of a cohort.

    Attributes:
        name: the case.
        record: of its segmentation; None where there is none.
        measurements: the dict of ``renalseg.report.measure``, or None.
        page: the file name of its page beside the cohort's, or None.
        error: the sentence that says what failed, or None.
    """

    name: str
    record: Mapping[str, Any] | None = None
    measurements: Mapping[str, Any] | None = None
    page: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Column:
    """A column of the table: its title, and whether it holds numbers."""

    title: str
    is_number: bool = True


@dataclass(frozen=True)
class Cell:
    """A cell: what is shown, and what is sorted by (a number, or None where there is none)."""

    text: str
    key: float | None = None
    is_flagged: bool = False


COLUMNS = (  # in this order; those without any value are left out
    Column("Case", False),
    Column("Parenchyma ml"),
    Column("Right kidney ml"),
    Column("Left kidney ml"),
    Column("Tumor ml"),
    Column("Cyst ml"),
    Column("Tumors"),
    Column("Cysts"),
    Column("Largest tumor mm"),
    Column("R.E.N.A.L."),
    Column("Confidence"),
    Column("Warnings"),
)


def write_cohort_page(path: Path, entries: Sequence[Entry], title: str = "Cohort") -> None:
    """Writes one HTML file about many cases; it loads nothing and links to the pages of the cases beside it.

    Args:
        path: the file to write.
        entries: the cases, in any order.
        title: the headline.

    Raises:
        OutputError: the file could not be written.
    """
    done = sorted((e for e in entries if e.record is not None), key=lambda e: e.name)
    rows = [_cells(e) for e in done]
    used = [i for i in range(len(COLUMNS) - 1) if any(row[i].key is not None for row in rows)]
    page = render(
        "cohort.html",
        title=title,
        tiles=_tiles(entries, done),
        failed=[e for e in entries if e.error],
        warned=[e for e in done if (e.record or {}).get("warnings")],
        charts=list(_charts(done)),
        smallest_ml=SMALLEST_ML,
        columns=(COLUMNS[0], *(COLUMNS[1 + i] for i in used)),
        rows=[
            (e.name, quote(e.page) if e.page else None, [row[i] for i in used])
            for e, row in zip(done, rows, strict=True)
        ],
    )
    write_text(page, path)


def _tiles(entries: Sequence[Entry], done: Sequence[Entry]) -> list[Tile]:
    confidences = [c for e in done if (c := _confidence(e)) is not None]
    with_tumor = sum(_has_tumor(e) for e in done)
    none_found = sum((e.record or {}).get("kidney_found") is False for e in done)
    low = sum(c < LOW for c in confidences)
    return [
        Tile("Cases", str(len(entries)), f"{len(done)} segmented"),
        Tile("With a tumor", str(with_tumor), f"from {SMALLEST_ML:g} ml; labelled, not diagnosed"),
        Tile("Without a kidney", str(none_found), "none found"),
        Tile("Low confidence", str(low), f"below {LOW:g}: look at these first"),
        Tile(
            "Failed", str(sum(e.error is not None for e in entries)), "listed below" if len(done) < len(entries) else ""
        ),
    ]


def _has_tumor(entry: Entry) -> bool:
    """One piece of at least ``SMALLEST_ML``; where nothing was measured, so much in all."""
    if entry.measurements is not None:
        return bool(counted(entry.measurements, "tumor"))
    return (_ml(entry, "tumor") or 0) >= SMALLEST_ML


def _charts(done: Sequence[Entry]) -> Iterator[Markup]:
    """Only of quantities that some case has."""
    kidneys = [k for e in done for k in (e.measurements or {}).get("kidneys", ())]
    parenchyma = [k["volumes_ml"]["parenchyma"] for k in kidneys]
    yield from _chart("Parenchyma of a kidney", "ml", parenchyma)
    yield from _chart("Volume of all tumors of a case", "ml", [v for e in done if (v := _ml(e, "tumor"))])
    for kind in ("tumor", "cyst"):
        diameters = [axial_mm(x) for e in done for x in counted(e.measurements, kind)]
        yield from _chart(f"Axial diameter of a {kind}", "mm", [d for d in diameters if d is not None])
    confidences = [c for e in done if (c := _confidence(e)) is not None]
    yield from _chart("Confidence", "", confidences, (0.0, 1.0), LOW)


def _chart(
    title: str, unit: str, values: Sequence[float], limits: tuple[float, float] | None = None, low: float | None = None
) -> Iterator[Markup]:
    if values:
        yield histogram(title, unit, values, limits, low)


def _cells(entry: Entry) -> list[Cell]:
    """The row of a case, without its name."""
    measured = entry.measurements
    volumes = {k["side"]: k["volumes_ml"]["total"] for k in (measured or {}).get("kidneys", ())}
    counts: list[float | None] = [None, None]
    if measured is not None:
        counts = [len(counted(measured, kind)) for kind in ("tumor", "cyst")]
    largest = max(counted(measured, "tumor"), key=lambda x: axial_mm(x) or 0, default=None)
    score = renal_score(largest) if largest else number(None)
    renal = ((largest or {}).get("nephrometry") or {}).get("renal") or {}
    confidence, warnings = _confidence(entry), len((entry.record or {}).get("warnings", ()))
    return [
        _cell(_ml(entry, "kidney"), 0),
        _cell(volumes.get("right"), 0),
        _cell(volumes.get("left"), 0),
        _cell(_ml(entry, "tumor")),
        _cell(_ml(entry, "cyst")),
        *(_cell(count, 0) for count in counts),
        _cell(axial_mm(largest) if largest else None),
        Cell(score, renal.get("total")),
        Cell(number(confidence, 2), confidence, confidence is not None and confidence < LOW),
        Cell(str(warnings), warnings, warnings > 0),
    ]


def _cell(value: float | None, digits: int = 1) -> Cell:
    return Cell(number(value, digits), value)


def _ml(entry: Entry, label: str) -> float | None:
    value: float | None = ((entry.record or {}).get("volumes_ml") or {}).get(label)
    return value


def _confidence(entry: Entry) -> float | None:
    value: float | None = ((entry.record or {}).get("confidence") or {}).get("value")
    return value
