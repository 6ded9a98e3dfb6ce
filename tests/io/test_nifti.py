"""NIfTI round trips: every orientation, odd spacing, oblique and sheared grids, codes and bits."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renalseg.core.volume import Grid, Volume
from renalseg.io.nifti import read_nifti, write_nifti

ORIENTATIONS = [
    "".join(axes) for order in itertools.permutations(("RL", "AP", "SI")) for axes in itertools.product(*order)
]
GEOMETRY = "sform_code qform_code quatern_b quatern_c quatern_d qoffset_x qoffset_y qoffset_z srow_x srow_y srow_z"


@pytest.fixture(scope="module")
def canonical_ct() -> Volume:
    array = np.random.default_rng(0).integers(-1024, 2000, (4, 5, 6)).astype(np.int16)
    return Volume.from_array(array, (3.1, 0.7, 0.9))


def oriented(volume: Volume, codes: str) -> nib.Nifti1Image:
    """The same image as a NIfTI file with other axis codes, by nibabel alone."""
    image = nib.Nifti1Image(volume.stored(), volume.grid.affine)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    return image.as_reoriented(turn)


def assert_same_geometry(first: Path, second: Path) -> None:
    a, b = nib.load(first), nib.load(second)
    assert a.shape == b.shape
    assert a.affine.tobytes() == b.affine.tobytes()
    for name in GEOMETRY.split():
        assert a.header[name].tobytes() == b.header[name].tobytes(), name
    assert a.header["pixdim"][:4].tobytes() == b.header["pixdim"][:4].tobytes()


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_48_orientations(codes, canonical_ct, tmp_path):
    path, out = tmp_path / "ct.nii", tmp_path / "labels.nii.gz"
    image = oriented(canonical_ct, codes)
    nib.save(image, path)
    volume = read_nifti(path)
    np.testing.assert_array_equal(volume.array, canonical_ct.array)
    assert volume.array.flags.c_contiguous
    np.testing.assert_allclose(volume.affine, canonical_ct.affine, atol=1e-5)
    np.testing.assert_allclose(volume.spacing_mm, (3.1, 0.7, 0.9), rtol=1e-6)
    np.testing.assert_array_equal(volume.stored(), np.asarray(image.dataobj))
    labels = (volume.array > 0).astype(np.uint8)
    write_nifti(volume.with_array(labels), out)
    assert_same_geometry(path, out)
    back = nib.load(out)
    assert back.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(back.dataobj), np.asarray(image.dataobj) > 0)
    assert back.header.get_xyzt_units()[0] == "mm"
    assert volume.same_grid(read_nifti(out))


def rotation(angles) -> np.ndarray:
    a, b, c = angles
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return x @ y @ z


@given(
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    spacing=st.tuples(*[st.floats(0.06, 40.0)] * 3),
    shear=st.sampled_from([0.0, 0.2]),
    codes=st.sampled_from([(1, 0), (0, 1), (1, 1), (2, 0), (4, 3), (0, 0)]),
    shape=st.tuples(*[st.integers(2, 5)] * 3),
)
def test_any_grid_comes_back_bit_for_bit(tmp_path_factory, angles, spacing, shear, codes, shape):
    folder = tmp_path_factory.mktemp("grid")
    skew = np.eye(3)
    skew[1, 2] = shear if codes[0] else 0.0
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles) @ skew * np.array(spacing)
    affine[:3, 3] = (12.3, -45.6, 789.0)
    array = np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code=codes[0])
    image.header.set_qform(affine, code=codes[1], strip_shears=True)
    image.header["sform_code"] = codes[0]
    image = nib.Nifti1Image(array, None, image.header)
    path, out = folder / "in.nii.gz", folder / "out.nii.gz"
    nib.save(image, path)
    volume = read_nifti(path)
    assert volume.stored().tobytes() == array.tobytes()
    write_nifti(volume, out)
    assert_same_geometry(path, out)
    np.testing.assert_array_equal(np.asarray(nib.load(out).dataobj), array)
    assert nib.load(out).get_data_dtype() == np.int16


def test_grids_of_other_formats_get_scanner_codes(canonical_ct, tmp_path):
    path = tmp_path / "a.nii.gz"
    write_nifti(canonical_ct, path)
    header = nib.load(path).header
    assert (header["sform_code"], header["qform_code"]) == (1, 1)
    np.testing.assert_allclose(header.get_qform(), canonical_ct.grid.affine, atol=1e-5)
    assert header.get_xyzt_units()[0] == "mm"
    assert header.get_slope_inter() in ((None, None), (1.0, 0.0))
    assert list(tmp_path.iterdir()) == [path]


def test_sheared_grids_get_no_qform(tmp_path):
    affine = np.diag([-0.8, -0.8, 3.0, 1.0])
    affine[1, 2] = 0.7
    volume = Volume.from_stored(np.zeros((3, 3, 3), np.uint8), Grid((3, 3, 3), affine))
    write_nifti(volume, tmp_path / "a.nii.gz")
    header = nib.load(tmp_path / "a.nii.gz").header
    assert (header["sform_code"], header["qform_code"]) == (1, 0)
    np.testing.assert_allclose(nib.load(tmp_path / "a.nii.gz").affine, affine, atol=1e-6)


def test_bool_is_written_as_uint8(canonical_ct, tmp_path):
    write_nifti(canonical_ct.with_array(canonical_ct.array > 0), tmp_path / "a.nii.gz")
    assert nib.load(tmp_path / "a.nii.gz").get_data_dtype() == np.uint8


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ("uint8", "uint8"),
        ("int16", "int16"),
        (">i2", "int16"),
        ("uint16", "uint16"),
        ("int32", "int16"),
        ("float32", "float32"),
        ("float64", "float32"),
    ],
)
def test_voxel_types(stored, expected, tmp_path):
    array = np.arange(24).reshape(2, 3, 4).astype(stored)
    endian = ">" if stored.startswith(">") else "<"
    header = nib.Nifti1Header(endianness=endian)
    header.set_data_dtype(array.dtype)
    nib.save(nib.Nifti1Image(array, np.diag([1, 1, 2, 1]), header), tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    assert volume.array.dtype == np.dtype(expected)
    assert volume.array.dtype.isnative
    np.testing.assert_array_equal(volume.stored(), array)


def test_wide_integers_that_do_not_fit_become_float32(tmp_path):
    nib.save(nib.Nifti1Image(np.full((2, 2, 2), 70000, np.int32), np.eye(4)), tmp_path / "a.nii")
    assert read_nifti(tmp_path / "a.nii").array.dtype == np.float32


def test_scale_slope_is_honoured(tmp_path):
    array = np.arange(24).reshape(2, 3, 4).astype(np.int16)
    image = nib.Nifti1Image(array, np.eye(4))
    image.header.set_slope_inter(0.5, -1000)
    nib.save(image, tmp_path / "a.nii.gz")
    volume = read_nifti(tmp_path / "a.nii.gz")
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.stored(), np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj))


def test_nifti2_and_units_of_metres(tmp_path):
    array = np.arange(24).reshape(2, 3, 4).astype(np.int16)
    image = nib.Nifti2Image(array, np.diag([0.001, 0.001, 0.003, 1]))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    assert volume.spacing_mm == pytest.approx((3, 1, 1))
    write_nifti(volume, tmp_path / "b.nii")
    assert isinstance(nib.load(tmp_path / "b.nii"), nib.Nifti2Image)
    assert_same_geometry(tmp_path / "a.nii", tmp_path / "b.nii")
    assert volume.same_grid(read_nifti(tmp_path / "b.nii"))


def test_trailing_singleton_axis_is_dropped_with_a_warning(tmp_path):
    array = np.arange(24).reshape(2, 3, 4, 1).astype(np.int16)
    nib.save(nib.Nifti1Image(array, np.diag([1, 1, 2, 1])), tmp_path / "a.nii.gz")
    volume = read_nifti(tmp_path / "a.nii.gz")
    assert volume.grid.shape == (2, 3, 4)
    assert "4 dimensions" in volume.warnings[0]
    write_nifti(volume, tmp_path / "b.nii.gz")
    assert nib.load(tmp_path / "b.nii.gz").shape == (2, 3, 4)
    np.testing.assert_array_equal(nib.load(tmp_path / "b.nii.gz").affine, np.diag([1, 1, 2, 1]))


def test_name_and_content_may_disagree(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((2, 3, 4), np.int16), np.eye(4)), tmp_path / "a.nii")
    (tmp_path / "a.nii").rename(tmp_path / "b.nii.gz")
    assert read_nifti(tmp_path / "b.nii.gz").grid.shape == (2, 3, 4)
