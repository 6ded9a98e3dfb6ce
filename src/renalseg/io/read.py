"""The door: any supported file, folder or zip to a ``Volume`` in HU, checked."""

from dataclasses import replace
from pathlib import Path

from renalseg.core.errors import InputError
from renalseg.core.volume import Volume
from renalseg.io.checks import check_ct
from renalseg.io.files import split_name

NIFTI_SUFFIXES = (".nii", ".nii.gz")
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
SUPPORTED = "NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd), a folder or .zip with one DICOM series"

_GENERIC_NAMES = frozenset({"dicom", "imaging", "segmentation"})
"""File names that say nothing about the case: the folder's name is used instead."""


def read_volume(path: Path) -> Volume:
    """Reads a CT volume in any supported format and checks its geometry and its values.

    Args:
        path: a NIfTI, NRRD or MetaImage file, or a folder or zip file with one DICOM series.

    Returns:
        The volume, int16 or float32 [z, y, x] in HU, named by ``case_name``. Whatever was repaired or assumed is in
        its ``warnings``.

    Raises:
        InputError: missing, unreadable, unsupported, or ambiguous (as two DICOM series are).
        GeometryError: not 3D, a single slice, or unusable spacing, orientation or affine.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path.")
    return replace(check_ct(_read(path), path), name=case_name(path))


def case_name(path: Path) -> str:
    """The case's name: the file's or folder's name without suffix; for ``imaging.nii.gz`` or the like, its folder's."""
    place = naming_path(path)
    return (place.name if place.is_dir() else split_name(place.name)[0]) or "volume"


def naming_path(path: Path) -> Path:
    """The absolute path of the file or folder that a case is named after."""
    place = path.resolve()
    stem = place.name if path.is_dir() else split_name(place.name)[0]
    return place.parent if stem.lower() in _GENERIC_NAMES and place.parent.name else place


def _read(path: Path) -> Volume:
    suffix = split_name(path.name)[1].lower()
    if path.is_dir() or suffix == ".zip":
        from renalseg.io.dicom import read_dicom

        return read_dicom(path)
    if suffix in NIFTI_SUFFIXES:
        from renalseg.io.nifti import read_nifti

        return read_nifti(path)
    if suffix in ITK_SUFFIXES:
        from renalseg.io.itk import read_itk

        return read_itk(path)
    if suffix in (".dcm", ".ima"):
        raise InputError(f"{path} is a single DICOM file; give the folder that holds all slices of the series.")
    raise InputError(f"{path} has no supported format; give {SUPPORTED}.")
