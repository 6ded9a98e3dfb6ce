"""``renalseg.batch``: inputs, outcomes, and results that appear together or not at all."""

import json
import os
import shutil
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from renalseg.batch import Extras, finished, list_inputs, results, run, segment_all, segment_file, write_result
from renalseg.batch.overlap import overlapped
from renalseg.config import STAGES
from renalseg.core.errors import OutputError
from renalseg.io.files import fingerprint
from renalseg.io.nifti import read_nifti, write_nifti
from renalseg.model.checkpoint import open_weights, save_stage
from renalseg.predict.segmenter import Segmenter
from renalseg.report import figures


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
    monkeypatch.setattr(figures, "overlay", lambda _ct, _labels, path, **_more: path.write_bytes(b"picture"))


def no_picture(*_args, **_more):
    raise OutputError("the disk is full")


def test_inputs_go_by_name(ct, tmp_path):
    for case in ("case_00000", "case_00001"):
        (tmp_path / "kits" / case).mkdir(parents=True)
        write_nifti(ct, tmp_path / "kits" / case / "imaging.nii.gz")
    found, refused = list_inputs([tmp_path / "a.nii.gz", tmp_path / "kits", tmp_path / "a.nii.gz"])
    assert not refused
    assert list(found) == ["a", "case_00000", "case_00001"]
    assert found["case_00001"] == tmp_path / "kits" / "case_00001" / "imaging.nii.gz"


def test_of_two_inputs_of_one_name_the_second_is_refused(tmp_path):
    first, second = tmp_path / "a.nii.gz", tmp_path / "a.nii"
    found, (refused,) = list_inputs([first, second])
    assert list(found.values()) == [first]
    for part in (str(first), str(second), "segment it separately"):
        assert part in refused.error


def test_inputs_that_cannot_be_listed_do_not_stop_the_others(ct, tmp_path):
    (tmp_path / "kits" / "case_00000").mkdir(parents=True)
    write_nifti(ct, tmp_path / "kits" / "case_00000" / "imaging.nii.gz")
    for folder in ("kits/case_00001", "maps/case_00000"):
        (tmp_path / folder).mkdir(parents=True)
        write_nifti(ct, tmp_path / folder / "segmentation.nii.gz")
    good, long = tmp_path / "good.nii.gz", tmp_path / ("x" * 300)
    found, refused = list_inputs([tmp_path / "maps", good, long, tmp_path / "kits"])
    assert list(found) == ["good", "case_00000"]
    reasons = "\n".join(outcome.error for outcome in refused)
    assert len(refused) == 3
    for part in ("label maps but no imaging.nii.gz", f"{long}: File name too long", "no imaging.nii.gz for case_00001"):
        assert part in reasons


def test_an_input_is_never_written_over(ct, segmenter, tmp_path):
    path = tmp_path / "scan.nii.gz"
    write_nifti(ct, path)
    before = path.read_bytes()
    (outcome,) = segment_all({"scan": path}, tmp_path, segmenter)
    assert "is an input" in outcome.error
    (tmp_path / "link").symlink_to(tmp_path)
    (outcome,) = segment_all({"scan": path}, tmp_path / "link", segmenter)
    assert "is an input" in outcome.error
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "scan.nii.gz"]


def test_peak_memory_counts_reading_and_writing(scan, segmenter, tmp_path, monkeypatch):
    peaks = iter([9e6, 1.0])
    for module in (run, results):
        monkeypatch.setattr(module, "peak_host_mb", lambda: next(peaks))
    assert segment_file("scan", scan, tmp_path / "a", segmenter)["peak_memory_mb"]["host"] == 9e6
    peaks = iter([1.0, 8e6])
    record = segment_file("scan", scan, tmp_path / "b", segmenter)
    assert record["peak_memory_mb"]["host_by_step"]["read"] == 1.0
    assert record["peak_memory_mb"]["host"] == 8e6
    assert json.loads((tmp_path / "b" / "scan.json").read_text())["peak_memory_mb"]["host"] == 8e6


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_lack_of_memory_is_said_in_one_sentence(error, scan, segmenter, tmp_path, monkeypatch):
    def full(_):
        raise error

    monkeypatch.setattr(run, "read_volume", full)
    (outcome,) = segment_all({"scan": scan}, tmp_path / "out", segmenter)
    assert outcome.error == f"{scan}: the memory ran out; close other programs, or take a machine with more of it"


