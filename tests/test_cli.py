"""The command line, in this process where it can be: exit codes, one sentence an error, nothing half written."""

import errno
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from safetensors.torch import save_file
from torch import nn

import renalseg
from renalseg.config import PRESETS, load_config, preset
from renalseg.core.volume import Volume
from renalseg.io.nifti import write_nifti
from renalseg.model.checkpoint import file_sha256, open_weights

SHAPE, SPACING_MM = (24, 32, 40), (5.0, 5.0, 5.0)


def draw() -> np.ndarray:
    """HU [z, y, x]: two bright kidneys in fat."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    hu = np.full(SHAPE, -100, np.int16)
    for centre in (11, 29):
        hu[((z - 12) / 8) ** 2 + ((y - 16) / 6) ** 2 + ((x - centre) / 6) ** 2 < 1] = 150
        hu[((z - 12) / 3) ** 2 + ((y - 16) / 3) ** 2 + ((x - centre) / 3) ** 2 < 1] = 250
    return hu


def write_ct(path: Path, hu: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(Volume.from_array(draw() if hu is None else hu, SPACING_MM), path)
    return path


@pytest.fixture
def quick_pictures(monkeypatch):
    """Writes a few bytes for the picture, whose drawing takes most of a small case's time."""
    monkeypatch.setattr("renalseg.report.figures.overlay", lambda ct, labels, path, **_: path.write_bytes(b"picture"))


@pytest.fixture
def segment(run, small_weights, tmp_path):
    """Runs ``segment`` on the CPU into ``tmp_path/out`` with the small weights."""

    def call(*inputs, weights=small_weights, out=tmp_path / "out"):
        fixed = ("--weights", weights, "--device", "cpu", "--precision", "fp32")
        return run("segment", *inputs, "--out", out, *fixed)

    return call


def assert_refused(result, *parts):
    """Exit code 2, and one line that holds ``parts``."""
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("renalseg: ")
    for part in parts:
        assert str(part) in err


# What is refused ------------------------------------------------------------------------------------------------------


def _header(path: Path, field: str, value, index=...) -> None:
    """Changes a field of an uncompressed NIfTI file, which nibabel would rather not write."""
    content = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    header[field][index] = value
    path.write_bytes(header.binaryblock + content[348:])


def _missing(folder):
    return folder / "absent.nii.gz"


def _truncated(folder):
    path = write_ct(folder / "cut.nii.gz")
    path.write_bytes(path.read_bytes()[:-200])
    return path


def _text(folder):
    path = folder / "notes.nii.gz"
    path.write_text("This is no image.\n" * 100)
    return path


def _four_dimensions(folder):
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8, 3), np.int16), np.eye(4)), folder / "4d.nii.gz")
    return folder / "4d.nii.gz"


def _colour(folder):
    colours = np.zeros((8, 8, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colours, np.eye(4)), folder / "rgb.nii.gz")
    return folder / "rgb.nii.gz"


def _spacing(value):
    def make(folder):
        path = write_ct(folder / "spacing.nii")
        _header(path, "pixdim", value, 2)
        return path

    return make


def _singular(folder):
    path = write_ct(folder / "singular.nii")
    _header(path, "srow_y", nib.load(path).header["srow_x"])
    return path


def _all_nan(folder):
    return write_ct(folder / "nan.nii.gz", np.full(SHAPE, np.nan, np.float32))


def _one_slice(folder):
    nib.save(nib.Nifti1Image(np.zeros((16, 16, 1), np.int16), np.eye(4)), folder / "slice.nii.gz")
    return folder / "slice.nii.gz"


def _dicom(folder, heights, uid, orientation=(1, 0, 0, 0, 1, 0), prefix="a"):
    folder.mkdir(exist_ok=True)
    for index, height in enumerate(heights):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
        data.SeriesInstanceUID, data.StudyInstanceUID, data.Modality = uid, "1.2", "CT"
        data.ImageOrientationPatient, data.ImagePositionPatient = list(orientation), [0, 0, height]
        data.PixelSpacing, data.RescaleSlope, data.RescaleIntercept = [1, 1], 1, -1024
        data.Rows = data.Columns = 8
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit = 15
        data.PixelData = np.full((8, 8), 1000 + index, np.uint16).tobytes()
        pydicom.dcmwrite(folder / f"{prefix}{index}.dcm", data, enforce_file_format=True)
    return folder


