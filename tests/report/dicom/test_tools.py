"""DICOM SEG and SR under programs of others: dcmqi, which comes with the tests, dciodvfy (dicom3tools) and DCMTK.

The last two are skipped where they are not installed.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from renalseg.io.read import read_volume
from renalseg.report.dicom import DicomCase, write_dicom
from renalseg.report.dicom.segments import find_segments
from renalseg.report.measure import measure

OBLIQUE = (0.936293364, 0.275095847, -0.218350663, -0.289629478, 0.956425086, -0.036957013)
TILTED = (1.0, 0.0, 0.0, 0.0, float(np.cos(0.2)), float(np.sin(0.2)))
SERIES = {
    "axial": {},
    "descending": {"step": np.array([0.0, 0.0, -20.0])},
    "oblique": {"orientation": OBLIQUE},
    "sagittal": {"orientation": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)},
}


def call(program, *arguments, status=0):
    """What a program prints on both outputs; the test is skipped where it is not installed."""
    beside_python = Path(sys.executable).parent / program
    found = str(beside_python) if beside_python.exists() else shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, check=False, errors="replace")
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def problems(path, status=0):
    """What dciodvfy calls an error, after a check that it knew the kind of object."""
    lines = call("dciodvfy", "-new", path, status=status).splitlines()
    assert {"Segmentation", "ComprehensiveSR"} & set(lines)
    return [line for line in lines if line.startswith("Error")]


def points(image):
    """The centres of the labelled voxels of a SimpleITK image, LPS mm, sorted."""
    found = np.argwhere(sitk.GetArrayViewFromImage(image))[:, ::-1] * image.GetSpacing()
    return ordered(found @ np.reshape(image.GetDirection(), (3, 3)).T + image.GetOrigin())


def points_expected(labels, numbers, number):
    """The same of one segment, by the affine of the labels."""
    found = np.argwhere(numbers == number)
    ras = (labels.affine @ np.c_[found, np.ones(len(found))].T)[:3].T
    return ordered(ras * (-1, -1, 1))


def ordered(found):
    """Points sorted by their coordinates in tenths of a mm, which rounding errors do not reach."""
    return found[np.lexsort(np.round(found + 0.012345, 1).T)]


@pytest.mark.parametrize("options", [*SERIES.values(), {"orientation": TILTED, "step": np.array([0, 0, 20.0])}])
def test_dciodvfy_finds_no_error(options, make_case, tmp_path):
    for path in write_dicom(make_case(**options).case, tmp_path / "out"):
        assert problems(path) == []


def test_dciodvfy_would_find_one(make_case, tmp_path):
    path = write_dicom(make_case().case, tmp_path / "out")[0]
    seg = pydicom.dcmread(path)
    del seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    seg.save_as(path)
    assert len(problems(path, status=1)) == 1


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("options", SERIES.values(), ids=SERIES)
def test_dcmqi_reads_the_same_voxels(options, kind, make_case, tmp_path):
    case = make_case(**options).case
    path = write_dicom(case, tmp_path / "out", sr=False, kind=kind)[0]
    same_voxels_by_dcmqi(case, path, tmp_path)


def same_voxels_by_dcmqi(case, path, folder):
    arguments = ("--inputDICOM", path, "--outputDirectory", folder, "--outputType", "nrrd", "-p", "s")
    call("segimage2itkimage", *arguments)
    numbers = find_segments(case.labels, case.measurements, "1.2").numbers.array
    groups = json.loads((folder / "s-meta.json").read_text())["segmentAttributes"]
    assert [segment["labelID"] for group in groups for segment in group] == list(range(1, numbers.max() + 1))
    for file, group in enumerate(groups, start=1):  # a label map is one group in one file
        image = sitk.ReadImage(str(folder / f"s-{file}.nrrd"))
        for segment in group:
            number = segment["labelID"]
            found, expected = points(image == number), points_expected(case.labels, numbers, number)
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, atol=0.01)


def test_dcmqi_reads_the_measurements(make_case, tmp_path):
    case = make_case().case
    seg, sr = write_dicom(case, tmp_path / "out")
    call("tid1500reader", "--inputDICOM", sr, "--outputMetadata", tmp_path / "sr.json")
    groups = json.loads((tmp_path / "sr.json").read_text())["Measurements"]
    tumor = groups[2]
    assert tumor["Finding"]["CodeValue"] == "108369006"
    assert tumor["FindingSite"]["CodeValue"] == "64033007"
    assert tumor["Laterality"]["CodeValue"] == "24028007"
    assert tumor["segmentationSOPInstanceUID"] == pydicom.dcmread(seg).SOPInstanceUID
    values = [(i["quantity"]["CodeValue"], i["units"]["CodeValue"], i["value"]) for i in tumor["measurementItems"]]
    volume = str(round(case.measurements["lesions"][0]["volume_ml"], 3))
    assert values == [
        ("118565006", "cm3", volume),
        ("103339001", "mm", "11.25"),
        ("81827009", "mm", "24.123"),
        ("410668003", "mm", "40.0"),
        ("112031", "[hnsf'U]", "33.25"),
        ("112031", "[hnsf'U]", "11.5"),
    ]


def test_dcmtk_reads_the_report(make_case, tmp_path):
    sr = write_dicom(make_case().case, tmp_path / "out")[1]
    printed = call("dsrdump", "+Pl", sr)
    assert not [line for line in printed.splitlines() if line.startswith(("E:", "F:"))]
    assert printed.count('"Measurement Group"') == 4
    assert "Research use only. Not a medical device." in printed


@pytest.mark.parametrize("name", ["c4kc_kits_00072_top", pytest.param("pancreas_ct_cb_001", marks=pytest.mark.slow)])
def test_real_series(name, shared_data, tmp_path):
    """Ellipsoids on a real CT, measured by ``measure``: no error of dciodvfy, and dcmqi reads the same voxels."""
    source = shared_data / "real_ct" / name / "dicom.zip"
    if not source.is_file():
        pytest.skip(f"the real CT {name} is not in the shared data")
    ct = read_volume(source)
    labels = ct.with_array(ellipsoids(ct.shape))
    case = DicomCase(labels, measure(labels, ct).as_dict(), source)
    seg, sr = write_dicom(case, tmp_path / "out")
    header = pydicom.dcmread(seg, stop_before_pixels=True)
    assert (header.PatientID, header.PatientSex) == {
        "c4kc_kits_00072_top": ("KiTS-00072", "F"),
        "pancreas_ct_cb_001": ("Pancreas-CT-CB_001", "M"),
    }[name]
    assert problems(seg) == problems(sr) == []
    same_voxels_by_dcmqi(case, seg, tmp_path)


def ellipsoids(shape):
    """Two kidneys with a tumor on the right one and a cyst in the left one, as label map of any shape [z, y, x]."""
    z, y, x = (axis / n for axis, n in zip(np.ogrid[tuple(slice(n) for n in shape)], shape, strict=True))
    labels = np.zeros(shape, np.uint8)
    for label, centre, radii in (
        (1, (0.5, 0.55, 0.3), (0.3, 0.08, 0.06)),
        (1, (0.5, 0.55, 0.7), (0.3, 0.08, 0.06)),
        (2, (0.4, 0.6, 0.27), (0.12, 0.05, 0.04)),
        (3, (0.6, 0.5, 0.71), (0.08, 0.03, 0.03)),
    ):
        parts = [((axis - c) / r) ** 2 for axis, c, r in zip((z, y, x), centre, radii, strict=True)]
        labels[parts[0] + parts[1] + parts[2] < 1] = label
    return labels
