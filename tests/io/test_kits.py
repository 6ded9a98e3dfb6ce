"""The KiTS23 layout, label maps and folds."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from renalseg.core.errors import ConfigError, GeometryError, InputError
from renalseg.core.volume import Volume
from renalseg.io.kits import KitsCase, fold_split, is_dataset, list_cases, read_case, read_labels
from renalseg.io.nifti import write_nifti

KITS23 = [f"case_{i:05d}" for i in (*range(300), *range(400, 589))]


@pytest.fixture
def dataset(tmp_path):
    values = np.random.default_rng(0).integers(-1000, 1500, (4, 5, 6)).astype(np.int16)
    ct = Volume.from_array(values, (3.0, 0.8, 0.8))
    folder = tmp_path / "dataset"
    write_nifti(ct, folder / "case_00002" / "imaging.nii.gz")
    write_nifti(ct.with_array((values % 4).astype(np.uint8)), folder / "case_00002" / "segmentation.nii.gz")
    write_nifti(ct.with_array((values % 3).astype(np.uint8)), folder / "case_00001" / "segmentation.nii.gz")
    (folder / "empty").mkdir()
    (folder / "kits23.json").write_text("[]")
    return folder


def test_cases_are_listed_in_order(dataset):
    one, two = dataset / "case_00001", dataset / "case_00002"
    assert list_cases(dataset) == [
        KitsCase("case_00001", None, one / "segmentation.nii.gz"),
        KitsCase("case_00002", two / "imaging.nii.gz", two / "segmentation.nii.gz"),
    ]
    assert is_dataset(dataset)
    assert not is_dataset(dataset / "case_00001")
    assert not is_dataset(dataset / "kits23.json")


def test_no_dataset(tmp_path):
    with pytest.raises(InputError, match="holds no case"):
        list_cases(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        list_cases(tmp_path / "missing")


def test_a_case_reads(dataset):
    ct, labels = read_case(list_cases(dataset)[1])
    assert ct.name == labels.name == "case_00002"
    assert labels.array.dtype == np.uint8
    np.testing.assert_array_equal(labels.array, ct.array % 4)


def test_a_case_without_ct(dataset):
    with pytest.raises(InputError, match=r"case_00001 has no imaging\.nii\.gz"):
        read_case(list_cases(dataset)[0])


def test_a_case_on_two_grids(dataset):
    case = list_cases(dataset)[1]
    other = Volume.from_array(np.zeros((4, 5, 7), np.uint8), (3.0, 0.8, 0.8))
    write_nifti(other, dataset / "other.nii.gz")
    with pytest.raises(GeometryError, match="different grids"):
        read_case(replace(case, segmentation=dataset / "other.nii.gz"))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, np.int32])
def test_labels_of_any_type_become_uint8(dtype, tmp_path):
    array = (np.arange(60) % 4).reshape(3, 4, 5)
    nib.save(nib.Nifti1Image(array.astype(dtype), np.diag([-1, -1, -3, 1])), tmp_path / "a.nii.gz")
    labels = read_labels(tmp_path / "a.nii.gz")
    assert labels.array.dtype == np.uint8
    np.testing.assert_array_equal(labels.stored(), array)


@pytest.mark.parametrize(("values", "listed"), [((4.0, 255.0), "4, 255"), ((-1.0, 0.5), "-1, 0.5"), ((np.nan,), "nan")])
def test_values_that_are_no_labels(values, listed, tmp_path):
    array = np.zeros((3, 4, 5), np.float32)
    array.ravel()[: len(values)] = values
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=f"holds the values {listed}, no labels") as caught:
        read_labels(tmp_path / "a.nii.gz")
    assert "1 kidney, 2 tumor, 3 cyst" in str(caught.value)


def test_folds_are_those_of_scikit_learn():
    train, validation = fold_split(reversed(KITS23), 0)
    assert (len(train), len(validation)) == (391, 98)
    # sklearn.model_selection.KFold(5, shuffle=True, random_state=12345) over the 489 sorted ids, computed once
    # by scikit-learn's published algorithm, written out here independently.
    order = np.arange(489)
    np.random.RandomState(12345).shuffle(order)
    sizes = np.full(5, 489 // 5)
    sizes[: 489 % 5] += 1
    stops = np.cumsum(sizes)
    for fold in range(5):
        expected = sorted(order[stops[fold] - sizes[fold] : stops[fold]])
        assert fold_split(KITS23, fold)[1] == [KITS23[i] for i in expected]


def test_folds_partition():
    parts = [fold_split(KITS23, fold) for fold in range(5)]
    assert sorted(case for _, validation in parts for case in validation) == KITS23
    assert all(sorted(train + validation) == KITS23 for train, validation in parts)


@pytest.mark.parametrize(("ids", "fold", "n"), [(KITS23, 5, 5), (KITS23, -1, 5), (["a", "b"], 0, 5), (["a"] * 9, 0, 5)])
def test_impossible_folds(ids, fold, n):
    with pytest.raises(ConfigError):
        fold_split(ids, fold, n)


def test_a_real_label_map(shared_data, tmp_path):
    case = list_cases(shared_data / "kits23_labels")[0]
    labels = read_labels(case.segmentation)
    assert labels.name == case.case_id
    assert labels.array.max() == 3 or labels.array.max() == 2
    write_nifti(labels, tmp_path / "a.nii.gz")
    first, second = nib.load(case.segmentation), nib.load(tmp_path / "a.nii.gz")
    assert first.affine.tobytes() == second.affine.tobytes()
    assert (second.header["sform_code"], second.header["qform_code"]) == (2, 0)