def _two_series(folder):
    _dicom(folder / "series", range(4), "1.2.1")
    return _dicom(folder / "series", range(4), "1.2.2", prefix="b")


def _missing_slices(folder):
    return _dicom(folder / "series", (0, 1, 2, 5, 6), "1.2.1")


def _mixed_orientations(folder):
    _dicom(folder / "series", range(4), "1.2.1")
    return _dicom(folder / "series", (9,), "1.2.1", (1, 0, 0, 0, 0, -1), prefix="b")


def _meta_image(**changes):
    """A MetaImage of raw voxels whose header lines are changed."""
    lines = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "0 0 0", "ElementSpacing": "5 5 5", "DimSize": "4 4 4",
        "ElementType": "MET_SHORT", "ElementDataFile": "LOCAL",
    }  # fmt: skip

    def make(folder):
        text = "".join(f"{key} = {value}\n" for key, value in (lines | changes).items())
        path = folder / "ct.mha"
        path.write_bytes(text.encode() + bytes(2 * 64))
        return path

    return make


def _nrrd(geometry):
    """An NRRD of raw voxels with the given lines for its geometry."""

    def make(folder):
        path = folder / "ct.nrrd"
        head = f"NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\n{geometry}\nendian: little\nencoding: raw\n\n"
        path.write_bytes(head.encode() + bytes(2 * 64))
        return path

    return make


_SPACE = "space: left-posterior-superior\nspace directions: "

BAD = {
    "mha zero spacing": (_meta_image(ElementSpacing="5 0 5"), "voxel spacing of 0 mm"),
    "mha negative spacing": (_meta_image(ElementSpacing="5 5 -5"), "voxel spacing of -5 mm"),
    "mha NaN spacing": (_meta_image(ElementSpacing="5 nan 5"), "voxel spacing of nan mm"),
    "mha singular": (_meta_image(TransformMatrix="1 0 0 1 0 0 0 0 1"), "do not span space"),
    "nrrd zero spacing": (_nrrd("spacings: 5 0 5"), "voxel spacing of 0 mm"),
    "nrrd negative spacing": (_nrrd("spacings: 5 5 -5"), "voxel spacing of -5 mm"),
    "nrrd NaN spacing": (_nrrd("spacings: 5 5 nan"), "voxel spacing of nan mm"),
    "nrrd NaN axis": (_nrrd(_SPACE + "(5,0,0) (0,nan,0) (0,0,5)"), "voxel spacing of nan mm"),
    "nrrd singular": (_nrrd(_SPACE + "(5,0,0) (5,0,0) (0,0,5)"), "do not span space"),
    "missing": (_missing, "does not exist"),
    "truncated": (_truncated, "truncated or damaged"),
    "text": (_text, "not a NIfTI file"),
    "4D": (_four_dimensions, "4 dimensions"),
    "RGB": (_colour, "colour"),
    "zero spacing": (_spacing(0.0), "5 x 0 x 5 mm"),
    "negative spacing": (_spacing(-5.0), "5 x -5 x 5 mm"),
    "NaN spacing": (_spacing(np.nan), "5 x nan x 5 mm"),
    "singular affine": (_singular, "singular"),
    "all NaN": (_all_nan, "no finite value"),
    "one slice": (_one_slice, "single slice"),
    "two series": (_two_series, "2 series"),
    "missing slices": (_missing_slices, "lacks about 2 slices"),
    "mixed orientations": (_mixed_orientations, "mixes slice orientations"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_refused_in_one_line_and_leaves_nothing(kind, segment, tmp_path):
    make, reason = BAD[kind]
    path = make(tmp_path)
    assert_refused(segment(path), path, reason)
    assert not (tmp_path / "out").exists()


def test_a_results_folder_that_was_there_stays_as_it_was(segment, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "note.txt").write_text("mine")
    assert_refused(segment(_truncated(tmp_path)))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["note.txt"]


def _other_hash(folder):
    path = folder / "kidney.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _other_shapes(folder):
    save_file(nn.Linear(2, 2).state_dict(), folder / "kidney.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["stages"]["kidney"]["sha256"] = file_sha256(folder / "kidney.safetensors")
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_other_hash, "hash is not the one"),
        (_other_shapes, "do not fit config.yaml"),
        (shutil.rmtree, "no weights there"),
        (lambda folder: (folder / "lesion.safetensors").unlink(), "is missing"),
    ],
    ids=["hash", "shapes", "no folder", "no file"],
)
def test_bad_weights_are_refused(damage, reason, segment, small_weights, tmp_path):
    folder = tmp_path / "weights"
    shutil.copytree(small_weights, folder)
    damage(folder)
    assert_refused(segment(write_ct(tmp_path / "ct.nii.gz"), weights=folder), folder, reason)
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_results_folder(segment, tmp_path):
    (tmp_path / "out").write_text("a file")
    assert_refused(segment(write_ct(tmp_path / "ct.nii.gz")), tmp_path / "out", "a file stands where a folder")
    assert (tmp_path / "out").read_text() == "a file"


