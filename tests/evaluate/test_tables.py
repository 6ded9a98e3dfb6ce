import json

import numpy as np
import pytest

from renalseg import __version__
from renalseg.core.errors import OutputError
from renalseg.evaluate import CaseMetrics, CohortResult, write_tables
from renalseg.evaluate.tables import to_csv, to_json, to_markdown

ROWS = {
    "case_00000": (1.0, 0.5, 0.25, 0.9, 0.4, 0.2),
    "case_00002": (0.5, 0.25, 0.0, 0.3, 0.2, 0.1),
    "case_00010": (1 / 3, 2 / 3, 1.0, 0.3, 0.3, 0.3),
}


@pytest.fixture
def result():
    return CohortResult(tuple(CaseMetrics.from_row(case, row) for case, row in ROWS.items()))


def test_csv_bytes(result, tmp_path):
    write_tables(result, tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder" / "metrics.csv").read_bytes() == (
        b"caseID,Dice_kidney,Dice_masses,Dice_tumor,SD_kidney,SD_masses,SD_tumor\n"
        b"case_00000,1.00000000,0.50000000,0.25000000,0.90000000,0.40000000,0.20000000\n"
        b"case_00002,0.50000000,0.25000000,0.00000000,0.30000000,0.20000000,0.10000000\n"
        b"case_00010,0.33333333,0.66666667,1.00000000,0.30000000,0.30000000,0.30000000\n"
        b"average,0.61111111,0.47222222,0.41666667,0.50000000,0.30000000,0.20000000"
    )


def test_json(result):
    data = json.loads(json.dumps(to_json(result)))
    rows = np.array(list(ROWS.values()))
    assert data["renalseg_version"] == __version__
    assert data["n_cases"] == 3
    assert data["tolerance_mm"]["masses"] == 1.1328796488598762
    for name, expected in {"mean": rows.mean(0), "std": rows.std(0), "median": np.median(rows, axis=0)}.items():
        for k, hec in enumerate(("kidney", "masses", "tumor")):
            assert data[name]["dice"][hec] == pytest.approx(expected[k])
            assert data[name]["surface_dice"][hec] == pytest.approx(expected[3 + k])
    interval = data["mean_interval"]
    assert (interval["confidence"], interval["resamples"]) == (0.95, 10000)
    for kind in ("dice", "surface_dice"):
        for hec in ("kidney", "masses", "tumor"):
            low, mean, high = (end[kind][hec] for end in (interval["lower"], data["mean"], interval["upper"]))
            assert low < mean < high
    assert data["cases"][1] == {
        "case_id": "case_00002",
        "dice": {"kidney": 0.5, "masses": 0.25, "tumor": 0.0},
        "surface_dice": {"kidney": 0.3, "masses": 0.2, "tumor": 0.1},
        "zeroed_because": None,
    }


def test_markdown(result):
    text = to_markdown(result)
    lines = text.splitlines()
    assert lines[0] == "# Evaluation of 3 cases"
    row = next(line for line in lines if line.startswith("| Masses"))
    low, high = result.interval
    assert row == (
        '| Masses (the paper\'s "cyst") '
        f"| 0.4722 ± 0.1712 | {low.dice['masses']:.4f} to {high.dice['masses']:.4f} "
        f"| 0.3000 ± 0.0816 | {low.surface_dice['masses']:.4f} to {high.surface_dice['masses']:.4f} "
        "| 0.8580 / 0.7365 | 0.792 / 0.591 |"
    )
    assert any("| 0.9661 / 0.9408 | 0.954 / 0.897 |" in line for line in lines)
    assert any(line.startswith("| Tumor") and "| 0.8591 / 0.7329 | 0.691 / 0.541 |" in line for line in lines)
    assert "only means something on the same KiTS23 cases" in text
    worst = [line.split(" | ")[0] for line in lines if line.startswith("| case_")]
    assert worst == ["| case_00002", "| case_00000", "| case_00010"]
    table_widths = {line.count("|") for line in lines[4:9]}
    assert table_widths == {8}


def test_markdown_of_one_case_lists_no_more_than_five_worst():
    many = CohortResult(tuple(CaseMetrics.from_row(f"case_{i}", (i / 10,) * 6) for i in range(8)))
    assert [case.case_id for case in many.worst()] == [f"case_{i}" for i in range(5)]
    one = CohortResult(many.cases[:1], without_truth=("odd",))
    assert to_markdown(one).startswith("# Evaluation of 1 case\n")
    assert "- odd" in to_markdown(one)
    assert to_csv(one).endswith("\naverage," + ",".join(["0.00000000"] * 6))


def test_a_file_in_the_way_is_an_output_error(result, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="out"):
        write_tables(result, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "a file"
