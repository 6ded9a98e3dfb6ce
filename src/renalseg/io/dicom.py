"""A DICOM series, from a folder or a zip, to ``Volume``."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from renalseg.core.errors import InputError
from renalseg.core.volume import Volume
from renalseg.io.checks import build_volume, check_shape
from renalseg.io.dicom_pixels import PixelReader, read_stack
from renalseg.io.dicom_slices import Slice, read_headers, slices_of
from renalseg.io.dicom_source import open_source, quiet
from renalseg.io.dicom_stack import along_normal, same_position, sort_slices, stack_affine


def read_dicom(path: Path) -> Volume:
    """Reads the one DICOM series of a folder (with subfolders) or zip file.

    Other files, and DICOM objects that are no images, are ignored. Slices are sorted by position along their normal.
    Values are HU by each slice's own rescale; padding becomes -1024 HU.

    Returns:
        The volume, int16 where all HU are integers that fit, else float32, with the true (if tilted, sheared) affine.

    Raises:
        InputError: no images, several series, mixed, missing or contradicting slices, damaged files.
        GeometryError: geometry tags missing, uneven spacing, a single slice.
    """
    with quiet(), open_source(path) as source:
        headers = read_headers(source, path)
        _check_one_series(headers, path)
        slices = [item for name, header in headers.items() for item in slices_of(name, header, path)]
        warnings = _header_warnings(headers, slices)
        reader = PixelReader(source, path)
        slices = _drop_duplicates(sort_slices(slices, path), reader, path, warnings)
        rows, columns = slices[0].shape
        check_shape((columns, rows, len(slices)), path)
        affine, tilt = stack_affine(slices, path)
        array, padding = read_stack(reader, slices)
    return build_volume(array, affine, path, path.stem, warnings=(*warnings, *tilt, *padding))


def _check_one_series(headers: dict[str, Any], path: Path) -> None:
    series: dict[str, list[Any]] = defaultdict(list)
    for header in headers.values():
        series[str(header.get("SeriesInstanceUID", "without UID"))].append(header)
    if len(series) == 1:
        return
    listed = "; ".join(
        f"{uid} ({members[0].get('SeriesDescription') or 'no description'}, {len(members)} images)"
        for uid, members in sorted(series.items())
    )
    raise InputError(f"{path} holds {len(series)} series: {listed}; give a folder or zip with one of them.")


def _header_warnings(headers: dict[str, Any], slices: list[Slice]) -> list[str]:
    warnings = []
    modalities = sorted({str(header.get("Modality") or "unknown") for header in headers.values()} - {"CT"})
    if modalities:
        warnings.append(f"The modality is {', '.join(modalities)}, not CT; the result cannot be relied on.")
    if not all(item.has_rescale for item in slices):
        warnings.append("Slices state no rescale slope and intercept; their stored values were taken as HU.")
    return warnings


def _drop_duplicates(slices: list[Slice], reader: PixelReader, path: Path, warnings: list[str]) -> list[Slice]:
    """Drops slices that repeat their neighbour's position and HU.

    Raises:
        InputError: slices at one position differ.
    """
    pairs = same_position(slices)
    positions = along_normal(slices)
    for i, j in pairs:
        if not np.array_equal(reader.hu(slices[i])[0], reader.hu(slices[j])[0]):
            raise InputError(
                f"{path} holds {len(pairs)} repeated slice positions with different content, as {slices[i].file} and "
                f"{slices[j].file} at {positions[i]:.2f} mm; give a single phase or reconstruction."
            )
    if pairs:
        warnings.append(f"{len(pairs)} slices were exact duplicates of others; they were left out.")
    repeated = {j for _, j in pairs}
    return [item for i, item in enumerate(slices) if i not in repeated]
