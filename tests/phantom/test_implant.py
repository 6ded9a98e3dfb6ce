"""Real bodies with new kidneys: what of the label map and of the body stays, on the synthetic body of ``conftest``."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from renalseg.core.labels import KIDNEY
from renalseg.phantom.bodies import RealBody
from renalseg.phantom.case import render_case
from renalseg.phantom.fields import Lattice, resample
from renalseg.phantom.implant import bent, paint_real
from renalseg.phantom.warp import draw_warp


def test_only_soft_tissue_and_the_kidneys_surroundings_change(label_map, placed, body: RealBody) -> None:
    rng = np.random.default_rng(3)
    contrast, grid, renal = placed(rng, label_map())
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


def test_new_kidneys_lie_in_fat(label_map, placed, body: RealBody) -> None:
    """Kidneys whose map is off the midline by 20 mm are moved out of the spine, and the rest of it stays."""
    rng = np.random.default_rng(5)
    contrast, grid, renal = placed(rng, label_map(shift_mm=20.0))
    warp = draw_warp(rng, body, grid, renal)
    lattice = Lattice(grid.origin, (5.0, 3.0, 3.0), (30, 119, 119))
    half = lattice.thinned(2)
    inside = resample(renal.occupied, renal.lattice, lattice) < 0
    plain = bent(lattice, body, half, warp.points(half))
    assert np.mean(plain[inside] > 300) < 0.02
    assert np.mean(plain[inside] < -500) < 0.02
    hu = paint_real(rng, lattice, body, warp, contrast, renal)
    bone = (plain > 500) & ~inside
    assert np.median(hu[bone]) > 450
    near = resample(renal.occupied, renal.lattice, lattice)
    assert np.mean(hu[(near > 0) & (near < 2) & (plain < 250)] < -40) > 0.6


@pytest.mark.parametrize("sides", [(-1, 1), (1,)])
def test_labels_are_cut_but_not_changed(label_map, body_folder: Path, sides: tuple[int, ...]) -> None:
    labels = label_map(slices=90, sides=sides)
    before = labels.array.copy()
    ct, found, record = render_case(2, labels, bodies=[body_folder])
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


def test_a_scan_shorter_than_the_body_keeps_its_grid(label_map, body_folder: Path) -> None:
    labels = label_map(slices=26)
    ct, found, _ = render_case(4, labels, bodies=[body_folder])
    assert ct.same_grid(labels)
    assert np.array_equal(found.array, labels.array)


def test_drawn_kidneys_in_a_real_body(body_folder: Path) -> None:
    small = {"in_plane": 64, "max_slices": 30}
    ct, labels, record = render_case(1, bodies=[body_folder], **small)
    again = render_case(1, bodies=[body_folder], **small)
    assert np.array_equal(again[0].array, ct.array)
    assert np.array_equal(again[1].array, labels.array)
    assert (again[2], record["body"]) == (record, "trunk")
    assert ct.same_grid(labels)
    assert record["volumes_ml"]["kidney"] > 60


def test_deformed_labels_are_what_is_rendered(label_map, body_folder: Path) -> None:
    labels = label_map(slices=26)
    ct, found, _ = render_case(6, labels, bodies=[body_folder], deform=True)
    assert not np.array_equal(found.array, labels.array)
    again = render_case(6, labels, bodies=[body_folder], deform=True)
    assert np.array_equal(again[0].array, ct.array)
    assert np.array_equal(again[1].array, found.array)


@pytest.mark.parametrize("seed", range(3))
def test_a_scan_without_kidneys_shows_the_real_body_too(body_folder: Path, seed: int) -> None:
    small = {"in_plane": 64, "max_slices": 20}
    ct, labels, record = render_case(seed, kidneys="none", bodies=[body_folder], **small)
    again = render_case(seed, kidneys="none", bodies=[body_folder], **small)
    assert np.array_equal(again[0].array, ct.array)
    assert (again[2], record["body"], record["source"]) == (record, "trunk", "drawn")
    assert 8 <= ct.shape[0] < 20
    assert record["shape"] == list(ct.shape)
    assert ct.same_grid(labels)
    assert not labels.array.any()
    assert np.all(ct.array.max(axis=(1, 2)) > 350)  # the spine


def test_a_body_that_is_too_short_leaves_the_scan_without_kidneys_to_a_drawn_one(trunk, tmp_path: Path) -> None:
    folder = trunk.write(tmp_path / "short", slices=slice(11, 45))
    ct, labels, record = render_case(1, kidneys="none", bodies=[folder], in_plane=64, max_slices=20)
    assert (record["body"], ct.shape, labels.array.any()) == ("drawn", (20, 64, 64), False)


def test_an_empty_label_map_is_cut_to_the_real_body(label_map, body_folder: Path) -> None:
    labels = label_map(sides=())
    ct, found, record = render_case(3, labels, bodies=[body_folder])
    assert (record["body"], record["source"]) == ("trunk", "given")
    assert 8 <= ct.shape[0] < labels.shape[0]
    assert ct.same_grid(found)
    assert not found.array.any()
    first = np.linalg.solve(labels.affine, found.affine[:, 3])
    assert first == pytest.approx([round(first[0]), 0, 0, 1], abs=1e-6)