def test_inputs_of_one_name_in_two_folders_get_the_folder_in_front(tmp_path):
    paths = [tmp_path / "one" / "ct.nii.gz", tmp_path / "two" / "ct.nii.gz", tmp_path / "b.nii.gz"]
    assert list_inputs(paths) == ({"one_ct": paths[0], "two_ct": paths[1], "b": paths[2]}, [])


def test_inputs_named_after_equal_folders_get_the_folder_above(tmp_path):
    paths = [tmp_path / side / "case" / "imaging.nii.gz" for side in ("one", "two")]
    assert list_inputs(paths) == ({"one_case": paths[0], "two_case": paths[1]}, [])


def test_an_input_named_after_its_folder_beside_one_of_that_name(tmp_path):
    paths = [tmp_path / "d" / "ct1.nii.gz", tmp_path / "d" / "ct1" / "imaging.nii.gz"]
    assert list_inputs(paths) == ({"d_ct1": paths[0], "ct1_ct1": paths[1]}, [])


def test_results_do_not_mix_with_a_series(segmenter, tmp_path):
    series = tmp_path / "series"
    series.mkdir()
    (outcome,) = segment_all({"series": series}, series, segmenter)
    assert "is the series itself" in outcome.error
    assert list(series.iterdir()) == []


@pytest.mark.parametrize("record", [None, "{}", '{"made_from": {}}'])
def test_a_ct_of_the_name_of_a_result_is_not_replaced(record, ct, scan, segmenter, tmp_path):
    """Another conversion of the same scan, say, that is no input of this run."""
    other = tmp_path / "out" / "scan.nii.gz"
    write_nifti(ct, other)
    before = other.read_bytes()
    if record:
        (tmp_path / "out" / "scan.json").write_text(record)
    (outcome,) = segment_all({"scan": scan}, tmp_path / "out", segmenter)
    assert "is no label map and would be replaced" in outcome.error
    assert other.read_bytes() == before


def test_a_json_that_a_converter_wrote_is_not_replaced(scan, segmenter, tmp_path):
    sidecar = tmp_path / "out" / "scan.json"
    sidecar.parent.mkdir()
    sidecar.write_text('{"Modality": "CT"}')
    (outcome,) = segment_all({"scan": scan}, tmp_path / "out", segmenter)
    assert "is no record of renalseg and would be replaced" in outcome.error
    assert sidecar.read_text() == '{"Modality": "CT"}'


def test_a_damaged_file_in_place_of_labels_is_replaced(scan, segmenter, tmp_path, quick_picture):
    for start in (
        b"",
        b"\x1f\x8b",
        struct.pack("<i", 348) + bytes(66) + struct.pack("<h", 999) + bytes(272) + b"n+1\0",
    ):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "scan.json").unlink(missing_ok=True)
        (tmp_path / "out" / "scan.nii.gz").write_bytes(start)
        (outcome,) = segment_all({"scan": scan}, tmp_path / "out", segmenter)
        assert outcome.error is None


def test_labels_without_a_record_were_cut_short_and_are_replaced(scan, segmenter, tmp_path, quick_picture):
    list(segment_all({"scan": scan}, tmp_path / "out", segmenter))
    (tmp_path / "out" / "scan.json").unlink()
    (outcome,) = segment_all({"scan": scan}, tmp_path / "out", segmenter)
    assert outcome.error is None
    assert not outcome.kept


