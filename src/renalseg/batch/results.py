"""What is written of a case, all of it or nothing: labels, record, picture, and the extras that were asked for."""

import errno
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from renalseg.core.errors import OutputError
from renalseg.core.volume import Segmentation, Volume
from renalseg.io.files import atomic_path, output_error, write_json
from renalseg.io.nifti import write_nifti
from renalseg.model.runtime import peak_host_mb, reset_host_peak
from renalseg.report.suffixes import DICOM_SEG, DICOM_SR, LABELS, MEASUREMENTS, PAGE, PICTURE, RECORD


@dataclass(frozen=True)
class Extras:
    """What is written beside labels, record and picture.

    Attributes:
        measurements: tables over all cases; NAME.measurements.json, with nephrometry, is written with each extra.
        page: NAME.html, a report with a viewer, measurements and nephrometry.
        seg: NAME.seg.dcm, a DICOM SEG; of DICOM input alone.
        labelmap: the SEG is one label map instead of a bit for each segment.
        sr: NAME.sr.dcm, a DICOM SR with the measurements, and the SEG that it refers to; of DICOM input alone.
    """

    measurements: bool = False
    page: bool = False
    seg: bool = False
    sr: bool = False
    labelmap: bool = False

    @property
    def dicom(self) -> bool:
        """Whether a DICOM result is wanted."""
        return self.seg or self.sr

    @property
    def any(self) -> bool:
        """Whether anything is wanted that rests on measurements."""
        return self.measurements or self.page or self.dicom

    @property
    def kinds(self) -> list[str]:
        """The kinds of files that are written."""
        seg = "labelmap" if self.labelmap else "seg"
        wanted = {"measurements": self.any, "page": self.page, seg: self.dicom, "sr": self.sr}
        return [kind for kind, is_wanted in wanted.items() if is_wanted]


NO_EXTRAS = Extras()

MADE_FROM = "made_from"
"""Where a record keeps what its results were made from."""

BYTES = "bytes"
"""Where a record keeps the size of each file beside it."""


def targets(stem: Path, extras: Extras = NO_EXTRAS) -> list[Path]:
    """The files of a case, but for DICOM; the record, first here, is renamed last and marks a finished one."""
    suffixes = [RECORD, PICTURE, LABELS]
    suffixes += [MEASUREMENTS] * extras.any + [PAGE] * extras.page
    return [stem.with_name(stem.name + suffix) for suffix in suffixes]


def all_targets(stem: Path, extras: Extras, has_labels: bool) -> list[Path]:
    """``targets`` and the DICOM files of a case; without a label there is nothing to make a SEG of."""
    if not extras.dicom or not has_labels:
        return targets(stem, extras)
    from renalseg.report.dicom import dicom_files

    return [*targets(stem, extras), *dicom_files(stem, sr=extras.sr)]


@dataclass(frozen=True)
class Findings:
    """What the ``extras`` of a case are made of: measurements, sketches by lesion id, and where the CT lies."""

    measurements: dict[str, Any]
    sketches: dict[int, bytes]
    source: Path
    extras: Extras


def write_result(
    result: Segmentation, ct: Volume, stem: Path, findings: Findings | None = None, alone: bool = True
) -> dict[str, Any]:
    """Writes STEM.nii.gz, STEM.png and STEM.json, all or none; returns the record with the time that writing took.

    All three, and what ``findings`` add, are written under temporary names first. Then the old record is made empty,
    the others are renamed, and the new record last: whenever this is cut short, no record stands beside files that are
    not its own. What an earlier run made of its own labels, and this one does not replace, is removed.

    Args:
        result: labels and record.
        ct: the image, for the picture and the page.
        stem: folder and name of the files, without suffix.
        findings: what the extras are made of.
        alone: whether nothing else is computed meanwhile, whose peak of memory a new measurement would lose.

    Raises:
        OutputError: one of them could not be written.
    """
    from renalseg.report.figures import overlay  # here, since the first network need not wait for matplotlib

    started = time.perf_counter()
    if alone:
        reset_host_peak()
    record = result.record
    extras = NO_EXTRAS if findings is None else findings.extras
    has_labels = bool(result.labels.array.any())
    if extras.dicom and not has_labels:
        record["warnings"].append("No DICOM SEG or SR was written: there is no label to tell of.")
    files = all_targets(stem, extras, has_labels)
    for target in files:
        if target.is_dir():
            raise output_error(target, IsADirectoryError(errno.EISDIR, "is a folder"))
    try:
        with ExitStack() as stack:
            json_path = stack.enter_context(atomic_path(files[0]))
            stack.enter_context(_outdated(stem, files))
            paths = [stack.enter_context(atomic_path(target)) for target in files[1:]]
            picture, labels, *others = paths
            write_nifti(result.labels, labels)
            overlay(ct, result.labels, picture, title=stem.name, subtitle=_subtitle(record))
            if findings is not None:
                _write_extras(result, ct, stem, findings, others)
            record["timings_s"]["write"] = round(time.perf_counter() - started, 4)
            record[BYTES] = {target.name: path.stat().st_size for target, path in zip(files[1:], paths, strict=True)}
            add_peak(record, "write", peak_host_mb())
            write_json(record, json_path)
            if files[0].exists():  # whatever happens from here on, the old record is not of these files
                write_json({MADE_FROM: None}, files[0])
    except OutputError as error:
        if isinstance(error.__cause__, OSError):  # named by its temporary file so far
            raise output_error(stem.with_name(stem.name + ".*"), error.__cause__) from error
        raise
    return record


@contextmanager
def _outdated(stem: Path, files: list[Path]) -> Iterator[None]:
    """What extras may have made of the case before and ``files`` do not replace; removed where the body succeeds."""
    suffixes = (MEASUREMENTS, PAGE, DICOM_SEG, DICOM_SR)
    known = {stem.with_name(stem.name + suffix) for suffix in suffixes} - set(files) if files[0].is_file() else set()
    yield
    for path in known:
        if path.is_file():
            path.unlink()


def _write_extras(result: Segmentation, ct: Volume, stem: Path, findings: Findings, paths: list[Path]) -> None:
    """Writes what the findings add to the temporary ``paths``: measurements, page, SEG and SR, as far as wanted."""
    measurements, *rest = paths
    write_json(findings.measurements, measurements)
    if findings.extras.page:
        from renalseg.report.page import write_case_page

        page, *rest = rest
        write_case_page(page, ct, result.labels, result.record, findings.measurements, findings.sketches)
    if rest:
        from renalseg.report.dicom import DicomCase, build_dicom, save_dicom

        case = DicomCase(replace(result.labels, name=stem.name), findings.measurements, findings.source, result.record)
        kind: Literal["BINARY", "LABELMAP"] = "LABELMAP" if findings.extras.labelmap else "BINARY"
        for path, data in zip(rest, build_dicom(case, sr=findings.extras.sr, kind=kind), strict=True):
            save_dicom(data, path)


def add_peak(record: dict[str, Any], step: str, host_mb: float) -> None:
    """Notes the peak memory of a step beside those of the cascade."""
    memory = record["peak_memory_mb"]
    memory["host_by_step"][step] = round(host_mb, 1)
    memory["host"] = max(memory["host_by_step"].values())


def _subtitle(record: dict[str, Any]) -> str:
    weights = ", ".join(w["path"] for w in record["weights"])
    return f"weights {weights} ({record['weights_sha256'][:8]}), preset {record['preset']}"
