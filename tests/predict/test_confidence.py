"""``confidence``: what is told of a result without a truth."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from renalseg.core.labels import CYST, HECS, KIDNEY, TUMOR
from renalseg.core.volume import Volume
from renalseg.predict import confidence as module
from renalseg.predict.confidence import (
    LOW,
    Doubt,
    Finding,
    confidence,
    confidence_in_nothing,
    doubt,
    entropy,
    expected_dice,
    interior,
    mean_entropy,
    mirror_agreement,
    plausibility,
)

SPACING = (5.0, 2.0, 2.5)
"""mm, along (z, y, x): a voxel has 25 mm3."""

SHAPE = (50, 60, 120)


def one_hot(which, classes):
    return torch.nn.functional.one_hot(torch.as_tensor(which).long(), classes).movedim(-1, 0).float()


def maps(labels):
    """The probabilities of networks that are sure of ``labels`` [z, y, x]: kidney and lesion."""
    labels = torch.as_tensor(labels).long()
    return one_hot(labels > 0, 2), one_hot((labels - 1).clamp_min(0), 3)


def random_maps(seed, sharpness=3.0, shape=(6, 8, 10)):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(c, *shape, generator=generator).mul(sharpness).softmax(0) for c in (2, 3))


@pytest.fixture
def labels():
    """Two kidneys of 144 and 160 ml, a tumor in the right one, a cyst in the left one; the body fills the volume."""
    array = np.zeros(SHAPE, np.uint8)
    array[15:31, 20:40, 20:38] = array[14:30, 20:40, 82:102] = KIDNEY
    array[20:25, 18:24, 18:24] = TUMOR
    array[20:22, 25:28, 90:93] = CYST
    return array


def ct_of(labels, hu=40):
    return Volume.from_array(np.full(labels.shape, hu, np.int16), SPACING)


def findings(labels, ct=None):
    return [f.sentence for f in plausibility(ct or ct_of(labels), labels)[1]]


@given(classes=st.integers(2, 6), seed=st.integers(0, 999))
def test_entropy_is_0_for_one_hot_1_for_uniform_and_between_else(classes, seed):
    generator = torch.Generator().manual_seed(seed)
    sure = one_hot(torch.randint(classes, (5, 4), generator=generator), classes)
    assert torch.equal(entropy(sure), torch.zeros(5, 4))
    torch.testing.assert_close(entropy(torch.full((classes, 5, 4), 1 / classes)), torch.ones(5, 4))
    mixed = torch.rand(classes, 5, 4, generator=generator).add(1e-3)
    between = entropy(mixed / mixed.sum(0))
    assert 0 < between.min() <= between.max() <= 1


def test_entropy_in_bits():
    assert entropy(torch.tensor([0.25, 0.75])).item() == pytest.approx(0.8112781)


def test_the_interior_leaves_two_voxels_out_in_plane_only():
    region = torch.zeros(3, 9, 12, dtype=torch.bool)
    region[1, 1:8, 2:11] = True
    inner = torch.zeros_like(region)
    inner[1, 3:6, 4:9] = True
    assert torch.equal(interior(region), inner)
    assert interior(torch.ones(2, 4, 4, dtype=torch.bool)).all()


def test_mean_entropy_counts_the_kidney_and_nothing_else():
    kidney, lesion = torch.full((2, 4, 12, 12), 0.5), torch.full((3, 4, 12, 12), 1 / 3)
    kidney[:] = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    kidney[:, :, 2:10, 2:10] = 0.5
    kidney[:, :, 4:8, 4:8] = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    lesion[:, :, 4:8, 4:8] = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1, 1)
    share = round((64 - 16) / 64, 4)
    assert mean_entropy(kidney, lesion) == {
        "kidney": share,
        "lesion": share,
        "kidney_interior": 0.0,
        "lesion_interior": 0.0,
    }


def test_a_thin_kidney_is_its_own_interior_and_none_has_no_entropy():
    kidney, lesion = random_maps(1)
    kidney[1] *= 0
    assert mean_entropy(kidney, lesion) is None
    kidney[:, 2, 3, 4] = torch.tensor([0.25, 0.75])
    found = mean_entropy(kidney, lesion)
    assert found["kidney"] == found["kidney_interior"] == pytest.approx(0.8113, abs=1e-4)


def test_what_is_sure_is_expected_to_be_right(labels):
    assert expected_dice(*maps(labels)) == {"kidney": 1.0, "masses": 1.0, "tumor": 1.0}
    assert expected_dice(*maps(labels * 0)) == {"kidney": 1.0, "masses": 1.0, "tumor": 1.0}


@given(seed=st.integers(0, 999))
def test_expected_dice_is_the_formula(seed):
    kidney, lesion = random_maps(seed)
    labels = torch.where(kidney[1] >= 0.5, lesion.argmax(0) + 1, 0).numpy()
    probability = {"kidney": kidney[1], "masses": kidney[1] * lesion[1:].sum(0), "tumor": kidney[1] * lesion[1]}
    for hec in HECS:
        p, mask = probability[hec.name].double(), torch.as_tensor(hec.mask(labels))
        assert mask.any()
        expected = 2 * p[mask].sum() / (mask.sum() + p.sum())
        assert expected_dice(kidney, lesion)[hec.name] == pytest.approx(expected.item(), abs=1e-4)


def test_a_class_that_is_not_there_counts_by_its_highest_probability():
    kidney, lesion = maps(np.ones((3, 4, 5), np.uint8))
    lesion[:, 1, 1, 1] = torch.tensor([0.6, 0.3, 0.1])
    assert expected_dice(kidney, lesion) == {"kidney": 1.0, "masses": 0.6, "tumor": 0.7}


def test_agreement_is_the_dice_of_each_class():
    tables = {
        "kidney": torch.tensor([[70.0, 4], [6, 20]]),
        "lesion": torch.tensor([[10.0, 2, 1], [0, 5, 3], [1, 0, 4]]),
    }
    assert mirror_agreement(tables) == {
        "kidney": pytest.approx(2 * 20 / (26 + 24), abs=1e-4),
        "masses": pytest.approx(2 * 12 / (13 + 15), abs=1e-4),
        "tumor": pytest.approx(2 * 5 / (8 + 7), abs=1e-4),
    }
    assert mirror_agreement({k: t.T for k, t in tables.items()}) == mirror_agreement(tables)
    assert mirror_agreement({"lesion": tables["lesion"]}).keys() == {"masses", "tumor"}
    assert mirror_agreement({}) is None


def test_mirrors_that_say_the_same_agree_even_on_nothing():
    everything = {"kidney": 1.0, "masses": 1.0, "tumor": 1.0}
    for share in (torch.eye(3)[0], torch.tensor([5.0, 3.0, 2.0])):
        assert mirror_agreement({"kidney": share[:2].diag(), "lesion": share.diag()}) == everything


def test_two_kidneys_are_plausible(labels):
    facts, found = plausibility(ct_of(labels), labels)
    assert found == []
    right, left = sorted(facts["kidneys"], key=lambda k: k["left_of_midline_mm"])
    assert right["left_of_midline_mm"] == pytest.approx((28.5 - 59.5) * 2.5, abs=1)
    assert left["left_of_midline_mm"] == pytest.approx((91.5 - 59.5) * 2.5, abs=0.1)
    assert left["ml"] == pytest.approx(16 * 20 * 20 * 0.025)
    assert left["kidney_ml"] == pytest.approx((16 * 20 * 20 - 2 * 3 * 3) * 0.025)
    assert facts["vertical_offset_mm"] == pytest.approx(5.0, abs=1)
    assert facts["touched_cm2"] == {}
    assert facts["masses_share"] == pytest.approx((5 * 36 + 18) / (labels > 0).sum(), abs=1e-4)


def test_one_kidney(labels):
    labels[:, :, 60:] = 0
    assert findings(labels) == ["Only one connected kidney found (146.5 ml): solitary, fused, or one was missed."]


def test_three_kidneys(labels):
    labels[2:8, 4:18, 55:66] = KIDNEY
    assert findings(labels) == ["3 separate components could be kidneys: 160.0 ml, 146.5 ml, 23.1 ml."]


def test_nothing_as_large_as_a_kidney():
    labels = np.zeros(SHAPE, np.uint8)
    labels[20:22, 20:30, 20:30] = KIDNEY
    assert findings(labels) == ["No component with kidney tissue has 20 ml; the largest component has 5.0 ml."]


def test_small_and_large_kidneys(labels):
    labels[:, :, 92:] = 0
    labels[1:49, 2:58, 2:50] = KIDNEY
    assert findings(labels)[:2] == [
        "A kidney without its masses has 3225.6 ml, over 612 ml.",
        "A kidney with its masses has 80.0 ml, under 90 ml.",
    ]


def test_too_much_of_masses(labels):
    labels[5:45, 5:55, 72:118][labels[5:45, 5:55, 72:118] == 0] = TUMOR
    labels[5:45, 5:55, 3:50][labels[5:45, 5:55, 3:50] == 0] = CYST
    masses, union = (labels > KIDNEY).sum(), (labels > 0).sum()
    assert findings(labels) == [
        f"The masses have {masses * 0.025:.1f} ml, over 2500 ml.",
        f"Masses are {100 * masses / union:.1f}% of all that is labelled, over 90%.",
    ]


def test_masses_that_touch_no_kidney(labels):
    labels[40:44, 10:14, 50:60] = TUMOR
    labels[44, 14, 60] = CYST
    assert findings(labels) == ["Masses touch no kidney tissue: 4.02 ml."]
    labels[40:44, 10:14, 60:62] = KIDNEY
    assert findings(labels) == []


@pytest.mark.parametrize(("start", "side"), [(0, "left"), (1, "right")])
def test_both_on_one_side_of_the_body(labels, start, side):
    """The body decides, not the grid: here it lies in one part of the field of view."""
    array = np.full(SHAPE, -1000, np.int16)
    array[:, 5:55, 2 if start == 0 else 80 : 40 if start == 0 else 118] = 40
    ct = Volume.from_array(array, SPACING)
    if start == 0:
        assert findings(labels, ct) == ["Both kidneys lie left of the body's midline, by 178 mm and 20 mm."]
    else:
        assert findings(labels, ct) == ["Both kidneys lie right of the body's midline, by 18 mm and 175 mm."]
    assert findings(labels, ct_of(labels, -1000)) == []  # no body: the middle of the grid


def test_one_far_below_the_other():
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:12, 20:40, 10:40] = labels[30:40, 20:40, 80:110] = KIDNEY
    assert findings(labels) == ["One kidney lies 140 mm below the other, over 120 mm."]


@pytest.mark.parametrize(
    ("where", "border", "cm2"),
    [
        ((slice(0, 20), slice(20, 30), slice(26, 36)), "first slice", 5.0),
        ((slice(20, 50), slice(20, 30), slice(26, 36)), "last slice", 5.0),
        ((slice(15, 25), slice(0, 20), slice(26, 36)), "anterior border", 12.5),
        ((slice(15, 25), slice(20, 60), slice(26, 36)), "posterior border", 12.5),
        ((slice(15, 25), slice(20, 30), slice(0, 20)), "right border", 10.0),
        ((slice(15, 25), slice(20, 30), slice(90, 120)), "left border", 10.0),
    ],
)
def test_cut_off(labels, where, border, cm2):
    labels[where] = KIDNEY
    assert findings(labels) == [f"The labels touch the {border} with {cm2:.1f} cm2: a kidney may be cut off."]


@pytest.mark.parametrize("axes", [a for n in (1, 2, 3) for a in itertools.combinations(range(3), n)])
def test_a_mirrored_patient_is_as_plausible(labels, axes):
    labels[40:44, 10:14, 50:60] = TUMOR
    labels[0:20, 20:30, 20:30] = KIDNEY
    one, found = plausibility(ct_of(labels), labels)
    flipped = np.flip(labels, axes).copy()
    other, again = plausibility(ct_of(flipped), flipped)
    assert [f.factor for f in again] == [f.factor for f in found] == [module.CONTRADICTION, module.UNUSUAL]
    for key in ("masses_share", "vertical_offset_mm"):
        assert other[key] == pytest.approx(one[key])
    sign = -1 if 2 in axes else 1
    for a, b in zip(one["kidneys"], other["kidneys"], strict=True):
        assert (a["ml"], a["kidney_ml"]) == (b["ml"], b["kidney_ml"])
        assert a["left_of_midline_mm"] == pytest.approx(sign * b["left_of_midline_mm"], abs=0.11)


def parts():
    """A doubt in which every part leaves room in both directions."""
    return {
        "entropy": {"kidney": 0.2, "lesion": 0.3, "kidney_interior": 0.1, "lesion_interior": 0.2},
        "expected": {"kidney": 0.9, "masses": 0.8, "tumor": 0.7},
        "agreement": {"kidney": 0.95, "masses": 0.9, "tumor": 0.85},
    }


def test_the_value_is_the_formula():
    value = confidence(Doubt(**parts()), {}, [Finding("Odd.", 0.8), Finding("Odder.", 0.5)])["value"]
    expected = (0.9 * 0.95 * 0.9 + 0.8 * 0.9 * 0.8 + 0.7 * 0.85 * 0.8) / 3 * 0.4
    assert value == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("part", "name", "worse"),
    [("entropy", f"{s}_interior", 0.6) for s in ("kidney", "lesion")]
    + [(p, hec.name, 0.3) for p in ("expected", "agreement") for hec in HECS],
)
def test_the_value_falls_with_every_part(part, name, worse):
    better = confidence(Doubt(**parts()), {}, [])["value"]
    changed = parts()
    changed[part][name] = worse
    assert confidence(Doubt(**changed), {}, [])["value"] < better


def test_a_sure_result_has_1_and_a_contradiction_is_always_low(labels):
    kidney, lesion = maps(labels)
    sure = doubt(kidney, lesion, {"kidney": torch.eye(2), "lesion": torch.eye(3)})
    record = confidence(sure, *plausibility(ct_of(labels), labels))
    assert (record["value"], record["warnings"]) == (1.0, [])
    low = confidence(sure, {}, [Finding("Odd.", module.CONTRADICTION), Finding("Rare.", module.UNUSUAL)])
    assert low["value"] < LOW
    assert low["warnings"][:2] == ["Odd.", "Rare."]
    assert low["warnings"][2] == (
        "Low confidence 0.40 (limit 0.5): expected Dice kidney 1.00, masses 1.00, tumor 1.00; "
        "Dice of the mirrored predictions kidney 1.00, masses 1.00, tumor 1.00; mean entropy kidney 0.00, lesion 0.00, "
        "kidney interior 0.00, lesion interior 0.00; look at the labels."
    )


def test_the_record_is_json(labels):
    kidney, lesion = maps(labels)
    keys = {"value", "expected_dice", "agreement", "entropy", "plausibility", "coarse_peak", "warnings"}
    full = confidence(doubt(kidney, lesion, {}), *plausibility(ct_of(labels), labels))
    for record in (full, confidence_in_nothing(0.25)):
        assert record.keys() == keys
        assert json.loads(json.dumps(record)) == record
    assert full["agreement"] is None


def test_a_scan_without_kidneys_is_judged_by_the_coarse_network():
    assert confidence_in_nothing(0.01)["value"] == 0.99
    assert confidence_in_nothing(0.01)["warnings"] == []
    doubtful = confidence_in_nothing(0.75)
    assert (doubtful["value"], doubtful["coarse_peak"]) == (0.25, 0.75)
    assert "highest probability is 0.75" in doubtful["warnings"][0]


def test_warnings_and_value_reach_the_console_and_the_file(ct, small_weights, tmp_path, run):
    from renalseg.io.nifti import write_nifti

    one = ct.with_array(np.where(np.arange(SHAPE[2]) < 60, ct.array, 0).astype(np.int16))
    write_nifti(one, tmp_path / "one.nii.gz")
    code, _, console = run("segment", tmp_path / "one.nii.gz", "--out", tmp_path / "out", "--weights", small_weights)
    record = json.loads((tmp_path / "out" / "one.json").read_text())
    assert code == 0
    assert f"confidence {record['confidence']['value']:.2f}" in console
    assert len(record["confidence"]["warnings"]) >= 2
    for sentence in record["confidence"]["warnings"]:
        assert sentence in record["warnings"]
        assert sentence in console
