"""Pages for a folder of results of ``renalseg segment``: one a case, and ``index.html`` over all of them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from renalseg.core.errors import InputError, OutputError, RenalsegError
from renalseg.core.volume import Volume
from renalseg.io.kits import read_labels
from renalseg.io.read import read_volume
from renalseg.report.measure.tables import read_measurements
from renalseg.report.page.case import write_case_page
from renalseg.report.page.cohort import Entry, write_cohort_page
from renalseg.report.suffixes import LABELS, MEASUREMENTS, PAGE, RECORD

INDEX = "index.html"

Measure = Callable[[Volume, Volume | None], tuple[dict[str, Any], Mapping[int, bytes]]]
"""Labels and their CT, if it is there, to the dict of ``renalseg.report.measure`` and sketches by lesion id."""


def write_report(
    folder: Path,
    cts: Mapping[str, Path],
    measure: Measure | None = None,
    failed: Mapping[str, str] | None = None,
    on_case: Callable[[str], None] | None = None,
) -> list[Entry]:
    """Writes NAME.html beside NAME.nii.gz and NAME.json of each case, and index.html.

    A case whose CT is not given gets no new page, but the index links the one that it has. A case that fails does not
    stop the others.

    Args:
        folder: results of ``renalseg segment``.
        cts: case name to the CT that was segmented.
        measure: measures kidneys and lesions; without it the pages show what the records hold.
        failed: names of cases without results, and why; they are listed in the index.
        on_case: is called with a case's name when its turn comes.

    Returns:
        The cases of the index, failed ones included.

    Raises:
        InputError: the folder holds no result. OutputError: index.html could not be written.
    """
    names = find_results(folder)
    if not names and not failed:
        raise InputError(f"{folder} holds no results (NAME.nii.gz with NAME.json); run renalseg segment into it first")
    entries = []
    for name in names:
        if on_case:
            on_case(name)
        entries.append(_entry(folder, name, cts.get(name), measure))
    entries += [Entry(name, error=error) for name, error in (failed or {}).items()]
    write_cohort_page(folder / INDEX, entries, title=folder.resolve().name or "Cohort")
    return entries


def find_results(folder: Path) -> list[str]:
    """Names of the cases that have labels and a record, sorted.

    Raises:
        InputError: ``folder`` is not a folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder that renalseg segment wrote into")
    names = (path.name.removesuffix(LABELS) for path in folder.glob(f"*{LABELS}") if not path.name.startswith("."))
    return sorted(name for name in names if (folder / f"{name}{RECORD}").is_file())


def read_record(path: Path) -> dict[str, Any]:
    """The record of a case.

    Raises:
        InputError: the file is not a record.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); segment the case again") from error
    if not isinstance(record, dict) or "volumes_ml" not in record:
        raise InputError(f"{path} is not a record of renalseg segment; segment the case again")
    return record


def _entry(folder: Path, name: str, ct: Path | None, measure: Measure | None) -> Entry:
    """Writes the page of a case where its CT is given; an error becomes part of the entry."""
    record = None
    measurements: dict[str, Any] | None = None
    sketches: Mapping[int, bytes] = {}
    try:
        record = read_record(folder / f"{name}{RECORD}")
        labels = read_labels(folder / f"{name}{LABELS}")
        if f"{name}{PAGE}" == INDEX:
            raise OutputError(f"{folder / INDEX} is the page of all cases; rename the case {name}")
        volume = read_volume(ct) if ct else None
        if measure is not None:
            measurements, sketches = measure(labels, volume)
        if volume is not None:
            write_case_page(folder / f"{name}{PAGE}", volume, labels, {**record, "case": name}, measurements, sketches)
    except RenalsegError as error:
        return Entry(name, record, error=str(error))
    return Entry(name, record, measurements, _page(folder, name))


def has_index(folder: Path) -> bool:
    """Whether the index.html in ``folder`` is ours."""
    try:
        return '<meta name="generator" content="renalseg' in (folder / INDEX).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def write_index(folder: Path, failed: Mapping[str, str]) -> None:
    """Writes index.html over all cases in ``folder``, with the measurements and the pages that they have.

    Args:
        folder: results of ``renalseg segment``.
        failed: names of cases that have no new results, and why.

    Raises:
        OutputError: index.html could not be written.
    """
    entries = {name: _as_it_is(folder, name) for name in find_results(folder)}
    entries |= {name: Entry(name, error=error) for name, error in failed.items()}
    write_cohort_page(folder / INDEX, [entries[name] for name in sorted(entries)], title=folder.resolve().name)


def _as_it_is(folder: Path, name: str) -> Entry:
    measured = folder / f"{name}{MEASUREMENTS}"
    try:
        record = read_record(folder / f"{name}{RECORD}")
        return Entry(name, record, read_measurements(measured) if measured.is_file() else None, _page(folder, name))
    except InputError as error:
        return Entry(name, error=str(error))


def _page(folder: Path, name: str) -> str | None:
    """The file name of a case's page, where there is one."""
    page = f"{name}{PAGE}"
    return page if page != INDEX and (folder / page).is_file() else None
