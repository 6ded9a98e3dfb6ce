from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data._utils.pin_memory import pin_memory

from renalseg.config import Augmentation, Training
from renalseg.train.cache import Prepared
from renalseg.train.dataset import (
    MASS_RUNS,
    Batches,
    Draw,
    Key,
    Patches,
    choose_slices,
    epoch_keys,
    finish,
)
from renalseg.train.prepare import IGNORE, RIM


def cases(folder: Path, *depths: int) -> list[Prepared]:
    """Prepared cases without a dataset; the image tells the case and the slice."""
    made = []
    for i, depth in enumerate(depths):
        image = np.broadcast_to((i / 10 + np.arange(depth) / 1000)[:, None, None], (depth, 16, 24))
        np.save(folder / f"{i}-image.npy", image.astype(np.float16))
        np.save(folder / f"{i}-labels.npy", np.full((depth, 16, 24), i % 2, np.uint8))
        made.append(Prepared(f"case_{i}", folder / f"{i}-image.npy", folder / f"{i}-labels.npy"))
    return made


@given(
    depth=st.integers(1, 40),
    patch=st.integers(1, 20),
    share=st.sampled_from((0.0, 0.5, 1.0)),
    mass=st.integers(0, 39),
    seed=st.integers(0, 2**32 - 1),
)
def test_slices_lie_inside_and_are_as_many_as_asked_for_or_there(depth, patch, share, mass, seed):
    target = np.zeros((depth, 2, 2), np.uint8)
    target[mass % depth] = 3
    start, stop = choose_slices(target, patch, np.random.default_rng(seed), share)
    assert 0 <= start < stop <= depth
    assert stop - start == min(patch, depth)


@pytest.mark.parametrize(
    ("stage", "value", "least", "most"),
    [
        ("lesion", 2, 0.45, 0.7),
        ("lesion", 3, 0.45, 0.7),
        ("lesion", 1, 0.0, 0.2),
        ("lesion", RIM, 0.0, 0.2),
        ("kidney", 2, 0.0, 0.2),
    ],
)
def test_half_of_the_lesion_runs_hold_a_mass(stage, value, least, most):
    target = np.zeros((100, 2, 2), np.uint8)
    target[60, 1, 1] = value
    runs = [choose_slices(target, 10, np.random.default_rng(seed), MASS_RUNS[stage]) for seed in range(400)]
    assert least <= np.mean([start <= 60 < stop for start, stop in runs]) <= most


@pytest.mark.parametrize(("stage", "least", "most"), [("lesion", 0.45, 0.75), ("kidney", 0.0, 0.25)])
def test_samples_of_the_lesion_stage_hold_a_mass_as_often_as_its_runs(stage, least, most, tmp_path):
    (made,) = cases(tmp_path, 80)
    labels = np.ones((80, 16, 24), np.uint8)
    labels[60, 5:9, 5:9] = 2
    made.write(np.zeros_like(labels, np.float16), labels)
    patches = Patches([made], stage, settings(), augmented=False)
    held = [bool((patches[Key(0, position, 0)].patches[0].labels == 2).any()) for position in range(200)]
    assert least <= np.mean(held) <= most


def test_every_run_is_reached():
    target = np.zeros((6, 2, 2), np.uint8)
    assert {choose_slices(target, 4, np.random.default_rng(s))[0] for s in range(50)} == {0, 1, 2}


QUIET = Augmentation(
    mirror_z=0.0, scale_probability=0.0, elastic_probability=0.0, intensity_probability=0.0,
    lesion_intensity_probability=0.0,
)  # fmt: skip


def settings(**changes) -> Training:
    values = {"patch": (8, 16, 24), "epochs": 1, "class_weights": (1.0, 1.0), "augmentation": QUIET, "seed": 7}
    return Training(**(values | changes))


@pytest.mark.parametrize("name", ["mirror_z", "intensity_probability"])
@pytest.mark.parametrize("on_device", [True, False])
def test_samples_are_augmented_as_the_settings_say(name, on_device, tmp_path):
    made, config = cases(tmp_path, 8), settings(augmentation=QUIET.model_copy(update={name: 1.0}))
    image, _ = made[0].load()

    def sample(config):
        patches = Patches(made, "kidney", config, augmented=not on_device)
        found = patches[Key(0, 0, 0)]
        return finish(found, "kidney", config, torch.device("cpu")) if on_device else found

    plain = torch.from_numpy(np.array(image, np.float32))[None]
    assert torch.equal(sample(settings()).image, plain)
    assert not torch.allclose(sample(config).image, plain, atol=1e-3)


def test_mixup_takes_another_case_with_its_probability_and_weight():
    order = list(range(400))[::-1]
    assert all(k.partner is None and k.weight == 1 for k in epoch_keys(order, 0, settings(mixup_probability=0.0)))
    keys = epoch_keys(order, 0, settings(mixup_probability=0.5, mixup_alpha=0.2))
    mixed = [k for k in keys if k.partner is not None]
    assert [k.case for k in keys] == order
    assert 0.4 < len(mixed) / len(keys) < 0.6
    assert all(k.partner in order and k.partner != k.case for k in mixed)
    weights = np.array([k.weight for k in mixed])
    assert weights.min() >= 0.5
    assert weights.max() <= 1
    folded = np.random.default_rng(0).beta(0.2, 0.2, 100_000)
    assert weights.mean() == pytest.approx(np.maximum(folded, 1 - folded).mean(), abs=0.04)
    nearly_even = epoch_keys(order, 0, settings(mixup_probability=1.0, mixup_alpha=1000.0))
    assert np.mean([k.weight for k in nearly_even]) < 0.53
    assert epoch_keys(order, 1, settings(mixup_probability=0.5)) != keys
    assert epoch_keys([3], 0, settings(mixup_probability=1.0)) == [Key(0, 0, 3)]