def test_one_case_writes_three_files(ct, scan, segmenter, tmp_path):
    record = segment_file("scan", scan, tmp_path / "out", segmenter)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"scan.nii.gz", "scan.json", "scan.png"}
    assert json.loads((tmp_path / "out" / "scan.json").read_text()) == json.loads(json.dumps(record))
    assert record["input"] == "scan.nii.gz"
    assert {"read", "write", "total"} <= set(record["timings_s"])
    written = read_nifti(tmp_path / "out" / "scan.nii.gz")
    assert written.same_grid(ct)
    assert written.array.any()


def test_writing_in_a_batch_does_not_lose_the_peak_of_what_is_computed_meanwhile(
    scan, segmenter, tmp_path, monkeypatch, quick_picture
):
    resets = []
    monkeypatch.setattr(results, "reset_host_peak", lambda: resets.append(1))
    list(segment_all({"scan": scan}, tmp_path / "a", segmenter))
    assert resets == []
    segment_file("scan", scan, tmp_path / "b", segmenter)
    assert resets == [1]


def test_all_or_none_when_the_picture_fails(ct, segmenter, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "overlay", no_picture)
    with pytest.raises(OutputError, match="the disk is full"):
        write_result(segmenter.segment(ct), ct, tmp_path / "out" / "scan")
    assert list(tmp_path.iterdir()) == []


def test_results_of_an_earlier_run_stay_when_the_new_ones_fail(ct, segmenter, tmp_path, monkeypatch, quick_picture):
    result = segmenter.segment(ct)
    write_result(result, ct, tmp_path / "scan")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr(figures, "overlay", no_picture)
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


# What is finished ----------------------------------------------------------------------------------------------------


@pytest.fixture
def segmented(scan, segmenter, tmp_path, quick_picture, monkeypatch):
    """Segments ``scan`` once; returns a function that does it again and tells whether anything was computed."""
    out = tmp_path / "out"
    (first,) = segment_all({"scan": scan}, out, segmenter)
    assert not first.kept

    def computed(by=segmenter, **changes):
        (outcome,) = segment_all({"scan": scan}, out, by, **changes)
        assert outcome.error is None
        assert json.loads(json.dumps(outcome.record)) == json.loads((out / "scan.json").read_text())
        return not outcome.kept

    return computed


def test_a_finished_case_is_left_as_it_is(segmented, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "read_volume", lambda _: pytest.fail("was read"))
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    assert not segmented()
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == before


def test_a_finished_case_is_segmented_again_on_demand(segmented):
    assert segmented(again=True)
    assert not segmented()


@pytest.mark.parametrize("suffix", [".json", ".png", ".nii.gz"])
def test_a_case_that_lacks_a_file_is_segmented_again(suffix, segmented, tmp_path):
    (tmp_path / "out" / f"scan{suffix}").unlink()
    assert segmented()
    assert not segmented()


@pytest.mark.parametrize(("suffix", "left"), [(".nii.gz", 0), (".nii.gz", 0.5), (".png", 0), (".png", 0.5)])
def test_a_case_whose_file_was_cut_off_is_segmented_again(suffix, left, segmented, tmp_path):
    path = tmp_path / "out" / f"scan{suffix}"
    path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
    assert segmented()
    assert not segmented()


def test_labels_that_somebody_corrected_are_kept(segmented, tmp_path):
    path = tmp_path / "out" / "scan.nii.gz"
    labels = read_nifti(path)
    corrected = labels.with_array(np.where(np.indices(labels.shape)[0] % 3, labels.array, 0).astype(np.uint8))
    write_nifti(corrected, path)
    assert not segmented()
    np.testing.assert_array_equal(read_nifti(path).array, corrected.array)


