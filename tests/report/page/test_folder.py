import json

import numpy as np
import pytest

import renalseg.cli.report  # noqa: F401  (registers its command)
from renalseg.core.errors import InputError
from renalseg.core.volume import Volume
from renalseg.io.nifti import write_nifti
from renalseg.report.page import write_report


@pytest.fixture
def results(tmp_path, study, record):
    """A folder of results of two cases, and their CTs."""
    folder, cts = tmp_path / "out", {}
    for name in ("first", "second"):
        cts[name] = tmp_path / f"{name}.nii.gz"
        write_nifti(study[0], cts[name])
        folder.mkdir(exist_ok=True)
        write_nifti(study[1], folder / f"{name}.nii.gz")
        (folder / f"{name}.json").write_text(json.dumps({**record, "case": name}))
    return folder, cts


@pytest.fixture(autouse=True)
def quick_overview(monkeypatch):
    monkeypatch.setattr("renalseg.report.page.case._overview", lambda ct, labels, name: b"\xff\xd8 picture")


def test_a_page_a_case_and_one_over_all(results, measurements):
    folder, cts = results
    seen, turns = [], []

    def measure(labels, ct):
        seen.append((labels.shape, ct.shape))
        return measurements, {1: b"\x89PNG sketch"}

    entries = write_report(folder, cts, measure, {"third": "third.nii.gz is damaged"}, turns.append)
    assert [(e.name, e.page, e.error) for e in entries] == [
        ("first", "first.html", None),
        ("second", "second.html", None),
        ("third", None, "third.nii.gz is damaged"),
    ]
    assert turns == ["first", "second"]
    assert seen == [((40, 90, 120), (40, 90, 120))] * 2
    assert "Largest tumor" in (folder / "first.html").read_text()
    assert "data:image/png;base64" in (folder / "first.html").read_text()
    index = (folder / "index.html").read_text()
    assert 'href="second.html"' in index
    assert "third.nii.gz is damaged" in index
    assert not list(folder.glob(".*"))


def test_a_case_without_its_ct_is_in_the_index_alone(results):
    folder, cts = results
    entries = write_report(folder, {"first": cts["first"]})
    assert [e.page for e in entries] == ["first.html", None]
    assert not (folder / "second.html").exists()
    assert "second" in (folder / "index.html").read_text()


def test_pages_that_are_there_stay_in_the_index(results):
    folder, cts = results
    write_report(folder, cts)
    assert [e.page for e in write_report(folder, {})] == ["first.html", "second.html"]
    assert [e.page for e in write_report(folder, {"first": cts["first"]})] == ["first.html", "second.html"]
    assert 'href="second.html"' in (folder / "index.html").read_text()


def test_a_bad_case_does_not_stop_the_others(results):
    folder, cts = results
    write_nifti(Volume.from_array(np.zeros((5, 5, 5), np.int16), (3, 2, 2)), cts["first"])
    entries = write_report(folder, cts)
    assert "not on the grid" in entries[0].error
    assert entries[1].page == "second.html"
    assert "not on the grid" in (folder / "index.html").read_text()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '"x"'])
def test_a_damaged_record_is_said(results, text):
    folder, cts = results
    (folder / "first.json").write_text(text)
    first, second = write_report(folder, cts)
    assert "segment the case again" in first.error
    assert second.error is None


def test_a_case_named_index(results):
    folder, cts = results
    for suffix in (".nii.gz", ".json"):
        (folder / f"first{suffix}").rename(folder / f"index{suffix}")
    entries = write_report(folder, {"index": cts["first"]})
    assert "rename the case index" in entries[0].error
    assert "renalseg" in (folder / "index.html").read_text()


def test_folders_without_results(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        write_report(tmp_path / "nowhere", {})
    with pytest.raises(InputError, match="holds no results"):
        write_report(tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_the_command(run, results):
    folder, cts = results
    code, _, told = run("report", folder, "--ct", cts["first"], "--ct", cts["second"])
    assert code == 0
    assert f"2 of 2 cases with a page; {folder / 'index.html'}" in told
    assert (folder / "first.html").stat().st_size > 2_000_000


def test_the_command_without_cts_says_how_to_get_pages(run, results):
    code, _, told = run("report", results[0])
    assert code == 0
    assert "0 of 2 cases with a page" in told
    assert "--ct" in told


def test_the_command_with_a_ct_of_no_result(run, results, tmp_path):
    write_nifti(Volume.from_array(np.zeros((5, 5, 5), np.int16), (3, 2, 2)), tmp_path / "other.nii.gz")
    code, _, told = run("report", results[0], "--ct", tmp_path / "other.nii.gz")
    assert code == 2
    assert "has no result in" in told


@pytest.mark.parametrize(("damaged", "expected"), [(["first"], 1), (["first", "second"], 2)])
def test_the_command_counts_failures(run, results, damaged, expected):
    folder, cts = results
    for name in damaged:
        (folder / f"{name}.json").write_text("{}")
    code, _, told = run("report", folder, "--ct", cts["first"], "--ct", cts["second"])
    assert code == expected
    assert told.count("failed ") == len(damaged)


def test_a_real_ct_stays_under_8_mb(shared_data, tmp_path):
    """A real scan, 134 x 512 x 512, with boxes for kidneys: the size depends on the CT's noise, not on the labels."""
    from renalseg.io.read import read_volume
    from renalseg.report.page import write_case_page

    source = shared_data / "real_ct" / "pancreas_ct_cb_001" / "dicom.zip"
    if not source.is_file():
        pytest.skip("the real CT is not in the shared data")
    ct = read_volume(source)
    labels = np.zeros(ct.shape, np.uint8)
    labels[41:107, 210:344, 136:387] = 1
    write_case_page(tmp_path / "case.html", ct, ct.with_array(labels), {})
    assert (tmp_path / "case.html").stat().st_size < 8_000_000
