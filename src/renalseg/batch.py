"""Many CTs through one ``Segmenter``: labels, record and picture of each; a bad case does not stop the others."""

import errno
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from renalseg.core.errors import InputError, OutputError, RenalsegError
from renalseg.core.volume import Segmentation, Volume
from renalseg.io.files import atomic_path, output_error, output_folder, write_json
from renalseg.io.kits import is_dataset, list_cases
from renalseg.io.nifti import write_nifti
from renalseg.io.read import case_name, read_volume
from renalseg.model.runtime import peak_host_mb, reset_host_peak
from renalseg.predict.segmenter import Segmenter
from renalseg.report.figures import overlay

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of one input: its record, or the sentence that says why there is none."""

    name: str
    source: Path
    record: dict[str, Any] | None
    error: str | None
    measurements: dict[str, Any] | None = None
    """The dictionary of ``report.measure``, where it was asked for."""


@dataclass(frozen=True)
class Extras:
    """What is written beside labels, record and picture.

    Attributes:
        measurements: NAME.measurements.json, with nephrometry.
        page: NAME.html, a report with a viewer, measurements and nephrometry.
        seg: NAME.seg.dcm, a DICOM SEG; of DICOM input alone.
        sr: NAME.sr.dcm, a DICOM SR with the measurements, and the SEG that it refers to; of DICOM input alone.
    """

    measurements: bool = False
    page: bool = False
    seg: bool = False
    sr: bool = False

    @property
    def dicom(self) -> bool:
        """Whether a DICOM result is wanted."""
        return self.seg or self.sr

    @property
    def any(self) -> bool:
        """Whether anything is wanted that rests on measurements."""
        return self.measurements or self.page or self.dicom


def list_inputs(inputs: Sequence[Path]) -> tuple[dict[str, Path], list[Outcome]]:
    """Case names and their files; a dataset folder in KiTS23 layout stands for all its images.

    Inputs of equal name are told apart by their folder: ``a/ct.nii.gz`` and ``b/ct.nii.gz`` are ``a_ct`` and ``b_ct``.
    An input that is named twice counts once.

    Returns:
        The cases, and an outcome with its error for each input that cannot be one.
    """
    names: dict[Path, str] = {}
    refused: list[Outcome] = []
    for path in {path.absolute(): path for path in inputs}.values():
        try:
            names[path] = case_name(path)
        except OSError as error:
            refused.append(Outcome(path.name, path, None, f"{path}: {error.strerror}; check the path."))
    shared = {name for name, count in Counter(names.values()).items() if count > 1}
    found: dict[str, Path] = {}
    for path, name in names.items():
        folder_first = f"{path.resolve().parent.name}_{name}" if name in shared else name
        try:
            new = _cases_of(path, folder_first)
        except RenalsegError as error:
            refused.append(Outcome(name, path, None, str(error)))
            continue
        for case, file in new.items():
            if file is None:
                refused.append(
                    Outcome(case, path, None, f"{path} holds no imaging.nii.gz for {case}; download it again.")
                )
            elif case in found:
                reason = f"{file} would be written as {case} like {found[case]}; segment it separately."
                refused.append(Outcome(case, file, None, reason))
            else:
                found[case] = file
    return found, refused


def _cases_of(path: Path, name: str) -> Mapping[str, Path | None]:
    """The cases of a dataset, None where one lacks its image; else the input itself, as ``name``."""
    if not (path.is_dir() and is_dataset(path)):
        return {name: path}
    cases = {case.case_id: case.imaging for case in list_cases(path)}
    if not any(cases.values()):
        raise InputError(f"{path} holds label maps but no imaging.nii.gz; give a dataset with its CTs")
    return cases


def segment_all(
    cases: Mapping[str, Path],
    out: Path,
    segmenter: Segmenter,
    on_case: Callable[[str], None] | None = None,
    extras: Extras = Extras(),
) -> Iterator[Outcome]:
    """Segments ``cases`` (name to file) into ``out``: NAME.nii.gz, NAME.json and NAME.png each, and ``extras``.

    ``on_case`` is called with a case's name when its turn comes.

    Raises:
        OutputError: ``out`` cannot be written to. Errors of single cases are outcomes instead.
    """
    sources = {path.resolve() for path in cases.values()}
    with output_folder(out):
        for name, path in cases.items():
            if on_case:
                on_case(name)
            try:
                _check_no_source(out / name, extras, sources)
                outcome = _segment(name, path, out, segmenter, extras)
            except RenalsegError as problem:
                outcome = Outcome(name, path, None, str(problem))
            except Exception as problem:
                outcome = Outcome(name, path, None, _unforeseen(path, problem))
            yield outcome


def _check_no_source(stem: Path, extras: Extras, sources: set[Path]) -> None:
    """Raises OutputError where a result would replace one of the inputs."""
    for target in _targets(stem, extras):
        if target.resolve() in sources:
            raise OutputError(f"{target} is an input, which its labels would replace; choose another output folder")


def _targets(stem: Path, extras: Extras = Extras()) -> list[Path]:
    """The files of a case, but for DICOM; the record, first here, is renamed last and marks a finished one."""
    suffixes = [".json", ".png", ".nii.gz"]
    suffixes += [".measurements.json"] * extras.measurements + [".html"] * extras.page
    return [stem.with_name(stem.name + suffix) for suffix in suffixes]


def segment_file(name: str, path: Path, out: Path, segmenter: Segmenter) -> dict[str, Any]:
    """Reads, segments and writes one case; returns its record.

    Raises:
        InputError: the file cannot be used. OutputError: a result could not be written; none of them then is.
    """
    record = _segment(name, path, out, segmenter, Extras()).record
    assert record is not None
    return record


def _segment(name: str, path: Path, out: Path, segmenter: Segmenter, extras: Extras) -> Outcome:
    if extras.dicom:
        from renalseg.report.dicom import check_source

        check_source(path)  # before minutes of work
    reset_host_peak()
    started = time.perf_counter()
    volume = read_volume(path)
    read_s, read_mb = time.perf_counter() - started, peak_host_mb()
    result = segmenter.segment(volume)
    _raise_peak(result.record, read_mb)
    result.record["case"] = name
    result.record["input"] = path.resolve().name
    result.record["timings_s"] = {"read": round(read_s, 4), **result.record["timings_s"]}
    findings = None
    if extras.any:
        from renalseg.report.assess import assess

        started = time.perf_counter()
        measured, sketches = assess(replace(result.labels, name=name), volume, sketches=extras.page)
        findings = Findings(measured, sketches, path, extras)
        result.record["timings_s"]["measure"] = round(time.perf_counter() - started, 4)
    record = write_result(result, volume, out / name, findings)
    return Outcome(name, path, record, None, None if findings is None else findings.measurements)


@dataclass(frozen=True)
class Findings:
    """What the ``extras`` of a case are made of: measurements, sketches by lesion id, and where the CT lies."""

    measurements: dict[str, Any]
    sketches: dict[int, bytes]
    source: Path
    extras: Extras


def write_result(result: Segmentation, ct: Volume, stem: Path, findings: Findings | None = None) -> dict[str, Any]:
    """Writes STEM.nii.gz, STEM.png and STEM.json, all or none; returns the record with the time that writing took.

    All three, and what ``findings`` add, are written under temporary names first; the JSON is renamed last and marks a
    finished case.

    Raises:
        OutputError: one of them could not be written.
    """
    started = time.perf_counter()
    record = result.record
    targets = _targets(stem, Extras() if findings is None else findings.extras)
    for target in targets:
        if target.is_dir():
            raise output_error(target, IsADirectoryError(errno.EISDIR, "is a folder"))
    try:
        with ExitStack() as stack:
            json_path, picture, labels, *others = (stack.enter_context(atomic_path(target)) for target in targets)
            write_nifti(result.labels, labels)
            overlay(ct, result.labels, picture, title=stem.name, subtitle=_subtitle(record))
            if findings is not None:
                _write_extras(result, ct, stem, findings, others)
            record["timings_s"]["write"] = round(time.perf_counter() - started, 4)
            _raise_peak(record, peak_host_mb())
            write_json(record, json_path)
    except OutputError as error:
        if isinstance(error.__cause__, OSError):  # named by its temporary file so far
            raise output_error(stem.with_name(stem.name + ".*"), error.__cause__) from error
        raise
    return record


def _write_extras(result: Segmentation, ct: Volume, stem: Path, findings: Findings, paths: list[Path]) -> None:
    """Writes what the findings add to the temporary ``paths``, in the order of ``_targets``; DICOM last, as a whole."""
    remaining = iter(paths)
    if findings.extras.measurements:
        write_json(findings.measurements, next(remaining))
    if findings.extras.page:
        from renalseg.report.page import write_case_page

        write_case_page(next(remaining), ct, result.labels, result.record, findings.measurements, findings.sketches)
    if findings.extras.dicom:
        from renalseg.report.dicom import DicomCase, write_dicom

        case = DicomCase(replace(result.labels, name=stem.name), findings.measurements, findings.source, result.record)
        if not write_dicom(case, stem, sr=findings.extras.sr):
            result.record["warnings"].append("No DICOM SEG or SR was written: there is no label to tell of.")


def _raise_peak(record: dict[str, Any], host_mb: float) -> None:
    """The cascade measures its own peak memory; reading and writing may need more."""
    memory = record["peak_memory_mb"]
    memory["host"] = max(memory["host"], round(host_mb, 1))


def _unforeseen(path: Path, problem: Exception) -> str:
    """A sentence for an error that nobody planned for; the traceback goes to the log."""
    log.debug("%s", path, exc_info=problem)
    memory = isinstance(problem, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(problem)
    if memory:
        return f"{path}: the memory ran out; close other programs, or use --device cpu"
    return f"{path}: {type(problem).__name__}: {problem}; please report this with the file's header"


def _subtitle(record: dict[str, Any]) -> str:
    weights = ", ".join(w["path"] for w in record["weights"])
    return f"weights {weights} ({record['weights_sha256'][:8]}), preset {record['preset']}"
