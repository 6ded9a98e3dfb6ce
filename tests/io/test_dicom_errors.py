"""DICOM folders that must be refused, each with a message that says what is wrong."""

import zipfile

import numpy as np
import pytest

from renalseg.core.errors import GeometryError, InputError
from renalseg.io.dicom import read_dicom
from renalseg.io.read import read_volume


def refused(path, *parts, error=InputError):
    with pytest.raises(error) as caught:
        read_volume(path)
    message = str(caught.value)
    for part in (str(path), *parts):
        assert part in message
    assert "\n" not in message
    return message


def test_two_series_are_listed(stored, make_series, write_series, tmp_path):
    first = make_series(stored, uid="1.2.3.1", tags={"SeriesDescription": "arterial"})
    second = make_series(stored[:4], uid="1.2.3.2", tags={"SeriesDescription": "venous"})
    write_series(first, tmp_path / "x")
    write_series(second, tmp_path / "y")
    refused(tmp_path, "1.2.3.1 (arterial, 6 images)", "1.2.3.2 (venous, 4 images)", "one of them")


def test_missing_slices_are_located(stored, make_series, write_series, tmp_path):
    write_series(make_series(stored), tmp_path, only=[0, 1, 4, 5])
    refused(tmp_path, "lacks about 2 slices", "-297.50 and -290.00 mm")


def test_differing_slices_at_one_position(stored, make_series, write_series, tmp_path):
    write_series(make_series(stored, uid="1.2"), tmp_path)
    write_series(make_series(stored + 1, uid="1.2"), tmp_path, only=[1, 2], prefix="other")
    refused(tmp_path, "2 repeated slice positions", "different content")


def test_localizer_in_the_series(stored, make_series, write_series, save_dicom, tmp_path):
    write_series(make_series(stored, uid="1.2"), tmp_path)
    scout = make_series(stored, uid="1.2", orientation=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0))
    save_dicom(scout.dataset(0), tmp_path / "scout.dcm")
    refused(tmp_path, "mixes slice orientations", "scout.dcm", "localizers")


def test_mixed_shapes(stored, make_series, write_series, tmp_path):
    write_series(make_series(stored, uid="1.2"), tmp_path, only=[0, 1, 2])
    write_series(make_series(np.ascontiguousarray(stored[:, :4]), uid="1.2"), tmp_path, only=[3, 4], prefix="b")
    refused(tmp_path, "4 x 10, 8 x 10 pixels")


def test_mixed_pixel_spacing(stored, make_series, write_series, tmp_path):
    write_series(make_series(stored, uid="1.2"), tmp_path, only=[0, 1, 2])
    write_series(make_series(stored, uid="1.2", pixel_spacing=(0.9, 0.9)), tmp_path, only=[3, 4], prefix="b")
    refused(tmp_path, "mixes pixel spacings", "0.8 x 0.7", "0.9 x 0.9")


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
@pytest.mark.parametrize("value", [None, ""])
def test_missing_geometry_tag(keyword, value, stored, make_series, write_series, tmp_path):
    write_series(make_series(stored, tags={keyword: value}), tmp_path)
    refused(tmp_path, keyword, error=GeometryError)


def test_senseless_orientation(stored, make_series, write_series, tmp_path):
    write_series(make_series(stored, orientation=(1.0, 0.0, 0.0, 1.0, 0.0, 0.0), step=np.array([0, 0, 1.0])), tmp_path)
    refused(tmp_path, "no pair of axes", error=GeometryError)


@pytest.mark.parametrize("spacing", [0.0, -0.8])
def test_senseless_pixel_spacing(spacing, stored, make_series, write_series, tmp_path):
    write_series(make_series(stored, pixel_spacing=(spacing, 0.7)), tmp_path)
    refused(tmp_path, "spacing", error=GeometryError)


def test_uneven_spacing(stored, make_series, write_series, tmp_path):
    positions = [np.array([0, 0, z]) for z in (0, 2.5, 5.0, 7.5, 9.5, 12.0)]
    write_series(make_series(stored, positions=positions), tmp_path)
    refused(tmp_path, "unevenly spaced", "2.000 to 2.500 mm", error=GeometryError)


