"""The contact sheet: its panels, what they show, and the command that composes it."""

import shutil

import numpy as np
import pytest
from PIL import Image

from renalseg.core.errors import InputError
from renalseg.core.labels import CYST, KIDNEY, LABELS, TUMOR
from renalseg.core.volume import Volume
from renalseg.io.nifti import write_nifti
from renalseg.report import augment_sheet as module
from renalseg.report.augment_sheet import augment_sheet

WINDOW_HU = (-200.0, 400.0)
WIDE, CUBE = (12, 32, 64), (32, 32, 32)


def version(shape=WIDE, tumor_at=6):
    """A grey volume with a kidney and a tumor that is thickest in one slice."""
    labels = np.zeros(shape, np.uint8)
    labels[2:10, 8:24, 10:40] = KIDNEY
    labels[tumor_at - 1 : tumor_at + 2, 12:20, 30:40] = TUMOR
    return np.full(shape, -0.2, np.float32), labels


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def near(picture, label):
    colour = next(entry.colour for entry in LABELS if entry.id == label)
    return (np.abs(picture - colour) < 40).all(axis=-1)


def rows(count, shape):
    """The height of the sheet and of one row, by the module's measures."""
    columns = 4 if shape is WIDE else 6
    cell = (module.WIDTH_PX - 2 * module.MARGIN_PX - (columns - 1) * module.GAP_PX) // columns
    panel = round(cell * shape[1] / shape[2]) + round(cell * shape[0] / shape[2])
    row = module.CAPTION_PX + panel + module.SEAM_PX + module.GAP_PX
    return module.TOP_PX + row * -(-count // columns) + module.BOTTOM_PX


@pytest.mark.parametrize(("count", "shape"), [(1, WIDE), (4, WIDE), (5, WIDE), (6, CUBE), (7, CUBE)])
def test_as_many_rows_as_the_panels_need(tmp_path, count, shape):
    panels = ((f"number {i}", *version(shape)) for i in range(count))
    augment_sheet(panels, tmp_path / "sheet.png", "title", WINDOW_HU, "more")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (module.WIDTH_PX, rows(count, shape))
        assert image.info["Software"].startswith("renalseg")
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]


def test_every_panel_has_two_slices_of_its_own_with_outlines(tmp_path, monkeypatch):
    drawn = []
    original = module._draw_cut
    monkeypatch.setattr(module, "_draw_cut", lambda *args: (drawn.append(args), original(*args)))
    panels = [("a", *version(tumor_at=6)), ("b", *version(tumor_at=8)), ("c", *version(tumor_at=4))]
    augment_sheet(iter(panels), tmp_path / "sheet.png", "title", WINDOW_HU)
    assert len(drawn) == 6
    assert len({(left, top) for _, _, left, top, _ in drawn}) == 6
    assert [cut.labels.shape for _, cut, *_ in drawn] == [WIDE[1:], (WIDE[0], WIDE[2])] * 3
    picture = pixels(tmp_path / "sheet.png")
    for _, _, left, top, (width, height) in drawn:
        panel = picture[round(top) : round(top + height), round(left) : round(left + width)]
        assert near(panel, KIDNEY).sum() > 50
        assert near(panel, TUMOR).sum() > 20
        assert (np.ptp(panel, axis=-1) > 40).mean() < 0.2  # outlines, not areas


def test_slices_go_through_the_middle_of_the_largest_lesion_else_the_kidney_else_the_volume():
    labels = np.zeros((20, 30, 40), np.uint8)
    assert module._middle(labels) == (10, 15)
    labels[2:7, 3:10, 4:30] = KIDNEY
    assert module._middle(labels) == (4, 6)
    labels[15:18, 20:25, 5:9] = CYST
    labels[1, 1, 1] = TUMOR
    assert module._middle(labels) == (16, 22)


def test_the_window_of_the_picture_is_the_networks(tmp_path):
    image = np.full(WIDE, -1.0, np.float32)
    image[:, :, 16:32], image[:, :, 32:] = 0.0, 1.0
    augment_sheet([("ramp", image, np.zeros(WIDE, np.uint8))], tmp_path / "sheet.png", "", WINDOW_HU)
    row = pixels(tmp_path / "sheet.png")[module.TOP_PX + module.CAPTION_PX + 60]
    cell = row[module.MARGIN_PX : module.MARGIN_PX + 460, 0]
    assert cell[60] <= 2
    assert abs(cell[170] - 127) <= 3
    assert cell[350] >= 253


def test_values_beyond_the_label_table_are_not_drawn(tmp_path):
    image, labels = version()
    for name, value in (("with.png", 4), ("without.png", 0)):
        changed = labels.copy()
        changed[:, 26:30] = value
        augment_sheet([("a", image, changed)], tmp_path / name, "title", WINDOW_HU)
    assert (tmp_path / "with.png").read_bytes() == (tmp_path / "without.png").read_bytes()


@pytest.mark.parametrize("panels", [[], [("a", *version(WIDE)), ("b", *version(CUBE))]])
def test_no_panel_or_different_shapes_are_refused(tmp_path, panels):
    with pytest.raises(InputError, match="one shape"):
        augment_sheet(panels, tmp_path / "sheet.png", "title", WINDOW_HU)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 12), (2, 3, 2)])
def test_tiny_samples_are_drawn(tmp_path, shape):
    labels = np.full(shape, TUMOR, np.uint8)
    augment_sheet([("$x_\\frac$ 患者", np.zeros(shape), labels)], tmp_path / "sheet.png", "$" * 200, WINDOW_HU)
    assert (tmp_path / "sheet.png").exists()


