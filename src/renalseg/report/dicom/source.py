"""The series that a label map was made from: its headers in the order of the stack, and labels turned to fit them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from renalseg.core.errors import InputError
from renalseg.core.volume import Volume
from renalseg.io.dicom_slices import Slice, damage_named, read_headers, slices_of
from renalseg.io.dicom_source import open_source, quiet
from renalseg.io.dicom_stack import same_position, sort_slices, stack_affine

GRID_TOLERANCE_MM = 1e-3

_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPClassUID", "SOPInstanceUID")
_ONE_VALUE = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID")
IDENTITY = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Who and which examination: copied to every result as the source has it, valid or not; PS3.3 C.7.1.1 and C.7.2.1."""


@dataclass(frozen=True)
class SourceSeries:
    """The series behind a label map.

    Attributes:
        path: the folder or zip it was read from.
        images: pydicom headers without pixels, one for each slice of the stack (or the one multi-frame object), in the
            order of the planes of ``planes``.
        slots: for each slice of the stack, the plane of ``planes`` that it is: its own number, or its frame.
        n_planes: planes in all, the frames left out as duplicates included.
        identity: elements of ``IDENTITY`` as they stand in the series, by keyword; those it lacks are missing.
    """

    path: Path
    images: tuple[Any, ...]
    slots: tuple[int, ...]
    n_planes: int
    identity: Mapping[str, Any]

    @property
    def series_uid(self) -> str:
        """The UID of the series."""
        return str(self.images[0].SeriesInstanceUID)

    @property
    def series_number(self) -> int:
        """The number of the series; 0 where it has none."""
        return int(self.images[0].get("SeriesNumber") or 0)

    def planes(self, values: Volume) -> NDArray[Any]:
        """The voxels of ``values`` as [plane, row, column] on ``images``; planes left out by the reader are 0."""
        stack = values.stored().transpose()
        found = np.zeros((self.n_planes, *stack.shape[1:]), stack.dtype)
        found[list(self.slots)] = stack
        return found

    @contextmanager
    def accepted(self) -> Iterator[None]:
        """Turns what highdicom raises for headers that do not fit together into an InputError."""
        try:
            with quiet():
                yield
        except (ValueError, AttributeError) as error:
            reason = str(error).strip().rstrip(".")
            raise InputError(
                f"{self.path} cannot be the source of DICOM results: {reason}; export it again."
            ) from error

    def restore_identity(self, result: Any) -> None:
        """Gives a result the elements of ``IDENTITY`` just as the series has them."""
        for keyword, element in self.identity.items():
            result[keyword] = element


def check_source(path: Path) -> None:
    """Tells, before any work is done, whether ``path`` can be the source of DICOM results.

    Raises:
        InputError: it is a file of another format, which knows no patient, study or slices.
    """
    if not (path.is_dir() or path.suffix.lower() == ".zip"):
        raise InputError(
            f"{path} is no DICOM series, and DICOM SEG and SR need one to refer to; give the folder or zip with the "
            "slices, or do without DICOM results."
        )


def read_source(path: Path, labels: Volume) -> SourceSeries:
    """Reads the headers of the series that ``labels`` (on the grid that ``io.read_volume`` gave it) were made from.

    Slices are sorted, and repeated positions left out, as ``io.dicom.read_dicom`` does.

    Raises:
        InputError: no DICOM series, another grid than the labels', UIDs missing or contradicting each other.
    """
    check_source(path)
    with quiet(), open_source(path) as source:
        headers = read_headers(source, path)
        _check_identity(headers, path)
        slices = [item for name, header in headers.items() for item in slices_of(name, header, path)]
        slices = _without_duplicates(sort_slices(slices, path))
        affine, _ = stack_affine(slices, path)
        _check_grid(slices, affine, labels, path)
        first = headers[slices[0].file]
        identity = {key: deepcopy(first[key]) for key in IDENTITY if key in first}  # headers are emptied in place below
        return _series(headers, slices, identity, path)


def _series(headers: Mapping[str, Any], slices: list[Slice], identity: Mapping[str, Any], path: Path) -> SourceSeries:
    files = list(dict.fromkeys(item.file for item in slices))
    for file in files:
        _complete(headers[file], slices[0])
    if len(files) == len(slices) and "PerFrameFunctionalGroupsSequence" not in headers[files[0]]:
        images = tuple(headers[file] for file in files)
        return SourceSeries(path, images, tuple(range(len(slices))), len(slices), identity)
    if len(headers) > 1:
        raise InputError(
            f"{path} holds {len(headers)} multi-frame objects, which a DICOM SEG cannot refer to together; export the "
            "series as single slices."
        )
    frames = tuple(item.frame for item in slices)
    return SourceSeries(path, (headers[files[0]],), frames, int(headers[files[0]].NumberOfFrames), identity)


def _complete(header: Any, first: Slice) -> None:
    """Gives a header what highdicom looks at: empty elements that it lacks, and the stack's one orientation.

    Values that highdicom refuses, as a sex of "W", are emptied; results get them back from ``SourceSeries.identity``.
    """
    from pydicom.valuerep import format_number_as_ds

    for keyword in IDENTITY:
        if keyword not in header and keyword != "IssuerOfPatientID":
            setattr(header, keyword, "")
    for keyword in ("PatientBirthDate", "StudyDate", "StudyTime"):
        setattr(header, keyword, "")
    if header.PatientSex not in ("M", "F", "O"):
        header.PatientSex = ""
    if "ImageOrientationPatient" in header:
        header.ImageOrientationPatient = [format_number_as_ds(float(v)) for v in (*first.row, *first.column)]


def _without_duplicates(slices: list[Slice]) -> list[Slice]:
    """The sorted slices without those that repeat their neighbour's position; the reader compared their voxels."""
    repeated = {j for _, j in same_position(slices)}
    return [item for i, item in enumerate(slices) if i not in repeated]


def _check_identity(headers: Mapping[str, Any], path: Path) -> None:
    for name, header in headers.items():
        with damage_named(name, path):
            missing = [keyword for keyword in _NEEDED if not header.get(keyword)]
        if missing:
            raise InputError(f"{path} holds {name} without {missing[0]}, which DICOM results need; export it again.")
    for keyword in _ONE_VALUE:
        values = {str(header.get(keyword)) for header in headers.values()}
        if len(values) > 1:
            raise InputError(f"{path} holds slices with {len(values)} values of {keyword}; give a single series.")


def _check_grid(slices: list[Slice], affine: NDArray[np.float64], labels: Volume, path: Path) -> None:
    """Raises InputError where the labels do not lie voxel by voxel on the slices."""
    rows, columns = slices[0].shape
    shape = (columns, rows, len(slices))
    corners = np.array([[i, j, k, 1] for i in (0, columns) for j in (0, rows) for k in (0, len(slices))])
    if shape == labels.grid.shape:
        off_mm = float(np.abs((affine - labels.grid.affine) @ corners.T)[:3].max())
        if off_mm <= GRID_TOLERANCE_MM:
            return
    listed, own = (" x ".join(str(n) for n in s) for s in (labels.grid.shape, shape))
    raise InputError(
        f"{path} has another voxel grid ({own}) than the labels ({listed}); give the very series that was segmented."
    )
