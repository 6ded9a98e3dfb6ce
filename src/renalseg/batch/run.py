"""Segments many files: each is read, computed, measured and written; a bad case does not stop the others."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from renalseg.batch.finished import finished, is_foreign, made_from
from renalseg.batch.inputs import Outcome
from renalseg.batch.overlap import overlapped
from renalseg.batch.results import MADE_FROM, NO_EXTRAS, Extras, Findings, add_peak, targets, write_result
from renalseg.core.errors import InputError, OutputError, RenalsegError, unforeseen
from renalseg.core.volume import Segmentation, Volume
from renalseg.io.files import output_folder
from renalseg.io.nifti import may_be_labels
from renalseg.io.read import read_volume
from renalseg.model.runtime import peak_host_mb, reset_host_peak
from renalseg.predict.room import lacks_memory
from renalseg.predict.segmenter import Segmenter

log = logging.getLogger(__name__)


def segment_all(
    cases: Mapping[str, Path],
    out: Path,
    segmenter: Segmenter,
    on_case: Callable[[str], None] | None = None,
    extras: Extras = NO_EXTRAS,
    again: bool = False,
) -> Iterator[Outcome]:
    """Segments ``cases`` (name to file) into ``out``: NAME.nii.gz, NAME.json and NAME.png each, and ``extras``.

    A case whose files are there and were made from this input (its place, name, size and time of change), by this
    version with these weights and settings, is left as it is, and its outcome says ``kept``. While a case is computed,
    the next is read and the last written: at most three are in memory.

    Args:
        on_case: called with a case's name when its turn comes.
        again: segment the finished ones too.

    Raises:
        OutputError: ``out`` cannot be written to. Errors of single cases are outcomes instead.
    """
    batch = _Batch(out, segmenter, extras, frozenset(path.resolve() for path in cases.values()), again)

    def compute(loaded: _Loaded | Outcome) -> _Segmented | Outcome:
        if on_case:
            on_case(loaded.name)
        return _guarded(loaded, batch.compute) if isinstance(loaded, _Loaded) else loaded

    def store(done: _Segmented | Outcome) -> Outcome:
        return _guarded(done, batch.store) if isinstance(done, _Segmented) else done

    with output_folder(out):
        waiting = (_Case(name, path) for name, path in cases.items())
        yield from overlapped(waiting, lambda case: _guarded(case, batch.load), compute, store)


def segment_file(name: str, path: Path, out: Path, segmenter: Segmenter) -> dict[str, Any]:
    """Reads, segments and writes one case; returns its record.

    Raises:
        InputError: the file cannot be used. OutputError: a result could not be written; none of them then is.
    """
    batch = _Batch(out, segmenter, alone=True)
    reset_host_peak()
    record = batch.store(batch.compute(batch.read(_Case(name, path)))).record
    assert record is not None
    return record


@dataclass(frozen=True)
class _Case:
    """A case by name and file."""

    name: str
    path: Path


@dataclass(frozen=True)
class _Loaded(_Case):
    """A case that was read: what its results depend on, the seconds, and the most memory until then in MB."""

    ct: Volume
    source: dict[str, Any]
    seconds: float
    host_mb: float


@dataclass(frozen=True)
class _Segmented(_Loaded):
    """A case that waits to be measured and written."""

    result: Segmentation


C = TypeVar("C", bound=_Case)
T = TypeVar("T")


def _guarded(case: C, step: Callable[[C], T]) -> T | Outcome:
    """What ``step`` makes of a case, or an outcome with the sentence of its error."""
    try:
        return step(case)
    except RenalsegError as problem:
        return Outcome(case.name, case.path, None, str(problem))
    except Exception as problem:
        return Outcome(case.name, case.path, None, _sentence(case.path, problem))


@dataclass(frozen=True)
class _Batch:
    """The three steps of a case, and what they share.

    Attributes:
        out: folder of the results.
        segmenter: segments all cases.
        extras: what is written beside labels, record and picture.
        sources: all inputs, which no result may replace.
        again: segment finished cases too.
        alone: whether no other case is computed meanwhile.
    """

    out: Path
    segmenter: Segmenter
    extras: Extras = NO_EXTRAS
    sources: frozenset[Path] = frozenset()
    again: bool = False
    alone: bool = False

    def load(self, case: _Case) -> _Loaded | Outcome:
        """The case, read; or its outcome where it is finished."""
        self._check(case)
        source = self._source(case)
        kept = None if self.again else finished(self.out / case.name, source, self.extras)
        if kept is None:
            return self._read(case, source)
        record, measurements = kept
        return Outcome(case.name, case.path, record, None, measurements, kept=True)

    def _check(self, case: _Case) -> None:
        """Raises InputError or OutputError where the case cannot be done, before minutes of work."""
        stem = self.out / case.name
        for target in targets(stem, self.extras):
            if target.resolve() in self.sources:
                raise OutputError(f"{target} is an input, which its labels would replace; choose another output folder")
        if case.path.is_dir() and self.out.resolve() == case.path.resolve():
            raise OutputError(
                f"{self.out} is the series itself, whose files results would mix with; choose another output folder"
            )
        record, _, labels = targets(stem)
        if is_foreign(record):
            raise OutputError(f"{record} is no record of renalseg and would be replaced; choose another output folder")
        if labels.is_file() and not may_be_labels(labels):
            raise OutputError(
                f"{labels} is no label map and would be replaced; move it or choose another output folder"
            )
        if self.extras.page and case.name == "index":
            raise InputError(f"{case.path}: its page would be index.html, the page of all cases; rename the file")
        if self.extras.dicom:
            from renalseg.report.dicom import check_source

            check_source(case.path)

    def read(self, case: _Case) -> _Loaded:
        """The case, read, finished or not."""
        return self._read(case, self._source(case))

    def _source(self, case: _Case) -> dict[str, Any]:
        """What the results depend on; told before reading, so that what changes meanwhile counts as new."""
        if not case.path.exists():
            raise InputError(f"{case.path} does not exist; check the path.")
        return made_from(case.path, self.out, self.segmenter, self.extras)

    def _read(self, case: _Case, source: dict[str, Any]) -> _Loaded:
        started = time.perf_counter()
        ct = read_volume(case.path)
        return _Loaded(case.name, case.path, ct, source, time.perf_counter() - started, peak_host_mb())

    def compute(self, case: _Loaded) -> _Segmented:
        """The case, segmented."""
        result = self.segmenter.segment(case.ct)
        add_peak(result.record, "read", case.host_mb)
        result.record.update({"case": case.name, "input": case.path.resolve().name, MADE_FROM: case.source})
        result.record["timings_s"] = {"read": round(case.seconds, 4), **result.record["timings_s"]}
        return _Segmented(**vars(case), result=result)

    def store(self, case: _Segmented) -> Outcome:
        """The outcome of the case, measured and written."""
        result, findings = case.result, None
        if self.extras.any:
            from renalseg.report.assess import assess

            started = time.perf_counter()
            measured, sketches = assess(replace(result.labels, name=case.name), case.ct, sketches=self.extras.page)
            findings = Findings(measured, sketches, case.path, self.extras)
            result.record["timings_s"]["measure"] = round(time.perf_counter() - started, 4)
        record = write_result(result, case.ct, self.out / case.name, findings, self.alone)
        return Outcome(case.name, case.path, record, None, None if findings is None else findings.measurements)


def _sentence(path: Path, problem: Exception) -> str:
    """A sentence for an error that nobody planned for; the traceback goes to the log."""
    log.debug("%s", path, exc_info=problem)
    if lacks_memory(problem):  # the host's: where a device's runs out, the CPU has taken over already
        return f"{path}: the memory ran out; close other programs, or take a machine with more of it"
    return unforeseen(path, problem)
