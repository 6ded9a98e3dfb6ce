"""The header of each DICOM slice: what geometry, HU and sorting need, the same for single and multi-frame objects."""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from renalseg.core.errors import GeometryError, InputError, RenalsegError
from renalseg.io.dicom_source import Source, read_object

_NO_IMAGES = frozenset({"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "RTRECORD", "SR", "PR", "KO", "REG", "DOC", "AU", "ECG"})
"""Modalities that accompany images: segmentations, doses, reports, presentation states."""


@dataclass(frozen=True)
class Slice:
    """One slice of one object.

    Attributes:
        file: name within the source.
        frame: index within the object.
        position_mm: centre of the first voxel, LPS.
        row, column: unit vectors, LPS, along which the column index and the row index grow.
        spacing_mm: between rows, between columns.
        shape: rows, columns.
        slope, intercept: stored value to HU.
        has_rescale: whether the object states slope and intercept.
        tilt_deg: the gantry's tilt as stated, 0 where absent.
        step_mm: the distance between slices as stated (or else their thickness), None where absent.
        number: the slice's number in its series, None where absent.
    """

    file: str
    frame: int
    position_mm: NDArray[np.float64]
    row: NDArray[np.float64]
    column: NDArray[np.float64]
    spacing_mm: tuple[float, float]
    shape: tuple[int, int]
    slope: float
    intercept: float
    has_rescale: bool
    tilt_deg: float
    step_mm: float | None = None
    number: int | None = None


def read_headers(source: Source, path: Path) -> dict[str, Any]:
    """Reads the headers of all DICOM images of a source, by file name; other files and objects are left out.

    Raises:
        InputError: a DICOM file is damaged, or there is no DICOM image.
    """
    headers, others = {}, []
    for name in source.names():
        with damage_named(name, path):
            header = read_object(source, name, headers_only=True)
            if header is None:
                others.append(name)
            elif str(header.get("Modality", "")) in _NO_IMAGES:
                continue
            elif "Rows" in header:
                headers[name] = header
                for keyword in ("SeriesInstanceUID", "SeriesDescription"):
                    header.get(keyword)  # pydicom parses a value, and raises, when it is first looked at
            elif _claims_an_image(header):
                raise InputError(f"{path} holds a truncated DICOM file, {name}; export or download it again.")
    if not headers:
        raise InputError(f"{path} holds no DICOM images; give the folder or zip with the slices of one CT series.")
    _check_others(others, headers, path)
    return headers


def _claims_an_image(header: Any) -> bool:
    """Whether an object without pixels should have some: its class is an image's, or was cut off with the rest."""
    uid = header.get("SOPClassUID") or getattr(header, "file_meta", {}).get("MediaStorageSOPClassUID")
    return uid is None or str(uid.name).endswith("Image Storage")


def _check_others(others: list[str], headers: dict[str, Any], path: Path) -> None:
    """Raises InputError for a file that is named like a slice and holds no DICOM: a slice that was damaged."""
    suffixes = {PurePosixPath(name).suffix.lower() for name in headers} - {""} | {".dcm", ".ima"}
    for name in others:
        if PurePosixPath(name).suffix.lower() in suffixes and not PurePosixPath(name).name.startswith("."):
            raise InputError(
                f"{path} holds {name}, which is named like a slice and is no DICOM file: damaged, or not part of the "
                "series; export it again or take it out."
            )


@contextmanager
def damage_named(name: str, path: Path) -> Iterator[None]:
    """Turns what pydicom raises for a damaged object, at once or when a value is looked at, into an InputError."""
    try:
        yield
    except RenalsegError:
        raise
    except PermissionError as error:
        raise InputError(f"{path} holds {name}, which may not be read; ask for permission to read it.") from error
    except zipfile.BadZipFile:
        raise  # the archive is at fault, and named by ``open_source``
    except Exception as error:  # pydicom raises whatever its parsing meets: no narrower list is complete
        raise InputError(f"{path} holds a damaged DICOM file, {name}; export or download it again.") from error


def slices_of(name: str, header: Any, path: Path) -> list[Slice]:
    """The slices of one object: one, or the frames of an enhanced multi-frame object.

    Raises:
        InputError: colour, or frames without functional groups.
        GeometryError: position, orientation or pixel spacing is missing or senseless.
    """
    with damage_named(name, path):
        return _slices(name, header, path)


def _slices(name: str, header: Any, path: Path) -> list[Slice]:
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise InputError(f"{path} holds a colour image, {name}; give the CT series itself.")
    if "PerFrameFunctionalGroupsSequence" in header:
        shared = list(header.get("SharedFunctionalGroupsSequence") or [])
        frames = list(header.PerFrameFunctionalGroupsSequence)
        return [_slice(name, i, header, [frame, *shared], path) for i, frame in enumerate(frames)]
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise InputError(f"{path} holds {name}, several frames without a position each; export single slices.")
    return [_slice(name, 0, header, [], path)]


def _slice(name: str, frame: int, header: Any, groups: list[Any], path: Path) -> Slice:
    def tag(sequence: str, keyword: str) -> Any:
        for group in groups:
            items = group.get(sequence)
            if items and items[0].get(keyword) is not None:
                return items[0].get(keyword)
        return header.get(keyword)

    needed = {
        "ImagePositionPatient": (tag("PlanePositionSequence", "ImagePositionPatient"), 3),
        "ImageOrientationPatient": (tag("PlaneOrientationSequence", "ImageOrientationPatient"), 6),
        "PixelSpacing": (tag("PixelMeasuresSequence", "PixelSpacing"), 2),
    }
    values = {keyword: _numbers(value, n) for keyword, (value, n) in needed.items()}
    missing = [keyword for keyword, value in values.items() if value is None]
    if missing:
        raise GeometryError(f"{path} holds {name} without a usable {', '.join(missing)}; export the series again.")
    position, orientation, spacing = (np.asarray(value) for value in values.values())
    row, column = orientation[:3], orientation[3:]
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=1e-2):
        raise GeometryError(f"{path} holds {name} whose ImageOrientationPatient is no pair of axes; export it again.")
    if spacing.min() <= 0:
        raise GeometryError(f"{path} holds {name} with a pixel spacing of {spacing.tolist()} mm; export it again.")
    slope = _numbers([tag("PixelValueTransformationSequence", "RescaleSlope")], 1)
    intercept = _numbers([tag("PixelValueTransformationSequence", "RescaleIntercept")], 1)
    tilt = _numbers([tag("CTAcquisitionDetailsSequence", "GantryDetectorTilt")], 1)
    return Slice(
        file=name,
        frame=frame,
        position_mm=position,
        row=row / np.linalg.norm(row),
        column=column / np.linalg.norm(column),
        spacing_mm=(float(spacing[0]), float(spacing[1])),
        shape=(int(header.Rows), int(header.Columns)),
        slope=float(slope[0]) if slope is not None else 1.0,
        intercept=float(intercept[0]) if intercept is not None else 0.0,
        has_rescale=slope is not None and intercept is not None,
        tilt_deg=float(tilt[0]) if tilt is not None else 0.0,
        step_mm=_stated_step(tag),
        number=_whole(header.get("InstanceNumber")),
    )


def _stated_step(tag: Callable[[str, str], Any]) -> float | None:
    """Distance between slices in mm by the header: SpacingBetweenSlices, else SliceThickness."""
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        found = _numbers([tag("PixelMeasuresSequence", keyword)], 1)
        if found is not None and found[0] > 0:
            return float(found[0])
    return None


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _numbers(value: Any, n: int) -> NDArray[np.float64] | None:
    """``value`` as n finite numbers, or None."""
    try:
        numbers = np.array([float(v) for v in value], dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (n,) and np.isfinite(numbers).all() else None
