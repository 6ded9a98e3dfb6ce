"""DICOM series that read: checked against what was written and against SimpleITK's own reader."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from renalseg.io.dicom import read_dicom
from renalseg.io.itk import ras_affine
from renalseg.io.read import read_volume

OBLIQUE = (0.936293364, 0.275095847, -0.218350663, -0.289629478, 0.956425086, -0.036957013)


def stored_hu(volume):
    """[slice, row, column] as the file has it."""
    return volume.stored().transpose()


def itk_series(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"slope": (1.0, 2.0, 1.0), "intercept": (-1024.0, -1000.0)},
        {"step": np.array([0.0, 0.0, -2.5])},
        {"orientation": OBLIQUE},
        {"orientation": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)},
        {"orientation": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)},
        {"orientation": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)},
    ],
    ids=["axial", "rescale per slice", "descending", "oblique", "sagittal", "coronal", "prone"],
)
def test_regular_series_agree_with_what_was_written_and_with_simpleitk(
    options, stored, make_series, write_series, tmp_path, capfd
):
    series = make_series(stored, **options)
    volume = read_dicom(write_series(series, tmp_path / "case_7"))
    assert volume.array.dtype == np.int16
    assert volume.warnings == ()
    expected, affine = series.hu, series.affine()
    if options.get("step") is not None:  # files run downwards, slices are sorted upwards
        expected = expected[::-1]
        affine = affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, len(stored) - 1], [0, 0, 0, 1]])
    np.testing.assert_array_equal(stored_hu(volume), expected)
    np.testing.assert_allclose(volume.grid.affine, affine, atol=1e-6)
    image = itk_series(tmp_path / "case_7")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), expected)
    np.testing.assert_allclose(volume.grid.affine, ras_affine(image), atol=1e-5)
    assert capfd.readouterr().err == ""


def test_fractional_rescale_becomes_float32(stored, make_series, write_series, tmp_path):
    series = make_series(stored, slope=(1.0, 0.5))
    volume = read_dicom(write_series(series, tmp_path))
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(stored_hu(volume), series.hu)


def test_values_beyond_int16_become_float32(stored, make_series, write_series, tmp_path):
    stored[3, 2, 1] = 65000
    volume = read_dicom(write_series(make_series(stored), tmp_path))
    assert volume.array.dtype == np.float32
    assert volume.array.max() == 65000 - 1024


def test_tilted_gantry_keeps_the_sheared_affine(stored, make_series, write_series, tmp_path):
    angle = np.radians(12.0)
    series = make_series(
        stored,
        orientation=(1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle))),
        step=np.array([0.0, 0.0, 2.5]),
        tags={"GantryDetectorTilt": 12.0},
    )
    volume = read_dicom(write_series(series, tmp_path))
    np.testing.assert_allclose(volume.grid.affine, series.affine(), atol=1e-6)
    assert volume.voxel_mm3 == pytest.approx(0.8 * 0.7 * 2.5 * np.cos(angle))
    assert any("12.0 degrees" in warning for warning in volume.warnings)


def test_stated_tilt_without_shear_is_mentioned(stored, make_series, write_series, tmp_path):
    volume = read_dicom(write_series(make_series(stored, tags={"GantryDetectorTilt": -15.0}), tmp_path))
    assert any("-15 degrees" in warning for warning in volume.warnings)


def test_zip_with_subfolders_and_foreign_files(stored, make_series, write_series, save_dicom, tmp_path, capfd):
    series = make_series(stored)
    folder = write_series(series, tmp_path / "in" / "a" / "b")
    (folder / "notes.txt").write_text("not DICOM")
    (folder / "short").write_bytes(b"x")
    report = series.dataset(0)
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(report, keyword)
    report.Modality, report.SeriesInstanceUID = "SR", "1.2.9"
    save_dicom(report, folder / "report.dcm")
    mask = series.dataset(0)
    mask.Modality, mask.SeriesInstanceUID = "SEG", "1.2.10"
    save_dicom(mask, folder / "mask.dcm")
    archive = tmp_path / "case_3" / "dicom.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, f"../../{path.name}")  # a hostile name: nothing may be extracted to it
    before = sorted(tmp_path.rglob("*"))
    volume = read_volume(archive)
    assert volume.name == "case_3"
    assert sorted(tmp_path.rglob("*")) == before
    np.testing.assert_array_equal(stored_hu(volume), series.hu)
    np.testing.assert_array_equal(read_volume(tmp_path / "in").array, volume.array)
    assert capfd.readouterr().err == ""


def test_exact_duplicates_are_dropped_with_a_warning(stored, make_series, write_series, save_dicom, tmp_path):
    series = make_series(stored)
    write_series(series, tmp_path)
    save_dicom(series.dataset(2), tmp_path / "again.dcm")
    save_dicom(series.dataset(2), tmp_path / "and again.dcm")
    volume = read_dicom(tmp_path)
    np.testing.assert_array_equal(stored_hu(volume), series.hu)
    assert volume.warnings == ("2 slices were exact duplicates of others; they were left out.",)


@pytest.mark.parametrize(("dtype", "value"), [(np.int16, -2000), (np.int16, 63536), (np.uint16, 63536)])
def test_padding_becomes_air(dtype, value, stored, make_series, write_series, tmp_path):
    stored = stored.astype(dtype)
    stored[:, 0, :] = np.array(value).astype(dtype) if dtype == np.uint16 else -2000
    series = make_series(stored)
    datasets = [series.dataset(k) for k in range(len(stored))]
    for k, data in enumerate(datasets):
        data.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
        data.save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)
    volume = read_dicom(tmp_path)
    assert volume.warnings == ()
    assert (stored_hu(volume)[:, 0] == -1024).all()
    np.testing.assert_array_equal(stored_hu(volume)[:, 1:], series.hu[:, 1:])


def test_padding_with_a_tissue_value_is_reported(stored, make_series, write_series, tmp_path):
    stored[0, 0, 0] = 1024
    series = make_series(stored, tags={"PixelPaddingValue": 1024})
    volume = read_dicom(write_series(series, tmp_path))
    assert "1 voxels of soft tissue value are marked as padding" in volume.warnings[0]


def test_other_modality_and_missing_rescale_are_warned_about(stored, make_series, write_series, tmp_path):
    tags = {"Modality": "MR", "RescaleSlope": None, "RescaleIntercept": None}
    volume = read_dicom(write_series(make_series(stored, tags=tags), tmp_path))
    assert "MR, not CT" in volume.warnings[0]
    assert "stored values were taken as HU" in volume.warnings[1]
    np.testing.assert_array_equal(stored_hu(volume), stored)


def test_slightly_uneven_spacing_is_accepted(stored, make_series, write_series, tmp_path):
    positions = [np.array([0, 0, 2.5 * k + 0.04 * (k % 2)]) for k in range(6)]
    volume = read_dicom(write_series(make_series(stored, positions=positions), tmp_path))
    assert volume.spacing_mm[0] == pytest.approx(2.508)


def test_compressed_slices(stored, make_series, save_dicom, tmp_path):
    series = make_series(stored)
    for k in range(len(stored)):
        data = series.dataset(k)
        data.compress(RLELossless, generate_instance_uid=False)
        save_dicom(data, tmp_path / f"{k}.dcm")
    np.testing.assert_array_equal(stored_hu(read_dicom(tmp_path)), series.hu)


def test_enhanced_multi_frame(stored, make_series, save_dicom, tmp_path):
    series = make_series(stored)
    data = series.dataset(0)
    data.NumberOfFrames, data.PixelData = len(stored), stored[[2, 0, 1, 3, 5, 4]].tobytes()
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(data, keyword)
    shared = Dataset()
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=list(series.orientation))]
    shared.PixelMeasuresSequence = [_item(PixelSpacing=list(series.pixel_spacing))]
    shared.PixelValueTransformationSequence = [_item(RescaleSlope=1, RescaleIntercept=-1024)]
    data.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for k in (2, 0, 1, 3, 5, 4):
        frames.append(_item(PlanePositionSequence=[_item(ImagePositionPatient=list(series.position(k)))]))
    data.PerFrameFunctionalGroupsSequence = frames
    save_dicom(data, tmp_path / "all.dcm")
    volume = read_dicom(tmp_path)
    np.testing.assert_array_equal(stored_hu(volume), series.hu)
    np.testing.assert_allclose(volume.grid.affine, series.affine(), atol=1e-6)


def _item(**tags) -> Dataset:
    item = Dataset()
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    return item
