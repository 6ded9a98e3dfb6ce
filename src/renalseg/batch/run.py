"""Segments many files: each is read, computed, measured and written; a bad case does not stop the others."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from renalseg.batch.finished import MADE_FROM, finished, made_from
from renalseg.batch.inputs import Outcome
from renalseg.batch.overlap import overlapped
from renalseg.batch.results import NO_EXTRAS, Extras, Findings, raise_peak, targets, write_result
from renalseg.core.errors import InputError, OutputError, RenalsegError
from renalseg.core.volume import Segmentation, Volume
from renalseg.io.files import output_folder
from renalseg.io.read import read_volume
from renalseg.model.runtime import peak_host_mb, reset_host_peak
from renalseg.predict.segmenter import Segmenter

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class _Loaded:
    """A case that was read: what its results depend on, the seconds, and the most memory until then in MB."""

    name: str
    path: Path
    ct: Volume
    source: dict[str, Any]
    seconds: float
    host_mb: float


@dataclass(frozen=True)
class _Segmented:
    """A case that waits to be measured and written."""

    case: _Loaded
    result: Segmentation


def segment_all(
    cases: Mapping[str, Path],
    out: Path,
    segmenter: Segmenter,
    on_case: Callable[[str], None] | None = None,
    extras: Extras = NO_EXTRAS,
    again: bool = False,
) -> Iterator[Outcome]:
    """Segments ``cases`` (name to file) into ``out``: NAME.nii.gz, NAME.json and NAME.png each, and ``extras``.

    A case whose files are there and were made from this very input, by this version with these weights and settings,
    is left as it is, and its outcome says ``kept``. While a case is computed, the next is read and the last written:
    at most three are in memory.

    Args:
        on_case: called with a case's name when its turn comes.
        again: segment the finished ones too.

    Raises:
        OutputError: ``out`` cannot be written to. Errors of single cases are outcomes instead.
    """
    sources = {path.resolve() for path in cases.values()}

    def load(case: tuple[str, Path]) -> _Loaded | Outcome:
        name, path = case
        return _guarded(name, path, lambda: _load(name, path, out, segmenter, extras, sources, again))

    def compute(loaded: _Loaded | Outcome) -> _Segmented | Outcome:
        if on_case:
            on_case(loaded.name)
        if isinstance(loaded, Outcome):
            return loaded
        return _guarded(loaded.name, loaded.path, lambda: _segment(loaded, segmenter))

    def store(done: _Segmented | Outcome) -> Outcome:
        if isinstance(done, Outcome):
            return done
        return _guarded(done.case.name, done.case.path, lambda: _store(done, out, extras))

    with output_folder(out):
        yield from overlapped(cases.items(), load, compute, store)


def segment_file(name: str, path: Path, out: Path, segmenter: Segmenter) -> dict[str, Any]:
    """Reads, segments and writes one case; returns its record.

    Raises:
        InputError: the file cannot be used. OutputError: a result could not be written; none of them then is.
    """
    reset_host_peak()
    record = _store(_segment(_read(name, path, segmenter, NO_EXTRAS), segmenter), out, NO_EXTRAS).record
    assert record is not None
    return record


def _guarded(name: str, path: Path, step: Callable[[], T]) -> T | Outcome:
    """What ``step`` returns, or an outcome with the sentence of its error."""
    try:
        return step()
    except RenalsegError as problem:
        return Outcome(name, path, None, str(problem))
    except Exception as problem:
        return Outcome(name, path, None, _unforeseen(path, problem))


def _load(
    name: str, path: Path, out: Path, segmenter: Segmenter, extras: Extras, sources: set[Path], again: bool
) -> _Loaded | Outcome:
    """The case, read; or its outcome where it is finished."""
    _check_no_source(out / name, extras, sources)
    if extras.page and name == "index":
        raise InputError(f"{path}: its page would be index.html, the page of all cases; rename the file")
    if extras.dicom:
        from renalseg.report.dicom import check_source

        check_source(path)  # before minutes of work
    if not again and path.exists():
        kept = finished(out / name, made_from(path, segmenter, extras), extras)
        if kept is not None:
            record, measurements = kept
            return Outcome(name, path, record, None, measurements, kept=True)
    return _read(name, path, segmenter, extras)


def _read(name: str, path: Path, segmenter: Segmenter, extras: Extras) -> _Loaded:
    started = time.perf_counter()
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path.")
    source = made_from(path, segmenter, extras)  # before reading: what changes meanwhile is another input
    ct = read_volume(path)
    return _Loaded(name, path, ct, source, time.perf_counter() - started, peak_host_mb())


def _segment(case: _Loaded, segmenter: Segmenter) -> _Segmented:
    result = segmenter.segment(case.ct)
    raise_peak(result.record, case.host_mb)
    result.record.update({"case": case.name, "input": case.path.resolve().name, MADE_FROM: case.source})
    result.record["timings_s"] = {"read": round(case.seconds, 4), **result.record["timings_s"]}
    return _Segmented(case, result)


def _store(done: _Segmented, out: Path, extras: Extras) -> Outcome:
    case, result, findings = done.case, done.result, None
    if extras.any:
        from renalseg.report.assess import assess

        started = time.perf_counter()
        measured, sketches = assess(replace(result.labels, name=case.name), case.ct, sketches=extras.page)
        findings = Findings(measured, sketches, case.path, extras)
        result.record["timings_s"]["measure"] = round(time.perf_counter() - started, 4)
    record = write_result(result, case.ct, out / case.name, findings)
    return Outcome(case.name, case.path, record, None, None if findings is None else findings.measurements)


def _check_no_source(stem: Path, extras: Extras, sources: set[Path]) -> None:
    """Raises OutputError where a result would replace one of the inputs."""
    for target in targets(stem, extras):
        if target.resolve() in sources:
            raise OutputError(f"{target} is an input, which its labels would replace; choose another output folder")


def _unforeseen(path: Path, problem: Exception) -> str:
    """A sentence for an error that nobody planned for; the traceback goes to the log."""
    log.debug("%s", path, exc_info=problem)
    memory = isinstance(problem, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(problem)
    if memory:
        return f"{path}: the memory ran out; close other programs, or use --device cpu"
    return f"{path}: {type(problem).__name__}: {problem}; please report this with the file's header"