def test_no_old_record_stands_beside_new_labels(ct, segmenter, tmp_path, monkeypatch, quick_picture):
    """Whenever a process is killed: a record is of the labels beside it."""
    result = segmenter.segment(ct)
    write_result(result, ct, tmp_path / "scan")
    replaced, seen = os.replace, []

    def watched(source, target):
        replaced(source, target)
        if not Path(target).name.startswith("."):  # the JSON's text goes to a temporary name of the temporary name
            seen.append((Path(target).name, "volumes_ml" in json.loads((tmp_path / "scan.json").read_text())))

    monkeypatch.setattr("renalseg.io.files.os.replace", watched)
    write_result(result, ct, tmp_path / "scan")
    assert seen == [("scan.json", False), ("scan.nii.gz", False), ("scan.png", False), ("scan.json", True)]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"made_from": null, "kidney_found": true}'])
def test_a_damaged_record_counts_for_nothing(text, segmented, tmp_path):
    (tmp_path / "out" / "scan.json").write_text(text)
    assert segmented()


def test_a_changed_input_is_segmented_again(segmented, scan):
    scan.write_bytes(scan.read_bytes())  # another time of change is enough
    assert segmented()


def test_other_settings_and_weights_segment_again(segmented, small_weights, tmp_path, monkeypatch):
    assert segmented(Segmenter(small_weights, "cpu", "fp32", tta=False))
    assert segmented(Segmenter(small_weights, "cpu", "fp32"))
    assert segmented(Segmenter(small_weights, "cpu", "bf16"))
    assert segmented(Segmenter([small_weights, small_weights], "cpu", "bf16"))
    monkeypatch.setattr("renalseg.batch.finished.__version__", "0.0.0")
    assert segmented(Segmenter([small_weights, small_weights], "cpu", "bf16"))


@pytest.mark.parametrize("changed", ["weights_sha256", "config_sha256"])
def test_weights_and_configuration_each_count_for_themselves(changed, segmented, monkeypatch):
    told = finished.made_from

    def other(*arguments):
        was = told(*arguments)
        return was | {changed: "0" * 64 if changed == "weights_sha256" else ["0" * 64]}

    monkeypatch.setattr(run, "made_from", other)
    assert segmented()
    assert not segmented()


def test_other_weights_of_one_configuration_segment_again(segmented, small_weights, tmp_path):
    weights, other = open_weights(small_weights), tmp_path / "other"
    for stage in STAGES:
        network = weights.network(stage)
        if stage == "kidney":
            with torch.no_grad():
                next(network.parameters()).add_(0.001)
        save_stage(other, weights.config, stage, network, {"cases": 0})
    before, after = Segmenter(small_weights, "cpu", "fp32"), Segmenter(other, "cpu", "fp32")
    assert before.config.sha256() == after.config.sha256()
    assert segmented(after)
    assert not segmented(after)
    assert segmented(before)


def test_extras_that_were_not_made_are_made_and_others_do_not_matter(segmented, tmp_path):
    assert segmented(extras=Extras(measurements=True))
    assert not segmented(extras=Extras(measurements=True))
    assert not segmented()
    assert segmented(extras=Extras(measurements=True, page=True))
    assert not segmented(extras=Extras(measurements=True))
    (tmp_path / "out" / "scan.measurements.json").unlink()
    assert segmented(extras=Extras(measurements=True))


def test_measurements_of_a_finished_case_are_those_of_then(segmented, scan, segmenter, tmp_path):
    extras = Extras(measurements=True)
    (first,), (later,) = (list(segment_all({"scan": scan}, tmp_path / "out", segmenter, extras=extras)) for _ in "12")
    assert later.kept
    assert later.measurements == json.loads(json.dumps(first.measurements))
    assert later.measurements is not None


# Reading and writing meanwhile ---------------------------------------------------------------------------------------


def test_steps_of_several_cases_overlap():
    reading, computing = threading.Event(), threading.Event()
    log = []

    def load(n):
        if n == 1:
            reading.set()
            assert computing.wait(10)  # the case before is computed while this one is read
        return n

    def compute(n):
        if n == 0:
            assert reading.wait(10)
            computing.set()
        log.append(threading.current_thread())
        return n * 10

    assert list(overlapped(range(3), load, compute, lambda n: n + 1)) == [1, 11, 21]
    assert log == [threading.current_thread()] * 3


