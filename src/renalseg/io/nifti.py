"""NIfTI files to and from ``Volume``, with the stored grid carried bit for bit."""

import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from renalseg.core.errors import GeometryError, InputError, RenalsegError
from renalseg.core.volume import Volume, spacing_of
from renalseg.io.checks import build_volume, check_shape, narrow
from renalseg.io.files import atomic_path, split_name
from renalseg.io.layout import in_order

GEOMETRY_FIELDS = (
    *("sform_code", "qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z", "xyzt_units", "sizeof_hdr"),
)
"""Header fields carried verbatim; ``pixdim`` is carried up to its third axis."""

_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unknown, metre, millimetre, micrometre
_SCANNER = 1
_MM = 2
_GZIP_MAX_RATIO = 1100  # deflate cannot do better than about 1032 to 1


def read_nifti(path: Path) -> Volume:
    """Reads a ``.nii`` or ``.nii.gz`` file.

    Integers without a scale slope keep their type (wider than 16 bit: int16 where the values fit); everything else
    becomes float32. A trailing fourth dimension of size one is dropped, with a warning.

    Returns:
        The volume, whose ``grid.nifti_fields`` hold the geometry of the header verbatim.

    Raises:
        InputError: the file is missing, empty, truncated, damaged, not NIfTI, or holds RGB or complex values.
        GeometryError: not 3D, a single slice, or unusable spacing or affine.
    """
    try:
        with _open(path) as file:
            header = _read_header(file, path)
            shape, warnings = _shape(header, path)
            dtype = _voxel_type(header, path)
            affine = _affine(header, path, warnings)
            _check_size(shape, dtype, path)
            array = _read_array(file, header, shape, dtype)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(_damage(path, error)) from error
    except (HeaderDataError, WrapStructError, ValueError, KeyError, OverflowError) as error:
        raise InputError(f"{path} has a damaged NIfTI header ({error}); export or download it again.") from error
    return build_volume(array, affine, path, split_name(path.name)[0], _fields(header), tuple(warnings))


def may_be_labels(path: Path) -> bool:
    """Whether a file has voxels of one byte, as label maps have and CTs do not; or is too damaged to tell."""
    try:
        with _open(path) as file:
            return int(_read_header(file, path).get_data_dtype().itemsize) == 1
    except (RenalsegError, OSError, EOFError, ValueError, KeyError, zlib.error, HeaderDataError, WrapStructError):
        return True


def write_nifti(volume: Volume, path: Path) -> None:
    """Writes ``volume`` on its stored grid, atomically; the voxel type is kept (bool becomes uint8).

    A grid that came from NIfTI gets its header's geometry back bit for bit; any other is written with sform and qform
    in scanner coordinates (code 1). A sheared grid, which no qform can hold, gets a sform only.

    Raises:
        OutputError: the file could not be written.
    """
    array = in_order(volume.stored(), "F")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    fields = volume.grid.nifti_fields
    is_nifti2 = int(fields.get("sizeof_hdr", 348)) == 540
    header = nib.Nifti2Header() if is_nifti2 else nib.Nifti1Header()
    header.set_data_shape(array.shape)
    header.set_data_dtype(array.dtype)
    if fields:
        _restore(header, fields)
    else:
        _set_scanner_affine(header, volume.grid.affine)
    image = (nib.Nifti2Image if is_nifti2 else nib.Nifti1Image)(array, None, header)
    with atomic_path(path) as temporary:
        image.to_filename(temporary)


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        start = file.read(2)
    if not start:
        raise InputError(f"{path} is empty; export or download it again.")
    # By content, not by name: a plain NIfTI file named .nii.gz (and the reverse) reads as well.
    return cast(BinaryIO, gzip.open(path, "rb") if start == b"\x1f\x8b" else path.open("rb"))


def _read_header(file: BinaryIO, path: Path) -> Any:
    """The header as it stands in the file: nibabel's own loader would repair a negative spacing silently."""
    start = file.read(4)
    sizes = {int.from_bytes(start, "little"), int.from_bytes(start, "big")}
    header_class = nib.Nifti1Header if 348 in sizes else nib.Nifti2Header if 540 in sizes else None
    if header_class is None:
        raise InputError(f"{path} is not a NIfTI file; give a CT as NIfTI (.nii, .nii.gz), DICOM, NRRD or MetaImage.")
    block = start + file.read(header_class.sizeof_hdr - 4)
    if len(block) < header_class.sizeof_hdr:
        raise EOFError("the header is cut off")
    header = header_class(block, check=False)
    if not bytes(header["magic"].tobytes()).startswith((b"n+1", b"n+2")):
        raise InputError(f"{path} is not a single-file NIfTI (header and voxels in one); convert it to .nii.gz.")
    return header


