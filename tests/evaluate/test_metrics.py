import numpy as np
import pytest

from renalseg.core.errors import GeometryError, InputError
from renalseg.core.labels import HECS
from renalseg.core.volume import Volume
from renalseg.evaluate import CaseMetrics, case_metrics, dice

SPACING = (3.0, 0.8, 0.8)
CLASSES = {"kidney": (1, 2, 3), "masses": (2, 3), "tumor": (2,)}
TOLERANCES = {"kidney": 1.0330772532390826, "masses": 1.1328796488598762, "tumor": 1.1498198361434828}


def labels(seed=0, shape=(10, 20, 24)):
    rng = np.random.default_rng(seed)
    array = np.zeros(shape, np.uint8)
    array[2:8, 3:15, 4:16] = 1
    array[3:6, 4:10, 6:12] = 2
    array[5:7, 9:13, 9:14] = 3
    noise = rng.random(shape) < 0.05
    array[noise] = rng.integers(0, 4, shape)[noise]
    return array


def official_dice(truth, prediction, ids):
    """The official rules once more, with plain counting."""
    a = sum((truth == i).astype(int) for i in ids)
    b = sum((prediction == i).astype(int) for i in ids)
    if a.sum() == 0 and b.sum() == 0:
        return 1
    return 2 * (a * b).sum() / (a.sum() + b.sum())


def test_classes_and_tolerances_are_the_official_ones():
    assert {hec.name: hec.ids for hec in HECS} == CLASSES
    assert {hec.name: hec.tolerance_mm for hec in HECS} == TOLERANCES


@pytest.mark.parametrize("seed", range(5))
def test_scores_follow_the_official_rules(reference, seed):
    truth, prediction = labels(seed), labels(seed + 10)
    scores = case_metrics(Volume.from_array(truth, SPACING, "case_1"), Volume.from_array(prediction, SPACING))
    assert scores.case_id == "case_1"
    for name, ids in CLASSES.items():
        assert scores.dice[name] == pytest.approx(official_dice(truth, prediction, ids), abs=1e-12)
        expected = reference(np.isin(truth, ids), np.isin(prediction, ids), SPACING, TOLERANCES[name])
        assert scores.surface_dice[name] == pytest.approx(expected, abs=1e-9)


def test_real_label_map_through_the_whole_case(reference, real_labels):
    _, truth, spacing = real_labels[0]
    prediction = np.roll(truth, (0, 1, 1), (0, 1, 2))
    scores = case_metrics(Volume.from_array(truth, spacing), Volume.from_array(prediction, spacing))
    for name, ids in CLASSES.items():
        assert scores.dice[name] == pytest.approx(official_dice(truth, prediction, ids), abs=1e-12)
        expected = reference(np.isin(truth, ids), np.isin(prediction, ids), spacing, TOLERANCES[name])
        assert scores.surface_dice[name] == pytest.approx(expected, abs=1e-9)


def test_empty_classes():
    kidney = np.where(labels() > 0, 1, 0).astype(np.uint8)
    with_tumor = kidney.copy()
    with_tumor[4, 5, 5] = 2
    both_empty = case_metrics(Volume.from_array(kidney, SPACING), Volume.from_array(kidney, SPACING))
    assert both_empty.row == (1.0,) * 6
    one_empty = case_metrics(Volume.from_array(kidney, SPACING), Volume.from_array(with_tumor, SPACING))
    assert one_empty.dice["tumor"] == one_empty.surface_dice["tumor"] == 0.0
    assert one_empty.dice["masses"] == one_empty.surface_dice["masses"] == 0.0
    assert one_empty.dice["kidney"] == 1.0
    nothing = Volume.from_array(np.zeros_like(kidney), SPACING)
    assert case_metrics(nothing, nothing).row == (1.0,) * 6
    assert case_metrics(nothing, Volume.from_array(kidney, SPACING)).row == (0.0, 1.0, 1.0, 0.0, 1.0, 1.0)


def test_dice_by_hand():
    a, b = np.zeros((2, 10), bool), np.zeros((2, 10), bool)
    a[0, :4], b[0, 2:5] = True, True
    assert dice(a, b) == 4 / 7
    with pytest.raises(GeometryError, match="one shape"):
        dice(a, b[:1])


def test_another_grid_names_the_case_and_both_geometries():
    truth = Volume.from_array(labels(), SPACING, "case_00007")
    misshapen = Volume.from_array(labels()[:-1], SPACING)
    with pytest.raises(InputError, match=r"case_00007.*9 x 20 x 24.*10 x 20 x 24"):
        case_metrics(truth, misshapen)
    with pytest.raises(GeometryError, match=r"case_00007.*of 3 x 0\.9 x 0\.8 mm.*of 3 x 0\.8 x 0\.8 mm"):
        case_metrics(truth, Volume.from_array(labels(), (3.0, 0.9, 0.8)))


@pytest.mark.parametrize("value", [4, 255, 0.5, -1, np.nan])
def test_other_labels_are_refused(value):
    truth = Volume.from_array(labels(), SPACING, "case_00007")
    wrong = labels().astype(np.float32)
    wrong[0, 0, 0] = value
    for pair in ((truth, truth.with_array(wrong)), (truth.with_array(wrong), truth)):
        with pytest.raises(InputError, match="case_00007"):
            case_metrics(*pair)


def test_row_and_back():
    row = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    scores = CaseMetrics.from_row("a", row)
    assert scores.row == row
    assert scores.surface_dice == {"kidney": 0.4, "masses": 0.5, "tumor": 0.6}
