"""The packaged weights through the whole system: the demonstration, the real CTs, the 48 orientations."""

import itertools
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from renalseg.core.volume import Grid, Volume
from renalseg.demo import run_demo
from renalseg.evaluate.metrics import case_metrics
from renalseg.io.read import case_name, read_volume
from renalseg.phantom.case import render_case
from renalseg.predict.segmenter import Segmenter
from renalseg.train.validate import box_coverage


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter(device="cpu", precision="fp32")


def test_demo(tmp_path):
    steps = []
    result = run_demo(tmp_path, steps.append, device="cpu")
    scores = result.scores.mean
    assert len(steps) == 4
    assert scores.dice["kidney"] > 0.95  # 0.974 in bf16; another CPU rounds otherwise
    assert result.record["kidney_found"]
    for suffix in (".nii.gz", ".json", ".png"):
        assert (tmp_path / "segmentation" / f"case_00000{suffix}").stat().st_size > 1000
    assert (tmp_path / "evaluation" / "metrics.md").exists()


REAL = {
    "pancreas_ct_cb_001": ("dicom.zip", (512, 512, 134), True),
    "totalsegmentator_example": ("ct.nii.gz", (122, 101, 112), None),
    "acrin_flt_breast_001": ("ct.nii.gz", (512, 512, 99), None),
    "cptac_pda_c3l_00189": ("ct.nii.gz", (512, 512, 35), None),
    "c4kc_kits_00072_top": ("dicom.zip", (512, 512, 18), False),
}


@pytest.mark.parametrize("name", REAL)
def test_real_ct(name, shared_data: Path, tmp_path, run):
    file, shape, kidneys = REAL[name]
    source = shared_data / "real_ct" / name / file
    assert run("segment", source, "--out", tmp_path, "--device", "cpu")[0] == 0
    case = case_name(source)
    labels = nib.load(tmp_path / f"{case}.nii.gz")
    record = json.loads((tmp_path / f"{case}.json").read_text())
    assert labels.shape == shape
    assert labels.get_data_dtype() == np.uint8
    np.testing.assert_allclose(labels.affine, read_volume(source).grid.affine, atol=1e-4)
    if file.endswith(".nii.gz"):
        original = nib.load(source).header
        for key in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x"):
            assert np.array_equal(original[key], labels.header[key]), key
        assert np.array_equal(
            original["pixdim"][:4], labels.header["pixdim"][:4]
        )  # the rest is of axes that are not there
    found = record["kidney_found"]
    assert kidneys in (None, found)  # None: the packaged weights are not reliable on this kind of scan
    assert bool(np.asarray(labels.dataobj).max() > 0) is found
    assert any("No kidney found" in w for w in record["warnings"]) is not found


@pytest.mark.slow
def test_48_orientations_of_a_phantom_give_equal_labels(segmenter):
    ct, truth, _ = render_case([5, 1], in_plane=96, max_slices=40)
    assert (segmenter.segment(ct).labels.array > 0).mean() > 0.2 * (truth.array > 0).mean()
    oblique = np.array([[0.98, -0.1, 0.17, 0], [0.12, 0.99, -0.1, 0], [-0.16, 0.12, 0.98, 0], [0, 0, 0, 1]])
    world = Volume.from_stored(ct.array, Grid(ct.shape, oblique @ ct.affine))
    expected = segmenter.segment(world).labels.array
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            array, affine = _turned(ct.array, oblique @ ct.affine, order, flips)
            volume = Volume.from_stored(array, Grid(array.shape, affine))
            result = segmenter.segment(volume).labels
            back, _ = _turned(expected, oblique @ ct.affine, order, flips)
            np.testing.assert_array_equal(result.stored(), back)
            assert np.array_equal(result.grid.affine, affine)


def _turned(array, affine, order, flips):
    """Array and affine stored with permuted and mirrored axes; the same voxels in the same places."""
    turned, new = array.transpose(order), affine.copy()
    new[:, :3] = affine[:, order]
    for axis, flip in enumerate(flips):
        if flip:
            turned = np.flip(turned, axis)
            new[:3, 3] += new[:3, axis] * (turned.shape[axis] - 1)
            new[:3, axis] *= -1
    return turned, new


@pytest.mark.xfail(strict=True, reason="0.883 and a box of 0.975: the drawn phantoms are harder than those trained on")
@pytest.mark.slow
def test_20_unseen_phantoms(segmenter):
    coverage, dice = [], []
    for index in range(20):
        ct, truth, _ = render_case([777, index], in_plane=256, max_slices=120)
        result = segmenter.segment(ct)
        coverage.append(box_coverage(truth, result.record["box_zyx"]))
        dice.append(case_metrics(truth, result.labels).dice["kidney"])
    assert min(coverage) >= 0.995
    assert np.mean(dice) >= 0.90
