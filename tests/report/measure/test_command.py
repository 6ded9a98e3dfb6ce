"""The command ``measure``: which files it finds, what it writes, how it exits."""

import csv
import json

import numpy as np
import pytest

from renalseg.cli import measure as command  # noqa: F401  (registers the command)
from renalseg.core.errors import InputError
from renalseg.core.volume import Volume
from renalseg.io.nifti import write_nifti
from renalseg.report.measure import files as module
from renalseg.report.measure.files import label_files, measure_files

SHAPE, SPACING_MM = (20, 40, 50), (4.0, 5.0, 5.0)


def paint():
    """Two kidneys, a tumor of 4 x 5 x 3 voxels in the right one."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[5:15, 10:20, 8:18] = labels[6:16, 12:20, 30:40] = 1
    labels[8:12, 12:17, 10:13] = 2
    return labels


def write(path, array=None, spacing_mm=SPACING_MM):
    write_nifti(Volume.from_array(paint() if array is None else array, spacing_mm), path)
    return path


def image():
    return np.where(paint() == 2, 60, np.where(paint() == 1, 150, -100)).astype(np.int16)


def read(path):
    return json.loads(path.read_text())


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_label_map_with_its_ct(run, tmp_path):
    labels, ct = write(tmp_path / "p1.nii.gz"), write(tmp_path / "ct.nii.gz", image())
    code, _, err = run("measure", labels, "--ct", ct, "--out", tmp_path / "out")
    assert code == 0
    assert "1 of 1 label maps measured" in err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "kidneys.csv",
        "lesions.csv",
        "p1.measurements.json",
    ]
    written = read(tmp_path / "out" / "p1.measurements.json")
    (lesion,) = written["lesions"]
    assert (written["case"], lesion["kind"], lesion["side"], lesion["voxels"]) == ("p1", "tumor", "right", 60)
    assert lesion["hu"]["mean"] == 60
    assert written["notice"] == "Research use only. Not a medical device."
    (row,) = rows_of(tmp_path / "out" / "lesions.csv")
    assert float(row["volume_ml"]) == pytest.approx(6.0)
    assert [r["side"] for r in rows_of(tmp_path / "out" / "kidneys.csv")] == ["right", "left"]


def test_a_dataset_brings_its_images_where_it_has_them(run, tmp_path):
    write(tmp_path / "data" / "case_00000" / "segmentation.nii.gz")
    write(tmp_path / "data" / "case_00000" / "imaging.nii.gz", image())
    write(tmp_path / "data" / "case_00001" / "segmentation.nii.gz")
    write(tmp_path / "data" / "case_00002" / "imaging.nii.gz", image())
    assert run("measure", tmp_path / "data", "--out", tmp_path / "out")[0] == 0
    rows = rows_of(tmp_path / "out" / "lesions.csv")
    assert [(row["case"], row["hu_mean"] != "") for row in rows] == [("case_00000", True), ("case_00001", False)]


def test_a_bad_case_does_not_stop_the_others(run, tmp_path):
    write(tmp_path / "maps" / "good.nii.gz")
    write(tmp_path / "maps" / "ct.nii.gz", image())
    (tmp_path / "maps" / "notes.txt").write_text("no label map")
    code, _, err = run("measure", tmp_path / "maps", "--out", tmp_path / "out")
    assert code == 1
    assert "ct.nii.gz holds the values" in err
    assert "1 of 2 label maps measured" in err
    assert [row["case"] for row in rows_of(tmp_path / "out" / "lesions.csv")] == ["good"]


def test_the_tables_are_of_all_cases_in_the_folder(run, tmp_path):
    for name in ("p2", "p1"):
        assert run("measure", write(tmp_path / f"{name}.nii.gz"), "--out", tmp_path / "out")[0] == 0
    assert [row["case"] for row in rows_of(tmp_path / "out" / "lesions.csv")] == ["p1", "p2"]
    (tmp_path / "out" / "p2.measurements.json").write_text("{")
    code, _, err = run("measure", tmp_path / "p1.nii.gz", "--out", tmp_path / "out")
    assert code == 0
    assert "not in the tables" in err
    assert "p2.measurements.json cannot be read as JSON" in " ".join(err.split())
    assert [row["case"] for row in rows_of(tmp_path / "out" / "kidneys.csv")] == ["p1", "p1"]


def test_nothing_measured_is_exit_code_2_and_leaves_no_tables(run, tmp_path):
    code, _, err = run("measure", write(tmp_path / "ct.nii.gz", image()), "--out", tmp_path / "out")
    assert code == 2
    assert "no labels" in err
    assert not (tmp_path / "out").exists()


def test_a_ct_on_another_grid_is_refused(run, tmp_path):
    labels, ct = write(tmp_path / "p1.nii.gz"), write(tmp_path / "ct.nii.gz", image(), (4.0, 5.0, 4.0))
    code, _, err = run("measure", labels, "--ct", ct, "--out", tmp_path / "out")
    assert code == 2
    assert "grid" in err


@pytest.mark.parametrize(
    ("given", "ct", "message"),
    [
        (["missing.nii.gz"], None, "does not exist"),
        (["empty"], None, "holds no label map"),
        (["a/p.nii.gz", "b/p.nii.gz"], None, "both named p"),
        (["a/p.nii.gz", "b/q.nii.gz"], "ct.nii.gz", "measure that one alone"),
        (["a/p.nii.gz"], "missing.nii.gz", "does not exist"),
    ],
)
def test_unusable_arguments_say_what_to_do(tmp_path, given, ct, message):
    (tmp_path / "empty").mkdir()
    for name in ("a/p.nii.gz", "b/p.nii.gz", "b/q.nii.gz", "ct.nii.gz"):
        write(tmp_path / name)
    with pytest.raises(InputError, match=message):
        label_files([tmp_path / path for path in given], None if ct is None else tmp_path / ct)


def test_a_file_named_twice_counts_once_and_hidden_files_do_not_count(tmp_path):
    path = write(tmp_path / "a" / "p.nii.gz")
    write(tmp_path / "a" / ".p.tmp-1.nii.gz")
    assert list(label_files([path, path.parent])) == ["p"]


def test_an_unforeseen_error_becomes_a_sentence(tmp_path, monkeypatch):
    def broken(*_args, **_more):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(module, "assess", broken)
    (outcome,) = measure_files(label_files([write(tmp_path / "p.nii.gz")]), tmp_path / "out")
    assert outcome.measurements is None
    assert "ZeroDivisionError: by zero; please report this" in outcome.error
