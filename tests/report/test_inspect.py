"""Inspecting a dataset: every finding on a crafted case, exact measures on a painted one, files and exit codes."""

import csv
import gzip
import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from renalseg import __version__
from renalseg.core.errors import InputError, OutputError
from renalseg.core.volume import Grid, Volume
from renalseg.io.nifti import write_nifti
from renalseg.report.inspect import cases as cases_module
from renalseg.report.inspect import figures, inspect_dataset
from renalseg.report.inspect.quantities import COLUMNS, KITS23, PERCENTILES, QUANTITIES, percentiles
from renalseg.report.inspect.tables import counts

SHAPE, SPACING_MM = (20, 40, 50), (4.0, 5.0, 5.0)  # voxels of 0.1 ml
TABLES = ["inspect.csv", "inspect.json", "inspect.md"]


def paint(tumor=2):
    """Labels [z, y, x]: two kidneys, a tumor of 4 * 5 * tumor voxels in one, a cyst of 8 in the other."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[5:15, 10:20, 8:18] = labels[6:16, 12:20, 30:40] = 1
    labels[8:12, 12:17, 10 : 10 + tumor] = 2
    labels[8:10, 14:16, 32:34] = 3
    return labels


def render(labels, seed=0):
    """HU of a body in air with bone; kidney 100, tumor 60, cyst 10, all with noise of at most 3."""
    hu = np.full(SHAPE, -1000)
    hu[:, 5:35, 5:45] = 20
    hu[:, 33:35, 20:30] = 700
    hu = np.where(labels > 0, np.array([0, 100, 60, 10])[labels], hu)
    return (hu + np.random.default_rng(seed).integers(-3, 4, SHAPE)).astype(np.int16)


def write(path, array, spacing_mm=SPACING_MM):
    write_nifti(Volume.from_array(array, spacing_mm), path)
    return path


def write_case(dataset, number, labels=None, hu=None):
    """A sound case, different from those with other numbers."""
    labels = paint(2 + number) if labels is None else labels
    hu = render(labels, number) if hu is None else hu
    write(dataset / f"case_{number:05d}" / "segmentation.nii.gz", labels)
    write(dataset / f"case_{number:05d}" / "imaging.nii.gz", hu)


@pytest.fixture
def dataset(tmp_path):
    """Three sound cases: 0, 1 and 2; the tests spoil case 1."""
    for number in range(3):
        write_case(tmp_path / "data", number)
    return tmp_path / "data"


def test_a_sound_dataset_has_no_findings(dataset):
    calls = []
    result = inspect_dataset(dataset, on_case=lambda *args: calls.append(args))
    assert calls == [(f"case_0000{i}", i + 1, 3) for i in range(3)]
    assert result.findings == result.broken == []
    assert result.notes == ()
    assert len(result.counted) == 3
    assert all(row["usable"] and row["has_image"] and row["has_labels"] for row in result.counted)


def test_measures_of_a_painted_case_are_exact(dataset):
    row = inspect_dataset(dataset).cases[0].row
    assert tuple(row) == COLUMNS
    assert row["axis_codes"] == "IPL"
    assert (row["sform_code"], row["qform_code"]) == (1, 1)
    assert (row["slices"], row["in_plane_y"], row["in_plane_x"]) == SHAPE
    assert (row["slice_spacing_mm"], row["in_plane_spacing_mm"], row["scan_length_mm"]) == (4.0, 5.0, 80.0)
    assert [row[f"roi_start_{axis}"] for axis in "zyx"] == [5, 10, 8]
    assert [row[f"roi_{axis}"] for axis in "zyx"] == [11, 10, 32]
    assert [row[f"roi_{axis}_mm"] for axis in "zyx"] == [44.0, 50.0, 160.0]
    assert [row[f"{name}_ml"] for name in ("kidney", "tumor", "cyst")] == pytest.approx([175.2, 4.0, 0.8], abs=1e-6)
    assert row["components"] == 2
    labels, hu = paint(2), render(paint(2), 0)
    assert (row["hu_min"], row["hu_max"]) == (hu.min(), hu.max())
    for label, name in enumerate(("kidney", "tumor", "cyst"), 1):
        expected = np.percentile(hu[labels == label], (5, 25, 50, 75, 95))
        np.testing.assert_allclose([row[f"hu_{name}_p{p}"] for p in (5, 25, 50, 75, 95)], expected, atol=1e-3)


def test_the_stored_orientation_changes_only_its_codes(dataset, tmp_path):
    (before, *_), case = inspect_dataset(dataset).cases, "case_00000"
    for name in ("imaging.nii.gz", "segmentation.nii.gz"):
        image = nib.as_closest_canonical(nib.load(dataset / case / name))
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine), tmp_path / name)
        shutil.move(tmp_path / name, dataset / case / name)
    (after, *_) = inspect_dataset(dataset).cases
    assert after.row["axis_codes"] == "RAS"
    assert after.digests == before.digests
    own = ("axis_codes", "sform_code", "qform_code")
    assert {k: v for k, v in after.row.items() if k not in own} == {k: v for k, v in before.row.items() if k not in own}


# What may be wrong: how to spoil the folder of case 1, the kind of the findings, words of the messages.


def truncated_image(folder):
    file = folder / "imaging.nii.gz"
    file.write_bytes(file.read_bytes()[:2000])


def truncated_labels(folder):
    file = folder / "segmentation.nii.gz"
    file.write_bytes(file.read_bytes()[:-20])


def no_nifti(folder):
    (folder / "imaging.nii.gz").write_bytes(gzip.compress(b"a picture" * 100))


def zero_bytes(folder):
    (folder / "segmentation.nii.gz").write_bytes(b"")


def other_shape(folder):
    write(folder / "segmentation.nii.gz", paint()[:-1])


def other_spacing(folder):
    write(folder / "segmentation.nii.gz", paint(3), (4.2, 5.0, 5.0))


def other_place(folder):
    sound = Volume.from_array(paint(), SPACING_MM)
    affine = sound.affine.copy()
    affine[0, 3] += 7
    write_nifti(Volume.from_stored(paint(3), Grid(SHAPE, affine)), folder / "segmentation.nii.gz")


def label_values(folder):
    write(folder / "segmentation.nii.gz", paint() * 2)


def no_labels(folder):
    write(folder / "segmentation.nii.gz", np.zeros(SHAPE, np.uint8))


def without_air(folder):
    write(folder / "imaging.nii.gz", np.maximum(render(paint()), -200))


def without_bone(folder):
    write(folder / "imaging.nii.gz", np.minimum(render(paint()), 150))


def normalised(folder):
    write(folder / "imaging.nii.gz", (render(paint()) / 1000).astype(np.float32))


def absurd_padding(folder):
    hu = render(paint())
    hu[0, 0, 0] = -32768
    write(folder / "imaging.nii.gz", hu)


def absurd_peak(folder):
    hu = render(paint()).astype(np.float32)
    hu[0, 0, 0] = 1e6
    write(folder / "imaging.nii.gz", hu)


def with_nan(folder):
    hu = render(paint()).astype(np.float32)
    hu[3, 3, 3:6] = np.nan, np.inf, -np.inf
    write(folder / "imaging.nii.gz", hu)


def only_nan(folder):
    write(folder / "imaging.nii.gz", np.full(SHAPE, np.nan, np.float32))


def no_image(folder):
    (folder / "imaging.nii.gz").unlink()


def no_segmentation(folder):
    (folder / "segmentation.nii.gz").unlink()


def no_file(folder):
    no_image(folder)
    no_segmentation(folder)


def same_image(folder):
    shutil.copy(folder.parent / "case_00000" / "imaging.nii.gz", folder / "imaging.nii.gz")


def same_image_as_float(folder):
    write(folder / "imaging.nii.gz", render(paint(2), 0).astype(np.float32))


def same_labels(folder):
    shutil.copy(folder.parent / "case_00000" / "segmentation.nii.gz", folder / "segmentation.nii.gz")


def respaced(spacing_mm):
    def spoil(folder):
        write(folder / "segmentation.nii.gz", paint(9), spacing_mm)
        write(folder / "imaging.nii.gz", render(paint(9), 9), spacing_mm)

    spoil.__name__ = f"spacing {spacing_mm}"
    return spoil


def impossible_spacing(folder):
    for name in ("imaging.nii.gz", "segmentation.nii.gz"):
        image = nib.load(folder / name)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), np.diag([100.0, 1, 1, 1])), folder / name)


BROKEN = [
    (truncated_image, ["unusable"], r"case_00001/imaging\.nii\.gz is truncated or damaged .*; export or download"),
    (truncated_labels, ["unusable"], r"case_00001/segmentation\.nii\.gz is truncated or damaged"),
    (no_nifti, ["unusable"], r"case_00001/imaging\.nii\.gz is not a NIfTI file"),
    (zero_bytes, ["unusable"], r"case_00001/segmentation\.nii\.gz is empty; export or download it again"),
    (other_shape, ["grid"], r"case_00001: imaging\.nii\.gz and .* \(20 x 40 x 50 and 19 x 40 x 50 voxels .*download"),
    (other_spacing, ["grid"], r"different grids \(4 x 5 x 5 mm from .* and 4\.2 x 5 x 5 mm from"),
    (other_place, ["grid"], r"from \(0\.00, 0\.00, 0\.00\) mm and 4 x 5 x 5 mm from \(7\.00, 0\.00, 0\.00\) mm"),
    (label_values, ["unusable"], r"segmentation\.nii\.gz holds the values 4, 6, no labels; map them"),
    (no_labels, ["empty"], r"case_00001/segmentation\.nii\.gz is empty, background everywhere; annotate"),
    (without_air, ["hu"], r"case_00001/imaging\.nii\.gz holds nothing below -200, but air is near -1000 HU; export"),
    (without_bone, ["hu"], r"holds nothing above 150, but bone is above 200 HU; export"),
    (normalised, ["hu", "hu"], r"holds nothing below -1\.0"),
    (absurd_padding, ["hu"], r"holds values from -32768 to 70\d, which are no HU; export"),
    (absurd_peak, ["hu"], r"holds values from -100\d to 1e\+06, which are no HU"),
    (with_nan, ["hu"], r"holds 3 voxels that are NaN or infinite; export"),
    (only_nan, ["hu"], r"holds 40000 voxels that are NaN"),
    (no_image, ["missing"], r"case_00001 has no imaging\.nii\.gz, which 2 other cases have; download it or leave"),
    (no_segmentation, ["missing"], r"case_00001 has no segmentation\.nii\.gz, which 2 other cases have"),
    (no_file, ["missing"], r"case_00001 holds neither imaging\.nii\.gz nor segmentation\.nii\.gz; download"),
    (same_image, ["duplicate"], r"case_00001/imaging\.nii\.gz holds exactly the voxels of case_00000/imaging.*; keep"),
    (same_image_as_float, ["duplicate"], r"case_00001/imaging\.nii\.gz holds exactly the voxels of case_00000/"),
    (same_labels, ["duplicate"], r"case_00001/segmentation\.nii\.gz holds exactly the voxels of case_00000/seg"),
    (respaced((4.0, 0.5, 0.5)), ["geometry"] * 4 + ["volume"], r"spans 20 mm antero-posterior .* of 0\.5 x 0\.5 mm"),
    (respaced((4.0, 30.0, 30.0)), ["geometry"] * 4, r"spans 1500 mm left-right .*; correct the spacing"),
    (respaced((15.0, 5.0, 5.0)), ["geometry"] * 2, r"has 20 slices, 15 mm apart, 300 mm in all, not at most 12\.5 mm"),
    (respaced((1.0, 5.0, 5.0)), ["geometry"] * 2, r"has 20 slices, 1 mm apart, 20 mm in all"),
    (impossible_spacing, ["geometry"] * 2, r"the voxel spacing 100 x 1 x 1 mm is not plausible .*; correct"),
]


@pytest.mark.parametrize(("spoil", "kinds", "message"), BROKEN, ids=[row[0].__name__ for row in BROKEN])
def test_a_broken_case_is_named_and_the_others_go_on(dataset, spoil, kinds, message):
    spoil(dataset / "case_00001")
    result = inspect_dataset(dataset)
    assert result.broken == ["case_00001"]
    assert {finding.case_id for finding in result.findings} == {"case_00001"}
    kept = [finding for finding in result.findings if finding.kind != "volume" or "volume" in kinds]
    assert sorted(finding.kind for finding in kept) == sorted(kinds)
    text = "\n".join(finding.message for finding in result.findings)
    assert re.search(message, text), text
    assert str(dataset) not in text
    assert all(finding.message.endswith(".") for finding in result.findings)
    rows = {case.case_id: case.row for case in result.cases}
    assert [rows[case]["usable"] for case in sorted(rows)] == [True, False, True]
    assert rows["case_00001"]["findings"] == ";".join(sorted({finding.kind for finding in result.findings}))
    is_counted = "missing" in kinds
    assert [row["case_id"] for row in result.counted] == ["case_00000", *["case_00001"] * is_counted, "case_00002"]
    assert json.dumps([case.row for case in result.cases], allow_nan=False)


def oblong(folder):
    write(folder / "segmentation.nii.gz", paint(9), (4.0, 5.0, 4.0))
    write(folder / "imaging.nii.gz", render(paint(9), 9), (4.0, 5.0, 4.0))


def tiny_labels(folder):
    labels = np.zeros(SHAPE, np.uint8)
    labels[5:8, 10:13, 10:13] = 1
    write(folder / "segmentation.nii.gz", labels)


def huge_labels(folder):
    labels = np.ones(SHAPE, np.uint8)
    write(folder / "segmentation.nii.gz", labels, (12.0, 10.0, 10.0))
    write(folder / "imaging.nii.gz", render(paint(9), 9), (12.0, 10.0, 10.0))


def no_codes(folder):
    image = nib.load(folder / "segmentation.nii.gz")
    header = nib.Nifti1Header()
    header.set_data_shape(SHAPE[::-1])
    header.set_zooms(SPACING_MM[::-1])
    for name in ("segmentation.nii.gz", "imaging.nii.gz"):
        image = nib.load(folder / name)
        array = np.asarray(image.dataobj).transpose(2, 1, 0)
        header.set_data_dtype(array.dtype)
        nib.save(nib.Nifti1Image(array, None, header), folder / name)


ODD = [
    (oblong, "geometry", r"has pixels of 5 x 4 mm in plane, not square as CT has; check"),
    (tiny_labels, "volume", r"case_00001/segmentation\.nii\.gz labels 2\.7 ml in all, not 20 to 10000 ml; look"),
    (huge_labels, "volume", r"labels 4\.8e\+04 ml in all"),
    (no_codes, "geometry", r"case_00001/imaging\.nii\.gz: the file states no orientation .*; check its header\."),
]


@pytest.mark.parametrize(("spoil", "kind", "message"), ODD, ids=[row[0].__name__ for row in ODD])
def test_an_odd_case_is_named_and_stays_usable(dataset, spoil, kind, message):
    spoil(dataset / "case_00001")
    result = inspect_dataset(dataset)
    assert result.broken == []
    assert {(finding.case_id, finding.kind) for finding in result.findings} == {("case_00001", kind)}
    assert re.search(message, "\n".join(finding.message for finding in result.findings))
    assert len(result.counted) == 3


def test_an_unforeseen_error_is_a_finding(dataset, monkeypatch):
    def fail(path):
        raise MemoryError if path.parent.name == "case_00001" else RuntimeError("a bug")

    monkeypatch.setattr(cases_module, "read_nifti", fail)
    messages = [finding.message for finding in inspect_dataset(dataset).findings]
    assert messages[1] == (
        "case_00001/imaging.nii.gz needs more memory than there is; use fewer workers or close other programs."
    )
    assert messages[0].startswith("case_00000/imaging.nii.gz could not be read (RuntimeError: a bug); please report")


def test_three_copies_name_the_first(dataset):
    for number in (1, 2):
        for name in ("imaging.nii.gz", "segmentation.nii.gz"):
            shutil.copy(dataset / "case_00000" / name, dataset / f"case_0000{number}" / name)
    findings = inspect_dataset(dataset).findings
    assert [(f.case_id, f.file) for f in findings] == [
        (case, file) for case in ("case_00001", "case_00002") for file in ("segmentation.nii.gz", "imaging.nii.gz")
    ]
    assert all(f"of case_00000/{finding.file}" in finding.message for finding in findings)


def test_empty_label_maps_are_no_duplicates(dataset):
    for number in (1, 2):
        no_labels(dataset / f"case_0000{number}")
    assert [finding.kind for finding in inspect_dataset(dataset).findings] == ["empty", "empty"]


@pytest.mark.parametrize(("file", "column"), [("imaging", "has_labels"), ("segmentation", "has_image")])
def test_one_kind_of_file_alone_is_no_finding(dataset, file, column):
    for folder in dataset.iterdir():
        (folder / f"{file}.nii.gz").unlink()
    result = inspect_dataset(dataset)
    assert result.findings == []
    assert f"{file}.nii.gz: the" in result.notes[0]
    assert all(row[column] and row["slices"] == 20 for row in result.counted)
    known = result.counted[0]["hu_max" if file == "segmentation" else "kidney_ml"]
    assert known is not None


def test_percentiles_are_those_of_numpy():
    values = np.random.default_rng(3).lognormal(3, 1, 57)
    np.testing.assert_allclose(percentiles(list(values)), np.percentile(values, [0, 5, 25, 50, 75, 95, 100]), atol=1e-6)
    assert percentiles([2.5]) == (2.5,) * 7
    assert percentiles([]) == (None,) * 7


def test_a_class_that_is_absent_does_not_count_as_zero(dataset):
    labels = paint(9)
    labels[labels == 3] = 1
    write_case(dataset, 1, labels)
    rows = inspect_dataset(dataset).counted
    cyst = next(quantity for quantity in QUANTITIES if quantity.name == "cyst_ml")
    assert [row["cyst_ml"] for row in rows] == [0.8, 0.0, 0.8]
    assert cyst.values(rows) == [0.8, 0.8]
    assert counts(rows) == {
        "axes I, P, L": 3,
        "sform 2, qform 0": 0,
        "with tumor": 3,
        "with cyst": 2,
        "one component": 0,
        "not 512 x 512 in plane": 3,
    }


def test_published_percentiles_ascend():
    names = {quantity.name for quantity in QUANTITIES}
    assert set(KITS23) <= names
    for name, published in KITS23.items():
        known = [value for value in published if value is not None]
        assert len(published) == len(PERCENTILES)
        assert known == sorted(known), name


def test_the_tables_agree(dataset, tmp_path):
    no_image(dataset / "case_00001")
    label_values(dataset / "case_00002")
    out = tmp_path / "out"
    result = inspect_dataset(dataset, out)
    pictures = ["inspect_anatomy.png", "inspect_geometry.png", "inspect_intensity.png"]
    assert sorted(path.name for path in out.iterdir()) == sorted(TABLES + pictures)
    data = json.loads((out / "inspect.json").read_text())
    assert data["renalseg_version"] == __version__
    assert (data["n_cases"], data["n_usable"], data["n_counted"]) == (3, 1, 2)
    assert data["broken"] == ["case_00001", "case_00002"]
    assert [finding["kind"] for finding in data["findings"]] == ["missing", "unusable"]
    assert data["cases"] == [case.row for case in result.cases]
    tumor = data["quantities"]["tumor_ml"]
    assert tumor["n"] == 2
    assert list(tumor["percentiles"].values()) == pytest.approx(list(np.percentile([4.0, 6.0], PERCENTILES)))
    assert tumor["percentiles_kits23"] == dict(zip(map(str, PERCENTILES), KITS23["tumor_ml"], strict=True))
    assert data["quantities"]["hu_tumor_p50"]["percentiles_kits23"] is None
    with (out / "inspect.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["usable"] for row in rows] == ["true", "false", "false"]
    assert [row["tumor_ml"] for row in rows] == ["4.0", "6.0", ""]
    text = (out / "inspect.md").read_text()
    assert "# Inspection of data: 3 cases, 1 usable" in text
    assert "| Slice spacing (mm) | data | 2 | 4 | 4 | 4 | 4 | 4 | 4 | 4 |" in text
    assert "|  | KiTS23 | 489 | 0.5 | 0.5 | 2 | 3 | 5 | 5 | 5 |" in text
    assert "|  | KiTS23 | 248 |  | 0.21 |  | 4.4 |  | 95 |  |" in text
    assert all(f"- {finding.message}" in text for finding in result.findings)


def test_two_workers_write_the_same_as_one(dataset, tmp_path):
    truncated_image(dataset / "case_00001")
    results = [inspect_dataset(dataset, tmp_path / str(workers), workers) for workers in (1, 2)]
    assert results[0] == results[1]
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "2").iterdir())
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_pictures_are_those_of_what_was_measured(dataset, tmp_path):
    for number in range(3):
        no_image(dataset / f"case_0000{number}")
    stale = tmp_path / "out" / "inspect_intensity.png"
    stale.parent.mkdir()
    stale.write_bytes(b"of an earlier run")
    inspect_dataset(dataset, tmp_path / "out")
    assert not stale.exists()
    for name in ("inspect_geometry.png", "inspect_anatomy.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.size[0] == 2000
            assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_every_quantity_that_is_published_is_drawn_beside_kits23(dataset, tmp_path, monkeypatch):
    rows, draw = [], figures._draw_percentiles

    def spy(axes, values, y, colour):
        rows.append((colour, tuple(values)))
        draw(axes, values, y, colour)

    monkeypatch.setattr(figures, "_draw_percentiles", spy)
    inspect_dataset(dataset, tmp_path / "out")
    drawn = {values for colour, values in rows if colour == figures.KITS23_COLOUR}
    assert {q.published for q in QUANTITIES if q.published} <= drawn


def test_a_name_that_the_font_cannot_show(dataset, tmp_path):
    renamed = dataset.rename(tmp_path / ("データ $x$ [bold] " + "long " * 30))
    inspect_dataset(renamed, tmp_path / "out")  # warnings are errors
    assert json.loads((tmp_path / "out" / "inspect.json").read_text(encoding="utf-8"))["dataset"] == renamed.name


def test_a_folder_that_is_no_dataset(tmp_path):
    with pytest.raises(InputError, match="holds no case"):
        inspect_dataset(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be(dataset, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        inspect_dataset(dataset, tmp_path / "file" / "out")


def test_command_line_on_a_sound_dataset(dataset, tmp_path, run):
    code, out, err = run("inspect", dataset, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert "3 of 3 cases usable" in out
    assert "Slice spacing (mm)" in out
    assert (tmp_path / "out" / "inspect.md").is_file()


def test_command_line_on_a_broken_case(dataset, tmp_path, run):
    no_labels(dataset / "case_00001")
    code, out, err = run("inspect", dataset, "--out", tmp_path / "out")
    assert code == 1
    assert err.startswith("broken  case_00001/segmentation.nii.gz is empty")
    assert "2 of 3 cases usable" in out
    assert (tmp_path / "out" / "inspect.csv").is_file()


def test_command_line_without_a_usable_case(dataset, tmp_path, run):
    for number in range(3):
        no_labels(dataset / f"case_0000{number}")
    code, out, err = run("inspect", dataset, "--out", tmp_path / "out")
    assert code == 2
    assert err.count("is empty, background everywhere") == 3
    assert "0 of 3 cases usable" in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == TABLES


def test_command_line_says_only_the_first_findings(dataset, tmp_path, run, monkeypatch):
    monkeypatch.setattr("renalseg.cli.inspect.MOST_SENTENCES", 1)
    for number in range(2):
        no_labels(dataset / f"case_0000{number}")
    code, _, err = run("inspect", dataset, "--out", tmp_path / "out")
    assert code == 1
    assert len(err.splitlines()) == 2
    assert "and 1 more findings in inspect.md" in err


def test_command_line_without_a_dataset(tmp_path, run):
    code, _, err = run("inspect", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert code == 2
    assert err.startswith("renalseg: ")
    assert "is not a folder" in err
    assert not (tmp_path / "out").exists()


def link_cases(source, target, names):
    for name in names:
        (target / name).mkdir(parents=True)
        (target / name / "segmentation.nii.gz").symlink_to(source / name / "segmentation.nii.gz")
    return target


def test_real_label_maps(shared_data, tmp_path):
    source = shared_data / "kits23_labels"
    smallest = sorted(source.glob("case_*/segmentation.nii.gz"), key=lambda path: path.stat().st_size)[:6]
    dataset = link_cases(source, tmp_path / "kits", [path.parent.name for path in smallest])
    result = inspect_dataset(dataset, tmp_path / "out")
    assert result.findings == []
    rows = result.counted
    assert len(rows) == 6
    found = counts(rows)
    assert found["axes I, P, L"] == found["sform 2, qform 0"] == found["with tumor"] == 6
    for name in ("slice_spacing_mm", "in_plane_spacing_mm", "slices", "roi_z", "roi_y", "roi_x"):
        low, high = KITS23[name][0], KITS23[name][-1]
        assert all(low <= round(row[name], 2) <= high for row in rows), name


@pytest.mark.slow
def test_all_real_label_maps(shared_data):
    result = inspect_dataset(shared_data / "kits23_labels")
    rows = result.counted
    assert result.broken == []
    assert len(rows) == 122
    found = counts(rows)
    assert found["axes I, P, L"] == found["sform 2, qform 0"] == found["with tumor"] == 122
    for quantity in QUANTITIES:
        if quantity.published and quantity.values(rows):
            middle, published = percentiles(quantity.values(rows))[3], quantity.published[3]
            assert middle == pytest.approx(published, rel=0.25), quantity.name
