"""``coarse`` and ``roi``: from the CT to a box in voxels."""

import numpy as np
import pytest
import torch

from renalseg.core.volume import Volume
from renalseg.image.boxes import Box
from renalseg.predict.coarse import clean_coarse, coarse_input, coarse_probability
from renalseg.predict.roi import find_box, fine_input


def test_the_whole_volume_at_the_coarse_shape(ct, small_config, cpu):
    image = coarse_input(ct, small_config, cpu)
    assert image.shape == (1, 1, 16, 16, 16)
    assert image.dtype == torch.float32
    assert -1 <= image.min() < image.max() <= 1
    assert image.mean().item() == pytest.approx((ct.array.mean() + 200) / 300 - 1, abs=0.02)


def test_a_volume_that_may_not_be_written_to(ct, small_config, cpu):
    expected = coarse_input(ct, small_config, cpu)
    ct.array.flags.writeable = False
    assert torch.equal(coarse_input(ct, small_config, cpu), expected)
    whole = Box((0, 0, 0), ct.shape)
    assert fine_input(ct, whole, small_config, cpu.device).shape == (1, 1, 12, 16, 32)


def test_probability_is_the_mean_over_networks(ct, small_config, cpu, lines):
    image = coarse_input(ct, small_config, cpu)
    networks = lines([0.0, 3.0], [0.0, 0.2]), lines([1.0, -1.0], [0.0, 0.0])
    each = [network(image).softmax(1)[0, 1] for network in networks]
    torch.testing.assert_close(coarse_probability(image, networks, cpu), (each[0] + each[1]) / 2)
    torch.testing.assert_close(coarse_probability(image, networks[:1], cpu), each[0])


def test_small_components_are_dropped_by_volume(ct, small_config):
    """A coarse voxel of this volume holds 12 x 16 x 32 / 16^3 x 125 mm3 = 187.5 mm3; the limit is 5000."""
    probability = torch.zeros(16, 16, 16)
    probability[1:4, 1:4, 1:4] = 0.5  # 27 voxels
    probability[8, 8, 8:13] = 1.0
    probability[12:15, 12:15, 12:15] = 0.49
    mask, dropped = clean_coarse(probability, ct, small_config)
    assert mask.sum() == 27
    assert mask[1:4, 1:4, 1:4].all()
    assert [(c.voxels, c.volume_mm3) for c in dropped] == [(5, pytest.approx(937.5))]


def test_the_margin_is_in_mm(small_config):
    volume = Volume.from_array(np.zeros((64, 96, 128), np.int16), (5.0, 0.8, 0.7))
    mask = np.zeros((16, 16, 16), bool)
    mask[6:8, 7:9, 4:12] = True
    box = find_box(mask, volume, small_config)
    # Scaled by 4, 6 and 8; then 20 mm are 4 slices, 25 rows and 28.6 columns.
    assert box == Box((24 - 4, 42 - 25, 32 - 29), (32 + 4, 54 + 25, 96 + 29))


def test_the_margin_ends_at_the_volume(small_config):
    volume = Volume.from_array(np.zeros((64, 96, 128), np.int16), (5.0, 0.8, 0.7))
    mask = np.ones((16, 16, 16), bool)
    assert find_box(mask, volume, small_config) == Box((0, 0, 0), volume.shape)


def test_no_mask_no_box(ct, small_config):
    assert find_box(np.zeros((16, 16, 16), bool), ct, small_config) is None


def test_the_fine_image_keeps_every_slice(ct, small_config, cpu):
    box = Box((2, 3, 4), (9, 13, 30))
    image = fine_input(ct, box, small_config, cpu.device)
    assert image.shape == (1, 1, 7, 16, 32)
    for z in (2, 5):
        alone = fine_input(ct, Box((z, 3, 4), (z + 1, 13, 30)), small_config, cpu.device)
        torch.testing.assert_close(image[:, :, z - 2 : z - 1], alone)
