"""DICOM SEG and SR of a case as files, all or none."""

import errno
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom

from renalseg.core.errors import InputError
from renalseg.core.volume import Volume
from renalseg.io.dicom_source import quiet
from renalseg.io.files import atomic_path, output_error
from renalseg.report.dicom.algorithm import Algorithm, algorithm_of
from renalseg.report.dicom.seg import SegKind, build_seg
from renalseg.report.dicom.segments import Segments, find_segments
from renalseg.report.dicom.source import SourceSeries, read_source
from renalseg.report.dicom.sr import build_sr
from renalseg.report.suffixes import DICOM_SEG, DICOM_SR


@dataclass(frozen=True)
class DicomCase:
    """What a SEG and an SR are made of.

    Attributes:
        labels: label map [z, y, x] on the grid that ``io.read_volume`` gave ``source``.
        measurements: the dictionary of ``report.measure`` ("renalseg-measurements/1") of ``labels``.
        source: the folder or zip with the DICOM series that was segmented.
        record: of the segmentation, for version, preset and weights; None where there is none.
    """

    labels: Volume
    measurements: Mapping[str, Any]
    source: Path
    record: Mapping[str, Any] | None = None


def write_dicom(case: DicomCase, stem: Path, *, sr: bool = True, kind: SegKind = "BINARY") -> tuple[Path, ...]:
    """Writes STEM.seg.dcm and, with ``sr``, STEM.sr.dcm: both or none.

    An SR refers to the segments of a SEG, so it is never written alone.

    Returns:
        The files, SEG first; none where there is no label, since a SEG needs a segment.

    Raises:
        InputError: the source is no DICOM series, not the labels', or lacks what DICOM results need; or the
            measurements are not the labels'.
        OutputError: a file could not be written.
    """
    objects = build_dicom(case, sr=sr, kind=kind)
    files = dicom_files(stem, sr=sr) if objects else ()
    _save(dict(zip(files, objects, strict=True)))
    return files


def build_dicom(case: DicomCase, *, sr: bool = True, kind: SegKind = "BINARY") -> list[pydicom.Dataset]:
    """The SEG and, with ``sr``, the SR of a case, not yet written; none where there is no label. Errors as there."""
    series, segments, algorithm = _prepare(case)
    if not segments.items:
        return []
    objects = [build_seg(segments, series, algorithm, kind)]
    if sr:
        objects.append(build_sr(segments, objects[0], series, algorithm))
    return objects


def save_dicom(data: pydicom.Dataset, path: Path) -> None:
    """Writes a DICOM object as a file, right where it is to be."""
    with quiet():
        data.save_as(path, enforce_file_format=True)


def dicom_files(stem: Path, *, sr: bool) -> tuple[Path, ...]:
    """The files that ``write_dicom`` writes where there is a label."""
    suffixes = (DICOM_SEG, DICOM_SR) if sr else (DICOM_SEG,)
    return tuple(stem.with_name(stem.name + suffix) for suffix in suffixes)


def write_seg(case: DicomCase, path: Path, kind: SegKind = "BINARY") -> None:
    """Writes the DICOM SEG of a case.

    Raises:
        InputError: as ``write_dicom``, or there is no label.
        OutputError: the file could not be written.
    """
    series, segments, algorithm = _prepare(case)
    if not segments.items:
        raise InputError(f"{case.labels.name} has no label, and a DICOM SEG needs a segment; there is none to write.")
    _save({path: build_seg(segments, series, algorithm, kind)})


def write_sr(case: DicomCase, seg: Path, path: Path) -> None:
    """Writes the DICOM SR of a case whose SEG is the file ``seg``.

    Raises:
        InputError: as ``write_dicom``, or ``seg`` is no SEG of the same labels and series.
        OutputError: the file could not be written.
    """
    series, segments, algorithm = _prepare(case)
    header = _read_seg(seg)
    stated = [item.get("TrackingUID") for item in header.get("SegmentSequence", []) if item.SegmentNumber > 0]
    if not stated or stated != [segment.tracking_uid for segment in segments.items]:
        raise InputError(f"{seg} is no DICOM SEG of these labels and this series; write it again with write_seg.")
    _save({path: build_sr(segments, header, series, algorithm)})


def _prepare(case: DicomCase) -> tuple[SourceSeries, Segments, Algorithm]:
    series = read_source(case.source, case.labels)
    return series, find_segments(case.labels, case.measurements, series.series_uid), algorithm_of(case.record)


def _read_seg(path: Path) -> Any:
    try:
        with quiet():
            return pydicom.dcmread(path, stop_before_pixels=True)
    except (OSError, pydicom.errors.InvalidDicomError) as error:
        raise InputError(f"{path} cannot be read as DICOM; give the SEG that write_seg wrote.") from error


def _save(objects: Mapping[Path, Any]) -> None:
    for path in objects:
        if path.is_dir():
            raise output_error(path, IsADirectoryError(errno.EISDIR, "is a folder"))
    with ExitStack() as stack:
        for path, data in objects.items():
            save_dicom(data, stack.enter_context(atomic_path(path)))
