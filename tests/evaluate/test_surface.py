import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from renalseg.core.errors import GeometryError, InputError
from renalseg.core.labels import HECS
from renalseg.evaluate.surface import neighbour_codes, surface_dice, surfel_areas

SPACINGS = st.tuples(*[st.floats(0.2, 7.0)] * 3)
EXACT = {"rel": 0, "abs": 1e-9}


def blobs(seed, shape=(12, 15, 18), sigma=1.2):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return noise > 0.5 * noise.std()


def test_all_codes_have_the_reference_areas():
    tables = pytest.importorskip("surface_distance.lookup_tables")
    rng = np.random.default_rng(0)
    for spacing in [(1.0, 1.0, 1.0), (5.0, 0.78125, 0.78125), *rng.uniform(0.2, 7, (20, 3))]:
        theirs, ours = tables.create_table_neighbour_code_to_surface_area(spacing), surfel_areas(tuple(spacing))
        for corners in itertools.product((0, 1), repeat=8):
            cell = np.array(corners).reshape(2, 2, 2)
            their_code = int((cell * tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL).sum())
            our_code = neighbour_codes(cell.astype(bool))[1, 1, 1]
            assert ours[our_code] == pytest.approx(theirs[their_code], abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(SPACINGS)
def test_area_of_one_voxel_and_of_a_slab(spacing):
    z, y, x = spacing
    areas = surfel_areas(spacing)
    corner = np.sqrt((y * x) ** 2 + (z * x) ** 2 + (z * y) ** 2) / 8
    voxel = areas[neighbour_codes(np.ones((1, 1, 1), bool))]
    np.testing.assert_allclose(voxel, np.full((2, 2, 2), corner))
    slab = areas[neighbour_codes(np.ones((3, 9, 9), bool))]
    np.testing.assert_allclose(slab[0, 2:8, 2:8], y * x)
    np.testing.assert_allclose(slab[1:3, 2:8, 2:8], 0)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("tolerance", [0.0, 0.7, 1.0330772532390826, 3.0, 50.0])
def test_random_masks_equal_the_reference(reference, seed, tolerance):
    rng = np.random.default_rng(100 + seed)
    truth, prediction = blobs(seed), blobs(seed) ^ (rng.random((12, 15, 18)) < 0.02)
    spacing = tuple(float(s) for s in rng.choice([0.5, 0.7, 1.0, 1.4, 2.5, 5.0], 3))
    expected = reference(truth, prediction, spacing, tolerance)
    assert surface_dice(truth, prediction, spacing, tolerance) == pytest.approx(expected, **EXACT)


def test_noise_meets_every_code_and_equals_the_reference(reference):
    rng = np.random.default_rng(5)
    truth, prediction = rng.random((2, 20, 20, 20)) < 0.5
    assert np.unique(neighbour_codes(truth)).size == 256
    expected = reference(truth, prediction, (1.3, 0.6, 0.9), 0.5)
    assert surface_dice(truth, prediction, (1.3, 0.6, 0.9), 0.5) == pytest.approx(expected, **EXACT)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), spacing=SPACINGS, tolerance=st.floats(0, 6))
@example(seed=0, spacing=(1.0, 0.2, 0.20000000000000004), tolerance=0.2)  # rounding decides which is nearest
def test_odd_spacings_equal_the_reference(reference, seed, spacing, tolerance):
    truth, prediction = blobs(seed, (7, 8, 9)), blobs(seed + 1, (7, 8, 9))
    if not truth.any() or not prediction.any():
        return
    expected = reference(truth, prediction, spacing, tolerance)
    assert surface_dice(truth, prediction, spacing, tolerance) == pytest.approx(expected, **EXACT)


def test_real_label_maps_equal_the_reference(reference, real_labels):
    changes = {
        "shifted": lambda mask: np.roll(mask, (1, 2, -1), (0, 1, 2)),
        "eroded": ndimage.binary_erosion,
        "dilated": lambda mask: ndimage.binary_dilation(mask, iterations=2),
    }
    compared = 0
    for name, labels, spacing in real_labels:
        for hec, (change, apply) in itertools.product(HECS, changes.items()):
            truth = hec.mask(labels)
            prediction = apply(truth)
            if not truth.any() or not prediction.any():
                continue
            expected = reference(truth, prediction, spacing, hec.tolerance_mm)
            ours = surface_dice(truth, prediction, spacing, hec.tolerance_mm)
            assert ours == pytest.approx(expected, **EXACT), (name, hec.name, change)
            compared += 1
    assert compared >= 90


def test_empty_masks():
    empty, full = np.zeros((4, 5, 6), bool), np.ones((4, 5, 6), bool)
    assert surface_dice(empty, empty, (1, 1, 1), 1.0) == 1.0
    assert surface_dice(empty, full, (1, 1, 1), 1.0) == 0.0
    assert surface_dice(full, empty, (1, 1, 1), 1.0) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_identity_symmetry_translation_flips_and_axis_order(seed):
    spacing, tolerance = (2.5, 0.7, 0.9), 1.1
    truth, prediction = blobs(seed), blobs(seed + 50)
    score = surface_dice(truth, prediction, spacing, tolerance)
    assert 0 < score < 1
    assert surface_dice(truth, truth, spacing, 0.0) == 1.0
    assert surface_dice(prediction, truth, spacing, tolerance) == pytest.approx(score, **EXACT)
    moved = [np.pad(mask, ((3, 1), (0, 4), (2, 2))) for mask in (truth, prediction)]
    assert surface_dice(*moved, spacing, tolerance) == pytest.approx(score, **EXACT)
    for axis in range(3):
        flipped = [np.flip(mask, axis) for mask in (truth, prediction)]
        assert surface_dice(*flipped, spacing, tolerance) == pytest.approx(score, **EXACT)
    turned = [mask.transpose(2, 0, 1) for mask in (truth, prediction)]
    assert surface_dice(*turned, (0.9, 2.5, 0.7), tolerance) == pytest.approx(score, **EXACT)


@pytest.mark.parametrize("spacing", [0.1, 0.7, 0.3, 1.1])
def test_a_distance_of_exactly_the_tolerance_counts(spacing):
    near, far = np.zeros((2, 1, 1, 300), bool)
    near[..., 200:204], far[..., 203:207] = True, True
    assert surface_dice(near, far, (1.0, 1.0, spacing), 3 * spacing) == 1.0
    assert surface_dice(near, far, (1.0, 1.0, spacing), 2.99 * spacing) < 1.0


def test_wrong_arguments_are_named():
    mask = np.ones((3, 3, 3), bool)
    with pytest.raises(GeometryError, match=r"\(3, 3, 3\) and \(3, 3, 2\)"):
        surface_dice(mask, mask[..., :2], (1, 1, 1), 1)
    with pytest.raises(GeometryError, match="3D"):
        surface_dice(mask[0], mask[0], (1, 1, 1), 1)
    with pytest.raises(GeometryError, match="spacing"):
        surface_dice(mask, mask, (1, 0, 1), 1)
    for tolerance in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="tolerance"):
            surface_dice(mask, mask, (1, 1, 1), tolerance)
