"""The recipe of real bodies, with weights that threshold."""

import numpy as np
import pytest

from renalseg.core.errors import InputError
from renalseg.core.volume import Volume
from renalseg.io.nifti import read_nifti, write_nifti
from renalseg.phantom.bodies import load_body
from renalseg.predict.segmenter import Segmenter


@pytest.fixture(scope="module")
def recipe(load_script):
    return load_script("recipes/real_bodies.py")


@pytest.fixture
def source(tmp_path):
    """A CT of two bright kidneys in soft tissue, in air."""
    hu = np.full((24, 48, 64), -1000, np.int16)
    hu[:, 6:42, 6:58] = 40
    for x in (14, 42):
        hu[6:18, 20:30, x : x + 8] = 180
    volume = Volume.from_array(hu, (5.0, 4.0, 4.0))
    write_nifti(volume, tmp_path / "cts" / "one" / "ct.nii.gz")
    return tmp_path / "cts" / "one", volume


def test_kidneys_are_marked_widened_and_taken_out(recipe, source, small_weights, tmp_path):
    folder, ct = source
    recipe.make_body(folder, tmp_path / "bodies" / "one", Segmenter(small_weights, "cpu", "fp32"))
    marked = read_nifti(tmp_path / "bodies" / "one" / "kidneys.nii.gz").array > 0
    kidneys = ct.array == 180
    assert marked[kidneys].all()
    assert marked.sum() > 1.3 * kidneys.sum()
    assert marked.sum() < 4 * kidneys.sum()
    assert not load_body(tmp_path / "bodies" / "one").hu[kidneys].max() > 0


def test_marks_that_are_there_are_used(recipe, source, small_weights, tmp_path):
    folder, ct = source
    organs = np.where(ct.array == 180, 2, 0).astype(np.uint8)
    write_nifti(ct.with_array(organs), folder / "organs.nii.gz")
    recipe.make_body(folder, tmp_path / "body", Segmenter(small_weights, "cpu", "fp32"))
    assert {path.name for path in (tmp_path / "body").iterdir()} == {"ct.nii.gz", "organs.nii.gz"}


def test_a_ct_without_kidneys_makes_no_body(recipe, source, small_weights, tmp_path):
    folder, ct = source
    write_nifti(ct.with_array(np.full_like(ct.array, -1000)), folder / "ct.nii.gz")
    with pytest.raises(InputError, match="no kidney was found; mark them yourself"):
        recipe.make_body(folder, tmp_path / "body", Segmenter(small_weights, "cpu", "fp32"))
    assert not (tmp_path / "body").exists()


def test_marks_reach_3_mm_on_all_sides(recipe):
    array = np.zeros((9, 21, 21), np.uint8)
    array[4, 10, 10] = 2
    marked = recipe.widened(Volume.from_array(array, (5.0, 1.0, 0.75))).array
    assert [np.flatnonzero(marked.any(axis=axes)).tolist() for axes in ((1, 2), (0, 2), (0, 1))] == [
        [3, 4, 5],
        list(range(7, 14)),
        list(range(6, 15)),
    ]