@pytest.mark.parametrize("where", ["os.replace", "nibabel.Nifti1Image.to_filename", "pathlib.Path.write_bytes"])
def test_a_full_disk(where, segment, quick_pictures, tmp_path, monkeypatch):
    path = write_ct(tmp_path / "ct.nii.gz")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(where, full)
    assert_refused(segment(path), tmp_path / "out", "the disk is full")
    assert not (tmp_path / "out").exists()


def test_of_two_inputs_of_one_name_the_first_is_segmented_and_the_second_refused(segment, tmp_path):
    first, second = (write_ct(tmp_path / "one" / name) for name in ("ct_1.nii.gz", "ct_1.nii"))
    code, _, err = segment(first, second)
    assert code == 1
    assert "would be written as one_ct_1 like" in err
    assert "1 of 2 cases segmented" in err
    assert (tmp_path / "out" / "one_ct_1.nii.gz").exists()
    assert segment(first, first)[0] == 0  # named twice, meant once


def test_a_dataset_without_images_is_refused(segment, tmp_path):
    write_ct(tmp_path / "data" / "case_1" / "segmentation.nii.gz")
    assert_refused(segment(tmp_path / "data"), tmp_path / "data", "no imaging.nii.gz")


# What is written ------------------------------------------------------------------------------------------------------


def test_a_dataset_becomes_labels_records_and_pictures(segment, tmp_path):
    affine = np.array([[0, 0.1, -5, 90], [0.1, -5, 0, 70], [-5, 0, 0.1, 40], [0, 0, 0, 1]])
    for name in ("case_00000", "case_00007"):
        image = nib.Nifti1Image(draw(), affine)
        image.set_sform(affine, 2)
        image.set_qform(None, 0)
        (tmp_path / "kits" / name).mkdir(parents=True)
        nib.save(image, tmp_path / "kits" / name / "imaging.nii.gz")
    code, out, err = segment(tmp_path / "kits")
    assert (code, out) == (0, "")
    assert "2 of 2 cases segmented" in err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        f"{name}{suffix}" for name in ("case_00000", "case_00007") for suffix in (".nii.gz", ".json", ".png")
    )
    source = nib.load(tmp_path / "kits" / "case_00007" / "imaging.nii.gz")
    labels = nib.load(tmp_path / "out" / "case_00007.nii.gz")
    assert labels.get_data_dtype() == np.uint8
    assert labels.shape == source.shape
    np.testing.assert_array_equal(labels.affine, source.affine)
    for key in ("sform_code", "qform_code", "pixdim", "srow_x", "srow_y", "srow_z"):
        np.testing.assert_array_equal(labels.header[key], source.header[key])
    found = np.asarray(labels.dataobj)
    assert ((found > 0) == (draw() > 100)).mean() > 0.97
    assert ((found == 2) == (draw() > 200)).mean() > 0.97
    record = json.loads((tmp_path / "out" / "case_00007.json").read_text())
    assert record["case"] == "case_00007"
    assert record["kidney_found"]
    assert record["volumes_ml"]["tumor"] == pytest.approx(
        (found == 2).sum() * labels.header["pixdim"][1:4].prod() / 1000, rel=0.01
    )
    assert record["weights"][0]["path"] == "small"
    assert {"read", "coarse", "roi", "kidney", "lesion", "compose", "clean", "total", "write"} <= record[
        "timings_s"
    ].keys()
    assert (tmp_path / "out" / "case_00007.png").read_bytes().startswith(b"\x89PNG")