def test_a_mixed_sample_is_the_weighted_mean_of_image_and_targets(tmp_path):
    patches = Patches(cases(tmp_path, 8, 8, 8), "kidney", settings())
    first, second = patches[Key(0, 0, 0)], patches[Key(0, 0, 1)]
    mixed = patches[Key(0, 0, 0, partner=1, weight=0.75)]
    torch.testing.assert_close(mixed.image, 0.75 * first.image + 0.25 * second.image)
    assert torch.equal(mixed.target, first.target)
    assert torch.equal(mixed.other, second.target)
    assert (mixed.weight, mixed.case) == (0.75, 0)


@pytest.mark.parametrize(("own", "partner"), [(20, 3), (3, 20)])
def test_mixing_regions_of_unlike_depth_cuts_and_never_pads(own, partner, tmp_path):
    patches = Patches(cases(tmp_path, own, partner), "kidney", settings())
    mixed = patches[Key(0, 0, 0, partner=1, weight=0.5)]
    assert mixed.image.shape == (1, 3, 16, 24)
    assert mixed.target.shape == mixed.other.shape == (3, 16, 24)
    steps = mixed.image[0, :, 0, 0].diff()  # both images rise by 0.001 a slice, so their mean does
    torch.testing.assert_close(steps, torch.full((2,), 0.001), atol=2e-4, rtol=0)


def test_finishing_on_the_device_equals_finishing_in_the_loader(tmp_path):
    made = cases(tmp_path, 20, 12)
    config = settings(augmentation=Augmentation())
    here, there = (Patches(made, "lesion", config, augmented=augmented) for augmented in (True, False))
    key = Key(2, 5, 0, partner=1, weight=0.6)
    drawn = there[key]
    assert isinstance(drawn, Draw)
    expected, found = here[key], finish(drawn, "lesion", config, torch.device("cpu"))
    assert torch.equal(expected.image, found.image)
    assert torch.equal(expected.target, found.target)
    assert torch.equal(expected.other, found.other)


@given(n=st.integers(1, 23), batch=st.integers(1, 6), size=st.integers(1, 4))
def test_the_processes_share_each_batch_and_no_case_is_seen_twice(n, batch, size):
    keys = epoch_keys(list(range(n)), 0, settings(mixup_probability=0.0))
    parts = []
    for rank in range(size):
        batches = Batches(batch, rank, size)
        batches.keys = keys
        parts.append(list(batches))
        assert len(parts[-1]) == len(batches) == -(-n // batch)
    assert sorted(k.case for part in parts for step in part for k in step) == list(range(n))
    whole = Batches(batch)
    whole.keys = keys
    for step, expected in enumerate(whole):
        shared = [k for part in parts for k in part[step]]
        assert sorted(shared, key=lambda k: k.position) == expected


def test_a_sample_follows_from_its_key_alone(make_config, tmp_path):
    prepared = cases(tmp_path, 20, 20, 20)
    first, second = (Patches(prepared, "kidney", make_config().training["kidney"]) for _ in range(2))
    keys = [Key(5, i, i) for i in range(3)]
    forwards, backwards = [first[k] for k in keys], [second[k] for k in keys[::-1]][::-1]
    for a, b in zip(forwards, backwards, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.target, b.target)
    assert not all(torch.equal(first[Key(6, i, i)].image, forwards[i].image) for i in range(3))


def test_a_short_region_is_never_padded(make_config, tmp_path):
    patches = Patches(cases(tmp_path, 3, 20), "kidney", make_config().training["kidney"])
    for case, depth in ((0, 3), (1, 8)):
        sample = patches[Key(0, 0, case)]
        assert sample.image.shape == (1, depth, 16, 24)
        assert sample.image.dtype == torch.float32
        assert sample.target.dtype == torch.uint8
        assert sample.image.shape[1:] == sample.target.shape


def test_slices_follow_one_another(tmp_path):
    steps = Patches(cases(tmp_path, 20), "kidney", settings())[Key(0, 0, 0)].image[0, :, 0, 0].diff()
    torch.testing.assert_close(steps, torch.full((7,), 0.001), atol=2e-4, rtol=0)


def test_targets_of_each_stage(tmp_path):
    made = cases(tmp_path, 8)
    labels = np.resize(np.array([0, 1, 2, 3, RIM], np.uint8), (8, 16, 24))
    np.save(made[0].labels, labels)
    for stage, table in {"kidney": [0, 1, 1, 1, 0], "coarse": [0, 1, 1, 1, 0], "lesion": [IGNORE, 0, 1, 2, 0]}.items():
        found = Patches(made, stage, settings())[Key(0, 0, 0)].target.numpy()
        np.testing.assert_array_equal(found, np.array(table, np.uint8)[labels])


def test_the_loader_can_pin_what_the_device_finishes(make_config, tmp_path, monkeypatch):
    """Page-locked memory needs a GPU; here, a stand-in marks the tensors."""
    pinned = []

    def pin(tensor, *_):
        pinned.append(tensor.dtype)
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    settings = make_config().training["kidney"]
    patches = Patches(cases(tmp_path, 9, 12), "kidney", settings, augmented=False)
    drawn = patches[Key(0, 0, 0, partner=1, weight=0.7)]
    (same,) = pin_memory([drawn])
    assert pinned == [torch.float16, torch.uint8] * 2
    assert isinstance(same, Draw)
    assert (same.weight, same.case) == (drawn.weight, drawn.case)
    for found, expected in zip(same.patches, drawn.patches, strict=True):
        assert found.seed == expected.seed
        assert torch.equal(found.image, expected.image)
        assert torch.equal(found.labels, expected.labels)
