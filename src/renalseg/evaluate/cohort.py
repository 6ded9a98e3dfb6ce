"""Scores a folder of predictions against a KiTS23 dataset."""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from renalseg.core.errors import InputError
from renalseg.core.labels import HECS
from renalseg.core.processes import spread
from renalseg.evaluate.metrics import CaseMetrics, case_metrics
from renalseg.evaluate.tables import CohortResult, write_tables
from renalseg.io.files import output_folder
from renalseg.io.kits import list_cases, read_labels

SUFFIX = ".nii.gz"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    """One case to score; ``zero`` allows a zero where the prediction is missing or cannot be compared."""

    case_id: str
    truth: Path
    prediction: Path
    zero: bool


def evaluate(
    predictions: Path,
    truth: Path,
    out: Path | None = None,
    missing: Literal["error", "zero"] = "error",
    cases: Sequence[str] | None = None,
    workers: int = 1,
    on_case: Callable[[str, int, int], None] | None = None,
) -> CohortResult:
    """Scores every case of a dataset, and writes ``metrics.csv``, ``metrics.json`` and ``metrics.md``.

    Unlike the official tool, which scores whatever files are there, each truth case needs a usable prediction on its
    own grid. Predictions that no truth case belongs to are logged and listed in the result.

    Args:
        predictions: folder of ``<case>.nii.gz``, labels 0 to 3.
        truth: dataset in KiTS23 layout; folders without a ``segmentation.nii.gz`` are not truth cases.
        out: folder for the three files, written only once all cases are scored; None writes nothing.
        missing: what a prediction that is missing, unreadable or on another grid means: an error, or zeros for the
            case.
        cases: ids to restrict the evaluation to, e.g. one fold; None takes all.
        workers: processes that score at the same time. More than one starts fresh interpreters, so a script needs the
            usual ``if __name__ == "__main__"``.
        on_case: called after each case with its id, the number of cases done, and their total.

    Raises:
        InputError: a folder or a case cannot be used; the message names the case.
        OutputError: the tables could not be written.
    """
    if missing not in ("error", "zero"):
        raise InputError(f"missing is {missing!r}; choose 'error' or 'zero'.")
    if not predictions.is_dir():
        raise InputError(f"{predictions} is not a folder; give the folder that holds the predicted <case>{SUFFIX}.")
    known = {case.case_id: case.segmentation for case in list_cases(truth) if case.segmentation is not None}
    chosen = _choose(known, cases, truth)
    jobs = [_Job(case, known[case], predictions / f"{case}{SUFFIX}", missing == "zero") for case in chosen]
    _check_present(jobs, predictions)
    without_truth = _without_truth(predictions, known)
    scored, reasons = [], {}
    with nullcontext() if out is None else output_folder(out):
        for done, (metrics, reason) in enumerate(spread(_score, jobs, workers), 1):
            scored.append(metrics)
            reasons[metrics.case_id] = reason
            if on_case is not None:
                on_case(metrics.case_id, done, len(jobs))
        zeroed = {case: reason for case, reason in reasons.items() if reason is not None}
        result = CohortResult(tuple(scored), zeroed, without_truth)
        if out is not None:
            write_tables(result, out)
    return result


def _choose(known: Iterable[str], cases: Sequence[str] | None, truth: Path) -> list[str]:
    """The truth cases to score, sorted."""
    known = sorted(known)
    unknown = [] if cases is None else sorted(set(cases) - set(known))
    if unknown:
        raise InputError(f"{truth} holds no segmentation for {_listed(unknown)}; check the ids or the dataset folder.")
    chosen = known if cases is None else sorted(set(cases))
    if not chosen:
        raise InputError(f"there is no case to evaluate in {truth}; give a dataset with segmentations, and case ids.")
    return chosen


def _check_present(jobs: Sequence[_Job], predictions: Path) -> None:
    absent = [job.case_id for job in jobs if not job.zero and not job.prediction.is_file()]
    if absent:
        raise InputError(
            f"{predictions} lacks a prediction for {len(absent)} of {len(jobs)} cases ({_listed(absent)}); "
            "predict them, restrict the evaluation to the other cases, or let missing ones count as zero."
        )


def _without_truth(predictions: Path, known: Iterable[str]) -> tuple[str, ...]:
    """Names of predictions that belong to no truth case; hidden files do not count."""
    names = {path.name.removesuffix(SUFFIX) for path in predictions.glob(f"[!.]*{SUFFIX}")}
    extra = tuple(sorted(names - set(known)))
    if extra:
        logger.warning("no truth for %d predictions in %s, not scored: %s", len(extra), predictions, _listed(extra))
    return extra


def _score(job: _Job) -> tuple[CaseMetrics, str | None]:
    """The scores of a case, and the reason where they are zeros that stand for a missing or unusable prediction."""
    truth = read_labels(job.truth)
    try:
        if not job.prediction.is_file():
            raise InputError(f"{job.case_id}: {job.prediction} is missing.")
        return case_metrics(truth, read_labels(job.prediction), job.case_id), None
    except InputError as error:
        if not job.zero:
            raise
        logger.warning("%s scores zero: %s", job.case_id, error)
        return CaseMetrics.from_row(job.case_id, (0.0,) * 2 * len(HECS)), str(error)


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
