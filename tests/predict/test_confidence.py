"""``confidence``: what is told of a result without a truth."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from renalseg.core.labels import HECS
from renalseg.predict.confidence import (
    LOW,
    Doubt,
    confidence,
    confidence_in_nothing,
    doubt,
    entropy,
    expected_dice,
    interior,
    mean_entropy,
    mirror_agreement,
)
from renalseg.predict.plausibility import CONTRADICTION, UNUSUAL, Finding, plausibility


def one_hot(which, classes):
    return torch.nn.functional.one_hot(torch.as_tensor(which).long(), classes).movedim(-1, 0).float()


def maps(labels):
    """The probabilities of networks that are sure of ``labels`` [z, y, x]: kidney and lesion."""
    labels = torch.as_tensor(labels).long()
    return one_hot(labels > 0, 2), one_hot((labels - 1).clamp_min(0), 3)


def random_maps(seed, sharpness=3.0, shape=(6, 8, 10)):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(c, *shape, generator=generator).mul(sharpness).softmax(0) for c in (2, 3))


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
    record = confidence(sure, {}, [])
    assert (record["value"], record["warnings"]) == (1.0, [])
    low = confidence(sure, {}, [Finding("Odd.", CONTRADICTION), Finding("Rare.", UNUSUAL)])
    assert low["value"] < LOW
    assert low["warnings"][:2] == ["Odd.", "Rare."]
    assert low["warnings"][2] == (
        "Low confidence 0.40 (limit 0.5): expected Dice kidney 1.00, masses 1.00, tumor 1.00; "
        "Dice of the mirrored predictions kidney 1.00, masses 1.00, tumor 1.00; mean entropy kidney 0.00, lesion 0.00, "
        "kidney interior 0.00, lesion interior 0.00; look at the labels."
    )


def test_the_record_is_json(ct, labels):
    kidney, lesion = maps(labels)
    keys = {"value", "expected_dice", "agreement", "entropy", "plausibility", "coarse_peak", "warnings"}
    full = confidence(doubt(kidney, lesion, {}), *plausibility(ct, labels))
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

    one = ct.with_array(np.where(np.arange(ct.shape[2]) < 16, ct.array, 0).astype(np.int16))
    write_nifti(one, tmp_path / "one.nii.gz")
    code, _, console = run("segment", tmp_path / "one.nii.gz", "--out", tmp_path / "out", "--weights", small_weights)
    record = json.loads((tmp_path / "out" / "one.json").read_text())
    assert code == 0
    assert f"confidence {record['confidence']['value']:.2f}" in console
    assert len(record["confidence"]["warnings"]) >= 2
    for sentence in record["confidence"]["warnings"]:
        assert sentence in record["warnings"]
        assert sentence in console
