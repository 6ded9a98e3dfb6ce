"""Synthetic DICOM series."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass
class Series:
    """A series to be written: stored values [slice, row, column] and the geometry of its slices."""

    stored: NDArray[Any]
    orientation: tuple[float, ...] = AXIAL
    origin: tuple[float, float, float] = (-10.0, 20.0, -300.0)
    step: NDArray[np.float64] | None = None
    pixel_spacing: tuple[float, float] = (0.8, 0.7)
    spacing: float = 2.5
    slope: tuple[float, ...] = (1.0,)
    intercept: tuple[float, ...] = (-1024.0,)
    positions: list[NDArray[np.float64]] | None = None
    uid: str = field(default_factory=generate_uid)
    tags: dict[str, Any] = field(default_factory=dict)

    @property
    def hu(self) -> NDArray[np.float64]:
        slope = np.resize(self.slope, len(self.stored))[:, None, None]
        return self.stored * slope + np.resize(self.intercept, len(self.stored))[:, None, None]

    def position(self, k: int) -> NDArray[np.float64]:
        if self.positions is not None:
            return self.positions[k]
        step = self.step
        if step is None:
            step = np.cross(self.orientation[:3], self.orientation[3:]) * self.spacing
        return np.array(self.origin) + k * step

    def affine(self) -> NDArray[np.float64]:
        """Index (column, row, slice, 1) to RAS mm, for a regular stack."""
        lps = np.eye(4)
        lps[:3, 0] = np.array(self.orientation[:3]) * self.pixel_spacing[1]
        lps[:3, 1] = np.array(self.orientation[3:]) * self.pixel_spacing[0]
        lps[:3, 2] = self.position(1) - self.position(0)
        lps[:3, 3] = self.position(0)
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps

    def dataset(self, k: int) -> Dataset:
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
        data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = self.uid, "1.2.3", "1.2.4"
        data.Modality, data.SeriesDescription, data.InstanceNumber = "CT", "abdomen", k + 1
        data.PatientName = data.PatientID = "phantom"
        data.ImageOrientationPatient = [f"{v:.9f}" for v in self.orientation]
        data.ImagePositionPatient = [f"{v:.9f}" for v in self.position(k)]
        data.PixelSpacing, data.SliceThickness = list(self.pixel_spacing), self.spacing
        data.RescaleSlope, data.RescaleIntercept = (
            self.slope[k % len(self.slope)],
            self.intercept[k % len(self.intercept)],
        )
        pixels = self.stored[k]
        data.Rows, data.Columns = pixels.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, int(pixels.dtype.kind == "i")
        data.PixelData = pixels.tobytes()
        for keyword, value in self.tags.items():
            if value is None:
                delattr(data, keyword)
            else:
                setattr(data, keyword, value)
        return data


def save(data: Dataset, path: Path) -> None:
    """Writes one object; pydicom's remarks about deliberately odd headers are not wanted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(path, data, enforce_file_format=True)


@pytest.fixture
def stored() -> NDArray[np.uint16]:
    """Stored values [slice, row, column] = [6, 8, 10], all different, air to bone with an intercept of -1024."""
    values = np.arange(6 * 8 * 10) * 5 + 20
    return np.random.default_rng(1).permutation(values).reshape(6, 8, 10).astype(np.uint16)


@pytest.fixture
def make_series() -> type[Series]:
    return Series


@pytest.fixture
def save_dicom() -> Callable[[Dataset, Path], None]:
    return save


@pytest.fixture
def write_series() -> Callable[..., Path]:
    """Writes the slices of a series under shuffled names."""

    def write(series: Series, folder: Path, only: list[int] | None = None, prefix: str = "im") -> Path:
        indices = list(range(len(series.stored))) if only is None else only
        names = np.random.default_rng(0).permutation(len(indices))
        for k, name in zip(indices, names, strict=True):
            save(series.dataset(k), folder / f"{prefix}{name:03d}.dcm")
        return folder

    return write
