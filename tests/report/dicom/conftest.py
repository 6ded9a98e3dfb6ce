"""A drawn label map on a synthetic DICOM series of any orientation, and its measurements, written by hand."""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from scipy import ndimage

from renalseg.core.volume import Volume
from renalseg.io.read import read_volume
from renalseg.report.dicom import DicomCase, write_dicom


def _builders() -> Any:
    """The module with the builders of synthetic series, which belong to the tests of ``io``."""
    path = Path(__file__).parents[2] / "io" / "conftest.py"
    spec = importlib.util.spec_from_file_location("dicom_builders", path)
    module = sys.modules.setdefault("dicom_builders", importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


builders = _builders()

SPACING = {"pixel_spacing": (8.0, 9.0), "spacing": 20.0}
IDENTITY = {
    "PatientName": "Example^Erika",
    "PatientID": "id-7",
    "PatientBirthDate": "19500102",
    "PatientSex": "F",
    "StudyDate": "20240203",
    "StudyTime": "101112",
    "StudyID": "s-1",
    "AccessionNumber": "a-9",
    "ReferringPhysicianName": "",
    "SeriesNumber": 4,
}
RECORD = {"renalseg": "9.8.7", "weights_sha256": "c0ffee" + "0" * 58, "preset": "small"}


def draw(ct: Volume) -> Volume:
    """Both kidneys, a tumor on the right one, a cyst in the left one, and a stray voxel of tumor."""
    labels = np.zeros(ct.shape, np.uint8)
    labels[1:-1, 1:-1, :2] = labels[1:-1, 1:-1, -2:] = 1
    labels[2:4, 2:4, 2] = 2
    labels[3:5, 3:5, -1] = 3
    labels[1, 1, -2] = 2
    return ct.with_array(labels)


def measured(labels: Volume) -> dict[str, Any]:
    """What ``report.measure`` would state, as far as used, of a tumor on the right and a cyst on the left kidney.

    Of each kind the largest piece counts, so that ``draw``'s stray voxel is not measured. Diameters and HU are made up.
    """
    middle = labels.shape[2] // 2
    ml = labels.voxel_mm3 / 1000

    def lesion(number: int, kind: str, label: int, side: str, hu: dict[str, float] | None) -> dict[str, Any]:
        pieces, _ = ndimage.label(labels.array == label, np.ones((3, 3, 3)))
        largest = np.bincount(pieces.ravel())[1:].argmax() + 1
        box = ndimage.find_objects(pieces)[largest - 1]
        voxels = int((pieces == largest).sum())
        return {
            "id": number,
            "kind": kind,
            "side": side,
            "voxels": voxels,
            "volume_ml": voxels * ml,
            "box_zyx": {"start": [s.start for s in box], "stop": [s.stop for s in box]},
            "axial_diameter": {"mm": 11.25, "slice": box[0].start, "ends_ras_mm": [[0, 0, 0], [11.25, 0, 0]]},
            "diameter_3d": {"mm": 24.123456, "ends_ras_mm": [[0, 0, 0], [24.123456, 0, 0]]},
            "craniocaudal_mm": 40.0,
            "hu": hu,
        }

    def kidney(side: str) -> dict[str, Any]:
        half = slice(None, middle) if side == "right" else slice(middle, None)
        voxels = int((labels.array[:, :, half] == 1).sum())
        return {"side": side, "volumes_ml": {"parenchyma": voxels * ml}, "length_mm": 80.0}

    return {
        "schema": "renalseg-measurements/1",
        "kidneys": [kidney("right"), kidney("left")],
        "lesions": [
            lesion(1, "tumor", 2, "right", {"mean": 33.25, "sd": 11.5}),
            lesion(2, "cyst", 3, "left", None),
        ],
    }


@dataclass
class Drawn:
    """A case, the CT it was drawn on, and the source's objects by SOP instance UID."""

    case: DicomCase
    ct: Volume
    objects: dict[str, pydicom.Dataset]


def draw_on_series(folder: Path, tags: dict[str, Any], **options: Any) -> Drawn:
    """Writes a series of [6, 8, 10] values that all differ, with options of ``Series``, and draws labels on it."""
    values = np.random.default_rng(1).permutation(np.arange(6 * 8 * 10) * 5 + 20).reshape(6, 8, 10).astype(np.uint16)
    series = builders.Series(values, **{**SPACING, **options}, tags=IDENTITY | tags)
    for k in range(len(values)):
        builders.save(series.dataset(k), folder / f"im{(k * 5) % 6}.dcm")  # names in another order than slices
    objects = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    ct = read_volume(folder)
    labels = draw(ct)
    case = DicomCase(labels, measured(labels), folder, RECORD)
    return Drawn(case, ct, {str(o.SOPInstanceUID): o for o in objects})


@pytest.fixture
def make_case(tmp_path: Path) -> Callable[..., Drawn]:
    """``draw_on_series`` in the test's folder."""

    def make(tags: dict[str, Any] | None = None, **options: Any) -> Drawn:
        return draw_on_series(tmp_path / "series", tags or {}, **options)

    return make


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[DicomCase, pydicom.Dataset, Any]:
    """An axial case, its SEG and its SR as read back; not to be changed."""
    folder = tmp_path_factory.mktemp("dicom")
    case = draw_on_series(folder / "series", {}).case
    seg, sr = write_dicom(case, folder / "out")
    return case, pydicom.dcmread(seg), hd.sr.srread(sr)