def test_isolated_nan_and_infinity_are_repaired_and_reported(segment, quick_pictures, tmp_path):
    hu = draw().astype(np.float32)
    hu[0, 0, :3] = np.nan, np.inf, -np.inf
    code, _, err = segment(write_ct(tmp_path / "odd.nii.gz", hu))
    assert code == 0
    assert "3 voxels were NaN or infinite" in err
    warnings = json.loads((tmp_path / "out" / "odd.json").read_text())["warnings"]
    assert any("3 voxels were NaN or infinite" in warning for warning in warnings)


def test_one_bad_input_of_three(segment, quick_pictures, tmp_path):
    good = [write_ct(tmp_path / f"good{i}.nii.gz") for i in range(2)]
    code, _, err = segment(good[0], _truncated(tmp_path), good[1])
    assert code == 1
    names = {f"good{i}{suffix}" for i in range(2) for suffix in (".nii.gz", ".json", ".png")}
    assert {p.name for p in (tmp_path / "out").iterdir()} == names
    assert f"failed cut: {tmp_path / 'cut.nii.gz'} is truncated" in err
    assert err.splitlines()[-1] == f"2 of 3 cases segmented into {tmp_path / 'out'}; failed: cut"


def test_all_inputs_bad(segment, tmp_path):
    code, _, err = segment(_truncated(tmp_path), _text(tmp_path))
    assert code == 2
    assert "failed: cut, notes" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "where",
    ["renalseg.report.figures.overlay", "renalseg.batch.results.write_json", "renalseg.batch.results.write_nifti"],
)
def test_an_interrupt_leaves_no_partial_file(where, segment, quick_pictures, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupt)
    assert segment(write_ct(tmp_path / "ct.nii.gz")) == (130, "", "renalseg: interrupted\n")
    assert not (tmp_path / "out").exists()


def test_names_with_brackets_are_printed_as_they_are(segment, quick_pictures, tmp_path):
    good = write_ct(tmp_path / "scan[1].nii.gz")
    bad = tmp_path / "scan[bold]:smile:.nii.gz"
    bad.write_text("no image")
    also_bad = tmp_path / "[/red].nii.gz".replace("/", "")
    also_bad.write_text("no image")
    code, _, err = segment(good, bad, also_bad)
    assert code == 1
    assert "scan[1]: " in err
    assert f"failed scan[bold]:smile:: {bad} is not" in err
    assert "failed: scan[bold]:smile:, [red]" in err
    assert (tmp_path / "out" / "scan[1].json").exists()
    assert_refused(segment(bad), bad)


# The other commands ---------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path):
    """Two phantoms' worth of a dataset: CT and labels by threshold."""
    for i in range(2):
        folder = tmp_path / "kits" / f"case_{i:05d}"
        write_ct(folder / "imaging.nii.gz")
        write_ct(folder / "segmentation.nii.gz", ((draw() > 100).astype(np.uint8) + (draw() > 200)).astype(np.uint8))
    return tmp_path / "kits"


