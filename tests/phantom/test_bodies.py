"""Real bodies, on a synthetic one: an elliptic trunk with spine, fat, and kidneys of 150 HU."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from renalseg.core.errors import InputError
from renalseg.core.labels import CYST, KIDNEY, TUMOR
from renalseg.core.volume import Volume
from renalseg.io.nifti import write_nifti
from renalseg.phantom import bodies
from renalseg.phantom.bodies import RealBody, bent, covered, draw_warp, list_bodies, load_body, paint_real
from renalseg.phantom.case import render_case
from renalseg.phantom.draws import draw_contrast
from renalseg.phantom.fields import Lattice
from renalseg.phantom.given import given_renal, locate

SPACING = (5.0, 4.0, 4.0)
SHAPE = (56, 72, 96)
CENTRES = ((27, 42, 32), (29, 42, 62))


def ellipse(centre: tuple[float, float, float], half: tuple[float, float, float]) -> NDArray[np.bool_]:
    z, y, x = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]].astype(np.float32)
    parts = [((a - c) / h) ** 2 for a, c, h in zip((z, y, x), centre, half, strict=True)]
    return sum(parts) < 1


def own_kidneys() -> NDArray[np.uint8]:
    mask = np.zeros(SHAPE, np.uint8)
    for side, centre in enumerate(CENTRES, start=1):
        mask[ellipse(centre, (10, 6, 6))] = side
    return mask


def scan() -> NDArray[np.int16]:
    hu = np.full(SHAPE, -1000, np.int16)
    for half, value in (((999, 30, 42), -100), ((999, 27, 38), 50), ((999, 24, 34), -100)):
        hu[ellipse((28, 36, 47), half)] = value
    hu[ellipse((28, 24, 47), (999, 5, 20))] = 40
    hu[ellipse((28, 49, 47), (999, 6, 6))] = 600
    hu[own_kidneys() > 0] = 150
    return hu


def write_body(folder: Path, mask: NDArray[np.uint8] | None = None, name: str = bodies.KIDNEYS) -> Path:
    write_nifti(Volume.from_array(scan(), SPACING), folder / bodies.CT)
    write_nifti(Volume.from_array(own_kidneys() if mask is None else mask, SPACING), folder / name)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_body(tmp_path_factory.mktemp("bodies") / "trunk")


@pytest.fixture(scope="module")
def body(folder: Path) -> RealBody:
    return load_body(folder)


def given(slices: int = 30, sides: tuple[int, ...] = (-1, 1), shift_mm: float = 0.0) -> Volume:
    z, y, x = np.mgrid[:slices, :80, :80].astype(np.float32)
    array = np.zeros((slices, 80, 80), np.uint8)
    for side in sides:
        r = ((z - slices / 2) / 11) ** 2 + ((y - 44) / 6) ** 2 + ((x - 40 - shift_mm / 4.5 - side * 14) / 6) ** 2
        array[r < 1] = KIDNEY
        array[(z - slices / 2) ** 2 + (y - 40) ** 2 + (x - 40 - shift_mm / 4.5 - side * 14) ** 2 < 9] = TUMOR
        array[(z - slices / 2 - 5) ** 2 + (y - 47) ** 2 + (x - 40 - shift_mm / 4.5 - side * 14) ** 2 < 4] = CYST
    return Volume.from_array(array, (5.0, 4.5, 4.5), "given")


def test_own_kidneys_become_fat(body: RealBody) -> None:
    gone = ndimage.binary_dilation(own_kidneys() > 0)
    bone = scan() > 500
    assert body.hu[gone & ~bone].max() < -60
    assert body.hu[gone & ~bone].min() > -140
    assert np.array_equal(body.hu[bone], scan()[bone])
    far = ~ndimage.binary_dilation(own_kidneys() > 0, iterations=6)
    assert np.array_equal(body.hu[far], scan()[far])


def test_a_kidney_cut_by_its_hilum_leaves_no_sinus(tmp_path: Path) -> None:
    mask = own_kidneys()
    mask[ellipse(CENTRES[0], (4, 2, 2))] = 0
    array = load_body(write_body(tmp_path / "trunk", mask)).hu
    assert array[own_kidneys() > 0].max() < -60


def test_zero_lies_between_the_kidneys_that_were(body: RealBody) -> None:
    middle = np.mean(CENTRES, axis=0)
    for axis, spacing in enumerate(SPACING):
        assert body.lattice.origin[axis] == pytest.approx(-middle[axis] * spacing, abs=0.6 * spacing)
    assert body.apart_mm == pytest.approx(30 * SPACING[2], abs=2)


def test_a_solitary_kidney_is_measured_from_the_trunks_middle(tmp_path: Path) -> None:
    mask = own_kidneys()
    mask[mask == 2] = 0
    solitary = load_body(write_body(tmp_path / "trunk", mask))
    assert solitary.lattice.origin[2] == pytest.approx(-47 * SPACING[2], abs=4)
    assert solitary.apart_mm == pytest.approx(30 * SPACING[2], abs=4)


def test_organ_classes_mark_the_kidneys_too(body: RealBody, tmp_path: Path) -> None:
    classes = np.zeros(SHAPE, np.uint8)
    classes[ellipse((28, 24, 47), (999, 5, 20))] = 5
    classes[own_kidneys() == 1], classes[own_kidneys() == 2] = 2, 3
    other = load_body(write_body(tmp_path / "trunk", classes, bodies.ORGANS))
    assert np.array_equal(other.hu, body.hu)
    assert other.organs is not None
    assert other.organs.shape == other.coarse.shape
    assert body.organs is None


def test_noise_is_taken_out_and_edges_stay(tmp_path: Path) -> None:
    noisy = scan() + np.random.default_rng(0).normal(0, 20, SHAPE)
    write_nifti(Volume.from_array(noisy.astype(np.int16), SPACING), tmp_path / "trunk" / bodies.CT)
    write_nifti(Volume.from_array(own_kidneys(), SPACING), tmp_path / "trunk" / bodies.KIDNEYS)
    hu = load_body(tmp_path / "trunk").hu
    flat = ndimage.binary_erosion(ellipse((28, 24, 47), (999, 5, 20)), iterations=3, border_value=1)
    assert hu[flat].std() < 12
    assert np.abs(hu[scan() == 600].mean() - 600) < 10


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / bodies.CT).unlink(), r"ct\.nii\.gz does not exist"),
        (lambda f: (f / bodies.KIDNEYS).unlink(), r"neither kidneys\.nii\.gz nor organs\.nii\.gz"),
        (
            lambda f: write_nifti(Volume.from_array(own_kidneys()[1:], SPACING), f / bodies.KIDNEYS),
            "lies on another grid",
        ),
        (
            lambda f: write_nifti(Volume.from_array(np.zeros(SHAPE, np.uint8), SPACING), f / bodies.KIDNEYS),
            "marks no kidney",
        ),
    ],
)
def test_an_unusable_body_is_refused(tmp_path: Path, spoil, message: str) -> None:
    spoil(write_body(tmp_path / "trunk"))
    with pytest.raises(InputError, match=message):
        load_body(tmp_path / "trunk")


def test_a_folder_without_bodies_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match=r"holds no NAME/ct\.nii\.gz"):
        list_bodies(tmp_path)
    assert list_bodies(folder.parent) == [folder]


def placed(rng: np.random.Generator, labels: Volume):
    contrast = draw_contrast(rng)
    at = locate(labels)
    assert at is not None
    grid = Lattice((-at.centre[0], -at.centre[1], -at.centre[2]), labels.spacing_mm, labels.shape)
    return contrast, grid, given_renal(rng, labels, at, grid, contrast)


def test_only_soft_tissue_and_the_kidneys_surroundings_change(body: RealBody) -> None:
    rng = np.random.default_rng(3)
    contrast, grid, renal = placed(rng, given())
    warp = draw_warp(rng, body, grid, renal)
    lattice = Lattice(grid.origin, (5.0, 3.0, 3.0), (30, 119, 119))
    half = lattice.thinned(2)
    plain = bent(lattice, body, half, warp.points(half))
    hu = paint_real(rng, lattice, body, warp, contrast, renal)
    window = lattice.window(renal.lattice.origin, tuple(float(renal.lattice.axis(i)[-1]) for i in range(3)))
    far = np.ones(lattice.shape, bool)
    far[window] = False
    hard = far & ((plain > 330) | (plain < -250))
    assert np.count_nonzero(hard & (plain > 330)) > 50
    assert np.array_equal(hu[hard], plain[hard])
    soft = far & (plain > 30) & (plain < 60)
    assert not np.allclose(hu[soft], plain[soft], atol=1)
    assert np.abs(hu[far & (plain < -90) & (plain > -110)] + 100).max() < 40


def test_new_kidneys_lie_in_fat(body: RealBody) -> None:
    """Kidneys whose map is off the midline by 20 mm are moved out of the spine, and the rest of it stays."""
    rng = np.random.default_rng(5)
    contrast, grid, renal = placed(rng, given(shift_mm=20.0))
    warp = draw_warp(rng, body, grid, renal)
    lattice = Lattice(grid.origin, (5.0, 3.0, 3.0), (30, 119, 119))
    half = lattice.thinned(2)
    inside = bodies.resample(renal.occupied, renal.lattice, lattice) < 0
    plain = bent(lattice, body, half, warp.points(half))
    assert np.mean(plain[inside] > 300) < 0.02
    assert np.mean(plain[inside] < -500) < 0.02
    hu = paint_real(rng, lattice, body, warp, contrast, renal)
    bone = (plain > 500) & ~inside
    assert np.median(hu[bone]) > 450
    near = bodies.resample(renal.occupied, renal.lattice, lattice)
    assert np.mean(hu[(near > 0) & (near < 2) & (plain < 250)] < -40) > 0.6


def test_covered_slices_lie_within_the_body(body: RealBody) -> None:
    rng = np.random.default_rng(7)
    _, grid, renal = placed(rng, given(slices=90))
    warp = draw_warp(rng, body, grid, renal)
    slices = covered(body, warp, grid)
    assert 30 < slices.stop - slices.start < 75
    z = warp.points(grid)[0]
    low, high = body.lattice.origin[0] - 2.5, body.lattice.axis(0)[-1] + 2.5
    assert ((z[slices] > low) & (z[slices] < high)).mean() > 0.9
    with pytest.raises(InputError, match="trunk is too short along z"):
        covered(body, warp, Lattice((500.0, *grid.origin[1:]), grid.spacing, grid.shape))


@pytest.mark.parametrize("sides", [(-1, 1), (1,)])
def test_labels_are_cut_but_not_changed(folder: Path, sides: tuple[int, ...]) -> None:
    labels = given(slices=90, sides=sides)
    before = labels.array.copy()
    ct, found, record = render_case(2, labels, bodies=[folder])
    assert np.array_equal(labels.array, before)
    assert ct.same_grid(found)
    assert ct.shape[0] < 90
    first = np.linalg.solve(labels.affine, found.affine[:, 3])
    assert first == pytest.approx([round(first[0]), 0, 0, 1], abs=1e-6)
    start = round(first[0])
    assert np.array_equal(found.array, before[start : start + ct.shape[0]])
    assert np.count_nonzero(found.array) > 0.9 * np.count_nonzero(before)
    assert (record["body"], record["source"]) == ("trunk", "given")
    assert record["shape"] == list(ct.shape)
    assert ct.array[ndimage.binary_erosion(found.array == KIDNEY)].mean() > 15


def test_a_scan_shorter_than_the_body_keeps_its_grid(folder: Path) -> None:
    labels = given(slices=26)
    ct, found, _ = render_case(4, labels, bodies=[folder])
    assert ct.same_grid(labels)
    assert np.array_equal(found.array, labels.array)


def test_drawn_kidneys_in_a_real_body(folder: Path) -> None:
    small = {"in_plane": 64, "max_slices": 30}
    ct, labels, record = render_case(1, bodies=[folder], **small)
    again = render_case(1, bodies=[folder], **small)
    assert np.array_equal(again[0].array, ct.array)
    assert np.array_equal(again[1].array, labels.array)
    assert (again[2], record["body"]) == (record, "trunk")
    assert ct.same_grid(labels)
    assert record["volumes_ml"]["kidney"] > 60


def test_a_scan_without_kidneys_has_a_drawn_body(folder: Path) -> None:
    small = {"in_plane": 64, "max_slices": 20}
    ct, _, record = render_case(1, kidneys="none", bodies=[folder], **small)
    assert record["body"] == "drawn"
    assert np.array_equal(ct.array, render_case(1, kidneys="none", **small)[0].array)


def test_deformed_labels_are_what_is_rendered(folder: Path) -> None:
    labels = given(slices=26)
    ct, found, _ = render_case(6, labels, bodies=[folder], deform=True)
    assert not np.array_equal(found.array, labels.array)
    again = render_case(6, labels, bodies=[folder], deform=True)
    assert np.array_equal(again[0].array, ct.array)
    assert np.array_equal(again[1].array, found.array)
