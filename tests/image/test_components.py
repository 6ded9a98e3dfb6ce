"""``components``: against scipy, by voxels and by volume."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from renalseg.image.components import drop_small

MASKS = hnp.arrays(
    bool,
    st.tuples(*[st.integers(1, 9)] * 3),
    elements=st.sampled_from([False] * 7 + [True]),
)


@given(mask=MASKS, min_voxels=st.integers(0, 6), min_mm3=st.sampled_from([0.0, 5.0, 12.0]))
def test_against_scipy(mask, min_voxels, min_mm3):
    voxel_mm3 = 2.5
    cleaned, kept, dropped = drop_small(mask, voxel_mm3, min_voxels, min_mm3)
    labelled, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = ndimage.sum_labels(mask, labelled, range(1, count + 1)) if count else np.array([])
    stays = (sizes >= min_voxels) & (sizes * voxel_mm3 >= min_mm3)
    np.testing.assert_array_equal(cleaned, np.isin(labelled, np.flatnonzero(stays) + 1))
    assert [c.voxels for c in kept] == sorted(sizes[stays], reverse=True)
    assert [c.voxels for c in dropped] == sorted(sizes[~stays], reverse=True)
    assert all(c.volume_mm3 == c.voxels * voxel_mm3 for c in kept + dropped)
    centres = ndimage.center_of_mass(mask, labelled, range(1, count + 1)) if count else []
    found = sorted((c.voxels, *c.centre) for c in kept + dropped)
    expected = sorted((int(n), *(round(float(x), 1) for x in c)) for n, c in zip(sizes, centres, strict=True))
    np.testing.assert_allclose(np.array(found), np.array(expected), atol=0.11)


def two_parts():
    mask = np.zeros((10, 10, 10), bool)
    mask[1:5, 1:5, 1:5] = True
    mask[7:9, 7:9, 7:9] = True
    return mask


@pytest.mark.parametrize(
    ("voxel_mm3", "min_voxels", "min_mm3", "stays"),
    [
        (1.0, 0, 0.0, [64, 8]),
        (1.0, 8, 0.0, [64, 8]),
        (1.0, 9, 0.0, [64]),
        (1.0, 65, 0.0, []),
        (2.0, 0, 16.0, [64, 8]),
        (2.0, 0, 17.0, [64]),
        (100.0, 9, 17.0, [64]),
        (0.1, 0, 17.0, []),
    ],
)
def test_the_rule_by_voxels_and_by_volume(voxel_mm3, min_voxels, min_mm3, stays):
    cleaned, kept, dropped = drop_small(two_parts(), voxel_mm3, min_voxels, min_mm3)
    assert [c.voxels for c in kept] == stays
    assert [c.voxels for c in dropped] == [64, 8][len(stays) :]
    assert cleaned.sum() == sum(stays)


def test_voxels_that_touch_at_a_corner_are_one_component():
    mask = np.zeros((3, 3, 3), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 0, 2] = True
    _, kept, _ = drop_small(mask, 1.0, 3, 0.0)
    assert [c.voxels for c in kept] == [3]


def test_nothing_in_nothing_out():
    mask = np.zeros((3, 4, 5), bool)
    cleaned, kept, dropped = drop_small(mask, 1.0, 10, 5.0)
    assert not cleaned.any()
    assert kept == dropped == []


@pytest.mark.parametrize("full", [True, False])
def test_a_mask_without_background_and_any_memory_order(full):
    mask = np.ones((4, 5, 6), bool) if full else two_parts()
    for order in (mask, np.asfortranarray(mask), mask[::-1, :, ::-1]):
        cleaned, kept, _ = drop_small(order, 1.0, 9, 0.0)
        assert len(kept) == 1
        assert cleaned.sum() == kept[0].voxels
