"""``renalseg segment --measure --report --dicom-seg --dicom-sr``: all of it or none."""

import csv
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from renalseg.batch import results
from renalseg.core.errors import OutputError
from renalseg.core.volume import Volume
from renalseg.io.nifti import read_nifti, write_nifti
from renalseg.report import figures
from renalseg.report.assess import assess

SPACING_MM = (5.0, 5.0, 5.0)


@pytest.fixture
def hu():
    """Two kidneys, a tumor on one, a cyst in the other; thresholds at 100, 200 and 300 HU tell them."""
    labels = np.zeros((14, 24, 40), np.uint8)
    labels[3:11, 8:15, 6:13] = labels[2:12, 8:15, 27:34] = 1
    labels[4:8, 6:10, 4:8] = 2
    labels[5:8, 9:12, 29:32] = 3
    return np.array([0, 150, 250, 350], np.int16)[labels]


@pytest.fixture
def scan(hu, tmp_path):
    path = tmp_path / "in" / "scan.nii.gz"
    path.parent.mkdir()
    write_nifti(Volume.from_array(hu, SPACING_MM), path)
    return path


@pytest.fixture
def series(hu, tmp_path):
    """The same scan as a DICOM series."""
    spec = importlib.util.spec_from_file_location("dicom_builders", Path(__file__).parents[1] / "io" / "conftest.py")
    builders = sys.modules.setdefault("dicom_builders", importlib.util.module_from_spec(spec))
    spec.loader.exec_module(builders)
    made = builders.Series((hu[::-1] + 1024).astype(np.uint16), pixel_spacing=(5.0, 5.0), spacing=5.0)
    tags = {"StudyDate": "20240203", "StudyTime": "101112", "PatientID": "id-7", "PatientSex": "F"}
    made.tags |= tags | {"PatientBirthDate": "19500102", "StudyID": "1", "AccessionNumber": "a", "SeriesNumber": 4}
    made.tags["ReferringPhysicianName"] = ""
    for k in range(len(hu)):
        builders.save(made.dataset(k), tmp_path / "in" / "series" / f"{k:02d}.dcm")
    return tmp_path / "in" / "series"


@pytest.fixture(autouse=True)
def quick_picture(monkeypatch):
    monkeypatch.setattr(figures, "overlay", lambda _ct, _labels, path, **_more: path.write_bytes(b"picture"))


def names(folder):
    return {p.name for p in folder.iterdir()}


def test_measurements_and_page_of_a_nifti_file(run, scan, small_weights, tmp_path):
    out = tmp_path / "out"
    code, _, err = run(
        "segment", scan, "--out", out, "--weights", small_weights, "--device", "cpu", "--measure", "--report"
    )
    assert code == 0, err
    tables = {"kidneys.csv", "lesions.csv", "index.html"}
    assert names(out) == tables | {f"scan{s}" for s in (".nii.gz", ".json", ".png", ".measurements.json", ".html")}
    found = json.loads((out / "scan.measurements.json").read_text())
    labels, ct = read_nifti(out / "scan.nii.gz"), read_nifti(scan)
    again, _ = assess(labels, ct, sketches=False)
    assert found == json.loads(json.dumps({**again, "case": "scan"}))
    assert {lesion["kind"] for lesion in found["lesions"]} == {"tumor", "cyst"}
    assert all(lesion["nephrometry"] is not None for lesion in found["lesions"])
    page = (out / "scan.html").read_text()
    assert "Research use only. Not a medical device." in page
    assert "R.E.N.A.L." in page
    assert "scan.html" in (out / "index.html").read_text()
    rows = list(csv.DictReader((out / "lesions.csv").read_text().splitlines()))
    assert len(rows) == len(found["lesions"])
    assert "measure" in json.loads((out / "scan.json").read_text())["timings_s"]


