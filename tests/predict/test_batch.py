"""``renalseg.batch``: inputs, outcomes, and results that appear together or not at all."""

import json

import pytest

from renalseg import batch
from renalseg.batch import list_inputs, segment_all, segment_file, write_result
from renalseg.core.errors import ConfigError, OutputError
from renalseg.io.nifti import read_nifti, write_nifti
from renalseg.predict.segmenter import Segmenter


@pytest.fixture
def segmenter(small_weights):
    return Segmenter(small_weights, "cpu", "fp32")


@pytest.fixture
def scan(ct, tmp_path):
    path = tmp_path / "in" / "scan.nii.gz"
    path.parent.mkdir()
    write_nifti(ct, path)
    return path


@pytest.fixture
def quick_picture(monkeypatch):
    """Another picture in place of the real one, which takes longest."""
    monkeypatch.setattr(batch, "overlay", lambda _ct, _labels, path, **_more: path.write_bytes(b"picture"))


def no_picture(*_args, **_more):
    raise OutputError("the disk is full")


def test_inputs_go_by_name(ct, tmp_path):
    for case in ("case_00000", "case_00001"):
        (tmp_path / "kits" / case).mkdir(parents=True)
        write_nifti(ct, tmp_path / "kits" / case / "imaging.nii.gz")
    found = list_inputs([tmp_path / "a.nii.gz", tmp_path / "kits"])
    assert list(found) == ["a", "case_00000", "case_00001"]
    assert found["case_00001"] == tmp_path / "kits" / "case_00001" / "imaging.nii.gz"


@pytest.mark.parametrize("second", ["a.nii.gz", "a.nii"])
def test_two_inputs_of_one_name_are_refused(tmp_path, second):
    first = tmp_path / "a.nii.gz"
    with pytest.raises(ConfigError, match=r"would both be written as .*_a; segment them separately") as caught:
        list_inputs([first, tmp_path / second])
    assert str(first) in str(caught.value)


def test_inputs_of_one_name_in_two_folders_get_the_folder_in_front(tmp_path):
    paths = [tmp_path / "one" / "ct.nii.gz", tmp_path / "two" / "ct.nii.gz", tmp_path / "b.nii.gz"]
    assert list_inputs(paths) == {"one_ct": paths[0], "two_ct": paths[1], "b": paths[2]}


def test_one_case_writes_three_files(ct, scan, segmenter, tmp_path):
    record = segment_file("scan", scan, tmp_path / "out", segmenter)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"scan.nii.gz", "scan.json", "scan.png"}
    assert json.loads((tmp_path / "out" / "scan.json").read_text()) == json.loads(json.dumps(record))
    assert record["input"] == "scan.nii.gz"
    assert {"read", "write", "total"} <= set(record["timings_s"])
    written = read_nifti(tmp_path / "out" / "scan.nii.gz")
    assert written.same_grid(ct)
    assert written.array.any()


def test_all_or_none_when_the_picture_fails(ct, segmenter, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "overlay", no_picture)
    with pytest.raises(OutputError, match="the disk is full"):
        write_result(segmenter.segment(ct), ct, tmp_path / "out" / "scan")
    assert list(tmp_path.iterdir()) == []


def test_results_of_an_earlier_run_stay_when_the_new_ones_fail(ct, segmenter, tmp_path, monkeypatch, quick_picture):
    result = segmenter.segment(ct)
    write_result(result, ct, tmp_path / "scan")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr(batch, "overlay", no_picture)
    with pytest.raises(OutputError):
        write_result(result, ct, tmp_path / "scan")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_bad_case_does_not_stop_the_others(scan, segmenter, tmp_path, quick_picture):
    bad = scan.with_name("bad.nii.gz")
    bad.write_bytes(scan.read_bytes()[:200])
    cases = {"first": scan, "bad": bad, "none": scan.with_name("none.nii.gz"), "last": scan}
    called = []
    outcomes = list(segment_all(cases, tmp_path / "out", segmenter, called.append))
    assert called == [o.name for o in outcomes] == list(cases)
    assert [o.record is None for o in outcomes] == [o.error is not None for o in outcomes] == [False, True, True, False]
    assert "bad.nii.gz" in outcomes[1].error
    assert "\n" not in outcomes[1].error
    assert outcomes[1].source == bad
    assert {p.name.split(".")[0] for p in (tmp_path / "out").iterdir()} == {"first", "last"}


def test_a_folder_made_for_nothing_is_removed(scan, segmenter, tmp_path):
    outcomes = list(segment_all({"none": scan.with_name("none.nii.gz")}, tmp_path / "out", segmenter))
    assert outcomes[0].error
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_to(scan, segmenter):
    with pytest.raises(OutputError, match="could not be written"):
        list(segment_all({"scan": scan}, scan, segmenter))
