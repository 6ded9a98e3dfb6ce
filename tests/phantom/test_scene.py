import numpy as np
import pytest
from scipy import ndimage

from renalseg.phantom import draws, scene
from renalseg.phantom.draws import draw_contrast
from renalseg.phantom.scene import KeepOut, Renal, draw_renal

VOXEL_ML = float(np.prod(scene.REGION_SPACING_MM)) / 1000


def draw(seed: int) -> Renal:
    rng = np.random.default_rng(seed)
    return draw_renal(rng, draw_contrast(rng), 45.0, 10.0, KeepOut((90.0, 140.0), 0.0, 45.0))


def kidneys_ml(renal: Renal) -> list[float]:
    """Volumes of the connected components of the hull over 5 ml, in ml."""
    parts, count = ndimage.label(renal.layers[0].distance < 0)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:] * VOXEL_ML
    return sorted(float(s) for s in sizes if s > 5)


def test_a_horseshoe_is_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "SOLITARY_RATE", 0.0)
    monkeypatch.setattr(scene, "HORSESHOE_SHARE", 1.0)
    for seed in range(2):
        renal = draw(seed)
        assert len(kidneys_ml(renal)) == 1
        centre = int(np.argmin(np.abs(renal.lattice.axis(2))))
        assert (renal.layers[0].distance[:, :, centre] < 0).any()


def test_an_atrophic_kidney_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "SOLITARY_RATE", 0.0)
    monkeypatch.setattr(scene, "HORSESHOE_SHARE", 0.0)
    monkeypatch.setattr(scene, "ATROPHIC_SHARE", 1.0)
    for seed in range(2):
        small, large = kidneys_ml(draw(seed))
        assert 20 < small < 130 < large + 60


def test_usually_two_kidneys_of_like_size(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HORSESHOE_SHARE", "ATROPHIC_SHARE"):
        monkeypatch.setattr(scene, name, 0.0)
    monkeypatch.setattr(draws, "SOLITARY_RATE", 0.0)
    small, large = kidneys_ml(draw(5))
    assert small > 0.6 * large
