import numpy as np
import pytest
from scipy import ndimage

from renalseg.core.labels import CYST, KIDNEY, TUMOR
from renalseg.core.volume import Volume
from renalseg.phantom import deform
from renalseg.phantom.deform import deform_labels

THIN, THICK = (1.5, 1.5, 1.5), (5.0, 1.5, 1.5)


def kidneys(spacing: tuple[float, float, float], first_mm: float = 70.0) -> Volume:
    """Two kidneys of 100 mm with a tumor and a cyst, in a field of 200 x 225 x 300 mm."""
    shape = [round(f / s) for f, s in zip((200, 225, 300), spacing, strict=True)]
    z, y, x = (
        s * v.astype(np.float32) for v, s in zip(np.mgrid[: shape[0], : shape[1], : shape[2]], spacing, strict=True)
    )
    array = np.zeros(shape, np.uint8)
    for side in (-1, 1):
        array[((z - first_mm) / 50) ** 2 + ((y - 130) / 27) ** 2 + ((x - 150 - side * 65) / 30) ** 2 < 1] = KIDNEY
    array[(z - first_mm) ** 2 + (y - 105) ** 2 + (x - 215) ** 2 < 18**2] = TUMOR
    array[(z - first_mm - 20) ** 2 + (y - 130) ** 2 + (x - 60) ** 2 < 14**2] = CYST
    return Volume.from_array(array, spacing, "two")


@pytest.mark.parametrize("spacing", [THIN, THICK])
def test_labels_stay_a_partition_on_the_same_grid(spacing) -> None:
    given = kidneys(spacing)
    before = given.array.copy()
    for seed in range(6):
        out = deform_labels(np.random.default_rng(seed), given)
        assert out.same_grid(given)
        assert out.array.dtype == np.uint8
        assert set(np.unique(out.array)) == {0, KIDNEY, TUMOR, CYST}
        assert not np.array_equal(out.array, before)
        ratio = (out.array > 0).sum() / (before > 0).sum()
        assert 0.85**3 * 0.9 < ratio < 1.15**3 * 1.1
        assert ndimage.label(out.array > 0, np.ones((3, 3, 3)))[1] == 2
    assert np.array_equal(given.array, before)


def test_lesions_stay_at_the_kidney() -> None:
    given = kidneys(THIN)
    for seed in range(6):
        out = deform_labels(np.random.default_rng(seed), given).array
        near = ndimage.binary_dilation(out == KIDNEY, iterations=2)
        for lesion in (TUMOR, CYST):
            assert (near & (out == lesion)).any()
            parts, count = ndimage.label(out == lesion)
            assert np.bincount(parts.ravel())[1:].max() > 0.98 * (out == lesion).sum(), count


def test_deterministic_and_different() -> None:
    given = kidneys(THICK)
    a, b, c = (deform_labels(np.random.default_rng(seed), given).array for seed in (3, 3, 4))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_half_are_mirrored() -> None:
    given = kidneys(THICK)
    left = [np.argwhere(deform_labels(np.random.default_rng(s), given).array == TUMOR)[:, 2].mean() for s in range(40)]
    share = np.mean(np.array(left) < given.shape[2] / 2)
    assert 0.25 < share < 0.75


def test_whole_kidneys_stay_within_the_grid() -> None:
    """Kidneys 3 mm from the first slice leave the grid when they grow, unless they are shifted back."""
    given = kidneys(THIN, first_mm=54.0)
    assert not given.array[0].any()
    for seed in range(8):
        out = deform_labels(np.random.default_rng(seed), given).array
        cut = (out[0] > 0).sum() / max((out > 0).any(axis=0).sum(), 1)
        assert cut < 0.08


def test_cut_kidneys_go_on_being_cut() -> None:
    given = kidneys(THIN, first_mm=5.0)
    for seed in range(6):
        out = deform_labels(np.random.default_rng(seed), given).array
        assert (out[0] > 0).sum() > 0.4 * (given.array[0] > 0).sum()


def test_no_deformation_gives_the_map_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deform, "FLIP_SHARE", 0.0)
    monkeypatch.setattr(deform, "SCALE", (1.0, 1.0))
    monkeypatch.setattr(deform, "ROTATION_DEG", 0.0)
    monkeypatch.setattr(deform, "DISPLACEMENT_SD_MM", 0.0)
    for spacing in (THIN, THICK):
        given = kidneys(spacing)
        assert np.array_equal(deform_labels(np.random.default_rng(0), given).array, given.array)


def test_an_empty_map_stays_empty() -> None:
    given = Volume.from_array(np.zeros((20, 30, 30), np.uint8), THICK)
    assert not deform_labels(np.random.default_rng(0), given).array.any()
