"""The cohort's CSV tables: every value in its column, empty cells where there is none."""

import csv
import io

import numpy as np

from renalseg.image.boxes import Box
from renalseg.report.measure.results import HU_KEYS, Diameter, KidneyMeasures, Lesion, Measurements
from renalseg.report.measure.tables import KIDNEY_COLUMNS, LESION_COLUMNS, kidneys_csv, lesions_csv, write_tables

ENDS = ((1.0, 2.0, 3.0), (4.0, 2.0, 3.0))


def kidney(side="right", **changes):
    volumes = {"parenchyma": 150.5, "tumor": 12.25, "cyst": 0.0, "total": 162.75}
    return KidneyMeasures(side, "", volumes, 110.5, (), (-60.0, -20.5, 100.0), **changes)


def lesion(number=1, **changes):
    box = Box((1, 2, 3), (4, 5, 6))
    whole = (Diameter(24.5, ENDS, 17), Diameter(30.25, ENDS), 21.0)
    return Lesion(number, "tumor", "right", 12.25, 4083, (-50.0, -30.5, 90.0), box, *whole, **changes)


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_row_a_kidney():
    cut = KidneyMeasures("left", 'cut, "so"', kidney().volumes_ml, 80.0, ("superior", "left"), (60.0, 0.0, 1.0))
    case = Measurements("a", (kidney(), cut)).as_dict()
    right, left = rows_of(kidneys_csv([case]))
    assert tuple(right) == KIDNEY_COLUMNS
    assert right["case"] == left["case"] == "a"
    assert (right["side"], left["side"]) == ("right", "left")
    assert [float(right[f"{name}_ml"]) for name in ("parenchyma", "tumor", "cyst", "total")] == [
        150.5,
        12.25,
        0,
        162.75,
    ]
    assert [float(right[f"centroid_{axis}_ras_mm"]) for axis in "xyz"] == [-60, -20.5, 100]
    assert float(right["length_mm"]) == 110.5
    assert (right["touches_border"], left["touches_border"]) == ("", "superior left")
    assert left["note"] == 'cut, "so"'


def test_a_row_a_lesion_with_everything_measured():
    hu = {key: float(i) for i, key in enumerate(HU_KEYS)}
    scores = {name: {"total": i} for i, name in enumerate(("renal", "padua", "spare"), 4)} | {"c_index": {"value": 2.5}}
    scores["renal"] |= {"suffix": "ph", "parts": {part: {"points": i} for i, part in enumerate("RENL")}}
    full = lesion(polar="upper", face="anterior", hu=hu, exophytic_share=0.25, contact_area_mm2=300.0)
    (row,) = rows_of(lesions_csv([Measurements("a", (), (full,)).with_nephrometry([scores]).as_dict()]))
    assert tuple(row) == LESION_COLUMNS
    assert (row["case"], row["id"], row["kind"], row["side"], row["voxels"]) == ("a", "1", "tumor", "right", "4083")
    assert [float(row[f"{name}_mm"]) for name in ("axial_diameter", "diameter_3d", "craniocaudal")] == [24.5, 30.25, 21]
    assert (row["axial_slice"], row["polar"], row["face"]) == ("17", "upper", "anterior")
    assert [float(row[f"hu_{key}"]) for key in HU_KEYS] == list(range(7))
    assert (float(row["exophytic_share"]), float(row["contact_area_mm2"])) == (0.25, 300)
    assert [float(row[name]) for name in ("renal", "padua", "spare", "c_index")] == [4, 5, 6, 2.5]
    assert [row[f"renal_{part}"] for part in ("suffix", *"renl")] == ["ph", *"0123"]
    assert row["detached"] == "False"


def test_values_that_could_not_be_had_are_empty_and_their_notes_remain():
    (row,) = rows_of(lesions_csv([Measurements("a", (), (lesion(notes=("No sinus.", "No CT.")),)).as_dict()]))
    empty = ("polar", "face", "exophytic_share", "contact_area_mm2", "sinus_distance_mm", "renal", "c_index", "hu_mean")
    assert {row[name] for name in empty} == {""}
    assert row["notes"] == "No sinus. No CT."


def test_scores_that_abstained_are_empty():
    scores = {"renal": {"total": None}, "padua": {"total": 7}, "spare": {"total": None}, "c_index": {"value": None}}
    (row,) = rows_of(lesions_csv([Measurements("a", (), (lesion(),)).with_nephrometry([scores]).as_dict()]))
    assert [row[name] for name in ("renal", "padua", "spare", "c_index")] == ["", "7", "", ""]


def test_a_cohort_keeps_its_order_and_cases_without_lesions_have_no_row(tmp_path):
    cases = [Measurements("b", (kidney(),), (lesion(1), lesion(2))), Measurements("a"), Measurements("c", (kidney(),))]
    write_tables([case.as_dict() for case in cases], tmp_path / "new")
    lesions = rows_of((tmp_path / "new" / "lesions.csv").read_text())
    assert [(row["case"], row["id"]) for row in lesions] == [("b", "1"), ("b", "2")]
    assert [row["case"] for row in rows_of((tmp_path / "new" / "kidneys.csv").read_text())] == ["b", "c"]
    np.testing.assert_equal(sorted(p.name for p in (tmp_path / "new").iterdir()), ["kidneys.csv", "lesions.csv"])