def test_evaluate(run, dataset, tmp_path):
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    shutil.copy(dataset / "case_00000" / "segmentation.nii.gz", predictions / "case_00000.nii.gz")
    command = ("evaluate", predictions, "--truth", dataset, "--out", tmp_path / "scores")
    code, _, err = run(*command)
    assert code == 2
    assert err.count("\n") == 1
    assert "case_00001" in err
    assert not (tmp_path / "scores").exists()
    assert run(*command, "--missing", "zero")[0] == 0
    assert (tmp_path / "scores" / "metrics.csv").read_text().splitlines()[-1].startswith("average,0.5")
    shutil.copy(dataset / "case_00001" / "segmentation.nii.gz", predictions / "case_00001.nii.gz")
    code, out, _ = run(*command)
    assert code == 0
    assert "0.9661" in out  # the paper's own, beside
    header, *rows = (tmp_path / "scores" / "metrics.csv").read_text().splitlines()
    assert header == "caseID,Dice_kidney,Dice_masses,Dice_tumor,SD_kidney,SD_masses,SD_tumor"
    assert [float(v) for v in rows[-1].split(",")[1:]] == [1.0] * 6


def test_phantom(run, tmp_path):
    code, out, _ = run("phantom", tmp_path / "p", "--cases", 1, "--seed", 3, "--in-plane", 64, "--max-slices", 16)
    assert code == 0
    assert "1 cases in" in out
    ct, labels = (nib.load(tmp_path / "p" / "case_00000" / f"{n}.nii.gz") for n in ("imaging", "segmentation"))
    assert ct.shape == labels.shape
    assert ct.shape[0] <= 16
    assert ct.shape[1:] == (64, 64)
    np.testing.assert_array_equal(ct.affine, labels.affine)


def test_demo(run, small_weights, tmp_path, monkeypatch):
    from renalseg import demo

    small = demo.Segmenter(small_weights, "cpu", "fp32")
    render = demo.write_cohort
    monkeypatch.setattr(demo, "Segmenter", lambda device: small)
    monkeypatch.setattr(demo, "MAX_SLICES", 16)
    monkeypatch.setattr(demo, "write_cohort", lambda *a, **k: render(*a, **k, in_plane=64))
    code, out, _ = run("demo", "--out", tmp_path / "demo", "--device", "cpu")
    assert code == 0
    assert str(tmp_path / "demo" / "segmentation" / "case_00000.png") in out
    assert "surface Dice" in out
    for name in ("segmentation/case_00000.nii.gz", "segmentation/case_00000.png", "evaluation/metrics.csv"):
        assert (tmp_path / "demo" / name).stat().st_size > 0


def train(data, out, config, *more):
    return ("train", "coarse", "--data", data, "--out", out, "--config", config, "--device", "cpu", *more)


def test_train_and_resume(run, dataset, small_config, tmp_path):
    config, out = tmp_path / "c.yaml", tmp_path / "weights[1]"
    config.write_text(small_config.to_yaml())
    code, printed, err = run(*train(dataset, out, config))
    assert (code, err) == (0, "")
    assert f"coarse: 1 epochs done; weights in {out}" in printed
    assert open_weights(out).files.keys() == {"coarse"}
    code, _, err = run(*train(dataset, out, config))
    assert (code, err.count("\n")) == (2, 1)
    assert "add --resume" in err
    assert run(*train(dataset, out, config, "--resume"))[0] == 0


def test_prepare_then_train_from_the_cache(run, dataset, small_config, tmp_path):
    config, cache, out = tmp_path / "c.yaml", tmp_path / "cache", tmp_path / "weights"
    config.write_text(small_config.to_yaml())
    code, printed, err = run("prepare", dataset, "--out", cache, "--config", config)
    assert (code, err) == (0, "")
    assert f"cases in {cache}, 0.00 GB" in printed
    files = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}
    assert run("prepare", dataset, "--out", cache, "--config", config)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")} == files
    assert run(*train(cache, out, config, "--deterministic"))[0] == 0
    assert not (out / "cache").exists()
    code, _, err = run(*train(cache, tmp_path / "other", config, "--preset", "tiny"))
    assert (code, err.count("\n")) == (2, 1)
    code, _, err = run(
        "train", "coarse", "--data", cache, "--out", tmp_path / "x", "--preset", "light", "--device", "cpu"
    )
    assert (code, err.count("\n")) == (2, 1)
    assert "nothing prepared with these settings" in err