def test_dicom_results_of_a_series(run, series, small_weights, tmp_path):
    out = tmp_path / "out"
    code, _, err = run("segment", series, "--out", out, "--weights", small_weights, "--device", "cpu", "--dicom-sr")
    assert code == 0, err
    assert names(out) == {
        f"series{s}" for s in (".nii.gz", ".json", ".png", ".measurements.json", ".seg.dcm", ".sr.dcm")
    }
    seg, report = (pydicom.dcmread(out / f"series.{kind}.dcm") for kind in ("seg", "sr"))
    assert seg.PatientID == report.PatientID == "id-7"
    assert seg.StudyInstanceUID == report.StudyInstanceUID == "1.2.3"
    labels = read_nifti(out / "series.nii.gz").array
    counts = np.bincount(labels.ravel(), minlength=4)
    pixels = seg.pixel_array
    by_segment = [
        int(pixels[[f.SegmentIdentificationSequence[0].ReferencedSegmentNumber == s.SegmentNumber
                    for f in seg.PerFrameFunctionalGroupsSequence]].sum())
        for s in seg.SegmentSequence
    ]  # fmt: skip
    assert sum(by_segment) == counts[1:].sum()
    options = ("--out", out, "--weights", small_weights, "--device", "cpu")
    assert "finished earlier" in run("segment", series, *options, "--dicom-seg")[2]
    (out / "series.sr.dcm").unlink()
    assert "finished earlier" not in run("segment", series, *options, "--dicom-sr")[2]


