"""``resample``: against torch's interpolation, and what a resampling has to keep."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from renalseg.image import resample
from renalseg.image.boxes import Box
from renalseg.image.resample import axis_weights, resize

SIZES = st.tuples(*[st.integers(1, 7)] * 3)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@given(n_in=st.integers(1, 40), n_out=st.integers(1, 40), data=st.data())
def test_rows_sum_to_one_and_are_not_negative(n_in, n_out, data):
    start = data.draw(st.integers(0, n_in - 1))
    stop = data.draw(st.integers(start + 1, n_in))
    weights = axis_weights(n_in, start, stop, n_out)
    assert weights.shape == (n_out, n_in)
    assert weights.dtype == torch.float32
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(n_out))


@given(n=st.integers(1, 60))
def test_the_same_size_is_the_identity(n):
    assert torch.equal(axis_weights(n, 0, n, n), torch.eye(n))


@given(n_in=st.integers(1, 30), n_out=st.integers(1, 30))
def test_weights_are_symmetric(n_in, n_out):
    weights = axis_weights(n_in, 0, n_in, n_out)
    torch.testing.assert_close(weights, weights.flip(0, 1))


@given(shape=SIZES, more=st.tuples(*[st.integers(0, 9)] * 3), seed=st.integers(0, 99))
def test_enlarging_is_trilinear_interpolation(shape, more, seed):
    array = noise(2, *shape, seed=seed)
    larger = tuple(n + m for n, m in zip(shape, more, strict=True))
    expected = functional.interpolate(array[None], larger, mode="trilinear", align_corners=False)[0]
    torch.testing.assert_close(resize(array, larger), expected, atol=1e-5, rtol=0)


@given(shape=SIZES, target=SIZES, value=st.integers(-1000, 3000))
def test_a_constant_stays(shape, target, value):
    result = resize(torch.full(shape, value, dtype=torch.int16), target)
    torch.testing.assert_close(result, torch.full(target, float(value)), rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_reducing_keeps_the_mean_and_does_not_alias(factor):
    array = noise(24, 24, 24)
    reduced = resize(array, (24 // factor,) * 3)
    assert reduced.mean() == pytest.approx(array.mean().item(), abs=0.02)
    stripes = torch.tensor([0.0, 1.0]).repeat(12).expand(2, 2, 24)
    assert (resize(stripes, (2, 2, 24 // factor)) - 0.5).abs().max() < 0.26


def test_a_linear_ramp_stays_one_away_from_the_edges():
    ramp = torch.arange(24.0).expand(2, 2, 24)
    torch.testing.assert_close(resize(ramp, (2, 2, 12))[0, 0, 1:-1], torch.arange(0.5, 24, 2)[1:-1])


def test_a_box_at_its_own_resolution_is_the_crop():
    array = noise(6, 7, 8)
    box = Box((1, 2, 0), (5, 6, 8))
    assert torch.equal(resize(array, box.shape, box), array[box.slices])


@pytest.mark.parametrize("target", [(4, 8, 12), (8, 4, 6), (8, 16, 3)])
def test_a_box_is_the_crop_up_to_the_edge(target):
    """The box sees its surroundings, the crop repeats its edge: alike wherever the triangle stays inside."""
    array, box = noise(12, 16, 20), Box((2, 4, 4), (10, 12, 16))
    cut = array[box.slices]
    inside = []
    for n_box, n in zip(box.shape, target, strict=True):
        step = n_box / n
        centre = (np.arange(n) + 0.5) * step - 0.5
        fits = (centre - max(1, step) >= -1) & (centre + max(1, step) <= n_box)
        inside.append(np.flatnonzero(fits))
    mesh = np.ix_(*inside)
    assert array[mesh].numel() > 0
    torch.testing.assert_close(resize(array, target, box)[mesh], resize(cut, target)[mesh])


def test_slabs_give_what_one_pass_gives(monkeypatch):
    array = (noise(2, 13, 9, 11) * 1000).to(torch.int16)
    whole = resize(array, (7, 12, 5))
    for bytes_ in (1, 2 * 9 * 11 * 4 * 3, 2 * 9 * 11 * 4 * 12):
        monkeypatch.setattr(resample, "SLAB_BYTES", bytes_)
        torch.testing.assert_close(resize(array, (7, 12, 5)), whole)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.float32, torch.float64])
def test_any_type_in_float32_out(dtype):
    assert resize(torch.ones(2, 3, 4, dtype=dtype), (2, 6, 2)).dtype == torch.float32


def test_leading_axes_are_kept():
    array = noise(2, 3, 4, 5, 6)
    result = resize(array, (4, 10, 3))
    assert result.shape == (2, 3, 4, 10, 3)
    torch.testing.assert_close(result[1, 2], resize(array[1, 2], (4, 10, 3)))