@pytest.mark.parametrize("problem", ["both", "preset", "file", "fold", "data"])
def test_train_refuses(problem, run, dataset, small_config, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(small_config.to_yaml())
    command, reason = {
        "both": (train(dataset, tmp_path / "out", config, "--preset", "tiny"), "--preset or --config"),
        "preset": (
            ("train", "coarse", "--data", dataset, "--out", tmp_path / "out", "--preset", "huge"),
            "choose one of paper, light, fast, tiny",
        ),
        "file": (train(dataset, tmp_path / "out", tmp_path / "absent.yaml"), "absent.yaml"),
        "fold": (train(dataset, tmp_path / "out", config, "--fold", 0), "cannot be split into 5 folds"),
        "data": (train(tmp_path / "absent", tmp_path / "out", config), "absent"),
    }[problem]
    code, _, err = run(*command)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("renalseg: ")
    assert reason in err


def test_describe(run, small_weights):
    code, out, _ = run("describe", "--preset", "paper")
    assert code == 0
    for part in ("GFLOP", "parameters", "table 2", "table 3", "300", "600", "AdamW", "48 x 224 x 384", "paper 2.1"):
        assert part in out
    code, out, _ = run("describe", "--weights", small_weights)
    assert code == 0
    assert open_weights(small_weights).sha256[:16] in out


def test_describe_yaml_comes_back(run, tmp_path):
    code, out, _ = run("describe", "--preset", "light", "--yaml")
    (tmp_path / "c.yaml").write_text(out)
    assert code == 0
    assert load_config(tmp_path / "c.yaml") == preset("light")


def test_unknown_preset(run):
    assert_refused(run("describe", "--preset", "huge"), "'huge'", "paper, light, fast, tiny")


def test_version_and_help(run):
    assert run("--version") == (0, f"{renalseg.__version__}\n", "")
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    for command in ("demo", "segment", "train", "evaluate", "phantom", "describe", "prepare", "inspect"):
        assert f" {command} " in out


@pytest.mark.parametrize("arguments", [("segment", "x.nii.gz"), ("nothing",), ("train", "both", "--data", ".")])
def test_usage_errors_exit_with_2(arguments, run):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Usage" in err


def test_the_module_runs_and_returns_its_exit_code(tmp_path):
    command = [sys.executable, "-m", "renalseg", "segment", str(tmp_path / "absent.nii.gz"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"renalseg: {tmp_path / 'absent.nii.gz'} does not exist; check the path.\n"


@pytest.mark.parametrize("command", ["prepare", "train", "crossval"])
def test_the_help_names_every_preset(command, run):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert ", ".join(PRESETS) in out


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background, a shell turned it off
from renalseg.report import figures
draw = figures.overlay
def slow(*arguments, **more):
    print("drawing", flush=True)
    time.sleep(1)
    draw(*arguments, **more)
figures.overlay = slow
from renalseg.cli import main
sys.argv[0] = "renalseg"
main()
"""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_a_case_is_written_ends_after_it(sent, code, small_weights, tmp_path):
    """The case that is being written is finished, the next one is there wholly or not at all, no other file is left."""
    paths = [write_ct(tmp_path / f"{name}.nii.gz") for name in "ab"]
    out = tmp_path / "out"
    command = [sys.executable, "-c", SLOW, "segment", *paths, "--out", out, "--weights", small_weights]
    with subprocess.Popen(
        [*command, "--device", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as p:
        assert p.stdout.readline() == "drawing\n"
        p.send_signal(sent)
        _, err = p.communicate(timeout=60)
    assert p.returncode == code, err
    assert "Traceback" not in err
    done = {path.name for path in out.iterdir()}
    first, second = ({f"{name}.{suffix}" for suffix in ("nii.gz", "json", "png")} for name in "ab")
    assert done in (first, first | second)
    before = (out / "a.nii.gz").stat().st_mtime_ns
    again = subprocess.run([*command, "--device", "cpu"], capture_output=True, text=True, check=True)
    assert {path.name for path in out.iterdir()} == first | second
    assert (out / "a.nii.gz").stat().st_mtime_ns == before
    assert again.stdout.count("drawing\n") == len(first | second) // 3 - len(done) // 3
