"""Lesions of other cases in the kidneys of a sample."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation

from renalseg.config import Augmentation
from renalseg.core.labels import BACKGROUND, CYST, KIDNEY, TUMOR
from renalseg.train.cache import Prepared
from renalseg.train.dataset import Key, Patches, epoch_keys
from renalseg.train.paste import MIN_VOXELS, ON_KIDNEY, Lesion, cut_lesion, paste_lesion
from renalseg.train.prepare import RIM

SHAPE = (12, 32, 48)


def sample(kidney=0.2, lesions=(), background=-0.6):
    """Two square kidneys with a rim, and cubes of (label, attenuation, z, y, x, size) in them."""
    labels = np.zeros(SHAPE, np.uint8)
    for x in (6, 28):
        labels[1:11, 8:26, x - 1 : x + 15] = RIM
        labels[1:11, 9:25, x : x + 14] = KIDNEY
    image = np.where(labels == KIDNEY, kidney, background).astype(np.float16)
    for label, value, z, y, x, size in lesions:
        box = np.s_[z : z + size, y : y + size, x : x + size]
        labels[box], image[box] = label, value
    return image, labels


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_lesion_is_cut_out_whole_with_its_labels_and_attenuation():
    image, labels = sample(lesions=[(TUMOR, -0.3, 4, 12, 8, 5), (CYST, -0.5, 4, 12, 13, 4)])  # they touch
    lesion = cut_lesion(image, labels, rng())
    assert (lesion.labels == TUMOR).sum() == 125
    assert (lesion.labels == CYST).sum() == 64
    assert set(np.unique(lesion.labels)) == {0, TUMOR, CYST}
    assert lesion.image[lesion.labels == TUMOR].mean() == pytest.approx(-0.3, abs=1e-3)
    assert lesion.image[lesion.labels == CYST].mean() == pytest.approx(-0.5, abs=1e-3)
    assert lesion.kidney == pytest.approx(0.2, abs=1e-3)


def test_any_lesion_of_a_case_may_be_cut_out_mirrored_along_any_axis_but_no_speck():
    image, labels = sample(lesions=[(TUMOR, -0.3, 4, 12, 8, 5), (CYST, -0.5, 5, 12, 31, 4), (CYST, -0.5, 9, 20, 31, 2)])
    labels[4, 12, 8] = KIDNEY  # a corner is missing, which tells the mirror images apart
    found = [cut_lesion(image, labels, rng(seed)) for seed in range(200)]
    sizes = {int((lesion.labels > 0).sum()) for lesion in found}
    assert sizes == {124, 64}
    corners = {tuple(np.argwhere(f.labels[2:7, 2:7, 2:7] == 0)[0]) for f in found if (f.labels > 0).sum() == 124}
    assert corners == {(z, y, x) for z in (0, 4) for y in (0, 4) for x in (0, 4)}


@pytest.mark.parametrize("lesions", [[], [(CYST, -0.5, 4, 12, 8, 2)]])
def test_a_case_without_a_lesion_gives_none(lesions):
    image, labels = sample(lesions=lesions)
    assert sum(size**3 for *_, size in lesions) < MIN_VOXELS
    assert cut_lesion(image, labels, rng()) is None


@given(seed=st.integers(0, 2**32 - 1), label=st.sampled_from((TUMOR, CYST)), size=st.integers(4, 10))
def test_a_pasted_lesion_replaces_kidney_and_nothing_far_from_it_changes(seed, label, size):
    donor = sample(lesions=[(label, -0.4, 1, 10, 8, size)])
    image, labels = sample()
    lesion = cut_lesion(*donor, rng(seed))
    moved, moved_labels = paste_lesion(image, labels, lesion, rng(seed))
    mask = moved_labels == label
    if not mask.any():  # no place was found
        assert moved is image
        assert moved_labels is labels
        return
    assert moved.dtype == np.float16
    assert mask.sum() <= size**3
    assert (labels[mask] == KIDNEY).mean() >= ON_KIDNEY
    beside = moved_labels[~mask] != labels[~mask]
    assert (labels[~mask][beside] == BACKGROUND).all()
    assert (moved_labels[~mask][beside] == RIM).all()
    assert not (binary_dilation(mask) & (moved_labels == BACKGROUND)).any()
    far = np.ones(SHAPE, bool)
    box = tuple(slice(max(i.min() - 2, 0), i.max() + 3) for i in np.nonzero(mask))
    far[box] = False
    assert np.array_equal(moved[far], image[far])
    assert np.abs(moved[mask].astype(float) + 0.4).max() <= 0.5 * 0.7  # at the edge half of it may be surroundings
    assert not (labels == label).any()  # the arguments are as they were


def test_places_are_all_over_both_kidneys():
    lesion = cut_lesion(*sample(lesions=[(CYST, -0.5, 4, 12, 8, 4)]), rng())
    image, labels = sample()
    hits = sum((paste_lesion(image, labels, lesion, rng(seed))[1] == CYST).astype(int) for seed in range(600))
    kidney = labels == KIDNEY
    assert (hits[kidney] > 0).mean() > 0.95
    assert 0.7 < hits[:, :, :24].sum() / hits[:, :, 24:].sum() < 1.4


def test_a_tumor_follows_the_contrast_of_its_new_kidney_by_a_random_part_and_a_cyst_does_not():
    parts = {TUMOR: [], CYST: []}
    for label, found in parts.items():
        lesion = cut_lesion(*sample(kidney=0.4, lesions=[(label, 0.0, 3, 12, 8, 7)]), rng())
        image, labels = sample(kidney=-0.1)
        for seed in range(100):
            moved, moved_labels = paste_lesion(image, labels, lesion, rng(seed))
            if (moved_labels == label).sum() > 300:
                found.append((np.median(moved[moved_labels == label]) - 0.0) / (-0.1 - 0.4))
    edge = 0.05  # of the blurred edge, which reaches into a small lesion
    assert np.abs(parts[CYST]).max() < edge
    assert -edge < min(parts[TUMOR]) < 0.1
    assert 0.9 < max(parts[TUMOR]) < 1 + edge


def test_a_sample_without_a_kidney_keeps_its_arrays():
    lesion = cut_lesion(*sample(lesions=[(CYST, -0.5, 4, 12, 8, 4)]), rng())
    image, labels = np.zeros(SHAPE, np.float16), np.zeros(SHAPE, np.uint8)
    assert paste_lesion(image, labels, lesion, rng())[0] is image


def test_a_lesion_without_a_kidney_beside_it_keeps_its_attenuation():
    values = np.full((8, 9, 9), -0.2, np.float32)
    labels = np.zeros((8, 9, 9), np.uint8)
    labels[2:6, 2:7, 2:7] = TUMOR
    moved, moved_labels = paste_lesion(*sample(), Lesion(values, labels, None), rng())
    assert np.abs(moved[moved_labels == TUMOR] + 0.2).min() < 0.02


# In the samples of a training run

QUIET = Augmentation(
    mirror_z=0.0, scale_probability=0.0, elastic_probability=0.0, intensity_probability=0.0,
    lesion_intensity_probability=0.0,
)  # fmt: skip


def prepared(folder, *arrays):
    made = []
    for i, (image, labels) in enumerate(arrays):
        case = Prepared(f"case_{i}", folder / f"{i}-image.npy", folder / f"{i}-labels.npy")
        case.write(image, labels)
        made.append(case)
    return made


def patches(cases, make_config, stage="lesion", **changes):
    settings = make_config(augmentation=QUIET, mixup_probability=0.0, **changes).training[stage]
    return Patches(cases, stage, settings.model_copy(update={"patch": SHAPE}))


@pytest.mark.parametrize(("probability", "low", "high"), [(0.0, 0, 0), (0.5, 0.35, 0.65), (1.0, 0.9, 1)])
def test_lesions_come_with_the_probability_of_the_settings(probability, low, high, make_config, tmp_path):
    settings = make_config(mixup_probability=0.0, paste_probability=probability).training["lesion"]
    keys = epoch_keys(list(range(200))[::-1], 3, settings)
    donors = [k.donor for k in keys]
    assert low <= np.mean([d is not None for d in donors]) <= high
    assert all(k.donor != k.case for k in keys)
    assert len({*donors}) > 60 * high
    assert epoch_keys([3], 0, settings) == [Key(0, 0, 3)]
    made = patches(prepared(tmp_path, sample(), sample(lesions=[(CYST, -0.5, 4, 12, 8, 5)])), make_config)
    found = [bool((made[k].target == 2).any()) for k in (Key(0, i, 0, donor=1) for i in range(50))]
    assert np.mean(found) > 0.9
    assert not (made[Key(0, 0, 0)].target == 2).any()


def test_a_lesion_longer_than_a_run_ends_at_the_runs_faces_alone(make_config, tmp_path):
    """Whatever the run that the donor itself would train with: the lesion is cut out of the whole case."""
    image, labels = (np.concatenate([part] * 2) for part in sample())
    labels[4:14, 10:18, 7:15], image[4:14, 10:18, 7:15] = CYST, -0.5
    made = patches(prepared(tmp_path, sample(), (image, labels)), make_config)
    extents = []
    for i in range(60):
        z = np.flatnonzero((made[Key(0, i, 0, donor=1)].target == 2).any(2).any(1))
        if z.size:
            assert z.size == 10 or z[0] == 0 or z[-1] == SHAPE[0] - 1
            extents.append(z.size)
    assert 10 in extents
    assert min(extents) < 8


def test_the_files_stay_as_they_are(make_config, tmp_path):
    cases = prepared(tmp_path, sample(lesions=[(CYST, -0.5, 4, 12, 8, 5)]), sample())
    before = [path.read_bytes() for case in cases for path in (case.image, case.labels)]
    made = patches(cases, make_config)
    assert {int((made[Key(0, i, 0, donor=1)].target == 2).sum()) for i in range(5)} == {125}  # the donor has none
    assert max(int((made[Key(0, i, 1, donor=0)].target == 2).sum()) for i in range(20)) == 125
    assert [path.read_bytes() for case in cases for path in (case.image, case.labels)] == before


def test_a_pasted_sample_follows_from_its_key_alone_and_mixes(make_config, tmp_path):
    cases = prepared(tmp_path, *(sample(lesions=[(TUMOR, -0.3, 3, 12, 8 + i, 5)]) for i in range(3)))
    first, second = (patches(cases, make_config) for _ in range(2))
    keys = [Key(4, i, i, partner=(i + 1) % 3, weight=0.7, donor=(i + 2) % 3) for i in range(3)]
    for a, b in zip([first[k] for k in keys], [second[k] for k in keys[::-1]][::-1], strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.target, b.target)
        assert torch.equal(a.other, b.other)
    bare = first[replace(keys[0], donor=None)]
    assert torch.equal(bare.other, first[keys[0]].other)
    assert not torch.equal(bare.image, first[keys[0]].image)


@pytest.mark.parametrize("stage", ["coarse", "kidney"])
def test_what_a_lesion_adds_to_a_kidney_is_kidney_to_the_other_stages(stage, make_config, tmp_path):
    cases = prepared(tmp_path, sample(), sample(lesions=[(TUMOR, -0.3, 2, 9, 6, 8)]))
    made = patches(cases, make_config, stage)
    kidney = int((sample()[1] == KIDNEY).sum())
    sizes = [int((made[Key(0, i, 0, donor=1)].target == 1).sum()) for i in range(30)]
    assert min(sizes) >= kidney
    assert max(sizes) > kidney


def test_the_dataset_of_the_other_tests_has_lesions_to_paste(make_config, make_run, dataset, tmp_path):
    """So that what they show of resuming and of several processes holds with pasted lesions."""
    run = make_run("lesion", dataset, tmp_path, make_config(), cases=2)
    made = Patches(run.cases, "lesion", run.config.training["lesion"])
    pairs = [[made[Key(0, i, 0, donor=donor)].target for donor in (None, 1)] for i in range(5)]
    assert sum(not torch.equal(*pair) for pair in pairs) >= 4
