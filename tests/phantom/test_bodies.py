"""Reading real bodies: the synthetic one of ``conftest``, with and without faults."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from renalseg.core.errors import InputError
from renalseg.core.volume import Volume
from renalseg.io.nifti import write_nifti
from renalseg.phantom.bodies import CT, KIDNEYS, ORGANS, RealBody, list_bodies, load_body


def test_own_kidneys_become_fat(trunk, body: RealBody) -> None:
    gone = ndimage.binary_dilation(trunk.kidneys() > 0)
    bone = trunk.scan() > 500
    assert body.hu[gone & ~bone].max() < -60
    assert body.hu[gone & ~bone].min() > -140
    assert np.array_equal(body.hu[bone], trunk.scan()[bone])
    far = ~ndimage.binary_dilation(trunk.kidneys() > 0, iterations=6)
    assert np.array_equal(body.hu[far], trunk.scan()[far])


def test_a_kidney_cut_by_its_hilum_leaves_no_sinus(trunk, tmp_path: Path) -> None:
    mask = trunk.kidneys()
    mask[trunk.ellipse(trunk.centres[0], (4, 2, 2))] = 0
    array = load_body(trunk.write(tmp_path / "trunk", mask)).hu
    assert array[trunk.kidneys() > 0].max() < -60


def test_zero_lies_between_the_kidneys_that_were(trunk, body: RealBody) -> None:
    middle = np.mean(trunk.centres, axis=0)
    for axis, spacing in enumerate(trunk.spacing):
        assert body.lattice.origin[axis] == pytest.approx(-middle[axis] * spacing, abs=0.6 * spacing)
    assert body.apart_mm == pytest.approx(30 * trunk.spacing[2], abs=2)


def test_the_box_is_that_of_the_kidneys_that_were(trunk, body: RealBody) -> None:
    low, high = body.own
    for axis, found in enumerate(np.nonzero(trunk.kidneys())):
        start, step = body.lattice.origin[axis], trunk.spacing[axis]
        assert low[axis] == pytest.approx(start + (found.min() - 0.5) * step)
        assert high[axis] == pytest.approx(start + (found.max() + 0.5) * step)


def test_a_solitary_kidney_is_measured_from_the_trunks_middle(trunk, tmp_path: Path) -> None:
    mask = trunk.kidneys()
    mask[mask == 2] = 0
    solitary = load_body(trunk.write(tmp_path / "trunk", mask))
    assert solitary.lattice.origin[2] == pytest.approx(-47 * trunk.spacing[2], abs=4)
    assert solitary.apart_mm == pytest.approx(30 * trunk.spacing[2], abs=4)


def test_organ_classes_mark_the_kidneys_too(trunk, body: RealBody, tmp_path: Path) -> None:
    classes = np.zeros(trunk.shape, np.uint8)
    classes[trunk.liver()] = 5
    classes[trunk.kidneys() == 1], classes[trunk.kidneys() == 2] = 2, 3
    other = load_body(trunk.write(tmp_path / "trunk", classes, ORGANS))
    assert np.array_equal(other.hu, body.hu)
    assert other.organs is not None
    assert other.organs.shape == other.coarse.shape
    assert body.organs is None


def test_noise_is_taken_out_and_edges_stay(trunk, tmp_path: Path) -> None:
    noisy = trunk.scan() + np.random.default_rng(0).normal(0, 20, trunk.shape)
    hu = load_body(trunk.write(tmp_path / "trunk", hu=noisy.astype(np.int16))).hu
    flat = ndimage.binary_erosion(trunk.liver(), iterations=3, border_value=1)
    assert hu[flat].std() < 12
    assert np.abs(hu[trunk.scan() == 600].mean() - 600) < 10


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f, trunk: (f / CT).unlink(), r"ct\.nii\.gz does not exist"),
        (lambda f, trunk: (f / KIDNEYS).unlink(), r"neither kidneys\.nii\.gz nor organs\.nii\.gz"),
        (
            lambda f, trunk: write_nifti(Volume.from_array(trunk.kidneys()[1:], trunk.spacing), f / KIDNEYS),
            "lies on another grid",
        ),
        (lambda f, trunk: trunk.write(f, np.zeros(trunk.shape, np.uint8)), "marks no kidney"),
    ],
)
def test_an_unusable_body_is_refused(trunk, tmp_path: Path, spoil, message: str) -> None:
    spoil(trunk.write(tmp_path / "trunk"), trunk)
    with pytest.raises(InputError, match=message):
        load_body(tmp_path / "trunk")


def test_a_folder_without_bodies_is_refused(tmp_path: Path, body_folder: Path) -> None:
    with pytest.raises(InputError, match=r"holds no NAME/ct\.nii\.gz"):
        list_bodies(tmp_path)
    assert list_bodies(body_folder.parent) == [body_folder]
