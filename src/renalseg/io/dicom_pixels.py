"""Pixels of DICOM slices to HU."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from renalseg.core.errors import InputError
from renalseg.io.checks import AIR_HU
from renalseg.io.dicom_slices import Slice, damage_named
from renalseg.io.dicom_source import Source, read_object


class PixelReader:
    """Decodes slices; keeps the last object, so that the frames of a multi-frame one are not parsed again."""

    def __init__(self, source: Source, path: Path) -> None:
        self.source, self.path = source, path
        self._last: tuple[str, Any] = ("", None)

    def raw(self, item: Slice) -> NDArray[Any]:
        """Stored values [row, column].

        Raises:
            InputError: the pixel data are missing, truncated, or compressed in an unknown way.
        """
        from pydicom.pixels import pixel_array

        data = self._object(item.file)
        try:
            values: NDArray[Any] = pixel_array(data, index=item.frame)
        except Exception as error:  # the decoders raise whatever they like: RuntimeError, ValueError, struct.error
            raise InputError(
                f"{self.path} holds {item.file} whose pixels cannot be decoded ({_first_line(error)}); export it again."
            ) from error
        if values.shape != item.shape:
            raise InputError(f"{self.path} holds {item.file} with pixels of shape {values.shape}; export it again.")
        return values

    def hu(self, item: Slice) -> tuple[NDArray[np.float64], int]:
        """HU, float64 [row, column], padding set to -1024; and how many padding pixels had the value of soft tissue.

        Raises:
            InputError: as ``raw``.
        """
        values = self.raw(item)
        hu = values * np.float64(item.slope) + np.float64(item.intercept)
        with damage_named(item.file, self.path):
            padding = _padding_range(self._object(item.file))
        if padding is None:
            return hu, 0
        is_padding = (values >= padding[0]) & (values <= padding[1])
        suspect = int(np.count_nonzero(is_padding & (hu > -200) & (hu < 400)))
        hu[is_padding] = AIR_HU
        return hu, suspect

    def _object(self, name: str) -> Any:
        if self._last[0] != name:
            with damage_named(name, self.path):
                self._last = (name, read_object(self.source, name, headers_only=False))
        return self._last[1]


def read_stack(reader: PixelReader, slices: list[Slice]) -> tuple[NDArray[Any], list[str]]:
    """The HU of sorted slices as [column, row, slice], int16 where all values are integers that fit, else float32."""
    array: NDArray[Any] = np.empty((len(slices), *slices[0].shape), dtype=np.int16)
    limits = np.iinfo(np.int16)
    suspect = 0
    for k, item in enumerate(slices):
        hu, n_suspect = reader.hu(item)
        suspect += n_suspect
        is_integer = float(item.slope).is_integer() and float(item.intercept).is_integer()
        if array.dtype == np.int16 and not (is_integer and hu.min() >= limits.min and hu.max() <= limits.max):
            array = array.astype(np.float32)
        array[k] = hu
    warnings = [f"{suspect} voxels of soft tissue value are marked as padding; they were set to {AIR_HU} HU."]
    return array.transpose(), warnings if suspect else []


def _padding_range(data: Any) -> tuple[int, int] | None:
    value, limit = data.get("PixelPaddingValue"), data.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return None
    ends = [value, limit if isinstance(limit, int) else value]
    if int(data.get("PixelRepresentation", 0)) == 1:  # signed pixels whose padding was written as unsigned
        bits = int(data.get("BitsAllocated", 16))
        ends = [end - (1 << bits) if end >= 1 << (bits - 1) else end for end in ends]
    return min(ends), max(ends)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")[:150]
