"""NRRD and MetaImage files to ``Volume``, through SimpleITK."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from renalseg.core.errors import GeometryError, InputError
from renalseg.core.volume import Volume
from renalseg.io.checks import build_volume, narrow
from renalseg.io.files import HEADER_BYTES, split_name

_GEOMETRY_LINE = re.compile(
    r"^\s*(?P<key>spacings|space directions|ElementSpacing|ElementSize|TransformMatrix|Rotation|Orientation)\s*[:=]+"
    r"(?P<value>.*)$",
    re.IGNORECASE,
)
_METAIO_LINE = re.compile(rb"Meta\w*:|M_\w+:|\s+ideal = |\s*$")
_HEADER_END = re.compile(rb"\r?\n\r?\n|ElementDataFile")
_NUMBER = re.compile(r"[-+]?(?:nan|inf(?:inity)?|(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)", re.IGNORECASE)

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_itk(path: Path) -> Volume:
    """Reads a ``.nrrd``, ``.nhdr``, ``.mha`` or ``.mhd`` file; labels are later written as NIfTI on an equal grid.

    Raises:
        InputError: missing, truncated or damaged, or holds colour or complex values.
        GeometryError: not 3D, a single slice, or unusable spacing or affine.
    """
    import SimpleITK as sitk

    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file; check the path.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; export or download it again.")
    _check_header(path)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # else C++ writes to stderr
    try:
        with _silent_stderr():
            image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(f"{path} is truncated or damaged, or its data file is missing; export it again.") from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"{path} holds several values per voxel (colour, complex or vectors); give the CT itself.")
    image, warnings = _drop_fourth_axis(image, sitk)
    array = sitk.GetArrayFromImage(image)
    affine = np.eye(4) if image.GetDimension() != 3 else ras_affine(image)
    return build_volume(narrow(array.transpose()), affine, path, split_name(path.name)[0], warnings=warnings)


def _check_header(path: Path) -> None:
    """Raises GeometryError for spacings and axes that ITK would mend in silence, flip, or call damaged."""
    spacings, axes = _stated_geometry(path)
    for spacing in spacings:
        if not np.isfinite(spacing) or spacing <= 0:
            raise GeometryError(f"{path} states a voxel spacing of {spacing:g} mm; correct its header.")
    if axes is not None and not (np.isfinite(axes).all() and abs(np.linalg.det(axes)) > 1e-6):
        raise GeometryError(f"{path} states axes that do not span space: {axes.tolist()}; correct its header.")


def _stated_geometry(path: Path) -> tuple[list[float], NDArray[np.float64] | None]:
    """Spacings in mm and unit axes [3, 3] in the text header of a 3D NRRD or MetaImage file, as far as stated."""
    with path.open("rb") as stream:
        text = _HEADER_END.split(stream.read(HEADER_BYTES))[0].decode("latin-1")
    spacings: list[float] = []
    axes: NDArray[np.float64] | None = None
    for line in text.splitlines():
        match = _GEOMETRY_LINE.match(line)
        if match is None:
            continue
        numbers = [float(n) for n in _NUMBER.findall(match["value"])]
        if match["key"].lower() in ("spacings", "elementspacing", "elementsize") and len(numbers) == 3:
            spacings += numbers
        elif len(numbers) == 9:
            axes = np.reshape(numbers, (3, 3))
            if match["key"].lower() == "space directions":
                lengths = np.linalg.norm(axes, axis=1)
                spacings += lengths.tolist()
                axes = axes / np.where(lengths > 0, lengths, 1.0)[:, None]
    return spacings, axes


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keeps MetaIO off file descriptor 2, where it writes itself, below ITK's switch, before ITK raises.

    What others wrote there meanwhile, in other threads, comes after the body of the ``with``.
    """
    try:
        saved = os.dup(2)
    except OSError:  # stderr is closed: nothing to silence
        yield
        return
    with TemporaryFile() as held:
        try:
            os.dup2(held.fileno(), 2)
            yield
        finally:
            os.dup2(saved, 2)
            held.seek(0)
            lines = held.read().splitlines(keepends=True)
            if others := b"".join(line for line in lines if not _METAIO_LINE.match(line)):
                os.write(saved, others)
            os.close(saved)


def ras_affine(image: Any) -> NDArray[np.float64]:
    """Index (i, j, k, 1) to RAS mm of a 3D SimpleITK image, whose own world is LPS mm."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return LPS_TO_RAS @ affine


def _drop_fourth_axis(image: Any, sitk: Any) -> tuple[Any, tuple[str, ...]]:
    size = image.GetSize()
    if len(size) != 4 or size[3] != 1:
        return image, ()
    image = sitk.Extract(image, (*size[:3], 0), (0, 0, 0, 0))
    return image, ("The file has 4 dimensions, the last of size 1; it was read as 3D.",)
