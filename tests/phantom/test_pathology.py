import numpy as np
import pytest

from renalseg.core.labels import CYST, TUMOR
from renalseg.core.volume import Volume
from renalseg.phantom.draws import Contrast, draw_contrast
from renalseg.phantom.fields import Lattice, ellipsoid
from renalseg.phantom.given import fit_physique, given_renal, locate
from renalseg.phantom.pathology import Patch, cyst_hu, draw_tumor_kind, merge, part_of, tumor_hu, tumor_mean_hu

LATTICE = Lattice((-24.0, -24.0, -24.0), (1.5, 1.5, 1.5), (33, 33, 33))
ARTERIAL = Contrast("arterial", {"cortex": 200.0, "medulla": 120.0})


def sphere(radius: float):
    z, y, x = (LATTICE.axis(i) for i in range(3))
    return ellipsoid((z[:, None, None], y[None, :, None], x[None, None, :]), (0, 0, 0), (radius,) * 3)


def test_tumors_are_darker_like_and_brighter_than_the_kidney() -> None:
    rng = np.random.default_rng(0)
    over = []
    for _ in range(600):
        contrast = draw_contrast(rng)
        parenchyma = 0.65 * contrast.hu["cortex"] + 0.35 * contrast.hu["medulla"]
        over.append(tumor_mean_hu(rng, draw_tumor_kind(rng), contrast) - parenchyma)
    assert np.mean(np.array(over) < -20) > 0.3
    assert np.mean(np.abs(over) < 20) > 0.15
    assert np.mean(np.array(over) > 20) > 0.06


def test_tumors_differ_in_their_texture() -> None:
    rng, distance = np.random.default_rng(1), sphere(18)
    spread = [tumor_hu(rng, LATTICE, -distance, ARTERIAL)[distance < -2].std() for _ in range(60)]
    assert min(spread) < 8
    assert max(spread) > 40


def test_most_cysts_are_water_and_some_are_dense() -> None:
    rng, distance = np.random.default_rng(2), sphere(15)
    means = np.array([np.median(cyst_hu(rng, LATTICE, -distance)[distance < -3]) for _ in range(200)])
    assert 0.55 < np.mean((means > -8) & (means < 22)) < 0.9
    assert 0.05 < np.mean(means > 38) < 0.3


def test_each_voxel_takes_the_nearest_lesion() -> None:
    window = (slice(0, 10), slice(0, 10), slice(0, 10))
    one = Patch(window, np.full((10, 10, 10), 2.0, np.float32), np.full((10, 10, 10), 7.0, np.float32))
    two = Patch(window, np.full((10, 10, 10), 3.0, np.float32), np.full((10, 10, 10), 9.0, np.float32))
    distance, hu = merge(LATTICE, [one, two], 1.0)
    assert hu[5, 5, 5] == 7
    assert hu[20, 20, 20] == 1
    assert distance[20, 20, 20] > 10 > distance[5, 5, 5]


def test_the_lattice_of_a_window() -> None:
    part = part_of(LATTICE, (slice(2, 5), slice(0, 4), slice(30, 33)))
    assert part.shape == (3, 4, 3)
    assert part.axis(2) == pytest.approx(LATTICE.axis(2)[30:33])


@pytest.mark.parametrize("label", [TUMOR, CYST])
def test_each_lesion_of_a_given_map_has_its_own_mean(label: int) -> None:
    array = np.zeros((40, 80, 120), np.uint8)
    z, y, x = np.mgrid[:40, :80, :120]
    centres = [(10, 40, 30), (28, 40, 30), (10, 40, 90), (28, 40, 90)]
    for side in (30, 90):
        array[((z - 19) / 17) ** 2 + ((y - 45) / 9) ** 2 + ((x - side) / 9) ** 2 < 1] = 1
    for c in centres:
        array[(z - c[0]) ** 2 + (y - c[1]) ** 2 + (x - c[2]) ** 2 < 20] = label
    labels = Volume.from_array(array, (3.0, 3.0, 3.0))
    rng = np.random.default_rng(5)
    at = locate(labels)
    assert at is not None
    _, grid = fit_physique(rng, labels, at)
    renal = given_renal(rng, labels, at, grid, draw_contrast(rng))
    layer = next(item for item in renal.layers if item.label == label)
    means = []
    for c in centres:
        index = tuple(
            round((g + 3.0 * i - o) / s)
            for g, i, o, s in zip(grid.origin, c, renal.lattice.origin, renal.lattice.spacing, strict=True)
        )
        means.append(float(layer.hu[index]))
        assert layer.distance[index] < 0
    assert np.min(np.abs(np.diff(np.sort(means)))) > 0.1
