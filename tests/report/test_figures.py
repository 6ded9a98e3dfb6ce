import errno
import logging

import numpy as np
import pytest
from PIL import Image

from renalseg.core.errors import GeometryError, OutputError
from renalseg.core.labels import CYST, KIDNEY, LABELS, TUMOR
from renalseg.core.volume import Grid, Volume
from renalseg.report import figures
from renalseg.report.figures import overlay

ONE_ROW_PX, TWO_ROWS_PX = (2000, 898), (2000, 1608)
FIRST_ROW, SECOND_ROW = (192, 782), (902, 1492)
AXIAL = (40, 664)


def ellipsoid(shape, spacing_mm, centre_mm, radii_mm):
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    return sum(((i * s - c) / r) ** 2 for i, s, c, r in zip(axes, spacing_mm, centre_mm, radii_mm, strict=True)) < 1


def body(parts, shape=(40, 130, 170), spacing_mm=(5.0, 2.0, 2.0)):
    """A CT of an elliptic body with its label map; each part is (label, centre_mm, radii_mm)."""
    size = [n * s for n, s in zip(shape, spacing_mm, strict=True)]
    inside = ellipsoid(shape, spacing_mm, [s / 2 for s in size], [1e6, size[1] * 0.45, size[2] * 0.45])
    ct = np.where(inside, 30, -1000) + np.random.default_rng(0).normal(0, 15, shape)
    labels = np.zeros(shape, np.uint8)
    for label, centre, radii in parts:
        labels[ellipsoid(shape, spacing_mm, centre, radii)] = label
    hu = np.array([0, 150, 60, -20])
    volume = Volume.from_array((ct + hu[labels]).astype(np.int16), spacing_mm, "case")
    return volume, volume.with_array(labels)


RIGHT = (KIDNEY, (100, 150, 90), (55, 28, 28))
LEFT = (KIDNEY, (100, 150, 250), (55, 28, 28))
LEFT_TUMOR = (TUMOR, (80, 140, 270), (20, 18, 18))


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def panel(picture, rows, columns=(0, 2000)):
    return picture[slice(*rows), slice(*columns)]


def near(picture, label):
    colour = next(entry.colour for entry in LABELS if entry.id == label)
    return (np.abs(picture - colour) < 40).all(axis=-1)


def test_two_kidneys_make_two_rows(tmp_path):
    ct, labels = body([RIGHT, LEFT, LEFT_TUMOR])
    overlay(ct, labels, tmp_path / "case.png", subtitle="a test")
    with Image.open(tmp_path / "case.png") as image:
        assert image.size == TWO_ROWS_PX
        assert image.format == "PNG"
        assert image.info["Software"].startswith("renalseg")
    assert [p.name for p in tmp_path.iterdir()] == ["case.png"]


def test_the_tumor_of_the_patients_left_is_on_the_right_of_the_second_row(tmp_path):
    overlay(*body([RIGHT, LEFT, LEFT_TUMOR]), tmp_path / "case.png")
    picture = pixels(tmp_path / "case.png")
    where = np.argwhere(near(panel(picture, SECOND_ROW, AXIAL), TUMOR))
    assert len(where) > 50
    assert where[:, 1].min() > (AXIAL[1] - AXIAL[0]) / 2


def test_only_thin_outlines_are_coloured(tmp_path):
    overlay(*body([RIGHT, LEFT, LEFT_TUMOR, (CYST, (120, 140, 90), (15, 15, 15))]), tmp_path / "case.png")
    for rows in (FIRST_ROW, SECOND_ROW):
        picture = panel(pixels(tmp_path / "case.png"), rows)
        coloured = np.ptp(picture, axis=-1) > 40
        assert 0.001 < coloured.mean() < 0.02


def test_a_solitary_kidney_makes_one_row(tmp_path):
    overlay(*body([LEFT]), tmp_path / "case.png")
    picture = pixels(tmp_path / "case.png")
    assert picture.shape[1::-1] == ONE_ROW_PX
    assert near(panel(picture, FIRST_ROW), KIDNEY).any()