# The command


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two cases in KiTS23 layout; the first has no image, only the last can be shown."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in (24, 48, 48)), indexing="ij")
    labels = np.zeros((24, 48, 48), np.uint8)
    for side, label in ((14, TUMOR), (34, CYST)):
        labels[((z - 12) / 7) ** 2 + ((y - 26) / 6) ** 2 + ((x - side) / 6) ** 2 < 1] = KIDNEY
        labels[((z - 12) / 3) ** 2 + ((y - 26) / 3) ** 2 + ((x - side) / 3) ** 2 < 1] = label
    hu = np.array([-50, 180, 90, 10])[labels] + np.random.default_rng(0).normal(0, 10, labels.shape)
    folder = tmp_path_factory.mktemp("kits")
    for case in ("case_00000", "case_00001"):
        (folder / case).mkdir()
        write_nifti(Volume.from_array(labels, (5.0, 4.0, 4.0)), folder / case / "segmentation.nii.gz")
    write_nifti(Volume.from_array(hu.astype(np.int16), (5.0, 4.0, 4.0)), folder / "case_00001" / "imaging.nii.gz")
    return folder


@pytest.fixture(scope="module")
def settings_file(small_config, tmp_path_factory):
    path = tmp_path_factory.mktemp("settings") / "small.yaml"
    path.write_text(small_config.to_yaml())
    return path


@pytest.fixture
def preview(run, dataset, settings_file):
    """Runs the command on the dataset; exit code, stdout, stderr."""

    def call(*arguments, config=True):
        return run("augment-preview", "--data", dataset, *arguments, *(["--config", settings_file] if config else []))

    return call


@pytest.fixture
def sheets(monkeypatch):
    """The arguments of the sheets, with the titles and shapes of their panels; nothing is drawn."""
    made = []

    def keep(panels, path, title, window_hu, subtitle=""):
        panels = list(panels)
        made.append({"panels": panels, "path": path, "window_hu": window_hu, "subtitle": subtitle})

    monkeypatch.setattr(module, "augment_sheet", keep)
    return made


def test_the_command_writes_a_sheet(preview, tmp_path):
    code, out, _ = preview("--out", tmp_path / "new" / "sheet.png")
    assert code == 0
    assert out.strip() == str(tmp_path / "new" / "sheet.png")
    assert pixels(tmp_path / "new" / "sheet.png").shape[1] == module.WIDTH_PX


@pytest.mark.parametrize(
    ("stage", "shape"), [("coarse", (16, 16, 16)), ("kidney", (8, 16, 32)), ("lesion", (8, 16, 32))]
)
def test_the_sample_is_that_of_the_stage(preview, sheets, tmp_path, stage, shape):
    assert preview("--out", tmp_path / "sheet.png", "--stage", stage, "--seed", 3)[0] == 0
    (sheet,) = sheets
    titles = [title for title, _, _ in sheet["panels"]]
    assert titles[0] == "original"
    assert titles.count("elastic") == titles.count("lesion gamma") == 2
    assert titles.count("all together") == 6
    assert {image.shape for _, image, _ in sheet["panels"]} == {shape}
    assert all(np.isin([KIDNEY, TUMOR, CYST], labels).all() for _, _, labels in sheet["panels"][:1])
    assert sheet["window_hu"] == WINDOW_HU
    assert {"case_00001", stage, "3"} <= set(sheet["subtitle"].replace(",", "").split())


def test_the_seed_decides_the_draws(preview, sheets, tmp_path):
    for seed in (1, 1, 2):
        assert preview("--out", tmp_path / "sheet.png", "--seed", seed)[0] == 0
    first, again, other = (np.stack([image for _, image, _ in sheet["panels"]]) for sheet in sheets)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("case", ["case_00000", "case_00007"])
def test_a_case_that_cannot_be_shown_is_named(preview, tmp_path, case):
    code, _, err = preview("--out", tmp_path / "sheet.png", "--case", case)
    assert code == 2
    assert case in err
    assert not list(tmp_path.iterdir())


def test_unknown_presets_and_stages_end_with_a_sentence(preview, tmp_path):
    assert preview("--out", tmp_path / "sheet.png", "--preset", "huge", config=False)[0] == 2
    assert preview("--out", tmp_path / "sheet.png", "--stage", "spleen")[0] == 2


@pytest.mark.parametrize(("probability", "panels"), [(0.0, 0), (0.5, 2)])
def test_lesions_of_another_case_are_shown_where_training_pastes_them(
    run, dataset, sheets, small_config, tmp_path, probability, panels
):
    data = shutil.copytree(dataset, tmp_path / "data")
    shutil.copy(data / "case_00001" / "imaging.nii.gz", data / "case_00000")
    training = dict(small_config.training)
    training["lesion"] = training["lesion"].model_copy(update={"paste_probability": probability})
    settings = tmp_path / "settings.yaml"
    settings.write_text(small_config.model_copy(update={"training": training}).to_yaml())
    assert run("augment-preview", "--data", data, "--config", settings, "--out", tmp_path / "sheet.png")[0] == 0
    (sheet,) = sheets
    shown = [labels for title, _, labels in sheet["panels"] if title == "lesion of another case"]
    before = np.isin(sheet["panels"][0][2], (TUMOR, CYST))
    assert len(shown) == panels
    assert all((np.isin(labels, (TUMOR, CYST)) & ~before).any() for labels in shown)
