"""All cases of a dataset: checked at the same time, compared with each other, written as tables and figures."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from renalseg.core.processes import spread
from renalseg.io.files import output_folder
from renalseg.io.kits import IMAGING, SEGMENTATION, KitsCase, list_cases
from renalseg.report.inspect import findings as find
from renalseg.report.inspect.cases import CaseReport, inspect_case
from renalseg.report.inspect.findings import Finding
from renalseg.report.inspect.quantities import Row


@dataclass(frozen=True)
class Inspection:
    """What was found in a dataset.

    Attributes:
        name: the dataset folder's name.
        cases: one report a case, by id.
        notes: what holds for the dataset as a whole, in sentences.
    """

    name: str
    cases: tuple[CaseReport, ...]
    notes: tuple[str, ...] = ()

    @property
    def findings(self) -> list[Finding]:
        """All findings, errors first, then by case."""
        found = [finding for case in self.cases for finding in case.findings]
        return sorted(found, key=lambda finding: (not finding.is_error, finding.case_id))

    @property
    def broken(self) -> list[str]:
        """Ids of the cases that should not be used as they are."""
        return [case.case_id for case in self.cases if not case.is_usable]

    @property
    def counted(self) -> list[Row]:
        """The rows that enter percentiles and counts."""
        return [case.row for case in self.cases if case.is_counted]


def inspect_dataset(
    dataset: Path, out: Path | None = None, workers: int = 1, on_case: Callable[[str, int, int], None] | None = None
) -> Inspection:
    """Checks and measures every case of a dataset in KiTS23 layout, and writes tables and figures.

    Label maps alone, or images alone, can be inspected too: a file that no case has is not missed. What is wrong with
    a case is a finding; the other cases go on.

    Args:
        dataset: folder with ``case_XXXXX/imaging.nii.gz`` and ``segmentation.nii.gz``.
        out: folder for ``inspect.csv``, ``inspect.json``, ``inspect.md`` and ``inspect_*.png``; None writes nothing.
        workers: processes that look at cases at the same time; the result is the same with any number. More than one
            starts fresh interpreters, so a script needs the usual ``if __name__ == "__main__"``.
        on_case: called after each case with its id, the number of cases done, and their total.

    Raises:
        InputError: the folder holds no case, or a worker process died.
        OutputError: a file could not be written.
    """
    cases = list_cases(dataset)
    with nullcontext() if out is None else output_folder(out):
        reports = []
        for report in spread(inspect_case, cases, workers):
            reports.append(report)
            if on_case is not None:
                on_case(report.case_id, len(reports), len(cases))
        reports += _folders_without_files(dataset, cases)
        reports = _add_duplicates(_add_missing(sorted(reports, key=lambda report: report.case_id)))
        result = Inspection(dataset.resolve().name, tuple(reports), tuple(_notes(cases)))
        if out is not None:
            from renalseg.report.inspect.figures import write_figures
            from renalseg.report.inspect.tables import write_tables

            write_tables(result, out)
            write_figures(result, out)
    return result


def _folders_without_files(dataset: Path, cases: Sequence[KitsCase]) -> list[CaseReport]:
    known = {case.case_id for case in cases}
    names = [path.name for path in dataset.glob("case_*") if path.is_dir() and path.name not in known]
    nothing: Row = {"has_image": False, "has_labels": False}
    return [CaseReport(name, nothing, (find.missing_both(name),)) for name in names]


def _add_missing(reports: Sequence[CaseReport]) -> list[CaseReport]:
    """A file that is absent is missed where other cases have it."""
    added = list(reports)
    for file, column in ((IMAGING, "has_image"), (SEGMENTATION, "has_labels")):
        others = sum(bool(report.measures[column]) for report in reports)
        for place, report in enumerate(added):
            is_case = report.measures["has_image"] or report.measures["has_labels"]
            if others and is_case and not report.measures[column]:
                added[place] = report.adding(find.missing(report.case_id, file, others))
    return added


def _add_duplicates(reports: Sequence[CaseReport]) -> list[CaseReport]:
    """Of cases with the same voxels, all but the first get a finding."""
    first: dict[tuple[str, str], str] = {}
    added = []
    for report in reports:
        for file, digest in report.digests.items():
            original = first.setdefault((file, digest), report.case_id)
            if original != report.case_id:
                report = report.adding(find.duplicate(report.case_id, file, original))
        added.append(report)
    return added


def _notes(cases: Sequence[KitsCase]) -> Iterator[str]:
    if not any(case.imaging for case in cases):
        yield f"No case has an {IMAGING}: the label maps alone were inspected."
    if not any(case.segmentation for case in cases):
        yield f"No case has a {SEGMENTATION}: the images alone were inspected."
