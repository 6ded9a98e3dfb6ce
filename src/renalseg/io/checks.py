"""The checks that every format shares: geometry on the way in, then whether the values look like CT in HU."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from renalseg.core.errors import GeometryError, InputError
from renalseg.core.volume import Grid, Volume
from renalseg.io.layout import in_order

AIR_HU = -1024
MIN_VOXELS_PER_AXIS = 2


def check_shape(shape: tuple[int, ...], path: Path) -> tuple[int, int, int]:
    """Returns ``shape`` where it is 3D with at least two voxels along each axis.

    Raises:
        GeometryError: it is not; the message names the file and the shape.
    """
    listed = " x ".join(str(n) for n in shape)
    if len(shape) != 3:
        raise GeometryError(f"{path} has {len(shape)} dimensions ({listed}); give a single 3D CT volume.")
    if min(shape) < MIN_VOXELS_PER_AXIS:
        raise GeometryError(f"{path} is {listed} voxels, a single slice; give a volume of several slices.")
    return shape[0], shape[1], shape[2]


def build_volume(
    array: NDArray[Any],
    affine: NDArray[np.float64],
    path: Path,
    name: str,
    nifti_fields: Mapping[str, Any] | None = None,
    warnings: tuple[str, ...] = (),
) -> Volume:
    """Makes a Volume of an array in stored axis order (i, j, k) and its affine (index to RAS mm).

    Raises:
        GeometryError: the shape, the spacing or the affine is unusable; the message names the file.
    """
    shape = check_shape(array.shape, path)
    try:
        grid = Grid(shape, affine, nifti_fields or {})
    except GeometryError as error:
        raise GeometryError(f"{path} cannot be used: {error}; correct its geometry or export it again.") from error
    volume = Volume.from_stored(array, grid, name, warnings)
    return replace(volume, array=in_order(volume.array, "C"))  # no negative strides, which torch refuses


def narrow(array: NDArray[Any]) -> NDArray[Any]:
    """Keeps integers of up to 16 bit and float32; wider integers become int16 where the values fit, else float32."""
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    return array if array.dtype.itemsize <= 2 else _signed(array)


def _signed(array: NDArray[Any]) -> NDArray[Any]:
    limits = np.iinfo(np.int16)
    fits = array.min() >= limits.min and array.max() <= limits.max
    return array.astype(np.int16 if fits else np.float32, copy=False)


def check_ct(volume: Volume, path: Path) -> Volume:
    """Checks that the values can be CT in HU.

    The result is int16 or float32. NaN and infinite voxels become -1024 HU. What was repaired or looks wrong is added
    to ``warnings``.

    Raises:
        InputError: no voxel has a finite value.
    """
    array, warnings = volume.array, list(volume.warnings)
    if array.dtype.kind != "f":
        array = _signed(array)
    else:
        finite = np.isfinite(array)
        bad = array.size - int(np.count_nonzero(finite))
        if bad == array.size:
            raise InputError(f"{path} holds no finite value, only NaN or infinity; export the CT again.")
        if bad:
            array = np.where(finite, array, np.asarray(AIR_HU, array.dtype))
            warnings.append(f"{bad} voxels were NaN or infinite; they were set to {AIR_HU} HU.")
    low, high = float(array.min()), float(array.max())
    if low == high:
        warnings.append(f"All voxels have the same value ({low:g}); there is nothing to segment.")
    elif low >= 0 and high <= 255:
        warnings.append(f"The values span {low:g} to {high:g}; this looks like a scaled picture, not CT in HU.")
    elif low >= 0 and high > 1000:
        warnings.append(f"The values span {low:g} to {high:g}; HU may be shifted, as air should be near -1000 HU.")
    elif low >= -10 and high <= 10:
        warnings.append(f"The values span {low:g} to {high:g}; this looks like a normalised image, not CT in HU.")
    return replace(volume, array=array, warnings=tuple(warnings))
