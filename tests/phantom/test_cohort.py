import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from renalseg.core.errors import InputError, OutputError
from renalseg.core.volume import Volume
from renalseg.io.kits import list_cases, read_case
from renalseg.io.nifti import write_nifti
from renalseg.phantom import bodies
from renalseg.phantom.cohort import write_cohort

SMALL = {"in_plane": 64, "max_slices": 24}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms")
    write_cohort(out, 2, 11, workers=1, **SMALL)
    return out


def test_layout_is_that_of_kits23(cohort: Path) -> None:
    cases = list_cases(cohort)
    assert [case.case_id for case in cases] == ["case_00000", "case_00001"]
    for case in cases:
        for file in (case.imaging, case.segmentation):
            image = nib.load(file)
            assert nib.aff2axcodes(image.affine) == ("I", "P", "L")
            assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (2, 0)
        ct, labels = read_case(case)
        assert ct.array.dtype == np.int16
        assert labels.array.any()


def test_records(cohort: Path) -> None:
    records = json.loads((cohort / "phantoms.json").read_text(encoding="utf-8"))
    assert [r["case"] for r in records] == ["case_00000", "case_00001"]
    for key in ("seed", "spacing_mm", "phase", "volumes_ml", "version"):
        assert all(key in r for r in records)


def test_finished_cases_are_kept_and_others_made_again(cohort: Path) -> None:
    files = [cohort / f"case_0000{i}" / "imaging.nii.gz" for i in (0, 1)]
    before = [f.stat().st_mtime_ns for f in files]
    bytes_1 = files[1].read_bytes()
    files[1].unlink()
    seen: list[int] = []
    write_cohort(cohort, 2, 11, workers=1, on_case=lambda i, _: seen.append(i), **SMALL)
    assert files[0].stat().st_mtime_ns == before[0]
    assert nib.load(files[1]).get_fdata().tobytes() == nib.Nifti1Image.from_bytes(_plain(bytes_1)).get_fdata().tobytes()
    assert sorted(seen) == [0, 1]


def test_other_options_are_not_mistaken_for_finished(cohort: Path, tmp_path: Path) -> None:
    write_cohort(tmp_path, 1, 11, workers=1, **SMALL)
    first = (tmp_path / "case_00000" / "imaging.nii.gz").stat().st_mtime_ns
    write_cohort(tmp_path, 1, 12, workers=1, **SMALL)
    assert (tmp_path / "case_00000" / "imaging.nii.gz").stat().st_mtime_ns != first


def test_a_case_depends_neither_on_workers_nor_on_their_number(cohort: Path, tmp_path: Path) -> None:
    write_cohort(tmp_path, 3, 11, workers=2, **SMALL)
    for i in (0, 1):
        for name in ("imaging.nii.gz", "segmentation.nii.gz"):
            a, b = (nib.load(folder / f"case_0000{i}" / name) for folder in (cohort, tmp_path))
            assert np.array_equal(np.asarray(a.dataobj), np.asarray(b.dataobj))


def test_given_label_maps_are_written_unchanged(tmp_path: Path) -> None:
    array = np.zeros((20, 48, 48), np.uint8)
    array[6:14, 24:32, 10:18] = 1
    array[6:14, 24:32, 30:38] = 1
    array[8:11, 26:29, 12:15] = 2
    given = tmp_path / "labels" / "case_00007" / "segmentation.nii.gz"
    write_nifti(Volume.from_array(array, (5.0, 7.0, 7.0)), given)
    (record,) = write_cohort(tmp_path / "out", 1, 0, labels_dir=tmp_path / "labels", workers=1)
    assert record["source"] == "case_00007"
    ct, labels = read_case(list_cases(tmp_path / "out")[0])
    assert np.array_equal(labels.array, array)
    assert ct.shape == array.shape


def test_negatives(tmp_path: Path) -> None:
    records = write_cohort(tmp_path, 2, 0, workers=1, negatives=1.0, **SMALL)
    assert all(r["volumes_ml"]["kidney"] == 0 for r in records)


def test_a_folder_without_label_maps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_cohort(tmp_path / "out", 1, 0, labels_dir=tmp_path)


def test_a_case_that_was_not_rendered_is_never_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "case_00000"
    folder.mkdir()
    (folder / "imaging.nii.gz").write_bytes(b"real")
    with pytest.raises(OutputError, match="was not rendered here"):
        write_cohort(tmp_path, 1, 0, workers=1, **SMALL)
    assert (folder / "imaging.nii.gz").read_bytes() == b"real"


