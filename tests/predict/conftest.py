"""Fake networks that answer from the intensity, so that every result can be told by hand."""

import numpy as np
import pytest
import torch

from renalseg.core.volume import Volume
from renalseg.model.runtime import Runtime


class Lines(torch.nn.Module):
    """Logits of each class: a line over the normalised intensity; knows nothing but the voxel itself."""

    def __init__(self, slopes, offsets):
        super().__init__()
        self.register_buffer("slopes", torch.tensor(slopes).view(1, -1, 1, 1, 1))
        self.register_buffer("offsets", torch.tensor(offsets).view(1, -1, 1, 1, 1))

    def forward(self, image):
        return image * self.slopes + self.offsets


class Positions(torch.nn.Module):
    """Logits that depend on the slice's place in what the network sees: no mirror symmetry."""

    def forward(self, image):
        place = torch.arange(image.shape[2], dtype=image.dtype).view(1, 1, -1, 1, 1)
        return torch.cat((image * 0, image + 0.1 * place, image * image - 0.05 * place), 1)


@pytest.fixture
def cpu():
    return Runtime(torch.device("cpu"), "fp32")


class Elsewhere(Runtime):
    """Stands for a device that is not the CPU, on the CPU."""

    is_host = False


@pytest.fixture
def elsewhere():
    return Elsewhere(torch.device("cpu"), "fp32")


@pytest.fixture
def positions():
    return Positions()


@pytest.fixture
def lines():
    """Makes a network of straight lines."""
    return Lines


@pytest.fixture
def above():
    """Makes a two-class network: kidney where the normalised intensity is above a threshold."""
    return lambda threshold: Lines([0.0, 100.0], [0.0, -100.0 * threshold])


@pytest.fixture
def lesion():
    """Three classes: tumor above 1/3 (200 HU), cyst above 2/3 (300 HU)."""
    return Lines([0.0, 100.0, 200.0], [0.0, -100 / 3, -100.0])


@pytest.fixture
def labels():
    """Two kidneys, a tumor of 27 voxels on one, a cyst of 8 in the other; 5 mm voxels, 16 x 32 in plane."""
    array = np.zeros((12, 16, 32), np.uint8)
    array[3:9, 5:11, 4:10] = array[2:10, 4:10, 21:28] = 1
    array[4:7, 4:7, 2:5] = 2
    array[5:7, 5:7, 22:24] = 3
    return array


@pytest.fixture
def ct(labels):
    """The CT of ``labels``: thresholds at 100, 200 and 300 HU tell them."""
    hu = np.array([0, 150, 250, 350], np.int16)[labels]
    return Volume.from_array(hu, (5.0, 5.0, 5.0), "case")


@pytest.fixture
def exact(small_config):
    """The small system with a margin that takes in the whole volume: the fine grid is then that of ``ct``."""
    return small_config.model_copy(
        update={"coarse": small_config.coarse.model_copy(update={"margin_mm": (1000.0,) * 3})}
    )
