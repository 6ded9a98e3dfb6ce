"""Each operation by what it does to a sample, measured; chance by counting; the formulas against MONAI's."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from renalseg.config import Augmentation
from renalseg.core.labels import CYST, TUMOR
from renalseg.train.augment import OPERATIONS, augment, only
from renalseg.train.augment.elastic import _bumps, displacement, draw_elastic
from renalseg.train.augment.intensity import Factors, adjust, adjust_inside, draw_factors, draw_noise
from renalseg.train.augment.preview import most_shown, versions
from renalseg.train.augment.spatial import Warp, draw_crop, draw_plane, draw_warp, warp

SHAPE = (6, 32, 48)
SEEDS = st.integers(0, 2**32 - 1)
SPATIAL, INTENSITY = OPERATIONS[:5], OPERATIONS[5:]
FACTORS = INTENSITY[:6]
EVERYTHING = Augmentation(
    mirror_z=1, mirror_x=1, scale_probability=1, depth_crop=0.5, depth_crop_probability=1, elastic_probability=1,
    intensity_probability=1, lesion_intensity_probability=1, noise_probability=1,
)  # fmt: skip
NOTHING = Augmentation(
    mirror_z=0, scale_probability=0, elastic_probability=0, intensity_probability=0, lesion_intensity_probability=0
)


def rng(seed=0):
    return np.random.default_rng(seed)


def noise(low=-1.0, high=1.0, shape=SHAPE, seed=0):
    return torch.from_numpy(rng(seed).uniform(low, high, shape).astype(np.float32))


def sample(shape=SHAPE):
    """Random intensities; a block of kidney with a tumor and a cyst in it, and a rim of 4 beside it."""
    labels = torch.zeros(shape, dtype=torch.uint8)
    labels[:, 6:26, 8:40] = 1
    labels[:3, 10:20, 12:22] = TUMOR
    labels[3:, 10:20, 26:36] = CYST
    labels[:, 26:29, 8:40] = 4
    return noise(-0.6, 0.4, shape), labels


def square(depth=6):
    """A bright square off the middle, in the first half of the slices only, and its label."""
    labels = torch.zeros((depth, *SHAPE[1:]), dtype=torch.uint8)
    labels[: depth // 2, 8:22, 10:30] = 1
    return labels.float() * 2 - 1, labels


@pytest.fixture
def sampled(monkeypatch):
    """The modes and grids of all calls of grid_sample."""
    calls = []
    original = functional.grid_sample

    def spy(volume, grid, mode="bilinear", **options):
        calls.append((mode, options["padding_mode"], grid))
        return original(volume, grid, mode, **options)

    monkeypatch.setattr(functional, "grid_sample", spy)
    return calls


@pytest.fixture(scope="module")
def monai():
    """The parts of MONAI that the formulas are checked against; imported late, since that takes seconds."""
    from monai.networks.layers import AffineTransform
    from monai.networks.layers.simplelayers import GaussianFilter
    from monai.transforms import AdjustContrast, Resample, ScaleIntensity, ScaleIntensityFixedMean
    from monai.transforms.utils import create_grid

    return SimpleNamespace(
        AdjustContrast=AdjustContrast,
        AffineTransform=AffineTransform,
        GaussianFilter=GaussianFilter,
        Resample=Resample,
        ScaleIntensity=ScaleIntensity,
        ScaleIntensityFixedMean=ScaleIntensityFixedMean,
        create_grid=create_grid,
    )


# The whole


@given(SEEDS)
def test_depends_on_the_generator_only(seed):
    first, second = (augment(*sample(), EVERYTHING, rng(seed)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_seeds_differ():
    (first, _), (second, _) = (augment(*sample(), EVERYTHING, rng(seed)) for seed in (1, 2))
    assert not torch.equal(first, second)


@given(SEEDS, st.sampled_from([(1, 8, 12), (2, 8, 12), (8, 20, 30), (5, 7, 31)]))
def test_stays_in_the_window_with_types_shapes_and_labels_kept(seed, shape):
    labels = torch.from_numpy(rng(seed).choice(np.array([0, 2, 3, 4, 250], np.uint8), shape))
    image, moved = augment(noise(shape=shape), labels, EVERYTHING, rng(seed))
    assert image.dtype == torch.float32
    assert moved.dtype == torch.uint8
    assert image.shape == moved.shape == shape
    assert image.isfinite().all()
    assert image.min() >= -1
    assert image.max() <= 1
    assert set(moved.unique().tolist()) <= {0, 2, 3, 4, 250}


def test_nothing_happens_at_probability_0():
    image, labels = sample()
    same, labels_same = augment(image, labels, NOTHING, rng())
    assert torch.equal(same, image)
    assert torch.equal(labels_same, labels)


@pytest.mark.parametrize("config", [EVERYTHING, *(only(name, EVERYTHING) for name in OPERATIONS)])
def test_inputs_are_not_changed_in_place(config):
    image, labels = sample()
    before = image.clone(), labels.clone()
    for seed in range(4):
        augment(image, labels, config, rng(seed))
    assert torch.equal(image, before[0])
    assert torch.equal(labels, before[1])


def test_all_is_drawn_before_anything_is_computed():
    """The draws cannot depend on values, on a device or on a rounding: other data leave the generator at one place."""
    states = []
    for image, labels in (sample(), (noise(seed=1), torch.zeros(SHAPE, dtype=torch.uint8))):
        generator = rng(5)
        augment(image, labels, EVERYTHING, generator)
        states.append(generator.bit_generator.state["state"])
    assert states[0] == states[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("seed", range(5))
def test_another_device_gives_the_same_sample(seed):
    image, labels = sample()
    here = augment(image, labels, EVERYTHING, rng(seed))
    there = augment(image.cuda(), labels.cuda(), EVERYTHING, rng(seed))
    assert there[0].is_cuda
    assert there[1].is_cuda
    # A voxel at the middle between two may take the other label after a rounding.
    assert (here[1] != there[1].cpu()).float().mean() < 1e-3
    assert float((here[0] - there[0].cpu()).abs().mean()) < 1e-3


def test_everything_runs_where_the_data_are():
    """The meta device has no values: whatever were computed elsewhere would not mix with it."""
    image, labels = (t.to("meta") for t in sample())
    for name in SPATIAL:
        moved, moved_labels = warp(image, labels, draw_warp(SHAPE, only(name, EVERYTHING), rng(3)))
        assert moved.device.type == moved_labels.device.type == "meta"
    assert adjust(image, Factors(1.2, 1.2, 1.2)).device.type == "meta"


# Each alone


@pytest.mark.parametrize("name", OPERATIONS)
def test_only_turns_one_on_and_the_others_off(name):
    config = only(name, EVERYTHING)
    image, labels = sample()
    applied = 0
    for seed in range(20):
        drawn = draw_warp(SHAPE, config, rng(seed))
        found = {
            "mirror": drawn.mirror,
            "scale": drawn.plane is not None,
            "depth crop": drawn.crop is not None,
            "elastic": drawn.elastic is not None,
        }
        assert not any(on for other, on in found.items() if other != name)
        moved, moved_labels = augment(image, labels, config, rng(seed))
        assert (name in INTENSITY) <= torch.equal(moved_labels, labels)
        applied += not torch.equal(moved, image)
    assert applied >= (15 if name == "depth crop" else 20)  # a crop may keep all slices


def test_only_keeps_the_ranges():
    config = Augmentation(brightness=(0.9, 1.1), elastic_sigma=(4, 4), scale=(0.8, 0.9), depth_crop=0.3)
    assert only("brightness", config).brightness == (0.9, 1.1)
    assert only("elastic", config).elastic_sigma == (4, 4)
    assert only("scale", config).scale == (0.8, 0.9)
    assert only("depth crop", config).depth_crop == 0.3


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_spatial_operations_apply_with_their_probabilities(share):
    config = Augmentation(mirror_z=share, scale_probability=share, elastic_probability=share)
    drawn = [draw_warp((4, 8, 8), config, rng(seed)) for seed in range(400)]
    for count in (
        sum(w.mirror for w in drawn),
        sum(w.plane is not None for w in drawn),
        sum(w.elastic is not None for w in drawn),
    ):
        assert abs(count - 400 * share) <= 4 * math.sqrt(400 * share * (1 - share))
    assert not any(w.crop for w in drawn)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_right_and_left_are_mirrored_with_their_probability(share):
    config = NOTHING.model_copy(update={"mirror_x": share})
    image, labels = sample()
    moved = [augment(image, labels, config, rng(seed)) for seed in range(300)]
    mirrored = [torch.equal(a, image.flip(2)) and torch.equal(b, labels.flip(2)) for a, b in moved]
    assert abs(sum(mirrored) - 300 * share) <= 4 * math.sqrt(300 * share * (1 - share))
    assert all(is_mirrored or torch.equal(a, image) for is_mirrored, (a, _) in zip(mirrored, moved, strict=True))


def test_mirror_and_noise_leave_all_other_draws_as_they_are():
    image, labels = sample()
    plain = EVERYTHING.model_copy(update={"mirror_x": 0.0, "noise_probability": 0.0})
    for seed in range(5):
        without, labels_without = augment(image, labels, plain, rng(seed))
        mirrored, labels_mirrored = augment(image, labels, plain.model_copy(update={"mirror_x": 1.0}), rng(seed))
        noisy, labels_noisy = augment(image, labels, plain.model_copy(update={"noise_probability": 1.0}), rng(seed))
        assert torch.equal(labels_noisy, labels_without)
        inside = (noisy.abs() < 1) & (without.abs() < 1)
        added = (noisy - without)[inside]  # last of all: white, whatever was done before
        assert 0.001 < float(added.std()) <= 0.12 * 1.1
        assert not torch.equal(labels_mirrored, labels_without)
        assert mirrored.shape == without.shape


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_depth_is_cropped_with_its_probability(share):
    config = Augmentation(depth_crop=0.3, depth_crop_probability=share)
    crops = [draw_warp((40, 8, 8), config, rng(seed)).crop for seed in range(400)]
    assert abs(sum(crop is not None for crop in crops) - 400 * share) <= (40 if share == 0.5 else 0)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_intensity_operations_apply_with_their_probabilities(share):
    generator = rng()
    drawn = [draw_factors(Augmentation(), share, generator) for _ in range(400)]
    for name in ("brightness", "contrast", "gamma"):
        count = sum(getattr(f, name) != 1.0 for f in drawn)
        assert abs(count - 400 * share) <= 4 * math.sqrt(400 * share * (1 - share))


def test_the_whole_volume_and_the_lesions_have_probabilities_of_their_own():
    image, labels = sample()
    off = NOTHING.model_dump()
    outside, inside = labels < TUMOR, (labels == TUMOR) | (labels == CYST)
    for field, region in (("intensity_probability", outside), ("lesion_intensity_probability", inside)):
        config = Augmentation(**(off | {field: 1.0}))
        moved, _ = augment(image, labels, config, rng())
        assert (moved != image)[region].float().mean() > 0.99
    moved, _ = augment(image, labels, config, rng())
    assert torch.equal(moved[~inside], image[~inside])


# Resampling


@pytest.mark.parametrize("name", ["scale", "depth crop", "elastic", "everything"])
def test_one_resampling_of_image_and_labels_on_one_grid(sampled, name):
    config = EVERYTHING if name == "everything" else only(name, EVERYTHING)
    image, labels = sample()
    seed = next(s for s in range(20) if name in ("scale", "elastic") or draw_warp(SHAPE, config, rng(s)).crop)
    augment(image, labels, config, rng(seed))
    (mode, padding, grid), (labels_mode, labels_padding, labels_grid) = sampled
    assert (mode, labels_mode) == ("bilinear", "nearest")
    assert padding == labels_padding == "border"
    assert torch.equal(grid, labels_grid)


def test_an_exact_flip_and_nothing_else_for_a_mirror(sampled):
    image, labels = sample()
    flipped, labels_flipped = augment(image, labels, only("mirror", EVERYTHING), rng())
    assert torch.equal(flipped, image.flip(0))
    assert torch.equal(labels_flipped, labels.flip(0))
    flipped, labels_flipped = augment(image, labels, only("mirror x", EVERYTHING), rng())
    assert torch.equal(flipped, image.flip(2))
    assert torch.equal(labels_flipped, labels.flip(2))
    for name in INTENSITY:
        augment(image, labels, only(name, EVERYTHING), rng())
    assert not sampled


@pytest.mark.parametrize(
    "drawn", [Warp(plane=np.eye(2, 3)), Warp(crop=(0, SHAPE[0])), Warp(crop=(0, SHAPE[0]), mirror=True)]
)
def test_a_resampling_that_moves_nothing_changes_nothing(drawn):
    image, labels = sample()
    moved, moved_labels = warp(image, labels, drawn)
    expected = (image.flip(0), labels.flip(0)) if drawn.mirror else (image, labels)
    torch.testing.assert_close(moved, expected[0], atol=1e-4, rtol=0)
    assert torch.equal(moved_labels, expected[1])


def test_planar_and_spatial_grids_agree():
    image, labels = sample()
    plane = draw_plane(SHAPE, Augmentation(), rng(3))
    planar, planar_labels = warp(image, labels, Warp(plane=plane))
    spatial, spatial_labels = warp(image, labels, Warp(plane=plane, crop=(0, SHAPE[0])))
    torch.testing.assert_close(planar, spatial, atol=1e-4, rtol=0)
    assert (planar_labels != spatial_labels).float().mean() < 1e-3


@pytest.mark.parametrize("name", ["scale", "depth crop", "elastic", "everything"])
def test_image_and_labels_move_together(name):
    image, labels = square(depth=30)
    smooth = Augmentation(depth_crop=0.6, elastic_sigma=(5, 5), elastic_magnitude=(100, 100))
    config = smooth.model_copy(update={"scale_probability": 1.0, "elastic_probability": 1.0, "mirror_z": 1.0})
    config = config if name == "everything" else only(name, config)
    for seed in range(20):
        drawn = draw_warp((30, *SHAPE[1:]), config, rng(seed))
        moved, moved_labels = warp(image, labels, drawn)
        bright, labelled = moved > 0, moved_labels == 1
        assert 2 * (bright & labelled).sum() / (bright.sum() + labelled.sum()) > 0.9


def test_edges_repeat_and_nothing_wraps():
    image, labels = noise(0.5, 1.0), torch.ones(SHAPE, dtype=torch.uint8)
    image[:, :, :4] = -1.0
    labels[:, :, :4] = 2
    beyond = np.array([[1.0, 0, 0.8], [0, 1.0, -0.8]])
    for drawn in (Warp(plane=beyond), Warp(plane=beyond, crop=(2, 4))):
        moved, moved_labels = warp(image, labels, drawn)
        assert moved.min() >= 0.5
        assert (moved_labels == 1).all()


# Scale, turn and shift


@given(SEEDS)
def test_scale_turn_and_shift_stay_in_their_ranges_and_are_no_shear(seed):
    config = Augmentation()
    affine = draw_plane(SHAPE, config, rng(seed))
    half = np.array([SHAPE[2], SHAPE[1]]) / 2  # to voxels, in (x, y)
    matrix = affine[:, :2] * half[:, None] / half
    scale = 1 / np.sqrt(np.linalg.det(matrix))
    assert 0.6 - 1e-6 <= scale <= 1.3 + 1e-6
    angle = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    assert abs(angle) <= config.rotate_degrees + 1e-4
    np.testing.assert_allclose(matrix.T @ matrix * scale**2, np.eye(2), atol=1e-6)
    assert (np.abs(affine[:, 2]) <= 2 * config.shift).all()


def test_scales_fill_their_range_evenly():
    planes = [draw_plane(SHAPE, Augmentation(), rng(seed)) for seed in range(300)]
    scales = np.array([1 / np.sqrt(np.linalg.det(plane[:, :2])) for plane in planes])
    np.testing.assert_allclose(np.quantile(scales, [0, 0.25, 0.5, 0.75, 1]), [0.6, 0.775, 0.95, 1.125, 1.3], atol=0.06)


def test_turns_and_shifts_fill_their_ranges_evenly():
    config = Augmentation(rotate_degrees=20.0, shift=0.05)
    planes = [draw_plane(SHAPE, config, rng(seed)) for seed in range(300)]
    half = np.array([SHAPE[2], SHAPE[1]]) / 2  # to voxels, in (x, y)
    turns = [plane[:, :2] * half[:, None] / half for plane in planes]
    angles = np.degrees([np.arctan2(turn[1, 0], turn[0, 0]) for turn in turns])
    evenly = np.array([-1, -0.5, 0, 0.5, 1])
    np.testing.assert_allclose(np.quantile(angles, [0, 0.25, 0.5, 0.75, 1]), 20 * evenly, atol=3)
    for axis in (0, 1):
        shifts = [plane[axis, 2] for plane in planes]
        np.testing.assert_allclose(np.quantile(shifts, [0, 0.25, 0.5, 0.75, 1]), 0.1 * evenly, atol=0.015)


@pytest.mark.parametrize("scale", [0.6, 1.3])
def test_the_scale_is_that_of_the_picture(scale):
    config = Augmentation(scale=(scale, scale), scale_probability=1.0, rotate_degrees=0, shift=0)
    image, labels = square()
    _, scaled = augment(image, labels, only("scale", config), rng())
    assert float(scaled.sum()) == pytest.approx(float(labels.sum()) * scale**2, rel=0.08)
    assert torch.equal(scaled.amax(dim=(1, 2)), labels.amax(dim=(1, 2)))  # no slice goes elsewhere


def test_the_plane_equals_monais_affine(monai):
    """MONAI's in array indices about the middle, (z, y, x): a turn is one in pixels, whatever the plane's shape."""
    image, labels = sample()
    plane = draw_plane(SHAPE, Augmentation(rotate_degrees=10, shift=0.0), rng(4))
    cosine, sine = plane[0, 0], plane[1, 0] * SHAPE[1] / SHAPE[2]
    matrix = torch.eye(4)
    matrix[1:3, 1:3] = torch.tensor([[cosine, sine], [-sine, cosine]])  # rows y, x
    middle = torch.tensor([(n - 1) / 2 for n in SHAPE])
    matrix[:3, 3] = middle - matrix[:3, :3] @ middle
    apply = monai.AffineTransform(normalized=False, mode="bilinear", padding_mode="border", zero_centered=False,
                                  align_corners=False, reverse_indexing=True)  # fmt: skip
    theirs = apply(image[None, None], matrix, spatial_size=SHAPE)[0, 0]
    ours, _ = warp(image, labels, Warp(plane=plane))
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


# Crop along z


@given(SEEDS, st.floats(0.01, 1.0), st.integers(1, 30))
def test_a_crop_is_a_run_of_slices_of_at_least_its_share(seed, share, depth):
    start, stop = draw_crop(depth, Augmentation(depth_crop=share), rng(seed))
    assert 0 <= start < stop <= depth
    assert stop - start >= min(depth, 2)
    assert stop - start >= share * depth - 0.5


@given(st.integers(0, 15), st.integers(2, 20))
@settings(max_examples=25)
def test_a_crop_is_stretched_to_the_whole_depth_of_image_and_labels_alike(start, kept):
    depth = 20
    kept = min(kept, depth - start)
    heights = torch.linspace(-1, 1, depth)[:, None, None].expand(depth, 2, 3).contiguous()
    image, labels = warp(heights, (heights > 0.3).to(torch.uint8), Warp(crop=(start, start + kept)))
    expected = functional.interpolate(heights[None, None, start : start + kept], (depth, 2, 3), mode="trilinear")[0, 0]
    torch.testing.assert_close(image, expected, atol=1e-5, rtol=0)
    assert ((image > 0.3) != (labels == 1))[:, 0, 0].sum() <= depth / kept


# Elastic deformation


@pytest.mark.parametrize(("sigma", "magnitude"), [(3.0, 100.0), (3.0, 200.0), (5.0, 150.0)])
def test_displacements_have_the_deviation_and_smoothness_of_monais(monai, sigma, magnitude):
    size, tail = 48, 16
    config = Augmentation(elastic_sigma=(sigma, sigma), elastic_magnitude=(magnitude, magnitude))
    shape = (size, size, size)
    ours = torch.stack([displacement(draw_elastic(shape, config, rng(i)), shape, torch.eye(3)) for i in range(6)])
    offsets = torch.from_numpy(rng(9).uniform(-1, 1, (2, 3, *[size + 2 * tail] * 3)).astype(np.float32))
    with torch.no_grad():
        theirs = monai.GaussianFilter(3, sigma, 3.0)(offsets) * magnitude
    theirs = theirs[..., tail:-tail, tail:-tail, tail:-tail]
    law = magnitude / math.sqrt(3) * (2 * math.sqrt(math.pi) * sigma) ** -1.5
    assert float(ours.std()) == pytest.approx(law, rel=0.05)
    assert float(ours.std()) == pytest.approx(float(theirs.std()), rel=0.06)
    for component in range(3):
        assert float(ours[:, component].std()) == pytest.approx(law, rel=0.1)
    for axis in (2, 3, 4):
        for distance in (1, round(sigma), 2 * round(sigma)):
            expected = math.exp(-((distance / (2 * sigma)) ** 2))
            assert _correlation(ours, axis, distance) == pytest.approx(expected, abs=0.06)
            assert _correlation(theirs, axis, distance) == pytest.approx(expected, abs=0.12)


def _correlation(field, axis, distance):
    n = field.shape[axis] - distance
    product = field.narrow(axis, 0, n) * field.narrow(axis, distance, n)
    return float(product.mean() / field.square().mean())


@pytest.mark.parametrize("shape", [(1, 30, 40), (8, 30, 40), (3, 1, 1)])
def test_thin_volumes_move_as_far_as_others_at_the_border_too(shape):
    config = Augmentation(elastic_sigma=(3, 3), elastic_magnitude=(100, 100))
    fields = [displacement(draw_elastic(shape, config, rng(i)), shape, torch.eye(3)) for i in range(200)]
    deviation = torch.stack(fields).std(dim=0)
    assert deviation.shape == (3, *shape)
    assert float(deviation.mean()) == pytest.approx(1.665, rel=0.1)
    assert float(deviation[:, 0, 0, 0].mean()) == pytest.approx(1.665, rel=0.15)


@pytest.mark.parametrize("sigma", [3.0, 3.7, 5.0])
@pytest.mark.parametrize("n", [1, 2, 8, 61])
def test_the_lattice_leaves_no_trace_in_the_covariance(n, sigma):
    """Of one axis, exactly: the same law between any two voxels, at the border as in the middle."""
    bumps = _bumps(n, sigma)
    distance = torch.arange(n)[:, None] - torch.arange(n)
    expected = torch.exp(-((distance / (2 * sigma)) ** 2))
    torch.testing.assert_close(bumps @ bumps.T, expected, atol=1e-3, rtol=0)


def test_smoothness_and_strength_fill_their_ranges():
    drawn = [draw_elastic((2, 2, 2), Augmentation(), rng(seed)) for seed in range(300)]
    for values, (low, high) in (([e.sigma for e in drawn], (3, 5)), ([e.magnitude for e in drawn], (100, 200))):
        quarters = np.linspace(low, high, 5)
        np.testing.assert_allclose(np.quantile(values, [0, 0.25, 0.5, 0.75, 1]), quarters, atol=(high - low) * 0.09)


@pytest.mark.parametrize("plane", [None, np.array([[0.9, -0.1, 0.05], [0.2, 1.1, -0.1]])])
def test_a_field_moves_as_in_monai(monai, plane):
    """MONAI: the grid of indices from the middle, plus the displacement, then the affine part, then a resampling."""
    shape = (8, 20, 30)
    image = noise(shape=shape)
    elastic = draw_elastic(shape, Augmentation(), rng(2))
    grid = torch.as_tensor(monai.create_grid(shape, backend="torch"), dtype=torch.float32)
    grid[:3] += displacement(elastic, shape, torch.eye(3)).flip(0)
    if plane is not None:
        ratio, half = shape[1] / shape[2], torch.tensor([shape[1], shape[2]]) / 2
        (a, b, right), (c, d, down) = plane
        matrix = torch.eye(4)
        matrix[1:3, 1:3] = torch.tensor([[d, c * ratio], [b / ratio, a]])
        matrix[1:3, 3] = torch.tensor([down, right]) * half
        grid = torch.tensordot(matrix, grid, 1)
    resample = monai.Resample(mode="bilinear", padding_mode="border", align_corners=False)
    theirs = resample(image[None], grid)[0]
    ours, _ = warp(image, torch.zeros(shape, dtype=torch.uint8), Warp(plane=plane, elastic=elastic))
    torch.testing.assert_close(ours, torch.as_tensor(theirs), atol=1e-3, rtol=0)


def test_composed_operations_equal_one_after_the_other():
    """On a ramp, where linear interpolation is exact: crop and plane at once, or one and then the other."""
    shape = (12, 40, 40)
    z, y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in shape), indexing="ij")
    ramp, labels = 0.2 * z + 0.3 * y - 0.4 * x, torch.zeros(shape, dtype=torch.uint8)
    plane = np.array([[0.8, 0.05, 0.02], [-0.03, 0.8, 0.01]])
    at_once, _ = warp(ramp, labels, Warp(mirror=True, crop=(2, 9), plane=plane))
    steps = ramp
    for step in (Warp(mirror=True), Warp(crop=(2, 9)), Warp(plane=plane)):
        steps, _ = warp(steps, labels, step)
    torch.testing.assert_close(at_once, steps, atol=1e-5, rtol=0)


# Intensity


@given(SEEDS)
def test_factors_are_of_their_own_ranges(seed):
    config = Augmentation(brightness=(0.6, 0.7), contrast=(0.9, 1.0), gamma=(1.4, 1.5))
    factors = draw_factors(config, 1.0, rng(seed))
    assert 0.6 <= factors.brightness <= 0.7
    assert 0.9 <= factors.contrast <= 1.0
    assert 1.4 <= factors.gamma <= 1.5


def test_factors_are_log_uniform_in_the_papers_range():
    generator = rng()
    drawn = [draw_factors(Augmentation(), 1.0, generator) for _ in range(400)]
    for name in ("brightness", "contrast", "gamma"):
        logs = np.log([getattr(f, name) for f in drawn])
        quarters = np.linspace(math.log(0.6), math.log(1.5), 5)
        np.testing.assert_allclose(np.quantile(logs, [0, 0.25, 0.5, 0.75, 1]), quarters, atol=0.09)


@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.parametrize("factor", [0.6, 1.4])
def test_the_factor_is_that_of_the_picture(name, factor):
    """In the whole volume, or in each kind of lesion about the mean of its own voxels."""
    image, labels = noise(-0.3, 0.05), sample()[1]  # so far inside that nothing is clipped
    kind = name.removeprefix("lesion ")
    config = only(name, Augmentation(**{kind: (factor, factor)}))
    changed, _ = augment(image, labels, config, rng())
    regions = [labels == TUMOR, labels == CYST] if name.startswith("lesion") else [labels >= 0]
    for region in regions:
        before, after = image[region], changed[region]
        measured = {
            "brightness": (after + 1) / (before + 1),
            "contrast": (after - before.mean()) / (before - before.mean()),
            "gamma": ((after + 1) / 2).log() / ((before + 1) / 2).log(),
        }[kind]
        assert float(measured.median()) == pytest.approx(factor, rel=1e-4)
        assert float(after.mean()) == pytest.approx(float(before.mean()), abs=1e-5) or kind != "contrast"
    outside = ~torch.stack(regions).any(dim=0)
    assert torch.equal(changed[outside], image[outside])


def test_tumor_and_cyst_have_draws_of_their_own():
    image, labels = noise(-0.3, 0.05), sample()[1]
    changed, _ = augment(image, labels, only("lesion brightness", EVERYTHING), rng())
    ratio = (changed + 1) / (image + 1)
    assert abs(float(ratio[labels == TUMOR].mean() - ratio[labels == CYST].mean())) > 0.02
    half = Augmentation(**(NOTHING.model_dump() | {"lesion_intensity_probability": 0.3}))
    hits = np.zeros((2, 2), int)
    for seed in range(200):
        changed, _ = augment(image, labels, half, rng(seed))
        tumor, cyst = (int((changed != image)[labels == i].any()) for i in (TUMOR, CYST))
        hits[tumor, cyst] += 1
    share = 1 - 0.7**3
    expected = 200 * np.outer([1 - share, share], [1 - share, share])
    np.testing.assert_allclose(hits, expected, atol=30)


def test_lesions_are_where_the_moved_labels_are():
    image, labels = noise(-0.3, 0.05), sample()[1]
    both = only("lesion brightness", EVERYTHING).model_copy(update={"mirror_z": 1.0})
    changed, moved = augment(image, labels, both, rng())
    touched = changed != image.flip(0)
    assert torch.equal(moved, labels.flip(0))
    assert touched[moved == TUMOR].float().mean() > 0.99
    assert not touched[(moved != TUMOR) & (moved != CYST)].any()


@pytest.mark.parametrize("value", [0, 1, 4, 255])
def test_without_lesions_the_lesion_operations_do_nothing(value):
    image, labels = noise(), torch.full(SHAPE, value, dtype=torch.uint8)
    for name in FACTORS[3:]:
        same, _ = augment(image, labels, only(name, EVERYTHING), rng())
        assert torch.equal(same, image)


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.5])
def test_formulas_equal_monais(monai, factor):
    image = noise(-1, 1)
    image[0, 0, 0], image[0, 0, 1] = -1.0, 1.0  # MONAI's gamma takes the range from the data
    brighter = monai.ScaleIntensity(minv=None, maxv=None, factor=factor - 1)(image + 1) - 1
    steeper = monai.ScaleIntensityFixedMean(factor=factor - 1)(image)
    bent = monai.AdjustContrast(gamma=factor)(image)
    for theirs, factors in (
        (brighter, Factors(brightness=factor)),
        (steeper, Factors(contrast=factor)),
        (bent, Factors(gamma=factor)),
    ):
        torch.testing.assert_close(adjust(image, factors), torch.as_tensor(theirs), atol=2e-6, rtol=0)


def test_a_lesion_of_one_voxel_is_no_trouble():
    image, mask = noise(), torch.zeros(SHAPE, dtype=torch.bool)
    mask[2, 3, 4] = True
    changed = adjust_inside(image, mask, Factors(1.2, 1.3, 1.4))
    assert changed.isfinite().all()
    assert torch.equal(changed[~mask], image[~mask])


def test_inside_a_lesion_values_move_about_the_lesions_own_mean():
    image, mask = noise(-0.6, 0.6), torch.zeros(SHAPE, dtype=torch.bool)
    mask[1:3, 2:6, 3:7] = True
    factors = Factors(1.1, 1.3, 0.8)
    changed = adjust_inside(image, mask, factors)
    torch.testing.assert_close(changed[mask], adjust(image[mask], factors), atol=1e-6, rtol=0)
    assert torch.equal(changed[~mask], image[~mask])


def test_a_mask_of_nothing_changes_nothing():
    image = noise()
    assert torch.equal(adjust_inside(image, torch.zeros(SHAPE, dtype=torch.bool), Factors(1.2, 1.3, 1.4)), image)


def test_augmentation_reads_nothing_back_from_the_device():
    """On the meta device, which holds no values, whatever a GPU would have to be awaited for is an error."""
    image, labels = (a.to("meta") for a in sample())
    config = Augmentation(**{p: 1.0 for p in Augmentation.model_fields if "probability" in p}, depth_crop=0.5)
    changed, moved = augment(image, labels, config, rng())
    assert (changed.shape, moved.shape) == (image.shape, labels.shape)


def test_clips_last():
    image, labels = sample()
    image[labels == TUMOR] = 0.9
    for name in ("brightness", "lesion brightness"):
        config = only(name, Augmentation(brightness=(1.5, 1.5)))
        changed, _ = augment(image, labels, config, rng())
        assert float(changed.max()) == 1.0
    # What brightness lifts beyond the window, contrast brings back before anything is clipped.
    bright = adjust(image, Factors(brightness=1.5, contrast=0.6))
    both = Augmentation(**(NOTHING.model_dump() | {"intensity_probability": 1.0, "brightness": (1.5, 1.5),
                                                   "contrast": (0.6, 0.6), "gamma": (1, 1)}))  # fmt: skip
    assert torch.equal(augment(image, labels, both, rng())[0], bright.clamp(-1, 1))
    assert not torch.allclose(
        bright, adjust(adjust(image, Factors(brightness=1.5)).clamp(-1, 1), Factors(contrast=0.6))
    )


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_noise_comes_with_its_probability_and_spread(share):
    config = Augmentation(noise_probability=share, noise=(0.05, 0.2))
    drawn = [draw_noise((8, 32, 32), config, rng(seed)) for seed in range(300)]
    added = [noise for noise in drawn if noise is not None]
    assert abs(len(added) - 300 * share) <= 4 * math.sqrt(300 * share * (1 - share))
    for noise in added:
        assert noise.dtype == torch.float32
        assert 0.05 * 0.95 <= float(noise.std()) <= 0.2 * 1.05
        assert abs(float(noise.mean())) < 5 * 0.2 / math.sqrt(noise.numel())
    assert not added or max(float(n.std()) for n in added) > 0.18
    assert not added or min(float(n.std()) for n in added) < 0.07


def test_noise_is_added_last_and_clipped():
    image, labels = sample()
    config = only("noise", EVERYTHING)
    noisy, same = augment(image, labels, config, rng(5))
    assert torch.equal(same, labels)
    assert float(noisy.abs().max()) <= 1
    assert float((noisy - image).std()) > 0
    again, _ = augment(image, labels, config, rng(5))
    assert torch.equal(noisy, again)
    louder = config.model_copy(update={"noise": (2.0, 2.0)})
    assert float(augment(image, labels, louder, rng(5))[0].abs().max()) == 1


# Previews


def test_versions_show_the_original_each_operation_twice_and_all_together():
    image, labels = sample()
    made = list(versions(image.numpy(), labels.numpy(), EVERYTHING, together=3))
    titles = [title for title, _, _ in made]
    alone = [name for name in OPERATIONS for _ in range(1 if name.startswith("mirror") else 2)]
    assert titles == ["original", *alone, *["all together"] * 3]
    assert np.array_equal(made[0][1], image.numpy())
    assert all((a != image.numpy()).any() or (b != labels.numpy()).any() for _, a, b in made[1:])
    assert len({a.tobytes() for _, a, _ in made}) == len(made)


def test_versions_leave_out_what_is_off_or_has_no_lesion():
    image, labels = noise().numpy(), np.ones(SHAPE, np.uint8)
    titles = {title for title, _, _ in versions(image, labels, Augmentation(), together=1)}
    assert titles == {"original", "mirror", "scale", "elastic", "brightness", "contrast", "gamma", "all together"}


@pytest.mark.parametrize(("depth", "expected"), [(3, (5, 8)), (50, (0, 12)), (12, (0, 12))])
def test_the_slices_with_most_lesion_are_shown(depth, expected):
    labels = np.ones((12, 4, 4), np.uint8)
    labels[6, :2] = TUMOR
    assert most_shown(labels, depth) == expected
    assert most_shown(np.zeros((12, 4, 4), np.uint8), 4) == (4, 8)
