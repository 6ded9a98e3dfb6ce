"""``boxes``: against brute force; nothing is lost on the way from one sampling to another."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from renalseg.image.boxes import Box, bounding_box, clamp, grow, scale_box

SHAPES = st.tuples(*[st.integers(1, 9)] * 3)
MASKS = SHAPES.flatmap(lambda shape: hnp.arrays(bool, shape, elements=st.sampled_from([False] * 6 + [True])))


@st.composite
def boxes(draw, shapes=SHAPES):
    shape = draw(shapes)
    start = tuple(draw(st.integers(0, n - 1)) for n in shape)
    stop = tuple(draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
    return Box(start, stop), shape


def overlapping(fine_n, coarse_n):
    """Matrix [coarse, fine]: which samples of two grids over one field of view overlap; in whole numbers."""
    fine, coarse = np.arange(fine_n) * coarse_n, np.arange(coarse_n) * fine_n
    return (fine[None] < coarse[:, None] + fine_n) & (coarse[:, None] < fine[None] + coarse_n)


@given(mask=MASKS)
def test_bounding_box_against_brute_force(mask):
    box, voxels = bounding_box(mask), np.argwhere(mask)
    if not len(voxels):
        assert box is None
        return
    assert box == Box(tuple(voxels.min(0)), tuple(voxels.max(0) + 1))
    assert mask[box.slices].sum() == mask.sum()
    assert mask[box.slices].shape == box.shape


@given(mask=MASKS, coarse_shape=SHAPES)
def test_a_scaled_box_never_loses_a_voxel(mask, coarse_shape):
    down = [overlapping(n, m) for n, m in zip(mask.shape, coarse_shape, strict=True)]
    coarse = np.einsum("zyx,az,by,cx->abc", mask.astype(int), *(d.astype(int) for d in down)) > 0
    box = bounding_box(coarse)
    if box is None:
        assert not mask.any()
        return
    assert mask[scale_box(box, coarse_shape, mask.shape).slices].sum() == mask.sum()


@given(case=boxes(), to_shape=st.tuples(*[st.integers(1, 1100)] * 3))
def test_a_scaled_box_is_inside_and_at_most_a_voxel_too_large(case, to_shape):
    box, shape = case
    scaled = scale_box(box, shape, to_shape)
    for a, b, c, d, m, n in zip(box.start, box.stop, scaled.start, scaled.stop, shape, to_shape, strict=True):
        assert 0 <= c < d <= n
        assert a * n / m - 1 < c <= a * n / m + 1e-6
        assert b * n / m - 1e-6 <= d < b * n / m + 1


@given(case=boxes())
def test_the_same_sampling_changes_nothing(case):
    box, shape = case
    assert scale_box(box, shape, shape) == box


@given(
    case=boxes(),
    margin=st.tuples(*[st.floats(0, 60)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
)
def test_a_grown_box_has_the_margin_or_ends_at_the_volume(case, margin, spacing):
    box, shape = case
    grown = grow(box, margin, spacing, shape)
    for axis in range(3):
        below = (box.start[axis] - grown.start[axis]) * spacing[axis]
        above = (grown.stop[axis] - box.stop[axis]) * spacing[axis]
        assert 0 <= grown.start[axis] <= box.start[axis]
        assert box.stop[axis] <= grown.stop[axis] <= shape[axis]
        assert grown.start[axis] == 0 or margin[axis] - 1e-6 <= below < margin[axis] + spacing[axis]
        assert grown.stop[axis] == shape[axis] or margin[axis] - 1e-6 <= above < margin[axis] + spacing[axis]


@given(start=st.tuples(*[st.integers(-20, 20)] * 3), size=st.tuples(*[st.integers(-3, 20)] * 3), shape=SHAPES)
def test_a_clamped_box_lies_inside_with_at_least_one_voxel(start, size, shape):
    box = clamp(Box(start, tuple(a + n for a, n in zip(start, size, strict=True))), shape)
    assert all(0 <= a < b <= n for a, b, n in zip(box.start, box.stop, shape, strict=True))
