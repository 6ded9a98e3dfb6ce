"""``read_volume``: every unusable input has its message; every doubtful one its warning."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renalseg.core.errors import GeometryError, InputError
from renalseg.io.read import case_name, read_volume


@pytest.fixture
def ct() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1500, (6, 5, 4)).astype(np.int16)


def save(array, path: Path, affine=None, edit=None) -> Path:
    image = nib.Nifti1Image(array, np.diag([-0.8, -0.8, 3.0, 1.0]) if affine is None else affine)
    nib.save(image, path)
    if edit is not None:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as file:
            content = bytearray(file.read())
        edit(np.frombuffer(content, dtype=nib.nifti1.header_dtype, count=1))
        with opener(path, "wb") as file:
            file.write(bytes(content))
    return path


def refused(path: Path, *parts: str, error=InputError) -> None:
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(error) as caught:
        read_volume(path)
    message = str(caught.value)
    for part in (str(path), *parts):
        assert part in message
    assert "\n" not in message
    assert message.endswith(".")
    assert sorted(path.parent.rglob("*")) == before


def test_a_good_file_has_no_warnings(ct, tmp_path, capfd):
    volume = read_volume(save(ct, tmp_path / "case_1.nii.gz"))
    assert volume.name == "case_1"
    assert volume.warnings == ()
    assert volume.array.dtype == np.int16
    assert capfd.readouterr() == ("", "")


def test_missing_file(tmp_path):
    refused(tmp_path / "a.nii.gz", "does not exist")


def test_empty_file(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    refused(tmp_path / "a.nii.gz", "is empty")


def test_text_named_nifti(tmp_path):
    (tmp_path / "a.nii.gz").write_text("this is no image " * 50)
    refused(tmp_path / "a.nii.gz", "not a NIfTI file")


def test_gzipped_text_named_nifti(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"this is no image " * 50))
    refused(tmp_path / "a.nii.gz", "not a NIfTI file")


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_truncated(keep, name, tmp_path):
    array = np.random.default_rng(0).integers(-1000, 1500, (20, 20, 20)).astype(np.int16)
    path = save(array, tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    refused(path, "truncated or damaged")


def test_damaged_in_the_middle(tmp_path):
    array = np.random.default_rng(0).integers(-1000, 1500, (20, 20, 20)).astype(np.int16)
    path = save(array, tmp_path / "a.nii.gz")
    content = bytearray(path.read_bytes())
    content[5000:5010] = bytes(10)
    path.write_bytes(content)
    refused(path, "truncated or damaged")


@given(damage=st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_to_the_header_is_an_input_error_or_harmless(damage, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "a.nii"
    save(np.arange(120, dtype=np.int16).reshape(6, 5, 4), path)
    content = bytearray(path.read_bytes())
    for at, value in damage:
        content[at] = value
    path.write_bytes(content)
    message = str(path)
    try:
        read_volume(path)
    except InputError as error:
        message = str(error)
    assert str(path) in message


def test_header_that_states_a_huge_size(ct, tmp_path):
    path = save(ct, tmp_path / "a.nii", edit=lambda h: h["dim"].__setitem__((0, slice(1, 4)), 32000))
    refused(path, "truncated or damaged")


@pytest.mark.parametrize("name", ["a.png", "a.img", "a", "a.nii.bz2"])
def test_unknown_extension(name, tmp_path):
    (tmp_path / name).write_text("x")
    refused(tmp_path / name, "no supported format", "DICOM", "NRRD")


def test_single_dicom_file(tmp_path):
    (tmp_path / "a.dcm").write_text("x")
    refused(tmp_path / "a.dcm", "folder that holds all slices")


def test_header_image_pair(ct, tmp_path):
    path = save(ct, tmp_path / "a.nii", edit=lambda h: h["magic"].__setitem__(0, b"ni1"))
    refused(path, "not a single-file NIfTI")


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 4, 3), (6, 5, 1), (1, 5, 4), (6, 5, 4, 1, 2)])
def test_wrong_dimensions(shape, tmp_path):
    path = save(np.zeros(shape, np.int16), tmp_path / "a.nii.gz")
    refused(path, " x ".join(map(str, shape)), error=GeometryError)


def test_rgb(tmp_path):
    array = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    refused(save(array, tmp_path / "a.nii.gz"), "colour")


def test_complex(tmp_path):
    refused(save(np.zeros((4, 4, 4), np.complex64), tmp_path / "a.nii.gz"), "complex")


def test_unknown_voxel_type(ct, tmp_path):
    path = save(ct, tmp_path / "a.nii", edit=lambda h: h["datatype"].__setitem__(0, 999))
    refused(path, "damaged NIfTI header")


@pytest.mark.parametrize("value", [0.0, -0.8, np.nan, np.inf])
def test_bad_pixdim_despite_a_good_sform(value, ct, tmp_path, capfd):
    path = save(ct, tmp_path / "a.nii.gz", edit=lambda h: h["pixdim"].__setitem__((0, 2), value))
    refused(path, "spacing", f"{value:g}", error=GeometryError)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("qfac", [-1.0, 0.0, 1.0])
def test_qfac_is_no_spacing(qfac, ct, tmp_path, capfd):
    path = save(ct, tmp_path / "a.nii.gz", edit=lambda h: h["pixdim"].__setitem__((0, 0), qfac))
    assert read_volume(path).spacing_mm == pytest.approx((3.0, 0.8, 0.8))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("row", [np.nan, 0.0])
def test_bad_sform(row, ct, tmp_path):
    path = save(ct, tmp_path / "a.nii.gz", edit=lambda h: h["srow_x"].__setitem__(0, row))
    refused(path, error=GeometryError)


def test_singular_affine(ct, tmp_path):
    path = save(ct, tmp_path / "a.nii.gz", edit=lambda h: h["srow_x"].__setitem__(0, h["srow_y"][0]))
    refused(path, error=GeometryError)


def test_implausible_spacing(ct, tmp_path):
    refused(save(ct, tmp_path / "a.nii.gz", np.diag([0.001, 0.8, 3, 1])), "not plausible", error=GeometryError)


def test_impossible_quaternion(ct, tmp_path):
    def edit(header):
        header["sform_code"], header["qform_code"], header["quatern_b"] = 0, 1, 5.0

    refused(save(ct, tmp_path / "a.nii.gz", edit=edit))


def test_all_nan(tmp_path):
    refused(save(np.full((4, 4, 4), np.nan, np.float32), tmp_path / "a.nii.gz"), "no finite value")


def warned(path: Path, part: str):
    volume = read_volume(path)
    assert any(part in warning for warning in volume.warnings), volume.warnings
    return volume


def test_isolated_nan_and_infinity_become_air(ct, tmp_path):
    array = ct.astype(np.float64)
    array[0, 0, 0], array[1, 1, 1], array[2, 2, 2], array[3, 3, 3] = np.nan, np.inf, -np.inf, 1e300
    volume = warned(save(array, tmp_path / "a.nii.gz"), "4 voxels were NaN or infinite; they were set to -1024 HU")
    stored = volume.stored()
    assert [stored[i, i, i] for i in range(4)] == [-1024] * 4
    assert stored[4, 4, 3] == ct[4, 4, 3]


def test_constant(tmp_path):
    warned(save(np.full((4, 4, 4), -1000, np.int16), tmp_path / "a.nii.gz"), "same value (-1000)")


@pytest.mark.parametrize(("low", "high", "part"), [(0, 4000, "shifted"), (0, 1, "scaled"), (0, 255, "scaled")])
def test_values_that_are_no_hu(low, high, part, tmp_path):
    array = np.linspace(low, high, 64, dtype=np.float32).reshape(4, 4, 4)
    warned(save(array, tmp_path / "a.nii.gz"), part)
    warned(save(array - 0.5 * (high == 1), tmp_path / "b.nii.gz"), "scaled" if high == 255 else "HU")


def test_unsigned_ct_becomes_int16(ct, tmp_path):
    assert read_volume(save((ct + 1000).astype(np.uint16), tmp_path / "a.nii.gz")).array.dtype == np.int16


def test_neither_sform_nor_qform(ct, tmp_path):
    def edit(header):
        header["sform_code"] = header["qform_code"] = 0

    warned(save(ct, tmp_path / "a.nii.gz", edit=edit), "no orientation")


@pytest.mark.parametrize("qfac", [0.0, 1.0])
def test_a_qform_that_cannot_be_used_beside_a_good_sform(qfac, ct, tmp_path):
    def edit(header):
        header["qform_code"], header["quatern_b"], header["pixdim"][0, 0] = 1, 5.0, qfac

    warned(save(ct, tmp_path / "a.nii.gz", edit=edit), "qform differs")


def test_disagreeing_geometry_is_mentioned(ct, tmp_path):
    def spacing(header):
        header["pixdim"][0, 1] = 1.5

    def both(header):
        header["qform_code"] = 1
        header["qoffset_x"] += 30

    warned(save(ct, tmp_path / "a.nii.gz", edit=spacing), "pixdim differs")
    warned(save(ct, tmp_path / "b.nii.gz", edit=both), "qform differs")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("x/case_00001/imaging.nii.gz", "case_00001"),
        ("x/case_00001/ct.nii.gz", "ct"),
        ("x/p7/dicom.zip", "p7"),
        ("x/p7.v2.nii.gz", "p7.v2"),
        ("x/p7.nrrd", "p7"),
        ("x/p7.zip", "p7"),
        ("/ct.nii", "ct"),
    ],
)
def test_case_name(path, name):
    assert case_name(Path(path)) == name


def test_case_name_of_folders(tmp_path, monkeypatch):
    folder = tmp_path / "patient.7" / "DICOM"
    folder.mkdir(parents=True)
    assert case_name(folder.parent) == "patient.7"
    assert case_name(folder) == "patient.7"
    monkeypatch.chdir(folder.parent)
    assert case_name(Path()) == "patient.7"


@pytest.mark.parametrize(
    ("path", "shape", "spacing"),
    [
        ("pancreas_ct_cb_001/dicom.zip", (134, 512, 512), (3, 1.074, 1.074)),
        ("totalsegmentator_example/ct.nii.gz", (112, 101, 122), (3, 3, 3)),
        ("acrin_flt_breast_001/ct.nii.gz", (99, 512, 512), (4.25, 0.977, 0.977)),
        ("cptac_pda_c3l_00189/ct.nii.gz", (35, 512, 512), (5, 0.859, 0.859)),
        ("c4kc_kits_00072_top/dicom.zip", (18, 512, 512), (2.5, 0.664, 0.664)),
    ],
)
def test_real_ct(path, shape, spacing, shared_data, capfd):
    volume = read_volume(shared_data / "real_ct" / path)
    assert volume.shape == shape
    assert volume.spacing_mm == pytest.approx(spacing, abs=1e-3)
    assert volume.name == ("ct" if path.endswith("ct.nii.gz") else Path(path).parent.name)
    assert volume.array.dtype == np.int16
    assert volume.warnings == ()
    assert capfd.readouterr() == ("", "")