def test_no_more_than_one_case_is_read_ahead():
    read, computed = [], []

    def compute(n):
        computed.append(n)
        time.sleep(0.02)
        assert len(read) <= len(computed) + 1
        return n

    assert list(overlapped(range(5), lambda n: read.append(n) or n, compute, lambda n: n)) == list(range(5))
    assert list(overlapped([], lambda n: n, compute, lambda n: n)) == []


@pytest.mark.parametrize("step", [0, 1, 2])
def test_an_error_of_a_step_ends_it_and_what_was_begun_is_done(step):
    stored = []

    def failing(place, action):
        def run_step(n):
            if place == step and n == 1:
                raise ValueError("bad")
            return action(n)

        return run_step

    steps = [failing(0, lambda n: n), failing(1, lambda n: n), failing(2, lambda n: stored.append(n) or n)]
    with pytest.raises(ValueError, match="bad"):
        list(overlapped(range(4), *steps))
    assert stored in ([0], [0, 2])  # the third may be on its way when the second cannot be stored


# What tells an input --------------------------------------------------------------------------------------------------


def test_a_fingerprint_changes_with_place_name_size_and_time(tmp_path):
    series = tmp_path / "series"
    series.mkdir()
    for name in ("1.dcm", "2.dcm"):
        (series / name).write_bytes(b"slice")
    (series / "gone").symlink_to(tmp_path / "nowhere")  # readers pass over it, too
    (series / "out").mkdir()
    first = fingerprint(series, without=series / "out")
    (series / "out" / "result.png").write_bytes(b"picture")
    assert fingerprint(series, without=series / "out") == first
    assert fingerprint(series) != first
    assert fingerprint(series, without=tmp_path) == fingerprint(series)  # all lies inside it
    copy = tmp_path / "copy"
    shutil.copytree(series, copy, symlinks=True)  # with the same times
    assert fingerprint(copy, without=copy / "out") != first
    os.utime(series / "2.dcm", (1, 1))
    assert fingerprint(series, without=series / "out") != first


@pytest.mark.parametrize(
    ("header", "line", "voxels"),
    [
        ("a.mhd", "ElementDataFile = a.raw", "a.raw"),
        ("a.nhdr", "data file: a.raw", "a.raw"),
        ("a.mhd", "ElementDataFile = data/a.raw", "data/a.raw"),
        ("a.nhdr", "data file: ./data/with space.raw", "data/with space.raw"),
        ("a.mhd", "ElementDataFile = data/s%03d.raw 1 100 1", "data/s007.raw"),
        ("a.mhd", "ElementDataFile = LIST\ndata/one.raw\ndata/two.raw", "data/two.raw"),
        ("a.nhdr", "data file: data/s%02d.raw 1 9 1", "data/s03.raw"),
    ],
)
def test_voxels_beside_a_header_count(header, line, voxels, tmp_path):
    path, voxels = tmp_path / header, tmp_path / voxels
    voxels.parent.mkdir(exist_ok=True)
    path.write_text(f"Some = header\n{line}\n")
    voxels.write_bytes(b"0123")
    first = fingerprint(path)
    (tmp_path / "other.raw").write_bytes(b"0123")
    assert fingerprint(path) == first
    voxels.write_bytes(b"01234")
    assert fingerprint(path) != first


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
def test_a_header_that_names_nothing_does_not_count_its_folder(name, tmp_path):
    """Voxels behind the header, a comment with a per cent sign, and words too long for a file name."""
    path, long = tmp_path / name, "\u00fc" * 200
    path.write_bytes(f"Comment = 50% of {long}\nElementDataFile = LOCAL\n".encode() + bytes(range(256)) * 9)
    first = fingerprint(path)
    (tmp_path / "result.png").write_bytes(b"picture")
    assert fingerprint(path) == first
    path.write_text(f"NRRD0004\ndata file: {long}\n")
    assert fingerprint(path) != first
