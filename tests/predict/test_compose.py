"""``compose`` and ``clean``: two probability maps to labels; the rule for small components."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from renalseg.config import PAPER, Clean
from renalseg.core.volume import Volume
from renalseg.image.boxes import Box
from renalseg.predict import compose as module
from renalseg.predict.clean import clean
from renalseg.predict.compose import compose


def volume(shape):
    return Volume.from_array(np.zeros(shape, np.int16), (2.0, 1.0, 1.0))


def random_maps(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(c, *shape, generator=generator).mul(3).softmax(0) for c in (2, 3))


@given(seed=st.integers(0, 999), depth=st.integers(1, 40))
def test_on_the_same_grid_it_is_the_formula(seed, depth):
    kidney, lesion = random_maps((depth, 4, 5), seed)
    labels = compose(kidney, lesion, volume((depth, 4, 5)), Box((0, 0, 0), (depth, 4, 5)))
    expected = torch.where(kidney[1] >= 0.5, lesion.argmax(0) + 1, 0)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected.numpy())


@pytest.mark.parametrize(
    ("kidney", "lesion", "label"),
    [
        (0.49, (0.0, 1.0, 0.0), 0),
        (0.5, (1.0, 0.0, 0.0), 1),
        (0.9, (0.3, 0.4, 0.3), 2),
        (0.9, (0.3, 0.3, 0.4), 3),
        (1.0, (0.4, 0.3, 0.3), 1),
    ],
)
def test_one_voxel(kidney, lesion, label):
    labels = compose(
        torch.tensor([1 - kidney, kidney]).view(2, 1, 1, 1),
        torch.tensor(lesion).view(3, 1, 1, 1),
        volume((1, 1, 1)),
        Box((0, 0, 0), (1, 1, 1)),
    )
    assert labels.item() == label


def test_outside_the_box_is_background():
    box = Box((1, 2, 3), (4, 6, 9))
    ones = torch.ones(2, 3, 8, 12), torch.ones(3, 3, 8, 12)
    labels = compose(*ones, volume((6, 8, 10)), box)
    assert labels.sum() == labels[box.slices].sum() == np.prod(box.shape)


def test_slices_in_slabs_give_what_one_pass_gives(monkeypatch):
    maps = random_maps((21, 8, 12), 1)
    box = Box((2, 1, 0), (23, 14, 10))
    monkeypatch.setattr(module, "SLAB", 100)
    whole = compose(*maps, volume((25, 15, 10)), box)
    monkeypatch.setattr(module, "SLAB", 4)
    np.testing.assert_array_equal(compose(*maps, volume((25, 15, 10)), box), whole)
    assert set(np.unique(whole)) == {0, 1, 2, 3}


@pytest.fixture
def labels():
    """A kidney with a tumor of 100 voxels, and a fragment of tumor by itself."""
    array = np.zeros((30, 40, 40), np.uint8)
    array[2:26, 5:27, 5:27] = 1
    array[10:15, 10:15, 23:27] = 2
    array[28, 36:39, 36:38] = 2
    return array


@pytest.mark.parametrize("rule", [Clean(min_voxels=10000), Clean(min_mm3=5000.0), PAPER.clean])
def test_the_rule_sees_the_union_not_each_class(labels, rule):
    cleaned, kept, dropped = clean(labels, 1.0, rule)
    assert (cleaned == 2).sum() == 100
    np.testing.assert_array_equal(cleaned[:28], labels[:28])
    assert not cleaned[28:].any()
    assert cleaned.dtype == np.uint8
    assert [c.voxels for c in kept] == [24 * 22 * 22]
    assert [(c.voxels, c.centre) for c in dropped] == [(6, (28.0, 37.0, 36.5))]


@pytest.mark.parametrize(("voxels", "stays"), [(9999, False), (10000, True)])
def test_the_papers_rule_drops_regions_under_10000_voxels(voxels, stays):
    array = np.zeros((30, 40, 40), np.uint8)
    array.reshape(-1)[:voxels] = 1
    cleaned, kept, dropped = clean(array, 0.3, PAPER.clean)
    assert cleaned.any() == stays
    assert (len(kept), len(dropped)) == (stays, not stays)


def test_nothing_to_clean():
    cleaned, kept, dropped = clean(np.zeros((3, 4, 5), np.uint8), 1.0, Clean(min_voxels=10))
    assert not cleaned.any()
    assert kept == dropped == []
