"""NRRD and MetaImage against SimpleITK's own geometry."""

import os

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from renalseg.core.errors import GeometryError, InputError
from renalseg.io import itk
from renalseg.io.nifti import read_nifti, write_nifti
from renalseg.io.read import read_volume

TURN = (0.936293364, 0.275095847, -0.218350663, -0.289629478, 0.956425086, -0.036957013)


@pytest.fixture
def image() -> sitk.Image:
    array = np.random.default_rng(0).integers(-1000, 1500, (4, 5, 6)).astype(np.int16)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-12.5, 30.25, -400.0))
    row, column = np.array(TURN[:3]), np.array(TURN[3:])
    image.SetDirection(np.stack([row, column, np.cross(row, column)], axis=1).ravel().tolist())
    return image


@pytest.mark.parametrize("name", ["p1.nrrd", "p1.nhdr", "p1.mha", "p1.mhd"])
def test_geometry_and_values(name, image, tmp_path, capfd):
    sitk.WriteImage(image, str(tmp_path / name))
    volume = read_volume(tmp_path / name)
    assert (volume.name, volume.warnings, volume.array.dtype) == ("p1", (), np.int16)
    for index in ((0, 0, 0), (5, 4, 3), (1, 2, 3)):
        x, y, z = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(volume.grid.affine @ [*index, 1], [-x, -y, z, 1], atol=1e-4)
        assert volume.stored()[index] == image[index]
    write_nifti(volume, tmp_path / "out.nii.gz")
    back = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    assert back.GetSize() == image.GetSize()
    np.testing.assert_allclose(back.GetOrigin(), image.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(back.GetDirection(), image.GetDirection(), atol=1e-5)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))
    assert nib.load(tmp_path / "out.nii.gz").header["sform_code"] == 1
    assert read_nifti(tmp_path / "out.nii.gz").same_grid(volume)
    assert capfd.readouterr() == ("", "")


def test_double_becomes_float32(image, tmp_path):
    sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat64), str(tmp_path / "a.mha"))
    assert read_volume(tmp_path / "a.mha").array.dtype == np.float32


def test_fourth_axis_of_size_one(image, tmp_path):
    sitk.WriteImage(sitk.JoinSeries(image), str(tmp_path / "a.mha"))
    volume = read_volume(tmp_path / "a.mha")
    np.testing.assert_array_equal(volume.stored().transpose(), sitk.GetArrayFromImage(image))
    assert "4 dimensions" in volume.warnings[0]


def refused(path, part, capfd, error=InputError):
    with pytest.raises(error, match=part) as caught:
        read_volume(path)
    assert str(path) in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_colour(tmp_path, capfd):
    sitk.WriteImage(sitk.Image((4, 4, 4), sitk.sitkVectorUInt8, 3), str(tmp_path / "a.nrrd"))
    refused(tmp_path / "a.nrrd", "several values per voxel", capfd)


@pytest.mark.parametrize("size", [(4, 4), (4, 4, 1), (4, 4, 4, 2)])
def test_wrong_dimensions(size, tmp_path, capfd):
    sitk.WriteImage(sitk.Image(size, sitk.sitkInt16), str(tmp_path / "a.mha"))
    refused(tmp_path / "a.mha", " x ".join(map(str, size)), capfd, GeometryError)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
@pytest.mark.parametrize("content", ["text", "truncated", "empty"])
def test_damaged(name, content, image, tmp_path, capfd):
    sitk.WriteImage(image, str(tmp_path / name))
    path = tmp_path / name
    whole = path.read_bytes()
    path.write_bytes({"text": b"this is no image", "truncated": whole[:-100], "empty": b""}[content])
    refused(path, "is empty" if content == "empty" else "truncated or damaged", capfd)


def test_missing_data_file(image, tmp_path, capfd):
    sitk.WriteImage(image, str(tmp_path / "a.mhd"))
    (tmp_path / "a.raw").unlink()
    refused(tmp_path / "a.mhd", "data file is missing", capfd)


def test_what_another_thread_prints_while_a_file_is_read_is_not_lost(capfd):
    with itk._silent_stderr():
        os.write(2, b"MetaImage: M_ReadElements: data not read completely\n   ideal = 240 : actual = 140\n")
        os.write(2, b"first: kidney 3.0 ml\n  warning one\n")
    os.write(2, b"after\n")
    assert capfd.readouterr() == ("", "first: kidney 3.0 ml\n  warning one\nafter\n")