def test_an_interrupted_case_is_rendered_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("renalseg.phantom.cohort._as_kits", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_cohort(tmp_path, 1, 0, workers=1, **SMALL)
    (record,) = write_cohort(tmp_path, 1, 0, workers=1, **SMALL)
    assert record["volumes_ml"]["kidney"] > 0


def write_label_map(folder: Path) -> Path:
    z, y, x = np.mgrid[:20, :48, :48]
    array = np.zeros((20, 48, 48), np.uint8)
    for middle in (14, 34):
        array[((z - 10) / 8) ** 2 + ((y - 28) / 5) ** 2 + ((x - middle) / 5) ** 2 < 1] = 1
    array[8:11, 26:29, 12:15] = 2
    write_nifti(Volume.from_array(array, (6.0, 7.0, 7.0)), folder / "case_00007" / "segmentation.nii.gz")
    return folder


def write_body(folder: Path) -> None:
    _, y, x = np.mgrid[:30, :50, :60]
    hu = np.where(((y - 25) / 18) ** 2 + ((x - 30) / 26) ** 2 < 1, -100, -1000).astype(np.int16)
    own = np.zeros(hu.shape, np.uint8)
    own[10:20, 26:34, 14:22] = 1
    own[10:20, 26:34, 38:46] = 2
    hu[own > 0] = 40
    write_nifti(Volume.from_array(hu, (6.0, 6.0, 6.0)), folder / bodies.CT)
    write_nifti(Volume.from_array(own, (6.0, 6.0, 6.0)), folder / bodies.KIDNEYS)


def test_bodies_are_part_of_what_makes_a_case(tmp_path: Path) -> None:
    labels = write_label_map(tmp_path / "labels")
    write_body(tmp_path / "bodies" / "a")
    out, imaging = tmp_path / "out", tmp_path / "out" / "case_00000" / "imaging.nii.gz"
    options = {"labels_dir": labels, "workers": 1, "bodies_dir": tmp_path / "bodies"}
    (record,) = write_cohort(out, 1, 0, **options)
    assert (record["body"], record["source"], record["request"]["bodies"]) == ("a", "case_00007", ["a"])
    ct, found = read_case(list_cases(out)[0])
    assert ct.shape == found.shape == tuple(record["shape"])
    first = imaging.stat().st_mtime_ns
    write_cohort(out, 1, 0, **options)
    assert imaging.stat().st_mtime_ns == first
    write_body(tmp_path / "bodies" / "b")
    (record,) = write_cohort(out, 1, 0, **options)
    assert imaging.stat().st_mtime_ns != first
    assert record["request"]["bodies"] == ["a", "b"]
    (record,) = write_cohort(out, 1, 0, deform=True, **options)
    assert record["request"]["deform"] is True


def test_options_that_are_not_used_are_not_recorded(cohort: Path) -> None:
    """So that cohorts from before these options existed stay finished."""
    record = json.loads((cohort / "case_00000" / "phantom.json").read_text(encoding="utf-8"))
    assert not {"bodies", "deform", "phases"} & set(record["request"])
    assert record["body"] == "drawn"


def test_deform_needs_label_maps(run, tmp_path: Path) -> None:
    code, _, err = run("phantom", tmp_path / "out", "--cases", 1, "--seed", 0, "--deform")
    assert code == 2
    assert "--deform changes the label maps of --labels" in " ".join(err.split())


def test_bodies_from_the_command_line(run, tmp_path: Path) -> None:
    labels = write_label_map(tmp_path / "labels")
    write_body(tmp_path / "bodies" / "a")
    options = ("--cases", 1, "--seed", 0, "--labels", labels, "--bodies")
    code, _, err = run("phantom", tmp_path / "out", *options, tmp_path / "bodies")
    assert code == 0, err
    (record,) = json.loads((tmp_path / "out" / "phantoms.json").read_text(encoding="utf-8"))
    assert record["body"] == "a"
    code, _, err = run("phantom", tmp_path / "none", *options, labels)
    assert code == 2
    assert "holds no NAME/ct.nii.gz" in err


def _plain(data: bytes) -> bytes:
    import gzip

    return gzip.decompress(data)


def test_phases_are_drawn_from_those_asked_for(run, tmp_path: Path) -> None:
    options = ("--cases", 4, "--seed", 3, "--in-plane", 64, "--max-slices", 16)
    assert run("phantom", tmp_path / "out", *options, "--phase", "native", "--phase", "arterial")[0] == 0
    records = json.loads((tmp_path / "out" / "phantoms.json").read_text(encoding="utf-8"))
    assert {r["phase"] for r in records} == {"native", "arterial"}
    assert all(r["request"]["phases"] == ["native", "arterial"] for r in records)
    code, _, err = run("phantom", tmp_path / "out", *options, "--phase", "portal")
    assert code == 2
    assert "there is no contrast phase portal; choose of native" in " ".join(err.split())
