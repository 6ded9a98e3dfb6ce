import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from renalseg.config import Training
from renalseg.train.augment import augment, depth_crop, draw_affine, in_plane_affine, intensity
from renalseg.train.prepare import IGNORE

SHAPE = (4, 32, 48)
SEEDS = st.integers(0, 2**32 - 1)


def settings(**changes):
    values = {"patch": SHAPE, "epochs": 1, "class_weights": (1.0, 1.0)}
    return Training(**(values | changes))


def noise(low=-1.0, high=1.0):
    return torch.from_numpy(np.random.default_rng(0).uniform(low, high, SHAPE).astype(np.float32))


def square():
    """A bright square off the middle, in the first slices only, and its label."""
    target = torch.zeros(SHAPE, dtype=torch.uint8)
    target[:2, 8:22, 10:30] = 1
    return target.float() * 2 - 1, target


class Rolls:
    """A generator whose dice (``random``) are given, so that one step at a time can be looked at."""

    def __init__(self, *rolls, seed=0):
        self.rolls, self.rest = list(rolls), np.random.default_rng(seed)

    def random(self):
        return self.rolls.pop(0)

    def uniform(self, *args, **kwargs):
        return self.rest.uniform(*args, **kwargs)


@given(SEEDS)
def test_depends_on_the_generator_only(seed):
    image, target = square()
    config = settings(scale_probability=1.0, intensity_probability=1.0)
    first, second = (augment(image, target, config, np.random.default_rng(seed)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


@given(SEEDS)
def test_stays_in_the_window_with_types_and_labels_kept(seed):
    target = torch.from_numpy(np.random.default_rng(seed).choice([0, 1, 2, IGNORE], SHAPE).astype(np.uint8))
    config = settings(scale_probability=1.0, intensity_probability=1.0)
    image, moved = augment(noise(), target, config, np.random.default_rng(seed))
    assert image.dtype == torch.float32
    assert moved.dtype == torch.uint8
    assert image.shape == moved.shape == SHAPE
    assert image.min() >= -1
    assert image.max() <= 1
    assert set(moved.unique().tolist()) <= {0, 1, 2, IGNORE}


def test_nothing_happens_at_probability_0():
    image, target = square()
    config = settings(mirror_z=0.0, scale_probability=0.0, intensity_probability=0.0)
    same, target_same = augment(image, target, config, np.random.default_rng(0))
    assert torch.equal(same, image)
    assert torch.equal(target_same, target)


def test_inputs_are_not_changed_in_place():
    image, target = square()
    before = image.clone(), target.clone()
    config = settings(mirror_z=1.0, scale_probability=1.0, intensity_probability=1.0)
    augment(image, target, config, np.random.default_rng(0))
    assert torch.equal(image, before[0])
    assert torch.equal(target, before[1])


def test_the_mirror_flips_both_along_z():
    image, target = square()
    config = settings(mirror_z=1.0, scale_probability=0.0, intensity_probability=0.0)
    flipped, target_flipped = augment(image, target, config, np.random.default_rng(0))
    assert torch.equal(flipped, image.flip(0))
    assert torch.equal(target_flipped, target.flip(0))


@given(SEEDS)
def test_image_and_target_move_together(seed):
    image, target = square()
    config = settings(scale_probability=1.0, intensity_probability=0.0)
    moved, labels = augment(image, target, config, np.random.default_rng(seed))
    bright, labelled = moved > 0, labels == 1
    assert 2 * (bright & labelled).sum() / (bright.sum() + labelled.sum()) > 0.93


@given(SEEDS, st.floats(0.01, 1.0))
def test_a_depth_crop_stretches_a_run_of_slices_of_image_and_target_alike(seed, share):
    depth = 20
    heights = torch.linspace(-1, 1, depth)[:, None, None].expand(depth, 2, 3).contiguous()
    image, target = depth_crop(heights, (heights > 0.3).to(torch.uint8), share, np.random.default_rng(seed))
    assert image.shape == target.shape == heights.shape
    assert target.dtype == torch.uint8
    kept = max(2, round(share * depth))
    assert float(image.max() - image.min()) == pytest.approx((kept - 1) * 2 / (depth - 1), abs=1e-5)
    assert (image.diff(dim=0) >= -1e-6).all()
    assert ((image > 0.3) != (target == 1))[:, 0, 0].sum() <= depth / kept


def test_the_depth_is_cropped_in_half_of_the_samples_where_asked_for():
    image, target = noise(), torch.zeros(SHAPE, dtype=torch.uint8)
    off = {"mirror_z": 0.0, "scale_probability": 0.0, "intensity_probability": 0.0}
    seeds = range(100)
    for share, least, most in ((1.0, 0, 0), (0.3, 30, 70)):
        outs = [augment(image, target, settings(depth_crop=share, **off), np.random.default_rng(s)) for s in seeds]
        assert least <= sum(not torch.equal(out, image) for out, _ in outs) <= most


@given(SEEDS)
def test_scale_turn_and_shift_stay_in_their_ranges_and_are_no_shear(seed):
    config = settings()
    affine = draw_affine(config, np.random.default_rng(seed)).double().numpy()
    half = np.array([SHAPE[2], SHAPE[1]]) / 2  # to voxels, in (x, y)
    matrix = affine[:, :2] * half[:, None] / half
    scale = 1 / np.sqrt(np.linalg.det(matrix))
    assert 0.6 <= scale <= 1.3 + 1e-6
    angle = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    assert abs(angle) <= config.rotate_degrees + 1e-4
    np.testing.assert_allclose(matrix.T @ matrix * scale**2, np.eye(2), atol=1e-6)
    assert (np.abs(affine[:, 2]) <= 2 * config.shift).all()


@pytest.mark.parametrize("scale", [0.6, 1.3])
def test_a_scale_above_1_enlarges(scale):
    _, target = square()
    affine = torch.tensor([[1 / scale, 0, 0], [0, 1 / scale, 0]])
    _, scaled = in_plane_affine(target.float(), target, affine)
    assert float(scaled.sum()) == pytest.approx(float(target.sum()) * scale**2, rel=0.08)


def test_edges_repeat():
    image, target = noise(0.5, 1.0), torch.ones(SHAPE, dtype=torch.uint8)
    moved, labels = in_plane_affine(image, target, torch.tensor([[1.0, 0, 0.8], [0, 1.0, -0.8]]))
    assert moved.min() >= 0.5
    assert (labels == 1).all()


@given(SEEDS)
def test_brightness_contrast_and_gamma_factors_are_of_the_range(seed):
    config = settings()
    image = noise(-0.2, 0.1)  # so far inside that nothing is clipped
    brighter = intensity(image, config, Rolls(0, 1, 1, seed=seed))
    steeper = intensity(image, config, Rolls(1, 0, 1, seed=seed))
    bent = intensity(image, config, Rolls(1, 1, 0, seed=seed))
    for factor in (
        (brighter + 1) / (image + 1),
        (steeper - image.mean()).std() / (image - image.mean()).std(),
        ((bent + 1) / 2).log() / ((image + 1) / 2).log(),
    ):
        assert float(factor.max() - factor.min()) < 1e-3
        assert 0.6 - 1e-4 <= float(factor.mean()) <= 1.5 + 1e-4


def test_clips_last():
    image = noise()
    config = settings(intensity=(1.5, 1.5))
    out = intensity(image, config, Rolls(0, 0, 1))
    assert float(out.max()) == 1.0
    assert float(out.min()) >= -1.0