def test_no_kidney_says_so_and_draws_no_outline(tmp_path):
    overlay(*body([]), tmp_path / "case.png")
    picture = pixels(tmp_path / "case.png")
    assert picture.shape[1::-1] == ONE_ROW_PX
    assert (np.ptp(panel(picture, (128, 192), AXIAL), axis=-1) > 100).sum() > 500  # the sentence, in amber
    assert (np.ptp(panel(picture, FIRST_ROW), axis=-1) < 40).all()
    assert panel(picture, FIRST_ROW).max() > 200


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "filled"),
    [
        ((20, 64, 64), (5.0, 6.0, 6.0), True),
        ((2, 64, 64), (50.0, 4.0, 4.0), True),
        ((1, 64, 64), (5.0, 4.0, 4.0), True),
        ((3, 4, 5), (1.0, 1.0, 1.0), True),
        ((3, 4, 5), (1.0, 1.0, 1.0), False),
        ((1, 1, 1), (1.0, 1.0, 1.0), True),
        ((400, 40, 40), (0.5, 8.0, 8.0), True),
    ],
)
def test_odd_grids_are_drawn(tmp_path, shape, spacing_mm, filled):
    labels = np.zeros(shape, np.uint8)
    if filled:
        labels[:, shape[1] // 2 :, shape[2] // 2 :] = KIDNEY
        labels[-1, -1, -1] = TUMOR
    ct = Volume.from_array(np.zeros(shape, np.float32), spacing_mm)
    overlay(ct, ct.with_array(labels), tmp_path / "case.png")
    assert pixels(tmp_path / "case.png").shape[1::-1] == ONE_ROW_PX


def test_sheared_grids_values_that_are_no_numbers_and_strange_titles_are_drawn(tmp_path):
    affine = np.diag([-2.0, -2.0, -4.0, 1.0])
    affine[1, 2] = 1.0
    array = np.full((60, 60, 30), np.nan, np.float32)
    array[20:40] = 50
    ct = Volume.from_stored(array, Grid(array.shape, affine))
    labels = np.zeros(ct.shape, np.uint8)
    labels[10:20, 20:40, 5:20] = KIDNEY
    overlay(ct, ct.with_array(labels), tmp_path / "case.png", title="$x_\\frac$ 患者\n" * 50, subtitle="$" * 300)
    assert (tmp_path / "case.png").exists()


def test_drawing_is_reproducible_and_quiet(tmp_path, caplog):
    ct, labels = body([RIGHT])
    with caplog.at_level(logging.INFO):
        for name in ("a.png", "b.png"):
            overlay(ct, labels, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert not caplog.records


def test_positions_count_from_one_and_follow_the_files_coordinates():
    ct = Volume.from_array(np.zeros((10, 20, 30), np.int16), (4.0, 2.0, 2.0))
    assert figures._position(ct, 0, 3) == "slice 4 of 10 · z −12.0 mm"
    assert figures._position(ct, 2, 0) == "slice 1 of 30 · x 0.0 mm"


def test_slices_go_through_the_tumor_and_show_its_kidney():
    labels = body([RIGHT, LEFT, LEFT_TUMOR])[1]
    right, left = figures.kidney_sides(labels)
    (z, y, x), reason = figures._best_slices(left)
    assert reason == "through the tumor"
    for axis, index in enumerate((z, y, x)):
        area = (labels.array == TUMOR).sum(axis=tuple(a for a in range(3) if a != axis))
        assert area[index] >= 0.75 * area.max()
        assert (labels.array.take(index, axis=axis) == KIDNEY).any()
    assert figures._best_slices(right) == ((20, 75, 45), "through the kidney")


def test_labels_on_another_grid_are_refused(tmp_path):
    ct, labels = body([RIGHT])
    moved = Volume.from_array(labels.array, (5.0, 2.0, 2.5))
    with pytest.raises(GeometryError, match="not on the grid"):
        overlay(ct, moved, tmp_path / "case.png")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fill_the_disk(self, path, *_, **__):
        path.write_bytes(b"half a picture")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fill_the_disk)
    with pytest.raises(OutputError, match="disk is full"):
        overlay(*body([RIGHT]), tmp_path / "new" / "case.png")
    assert not list(tmp_path.iterdir())