def test_slices_shifted_sideways(stored, make_series, write_series, tmp_path):
    positions = [np.array([5.0 * (k == 3), 0, 2.5 * k]) for k in range(6)]
    write_series(make_series(stored, positions=positions), tmp_path)
    refused(tmp_path, "shifted sideways", error=GeometryError)


def test_one_slice(stored, make_series, write_series, tmp_path):
    write_series(make_series(stored), tmp_path, only=[2])
    refused(tmp_path, "single slice", error=GeometryError)


def test_colour(stored, make_series, write_series, tmp_path):
    write_series(make_series(stored, tags={"SamplesPerPixel": 3}), tmp_path)
    refused(tmp_path, "colour")


def test_frames_without_positions(stored, make_series, write_series, tmp_path):
    write_series(make_series(stored, tags={"NumberOfFrames": 3}), tmp_path)
    refused(tmp_path, "several frames without a position each")


def test_truncated_pixels(stored, make_series, write_series, tmp_path):
    write_series(make_series(stored), tmp_path)
    file = tmp_path / "im002.dcm"
    file.write_bytes(file.read_bytes()[:-60])
    refused(tmp_path, "im002.dcm")


def test_truncated_header(stored, make_series, write_series, tmp_path):
    write_series(make_series(stored), tmp_path)
    file = tmp_path / "im002.dcm"
    file.write_bytes(file.read_bytes()[:150])
    refused(tmp_path)


def test_folder_without_dicom(tmp_path):
    (tmp_path / "readme.txt").write_text("hello")
    refused(tmp_path, "no DICOM images")


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_dicom(tmp_path / "absent")


def test_any_damage_to_a_file_is_an_input_error_or_harmless(stored, make_series, write_series, tmp_path, capfd):
    write_series(make_series(stored), tmp_path)
    file = tmp_path / "im001.dcm"
    whole = file.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(30):
        damaged = bytearray(whole)
        at = int(random.integers(132, len(whole) - 8))
        damaged[at : at + 4] = random.bytes(4)
        file.write_bytes(damaged)
        message = str(tmp_path)
        try:
            read_volume(tmp_path)
        except InputError as error:
            message = str(error)
        assert str(tmp_path) in message
    assert capfd.readouterr() == ("", "")


def test_damaged_zip(stored, make_series, write_series, tmp_path):
    write_series(make_series(stored), tmp_path / "s")
    archive = tmp_path / "case.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in (tmp_path / "s").iterdir():
            file.write(path, path.name)
    content = bytearray(archive.read_bytes())
    archive.write_bytes(content[: len(content) // 2])
    refused(archive, "truncated or damaged")
    content[200:260] = bytes(60)
    archive.write_bytes(content)
    refused(archive, "damaged")
    archive.write_text("no zip")
    with pytest.raises(InputError, match="truncated or damaged"):
        read_dicom(archive)


@pytest.mark.parametrize("damage", ["empty", "start", "no preamble", "before Rows"])
@pytest.mark.parametrize("place", [0, -1])
def test_a_damaged_first_or_last_slice_does_not_vanish(stored, make_series, write_series, tmp_path, damage, place):
    write_series(make_series(stored), tmp_path)
    path = sorted(tmp_path.iterdir())[place]
    content = path.read_bytes()
    rows = content.index(b"\x28\x00\x10\x00US")
    path.write_bytes(
        {"empty": b"", "start": content[:100], "no preamble": content[132:], "before Rows": content[:rows]}[damage]
    )
    assert path.name in refused(tmp_path)


def test_other_files_beside_the_slices_are_no_matter(stored, make_series, write_series, tmp_path):
    write_series(make_series(stored), tmp_path)
    for name in ("README.txt", "VERSION", ".hidden.dcm"):
        (tmp_path / name).write_bytes(b"no DICOM")
    assert read_dicom(tmp_path).shape[0] == len(stored)


@pytest.mark.parametrize("keyword", ["SpacingBetweenSlices", "SliceThickness"])
def test_every_second_slice_missing_is_warned_of(stored, make_series, write_series, tmp_path, keyword):
    series = make_series(stored, tags={keyword: "2.5"})
    write_series(series, tmp_path / "whole")
    assert not any("missing" in w for w in read_dicom(tmp_path / "whole").warnings)
    write_series(series, tmp_path / "half", only=[0, 2, 4])
    assert any("every second slice" in w for w in read_dicom(tmp_path / "half").warnings)
