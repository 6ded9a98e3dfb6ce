import json

import numpy as np
import pytest

from renalseg.core.errors import InputError
from renalseg.evaluate import case_metrics, evaluate
from renalseg.io.kits import read_labels

CASES = ("case_00001", "case_00002", "case_00003")


def labels(offset=0):
    array = np.zeros((8, 16, 18), np.uint8)
    array[2:6, 3 + offset : 12 + offset, 3:13] = 1
    array[3:5, 5:9, 5:9] = 2
    array[4, 9:11, 9:11] = 3
    return array


@pytest.fixture
def folders(tmp_path, write_labels):
    """A truth dataset and a folder of predictions, each a little worse than the one before."""
    for i, case in enumerate(CASES):
        write_labels(tmp_path / "truth" / case / "segmentation.nii.gz", labels())
        write_labels(tmp_path / "predictions" / f"{case}.nii.gz", labels(i))
    return tmp_path / "predictions", tmp_path / "truth", tmp_path / "out"


def test_scores_each_case_and_calls_back(folders):
    predictions, truth, out = folders
    calls = []
    result = evaluate(predictions, truth, out, on_case=lambda *args: calls.append(args))
    assert calls == [(case, i + 1, 3) for i, case in enumerate(CASES)]
    for case, scores in zip(CASES, result.cases, strict=True):
        expected = case_metrics(
            read_labels(truth / case / "segmentation.nii.gz"), read_labels(predictions / f"{case}.nii.gz"), case
        )
        assert scores == expected
    assert result.cases[0].row == (1.0,) * 6
    assert result.cases[2].dice["kidney"] < result.cases[1].dice["kidney"] < 1
    assert result.zeroed == {}
    assert result.without_truth == ()
    assert sorted(path.name for path in out.iterdir()) == ["metrics.csv", "metrics.json", "metrics.md"]


def test_nothing_is_written_without_a_folder(folders):
    predictions, truth, out = folders
    evaluate(predictions, truth)
    assert not out.exists()


def test_a_missing_prediction_is_an_error_before_anything_is_scored(folders):
    predictions, truth, out = folders
    (predictions / "case_00002.nii.gz").unlink()
    calls = []
    with pytest.raises(InputError, match=r"1 of 3 cases \(case_00002\)"):
        evaluate(predictions, truth, out, on_case=lambda *args: calls.append(args))
    assert calls == []
    assert not out.exists()


def misshapen(path, write):
    write(path, labels()[:-1])


def misplaced(path, write):
    write(path, labels(), shift_mm=5.0)


def other_spacing(path, write):
    write(path, labels(), spacing_mm=(2.0, 1.0, 1.4))


def no_label(path, write):
    write(path, labels() * 2)


def damaged(path, write):
    path.write_bytes(path.read_bytes()[:60])


def absent(path, write):
    path.unlink()


@pytest.mark.parametrize("spoil", [misshapen, misplaced, other_spacing, no_label, damaged])
def test_an_unusable_prediction_is_an_error_that_names_the_case(folders, write_labels, spoil):
    predictions, truth, out = folders
    spoil(predictions / "case_00002.nii.gz", write_labels)
    with pytest.raises(InputError, match="case_00002"):
        evaluate(predictions, truth, out)
    assert not out.exists()


@pytest.mark.parametrize("spoil", [misshapen, misplaced, other_spacing, no_label, damaged, absent])
def test_an_unusable_prediction_scores_zero_where_asked(folders, write_labels, spoil):
    predictions, truth, out = folders
    spoil(predictions / "case_00002.nii.gz", write_labels)
    result = evaluate(predictions, truth, out, missing="zero")
    assert result.cases[1].row == (0.0,) * 6
    assert list(result.zeroed) == ["case_00002"]
    entries = {entry["case_id"]: entry for entry in json.loads((out / "metrics.json").read_text())["cases"]}
    assert "case_00002" in entries["case_00002"]["zeroed_because"]
    assert entries["case_00001"]["zeroed_because"] is None
    assert "## Scored zero" in (out / "metrics.md").read_text(encoding="utf-8")
    np.testing.assert_allclose(result.mean.row, (np.array(result.cases[0].row) + result.cases[2].row) / 3)


def test_a_damaged_truth_is_an_error_even_where_zeros_are_asked(folders):
    predictions, truth, out = folders
    damaged(truth / "case_00002" / "segmentation.nii.gz", None)
    with pytest.raises(InputError, match="case_00002"):
        evaluate(predictions, truth, out, missing="zero")


def test_a_subset_ignores_the_other_cases(folders):
    predictions, truth, _ = folders
    (predictions / "case_00002.nii.gz").unlink()
    result = evaluate(predictions, truth, cases=["case_00003", "case_00001"])
    assert [case.case_id for case in result.cases] == ["case_00001", "case_00003"]
    with pytest.raises(InputError, match="case_00009"):
        evaluate(predictions, truth, cases=["case_00001", "case_00009"])
    with pytest.raises(InputError, match="no case"):
        evaluate(predictions, truth, cases=[])


def test_predictions_without_truth_are_listed(folders, write_labels, caplog):
    predictions, truth, out = folders
    write_labels(predictions / "case_00099.nii.gz", labels())
    (predictions / "notes.txt").write_text("no prediction")
    result = evaluate(predictions, truth, out, cases=["case_00001"])
    assert result.without_truth == ("case_00099",)
    assert "case_00099" in caplog.text
    assert json.loads((out / "metrics.json").read_text())["predictions_without_truth"] == ["case_00099"]


def test_cases_without_segmentation_are_no_truth(folders):
    predictions, truth, _ = folders
    (truth / "case_00002" / "segmentation.nii.gz").rename(truth / "case_00002" / "imaging.nii.gz")
    result = evaluate(predictions, truth)
    assert [case.case_id for case in result.cases] == ["case_00001", "case_00003"]
    assert result.without_truth == ("case_00002",)


def test_wrong_arguments(folders, tmp_path):
    predictions, truth, _ = folders
    with pytest.raises(InputError, match="not a folder"):
        evaluate(tmp_path / "nowhere", truth)
    with pytest.raises(InputError, match="nowhere"):
        evaluate(predictions, tmp_path / "nowhere")
    with pytest.raises(InputError, match="'skip'"):
        evaluate(predictions, truth, missing="skip")


def test_processes_give_the_same_result(folders):
    predictions, truth, _ = folders
    assert evaluate(predictions, truth, workers=2) == evaluate(predictions, truth)


def test_errors_come_back_from_processes(folders, write_labels):
    predictions, truth, _ = folders
    misplaced(predictions / "case_00002.nii.gz", write_labels)
    with pytest.raises(InputError, match="case_00002"):
        evaluate(predictions, truth, workers=2)
