"""The KiTS23 layout on disk, its label maps, and the five folds."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from renalseg.core.errors import ConfigError, GeometryError, InputError
from renalseg.core.labels import LABELS
from renalseg.core.volume import Volume
from renalseg.io.checks import check_ct
from renalseg.io.nifti import read_nifti
from renalseg.io.read import case_name

IMAGING, SEGMENTATION = "imaging.nii.gz", "segmentation.nii.gz"
FOLD_SEED = 12345


@dataclass(frozen=True)
class KitsCase:
    """One case of a dataset in KiTS23 layout; a file that is absent is None."""

    case_id: str
    imaging: Path | None
    segmentation: Path | None


def is_dataset(path: Path) -> bool:
    """Whether ``path`` is a folder with at least one subfolder that holds imaging or segmentation."""
    return path.is_dir() and any(_case(folder) is not None for folder in path.iterdir())


def list_cases(dataset: Path) -> list[KitsCase]:
    """Lists the cases of a dataset, sorted by id (the subfolder's name).

    Raises:
        InputError: the folder is missing or holds no case.
    """
    if not dataset.is_dir():
        raise InputError(f"{dataset} is not a folder; give the dataset folder that holds case_00000 and so on.")
    cases = [case for folder in sorted(dataset.iterdir()) if (case := _case(folder)) is not None]
    if not cases:
        raise InputError(f"{dataset} holds no case_*/{IMAGING} or case_*/{SEGMENTATION}; give a KiTS23 dataset folder.")
    return cases


def trainable_cases(dataset: Path) -> list[KitsCase]:
    """The cases with image and labels, sorted by id.

    Raises:
        InputError: there is none.
    """
    cases = [case for case in list_cases(dataset) if case.imaging and case.segmentation]
    if not cases:
        raise InputError(f"{dataset} has no case with imaging.nii.gz and segmentation.nii.gz; check the folder")
    return cases


def fold_split(case_ids: Iterable[str], fold: int, n_folds: int = 5) -> tuple[list[str], list[str]]:
    """Splits sorted ids as scikit-learn's ``KFold(n_folds, shuffle=True, random_state=12345)``, the split of nnU-Net.

    Args:
        case_ids: unique ids, in any order.
        fold: 0 to ``n_folds - 1``.
        n_folds: at least 2.

    Returns:
        Training ids and validation ids, each sorted.

    Raises:
        ConfigError: ``fold`` is out of range, ids repeat, or there are fewer cases than folds.
    """
    ids = sorted(case_ids)
    if not 0 <= fold < n_folds or n_folds < 2:
        raise ConfigError(f"fold {fold} of {n_folds} does not exist; choose 0 to {max(n_folds, 2) - 1}.")
    if len(set(ids)) != len(ids):
        raise ConfigError("case ids repeat, so no split into folds is possible; remove the duplicates.")
    if len(ids) < n_folds:
        raise ConfigError(f"{len(ids)} cases cannot be split into {n_folds} folds; add cases or use fewer folds.")
    order = np.arange(len(ids))
    np.random.RandomState(FOLD_SEED).shuffle(order)  # the legacy generator: the published folds were drawn with it
    validation = set(np.array_split(order, n_folds)[fold].tolist())
    return (
        [case for i, case in enumerate(ids) if i not in validation],
        [case for i, case in enumerate(ids) if i in validation],
    )


def read_labels(path: Path) -> Volume:
    """Reads a label map as uint8 [z, y, x] with values of the label table.

    Raises:
        InputError: unreadable, or values outside the label table (the message names them).
        GeometryError: an unusable grid.
    """
    volume = read_nifti(path)
    array, highest = volume.array, max(label.id for label in LABELS)
    if array.dtype.kind == "f" or array.min() < 0 or array.max() > highest:
        unknown = np.setdiff1d(np.unique(array), range(highest + 1))
        if unknown.size:
            listed = ", ".join(f"{value:g}" for value in unknown[:5]) + (" and more" if unknown.size > 5 else "")
            allowed = ", ".join(f"{label.id} {label.name}" for label in LABELS)
            raise InputError(f"{path} holds the values {listed}, no labels; map them to 0 background, {allowed}.")
    return replace(volume, array=array.astype(np.uint8, copy=False), name=case_name(path))


def read_case(case: KitsCase) -> tuple[Volume, Volume]:
    """Reads the CT (HU) and the label map (uint8) of a case.

    Raises:
        InputError: a file is absent or unreadable.
        GeometryError: an unusable grid, or the two grids differ.
    """
    for file, what in ((case.imaging, IMAGING), (case.segmentation, SEGMENTATION)):
        if file is None:
            raise InputError(f"{case.case_id} has no {what}; download it or leave the case out.")
    assert case.imaging is not None
    assert case.segmentation is not None
    image = replace(check_ct(read_nifti(case.imaging), case.imaging), name=case.case_id)
    labels = replace(read_labels(case.segmentation), name=case.case_id)
    if not image.same_grid(labels, tolerance_mm=0.1):
        raise GeometryError(
            f"{case.imaging} ({image.shape}) and its {SEGMENTATION} ({labels.shape}) lie on different grids; "
            "download the case again."
        )
    return image, labels


def _case(folder: Path) -> KitsCase | None:
    imaging, segmentation = folder / IMAGING, folder / SEGMENTATION
    found = KitsCase(
        folder.name,
        imaging if imaging.is_file() else None,
        segmentation if segmentation.is_file() else None,
    )
    return None if found.imaging is None and found.segmentation is None else found