def test_dicom_results_of_another_format_are_refused_before_any_work(run, scan, small_weights, tmp_path, monkeypatch):
    monkeypatch.setattr("renalseg.batch.run.read_volume", lambda _: pytest.fail("was read"))
    code, _, err = run("segment", scan, "--out", tmp_path / "out", "--weights", small_weights, "--dicom-seg")
    assert code == 2
    assert "is no DICOM series, and DICOM SEG and SR need one" in " ".join(err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("broken", ["renalseg.report.page.write_case_page", "renalseg.report.dicom.save_dicom"])
def test_all_or_none(broken, run, series, small_weights, tmp_path, monkeypatch):
    def fail(*_args, **_more):
        raise OutputError("the disk is full")

    monkeypatch.setattr(broken, fail)
    options = ("--weights", small_weights, "--device", "cpu", "--measure", "--report", "--dicom-sr")
    code, _, err = run("segment", series, "--out", tmp_path / "out", *options)
    assert code == 2
    assert "the disk is full" in err
    assert not (tmp_path / "out").exists()


def test_a_scan_without_a_kidney(run, series, small_weights, tmp_path, monkeypatch):
    for path in series.iterdir():
        data = pydicom.dcmread(path)
        data.PixelData = np.full((data.Rows, data.Columns), 24, np.uint16).tobytes()
        data.save_as(path)
    out = tmp_path / "out"
    options = ("--weights", small_weights, "--device", "cpu", "--measure", "--report", "--dicom-sr")
    code, _, err = run("segment", series, "--out", out, *options)
    assert code == 0, err
    assert not {name for name in names(out) if name.endswith(".dcm")}
    assert "No DICOM SEG or SR was written" in " ".join(json.loads((out / "series.json").read_text())["warnings"])
    assert json.loads((out / "series.measurements.json").read_text())["lesions"] == []


def test_a_second_run_into_a_folder_keeps_the_first_in_tables_and_index(run, scan, small_weights, tmp_path):
    out = tmp_path / "out"
    other = scan.with_name("other.nii.gz")
    other.write_bytes(scan.read_bytes())
    options = ("--out", out, "--weights", small_weights, "--device", "cpu", "--measure", "--report")
    for path in (scan, other):
        assert run("segment", path, *options)[0] == 0
    index = (out / "index.html").read_text()
    assert 'href="scan.html"' in index
    assert 'href="other.html"' in index
    for table in ("kidneys.csv", "lesions.csv"):
        assert {row["case"] for row in csv.DictReader((out / table).read_text().splitlines())} == {"scan", "other"}
    (out / "scan.measurements.json").write_text("{}")
    (out / "scan.json").write_text("{}")
    _, _, err = run("segment", other, *options)
    assert "not in the tables" in err
    assert "scan.measurements.json holds no measurements of this version" in " ".join(err.split())
    assert {row["case"] for row in csv.DictReader((out / "lesions.csv").read_text().splitlines())} == {"other"}
    assert "segment the case again" in (out / "index.html").read_text()


def test_a_case_named_index_is_refused_where_pages_are_wanted(run, scan, small_weights, tmp_path):
    path = scan.rename(scan.with_name("index.nii.gz"))
    options = ("--out", tmp_path / "out", "--weights", small_weights, "--device", "cpu")
    code, _, err = run("segment", path, *options, "--report")
    assert code == 2
    assert "rename the file" in err
    assert not (tmp_path / "out").exists()
    assert run("segment", path, *options)[0] == 0


def test_what_was_made_of_earlier_labels_is_removed(run, series, small_weights, tmp_path):
    out = tmp_path / "out"
    options = ("--out", out, "--weights", small_weights, "--device", "cpu")
    assert run("segment", series, *options, "--report", "--dicom-sr")[0] == 0
    stray = out / "series.notes.txt"
    stray.write_text("mine")
    labels = {f"series{suffix}" for suffix in (".nii.gz", ".json", ".png", ".notes.txt")}
    assert run("segment", series, *options, "--no-tta", "--dicom-seg")[0] == 0
    assert names(out) == labels | {"series.measurements.json", "series.seg.dcm", "index.html"}
    assert "series.html" not in (out / "index.html").read_text()
    for path in series.iterdir():
        data = pydicom.dcmread(path)
        data.PixelData = np.full((data.Rows, data.Columns), 24, np.uint16).tobytes()
        data.save_as(path)
    assert run("segment", series, *options, "--report", "--dicom-sr")[0] == 0
    assert names(out) == labels | {"series.measurements.json", "series.html", "index.html"}
    assert "No DICOM SEG or SR was written" in (out / "series.html").read_text()
    assert run("segment", series, *options, "--again")[0] == 0
    assert names(out) == labels | {"index.html"}


def test_tables_and_index_that_are_there_are_kept_up_to_date(run, scan, hu, small_weights, tmp_path):
    out = tmp_path / "out"
    options = ("--out", out, "--weights", small_weights, "--device", "cpu")
    assert run("segment", scan, *options, "--measure", "--report")[0] == 0
    write_nifti(Volume.from_array(np.full_like(hu, -50), SPACING_MM), scan)
    assert run("segment", scan, *options)[0] == 0
    assert (out / "lesions.csv").read_text().count("\n") == 1
    assert "scan.html" not in (out / "index.html").read_text()
    foreign = out / "foreign"
    foreign.mkdir()
    for name in ("index.html", "kidneys.csv"):
        (foreign / name).write_text("mine")
    assert run("segment", scan, "--out", foreign, *options[2:])[0] == 0
    assert {(foreign / name).read_text() for name in ("index.html", "kidneys.csv")} == {"mine"}


def test_a_failed_run_removes_nothing(run, series, small_weights, tmp_path, monkeypatch):
    out = tmp_path / "out"
    options = ("--out", out, "--weights", small_weights, "--device", "cpu")
    assert run("segment", series, *options, "--report", "--dicom-sr")[0] == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}

    def fail(*_args, **_more):
        raise OutputError("the disk is full")

    monkeypatch.setattr(results, "write_nifti", fail)
    assert run("segment", series, *options, "--again")[0] == 2
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


@pytest.mark.parametrize("also", [(), ("--dicom-sr",)])
def test_a_seg_as_a_label_map(also, run, series, small_weights, tmp_path):
    out = tmp_path / "out"
    options = ("segment", series, "--out", out, "--weights", small_weights, "--device", "cpu")
    assert run(*options, "--dicom-labelmap", *also)[0] == 0
    assert pydicom.dcmread(out / "series.seg.dcm").SegmentationType == "LABELMAP"
    assert (out / "series.sr.dcm").exists() == bool(also)
    assert "finished earlier" in run(*options, "--dicom-labelmap", *also)[2]
    assert "finished earlier" not in run(*options, "--dicom-seg")[2]
    assert pydicom.dcmread(out / "series.seg.dcm").SegmentationType == "BINARY"
