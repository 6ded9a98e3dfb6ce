"""What may be the source of DICOM results, and what results inherit from it."""

import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest

from renalseg.core.errors import InputError, OutputError
from renalseg.core.volume import Volume
from renalseg.report.dicom import DicomCase, check_source, write_dicom

IDENTITY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
)


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.nrrd", "ct.mha"])
def test_other_formats_are_refused_in_one_sentence(name, tmp_path):
    with pytest.raises(InputError, match=r"ct\.\w+(\.gz)? is no DICOM series, .*; give the folder or zip") as refused:
        check_source(tmp_path / name)
    assert "\n" not in str(refused.value)
    labels = Volume.from_array(np.ones((4, 4, 4), np.uint8), (1.0, 1.0, 1.0))
    with pytest.raises(InputError, match="is no DICOM series"):
        write_dicom(DicomCase(labels, {"kidneys": [], "lesions": []}, tmp_path / name), tmp_path / "out")


def test_a_zip_gives_the_same_as_its_folder(make_case, tmp_path):
    drawn = make_case()
    with zipfile.ZipFile(tmp_path / "series.zip", "w") as archive:
        for path in drawn.case.source.iterdir():
            archive.write(path, path.name)
    zipped = DicomCase(drawn.case.labels, drawn.case.measurements, tmp_path / "series.zip", drawn.case.record)
    a, b = (pydicom.dcmread(write_dicom(case, tmp_path / name)[0]) for case, name in ((drawn.case, "a"), (zipped, "b")))
    assert a.PixelData == b.PixelData
    assert a.PerFrameFunctionalGroupsSequence == b.PerFrameFunctionalGroupsSequence


def edit(case, **changes):
    """Changes elements of one slice of the source; None deletes one."""
    path = min(case.source.iterdir())
    data = pydicom.dcmread(path)
    for keyword, value in changes.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    data.save_as(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"FrameOfReferenceUID": None}, "without FrameOfReferenceUID"),
        ({"StudyInstanceUID": None}, "without StudyInstanceUID"),
        ({"StudyInstanceUID": "1.9"}, "2 values of StudyInstanceUID"),
        ({"FrameOfReferenceUID": "1.9"}, "2 values of FrameOfReferenceUID"),
        ({"PatientID": "another"}, "2 values of PatientID"),
        ({"SeriesInstanceUID": "1.9"}, "2 values of SeriesInstanceUID"),
    ],
)
def test_contradicting_or_missing_identity_is_refused(changes, message, make_case, tmp_path):
    case = make_case().case
    edit(case, **changes)
    with pytest.raises(InputError, match=message):
        write_dicom(case, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_labels_of_another_grid_are_refused(make_case, tmp_path):
    case = make_case().case
    for path in case.source.iterdir():
        data = pydicom.dcmread(path)
        data.ImagePositionPatient = [*data.ImagePositionPatient[:2], data.ImagePositionPatient[2] + 1]
        data.save_as(path)
    with pytest.raises(InputError, match=r"another voxel grid .* give the very series"):
        write_dicom(case, tmp_path / "out")


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"PatientName": "Müller^Jörg", "SpecificCharacterSet": "ISO_IR 100"},
        {"PatientName": "Yamada^Tarou=山田^太郎", "SpecificCharacterSet": ["", "ISO 2022 IR 87"]},
        {"PatientSex": "W", "PatientBirthDate": "1950", "StudyTime": "noon"},
    ],
    ids=["plain", "latin", "japanese", "invalid values"],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")  # the invalid values are the point of the last case
def test_patient_and_study_are_the_sources(tags, make_case, tmp_path):
    drawn = make_case(tags)
    source = next(iter(drawn.objects.values()))
    for path in write_dicom(drawn.case, tmp_path / "out"):
        result = pydicom.dcmread(path)
        for keyword in IDENTITY:
            assert str(result[keyword].value) == str(source[keyword].value) != "", keyword


def test_elements_that_the_source_lacks_are_empty(make_case, tmp_path):
    case = make_case(
        dict.fromkeys(["PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"], "")
    ).case
    for path in case.source.iterdir():
        data = pydicom.dcmread(path)
        for keyword in ("PatientBirthDate", "StudyDate", "StudyID", "SeriesNumber", "ReferringPhysicianName"):
            del data[keyword]
        data.save_as(path)
    for path in write_dicom(case, tmp_path / "out"):
        result = pydicom.dcmread(path)
        assert not any(result[k].value for k in ("PatientBirthDate", "StudyDate", "StudyID", "ReferringPhysicianName"))
        assert result.SeriesNumber in (1000, 1001)


def test_seg_and_sr_are_written_both_or_none(make_case, tmp_path, monkeypatch):
    case = make_case().case
    (tmp_path / "out.sr.dcm").mkdir()
    with pytest.raises(OutputError, match=r"out\.sr\.dcm"):
        write_dicom(case, tmp_path / "out")
    assert not (tmp_path / "out.seg.dcm").exists()

    def fail(*_, **__):
        raise OSError(28, "no space")

    monkeypatch.setattr("highdicom.sr.ComprehensiveSR.save_as", fail)
    with pytest.raises(OutputError, match="the disk is full"):
        write_dicom(case, tmp_path / "other")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.sr.dcm", "series"]


def test_seg_alone(make_case, tmp_path):
    case = make_case().case
    assert write_dicom(case, tmp_path / "out", sr=False) == (tmp_path / "out.seg.dcm",)
    assert [p.name for p in Path(tmp_path).glob("out*")] == ["out.seg.dcm"]
