import gzip
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from renalseg.core.labels import KIDNEY
from renalseg.core.volume import Grid, Volume
from renalseg.report.page import viewer
from renalseg.report.page.scene import HIGHEST_HU, LOWEST_HU, MARGIN_MM, STEP_HU, make_scene, reduced_shape
from renalseg.report.page.viewer import WINDOWS, payload


def image(data):
    return nib.Nifti1Image.from_bytes(gzip.decompress(data))


def world(affine, index):
    return (affine @ np.append(index, 1.0))[:3]


def test_every_voxel_of_the_region_stays_where_it_was(study):
    ct, labels = study
    scene = make_scene(ct, labels)
    assert not scene.is_reduced
    shown, painted = image(scene.ct), image(scene.labels)
    assert scene.shape == shown.shape[::-1] == painted.shape[::-1]
    for index in np.argwhere(labels.array > 0)[::97]:
        i, j, k = np.rint(np.linalg.inv(shown.affine) @ np.append(world(ct.affine, index), 1.0))[:3].astype(int)
        np.testing.assert_allclose(world(shown.affine, (i, j, k)), world(ct.affine, index), atol=1e-3)
        assert painted.dataobj[i, j, k] == labels.array[tuple(index)]
        assert abs(shown.get_fdata()[i, j, k] - ct.array[tuple(index)]) <= STEP_HU / 2 + 1e-3
    assert (np.asarray(painted.dataobj) > 0).sum() == (labels.array > 0).sum()


def test_the_region_has_a_margin_and_no_more(study):
    ct, labels = study
    far = np.zeros((200, 90, 120), np.uint8)
    far[80:120] = labels.array
    wide = Volume.from_array(np.zeros(far.shape, np.int16), ct.spacing_mm)
    scene = make_scene(wide, wide.with_array(far))
    high = np.flatnonzero((far > 0).any(axis=(1, 2)))
    assert scene.is_cropped
    assert scene.shape[0] == len(high) + 2 * np.ceil(MARGIN_MM / 3.0)


@pytest.mark.parametrize("most", [100_000, 20_000, 500])
def test_reduced_it_keeps_the_budget_and_the_place(study, most):
    ct, labels = study
    scene = make_scene(ct, labels, most)
    assert scene.is_reduced
    assert most / 2 < np.prod(scene.shape) <= most
    painted = image(scene.labels)
    kidneys = np.argwhere(np.asarray(painted.dataobj) == KIDNEY).mean(axis=0)
    expected = world(ct.affine, np.argwhere(labels.array == KIDNEY).mean(axis=0))
    np.testing.assert_allclose(world(painted.affine, kidneys), expected, atol=max(scene.spacing_mm) / 2)
    np.testing.assert_allclose(painted.header.get_zooms(), scene.spacing_mm[::-1], rtol=1e-5)


def test_thick_slices_are_kept_while_the_finer_axes_are_reduced():
    assert reduced_shape((50, 400, 400), (5.0, 0.7, 0.7), 10**7) == (50, 400, 400)
    z, y, x = reduced_shape((50, 400, 400), (5.0, 0.7, 0.7), 2_000_000)
    assert z == 50
    assert y == x < 400
    assert 1_900_000 < z * y * x <= 2_000_000


def test_oblique_grids_keep_their_axes(study):
    ct, labels = study
    turn = np.eye(4)
    turn[:3, :3] = [[0.9800666, -0.1986693, 0], [0.1986693, 0.9800666, 0], [0, 0, 1]]
    grid = Grid(ct.grid.shape, turn @ ct.grid.affine)
    turned = Volume.from_stored(ct.stored(), grid)
    scene = make_scene(turned, turned.with_array(labels.array))
    expected = world(turned.affine, np.argwhere(labels.array > 0).mean(axis=0))
    painted = image(scene.labels)
    np.testing.assert_allclose(
        world(painted.affine, np.argwhere(np.asarray(painted.dataobj) > 0).mean(axis=0)), expected, atol=1e-3
    )


def test_without_labels_it_is_the_whole_scan(study):
    ct, labels = study
    scene = make_scene(ct, labels.with_array(np.zeros_like(labels.array)))
    assert not scene.is_cropped
    assert scene.shape == ct.shape


def test_no_number_and_metal_are_drawn(study):
    ct, labels = study
    array = ct.array.astype(np.float32)
    array[20, 45, 60], array[21, 45, 60] = np.nan, 30000
    shown = image(make_scene(replace(ct, array=array), labels.with_array(np.zeros_like(labels.array))).ct).get_fdata()
    assert shown[60, 45, 20] == pytest.approx(LOWEST_HU)
    assert shown[60, 45, 21] == pytest.approx(HIGHEST_HU, abs=0.01)


def test_the_same_bytes_each_time_and_no_text_in_them(study):
    scene = make_scene(*study)
    assert scene == make_scene(*study)
    header = image(scene.ct).header
    assert all(bytes(header[field]).strip(b"\0") == b"" for field in ("descrip", "db_name", "aux_file", "intent_name"))


def test_every_window_lies_within_the_8_bits():
    for window in WINDOWS:
        assert window.level - window.width / 2 >= LOWEST_HU
        assert window.level + window.width / 2 <= HIGHEST_HU


def test_the_viewer_gets_the_colours_of_the_label_table(study):
    colours = payload(make_scene(*study), None)["colours"]
    assert [colours[c][2] for c in "RGBA"] == [231, 76, 60, 255]
    assert colours["A"][0] == 0
    assert colours["labels"] == ["background", "kidney", "tumor", "cyst"]


def test_the_vendored_viewer_is_what_it_says():
    from hashlib import sha256
    from importlib.resources import files

    vendor = files("renalseg.report.page") / "vendor"
    bundle, about = (vendor / "niivue.umd.js").read_bytes(), (vendor / "README.md").read_text()
    assert sha256(bundle).hexdigest() == viewer.NIIVUE_SHA256
    assert viewer.NIIVUE_SHA256 in about
    assert viewer.NIIVUE_VERSION in about
    assert "BSD 2-Clause" in (vendor / "LICENSE").read_text()
    assert b"</script" not in bundle.lower()
    assert b"<!--" not in bundle
