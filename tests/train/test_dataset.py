from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from renalseg.train.dataset import Patches, Sample, choose_slices, group_by_shape
from renalseg.train.prepare import IGNORE, Prepared

STAGES = ("coarse", "kidney", "lesion")


def cases(folder: Path, *depths: int) -> list[Prepared]:
    """Prepared cases without a dataset; the image tells the case and the slice."""
    made = []
    for i, depth in enumerate(depths):
        image = np.broadcast_to((i / 10 + np.arange(depth) / 1000)[:, None, None], (depth, 16, 24))
        np.save(folder / f"{i}-image.npy", image.astype(np.float16))
        np.save(folder / f"{i}-target.npy", np.full((depth, 16, 24), i % 2, np.uint8))
        made.append(Prepared(f"case_{i}", folder / f"{i}-image.npy", folder / f"{i}-target.npy"))
    return made


@given(
    depth=st.integers(1, 40),
    patch=st.integers(1, 20),
    stage=st.sampled_from(STAGES),
    mass=st.integers(0, 39),
    seed=st.integers(0, 2**32 - 1),
)
def test_slices_lie_inside_and_are_as_many_as_asked_for_or_there(depth, patch, stage, mass, seed):
    target = np.zeros((depth, 2, 2), np.uint8)
    target[mass % depth] = 2
    start, stop = choose_slices(target, patch, stage, np.random.default_rng(seed))
    assert 0 <= start < stop <= depth
    assert stop - start == min(patch, depth)


@pytest.mark.parametrize(
    ("stage", "value", "least", "most"),
    [
        ("lesion", 1, 0.45, 0.7),
        ("lesion", 2, 0.45, 0.7),
        ("lesion", IGNORE, 0.0, 0.2),
        ("kidney", 1, 0.0, 0.2),
    ],
)
def test_half_of_the_lesion_runs_hold_a_mass(stage, value, least, most):
    target = np.zeros((100, 2, 2), np.uint8)
    target[60, 1, 1] = value
    runs = [choose_slices(target, 10, stage, np.random.default_rng(seed)) for seed in range(400)]
    assert least <= np.mean([start <= 60 < stop for start, stop in runs]) <= most


def test_every_run_is_reached():
    target = np.zeros((6, 2, 2), np.uint8)
    assert {choose_slices(target, 4, "kidney", np.random.default_rng(s))[0] for s in range(50)} == {0, 1, 2}


def test_groups_keep_every_sample_once():
    depths = [8, 5, 8, 3, 5, 8]
    samples = [Sample(torch.full((1, d, 2, 2), float(i)), torch.full((d, 2, 2), i)) for i, d in enumerate(depths)]
    groups = group_by_shape(samples)
    assert sorted(images.shape for images, _ in groups) == [(1, 1, 3, 2, 2), (2, 1, 5, 2, 2), (3, 1, 8, 2, 2)]
    seen = []
    for images, targets in groups:
        assert images.shape[2:] == targets.shape[1:]
        assert torch.equal(images[:, 0].long(), targets)
        seen += targets[:, 0, 0, 0].tolist()
    assert sorted(seen) == list(range(6))


def test_the_order_follows_from_seed_and_epoch_alone(make_config, tmp_path):
    prepared = cases(tmp_path, *[4] * 8)
    config = make_config().training["kidney"]
    orders = []
    for epochs, seed in (([0, 1, 2], 7), ([2], 7), ([3], 7), ([2], 8)):
        patches = Patches(prepared, "kidney", config.model_copy(update={"seed": seed}))
        for epoch in epochs:
            patches.set_epoch(epoch)
        assert sorted(patches.order) == list(range(8))
        orders.append(patches.order)
    assert orders[0] == orders[1]
    assert orders[2] != orders[0] != orders[3]


def test_a_sample_follows_from_seed_epoch_and_position_alone(make_config, tmp_path):
    prepared = cases(tmp_path, 20, 20, 20)
    first, second = (Patches(prepared, "kidney", make_config().training["kidney"]) for _ in range(2))
    first.set_epoch(5)
    second.set_epoch(5)
    forwards, backwards = [first[i] for i in range(3)], [second[i] for i in (2, 1, 0)][::-1]
    for a, b in zip(forwards, backwards, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.target, b.target)
    first.set_epoch(6)
    assert not all(torch.equal(first[i].image, forwards[i].image) for i in range(3))


def test_a_short_region_is_never_padded(make_config, tmp_path):
    patches = Patches(cases(tmp_path, 3, 20), "kidney", make_config().training["kidney"])
    patches.set_epoch(0)
    assert len(patches) == 2
    assert sorted(sample.image.shape[1] for sample in (patches[0], patches[1])) == [3, 8]
    for sample in (patches[0], patches[1]):
        assert sample.image.dtype == torch.float32
        assert sample.target.dtype == torch.int64
        assert sample.image.shape[1:] == sample.target.shape


def test_slices_follow_one_another(make_config, tmp_path):
    config = make_config(mirror_z=0.0, scale_probability=0.0, intensity_probability=0.0).training["kidney"]
    patches = Patches(cases(tmp_path, 20), "kidney", config)
    patches.set_epoch(0)
    steps = patches[0].image[0, :, 0, 0].diff()
    torch.testing.assert_close(steps, torch.full((7,), 0.001), atol=2e-4, rtol=0)
