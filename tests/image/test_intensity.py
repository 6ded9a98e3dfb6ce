import pytest
import torch

from renalseg.config import Intensity
from renalseg.image.intensity import normalise


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.float32, torch.float64])
def test_clip_and_scale(dtype):
    hu = torch.tensor([-3024, -200, -50, 100, 250, 400, 3071], dtype=dtype)
    before = hu.clone()
    scaled = normalise(hu, Intensity())
    assert scaled.dtype == torch.float32
    torch.testing.assert_close(scaled, torch.tensor([-1, -1, -0.5, 0, 0.5, 1, 1]))
    assert torch.equal(hu, before)


def test_another_window():
    scaled = normalise(torch.tensor([[0.0, 25.0], [50.0, 90.0]]), Intensity(clip_hu=(0, 100)))
    torch.testing.assert_close(scaled, torch.tensor([[-1, -0.5], [0, 0.8]]))