def _shape(header: Any, path: Path) -> tuple[tuple[int, int, int], list[str]]:
    n_dimensions = int(header["dim"][0])
    if not 1 <= n_dimensions <= 7:
        raise HeaderDataError(f"{n_dimensions} dimensions")
    shape = tuple(int(n) for n in header["dim"][1 : n_dimensions + 1])
    warnings = []
    if len(shape) > 3 and set(shape[3:]) == {1}:
        warnings.append(
            f"The file has {len(shape)} dimensions, the last of size 1; it was read, and is written, as 3D."
        )
        shape = shape[:3]
    return check_shape(shape, path), warnings


def _voxel_type(header: Any, path: Path) -> np.dtype[Any]:
    dtype: np.dtype[Any] = header.get_data_dtype()
    if dtype.kind not in "iuf":
        kind = "complex" if dtype.kind == "c" else "colour (RGB)"
        raise InputError(f"{path} holds {kind} values, not HU; give the CT itself.")
    return dtype


def _affine(header: Any, path: Path, warnings: list[str]) -> NDArray[np.float64]:
    """Index to RAS mm; adds to ``warnings`` what had to be assumed."""
    pixdim = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if not np.isfinite(pixdim).all() or (pixdim <= 0).any():
        listed = " x ".join(f"{s:g}" for s in pixdim)
        raise GeometryError(f"{path} states a voxel spacing of {listed} mm; correct its pixdim or export it again.")
    if not (header["sform_code"] > 0 or header["qform_code"] > 0):
        warnings.append("The file states no orientation (sform and qform codes are 0); x was taken to run to the left.")
    header = _with_qfac(header)
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    if header["sform_code"] > 0:
        if np.isfinite(affine).all() and not np.allclose(spacing_of(affine), pixdim, rtol=0.01):
            warnings.append("The spacing in pixdim differs from that of the sform; the sform was used.")
        if header["qform_code"] > 0 and not _qform_agrees(header, affine):
            warnings.append("The qform differs from the sform; the sform was used.")
    affine[:3] *= _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    return affine


def _with_qfac(header: Any) -> Any:
    """A copy whose qfac is 1 or -1; the standard reads any other value as 1."""
    header = header.copy()
    if header["pixdim"][0] not in (1, -1):
        header["pixdim"][0] = 1
    return header


def _qform_agrees(header: Any, affine: NDArray[np.float64]) -> bool:
    try:
        return bool(np.allclose(header.get_qform(), affine, atol=0.1))
    except (HeaderDataError, ValueError):
        return False


def _check_size(shape: tuple[int, int, int], dtype: np.dtype[Any], path: Path) -> None:
    """Before memory is taken for it: a damaged header can state any size."""
    needed = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if path.stat().st_size * _GZIP_MAX_RATIO < needed:
        raise EOFError("far fewer bytes than the header states")


def _read_array(file: BinaryIO, header: Any, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Voxels in stored order (i, j, k); slice by slice, so float64 never exists for the whole volume."""
    slope, intercept = header.get_slope_inter()
    is_scaled = slope is not None and (slope, intercept) != (1.0, 0.0)
    keeps_type = dtype.kind in "iu" and not is_scaled
    array = np.empty(shape, dtype=dtype.newbyteorder("=") if keeps_type else np.float32, order="F")
    file.seek(max(int(header["vox_offset"]), int(header.sizeof_hdr) + 4))
    n_bytes = shape[0] * shape[1] * dtype.itemsize
    for k in range(shape[2]):
        block = file.read(n_bytes)
        if len(block) < n_bytes:
            raise EOFError(f"slice {k + 1} of {shape[2]} is cut off")
        values = np.frombuffer(block, dtype=dtype).reshape(shape[:2], order="F")
        with np.errstate(over="ignore", invalid="ignore"):
            array[..., k] = values * np.float64(slope) + np.float64(intercept) if is_scaled else values
    while file.read(1 << 20):  # to the end, where gzip compares its checksum
        pass
    return narrow(array)


def _damage(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path} does not exist; check the path."
    if isinstance(error, IsADirectoryError):
        return f"{path} is a folder, not a NIfTI file; give the file."
    if isinstance(error, PermissionError):
        return f"{path} may not be read; ask for permission to read it."
    return f"{path} is truncated or damaged ({error}); export or download it again."


def _fields(header: Any) -> Mapping[str, Any]:
    fields = {name: header[name].copy() for name in GEOMETRY_FIELDS}
    fields["pixdim"] = header["pixdim"][:4].copy()
    return fields


def _restore(header: Any, fields: Mapping[str, Any]) -> None:
    for name in GEOMETRY_FIELDS:
        header[name] = fields[name]
    header["pixdim"][:4] = fields["pixdim"]
    if int(fields["xyzt_units"]) & 7 == 0:
        header["xyzt_units"] = int(fields["xyzt_units"]) | _MM


def _set_scanner_affine(header: Any, affine: NDArray[np.float64]) -> None:
    header.set_xyzt_units("mm")
    header.set_sform(affine, code=_SCANNER)
    header.set_qform(affine, code=_SCANNER, strip_shears=True)
    if not np.allclose(header.get_qform(), affine, atol=1e-3):
        header["qform_code"] = 0
