"""What a DICOM SEG has segments of: each kidney's parenchyma, each lesion, and what was too small to be measured."""

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from renalseg.core.errors import InputError
from renalseg.core.labels import CYST, KIDNEY, TUMOR
from renalseg.core.volume import Volume
from renalseg.image.boxes import Box
from renalseg.report.measure.lesions import find_piece
from renalseg.report.sides import kidney_sides

_KINDS = {"tumor": TUMOR, "cyst": CYST}
_Indices = tuple[NDArray[np.intp], ...]


@dataclass(frozen=True)
class Segment:
    """One segment.

    Attributes:
        number: from 1; the value of its voxels.
        label: of the label table: kidney, tumor or cyst.
        side: "right", "left" or "both"; None for fragments of several places.
        title: for people, as "Tumor 1, right kidney".
        tracking_id: name under which SEG and SR speak of it, unique within a case.
        tracking_uid: the same for the same voxels in the same series, whenever it is made.
        measured: its entry of the measurements; None for fragments, which have none.
    """

    number: int
    label: int
    side: str | None
    title: str
    tracking_id: str
    tracking_uid: str
    measured: Mapping[str, Any] | None


@dataclass(frozen=True)
class Segments:
    """All segments of a case, and the voxels of each: ``numbers`` is uint16 [z, y, x], 0 for background."""

    items: tuple[Segment, ...]
    numbers: Volume


def find_segments(labels: Volume, measurements: Mapping[str, Any], series_uid: str) -> Segments:
    """Splits a label map into segments that do not overlap and leave no labelled voxel out.

    Args:
        labels: label map [z, y, x].
        measurements: of ``labels``, as ``report.measure`` describes them ("renalseg-measurements/1").
        series_uid: of the source series; tracking UIDs depend on it.

    Returns:
        Kidneys first (right before left), then lesions by id, then fragments of tumor and of cyst. None of an empty
        label map.

    Raises:
        InputError: the measurements are of another label map.
    """
    numbers = np.zeros(labels.shape, np.uint16)
    items: list[Segment] = []

    def add(found: Iterable[_Found]) -> None:
        for one in found:
            number = len(items) + 1
            numbers[one.voxels] = number
            uid = _tracking_uid(series_uid, one.name, np.ravel_multi_index(one.voxels, labels.shape))
            items.append(Segment(number, one.label, one.side, one.title, f"renalseg {one.name}", uid, one.measured))

    add(_kidneys(labels, measurements["kidneys"]))
    add(_lesions(labels, measurements["lesions"]))
    add(_fragments(labels, numbers))
    return Segments(tuple(items), labels.with_array(numbers))


@dataclass(frozen=True)
class _Found:
    """Voxels (indices z, y, x) that will be a segment."""

    voxels: _Indices
    label: int
    side: str | None
    name: str
    title: str
    measured: Mapping[str, Any] | None


def _kidneys(labels: Volume, measured: Sequence[Mapping[str, Any]]) -> Iterator[_Found]:
    by_side = {kidney["side"]: kidney for kidney in measured}
    for kidney in kidney_sides(labels):
        if kidney.side not in by_side:
            raise _mismatch(labels, f"they lack the {kidney.title.lower()}")
        if (kidney.labels == KIDNEY).any():
            voxels = _moved(np.nonzero(kidney.labels == KIDNEY), kidney.start)
            yield _Found(voxels, KIDNEY, kidney.side, kidney.title.lower(), kidney.title, by_side[kidney.side])


def _lesions(labels: Volume, measured: Sequence[Mapping[str, Any]]) -> Iterator[_Found]:
    for lesion in measured:
        kind, side, name = lesion["kind"], lesion["side"], f"{lesion['kind']} {lesion['id']}"
        box = Box(tuple(lesion["box_zyx"]["start"]), tuple(lesion["box_zyx"]["stop"]))
        mask = find_piece(labels.array, kind, box, lesion["voxels"])
        if mask is None:
            raise _mismatch(labels, f"there is no {name} where they say")
        place = "both kidneys" if side == "both" else f"{side} kidney"
        voxels = _moved(np.nonzero(mask), box.start)
        yield _Found(voxels, _KINDS[kind], side, name, f"{name.capitalize()}, {place}", lesion)


def _fragments(labels: Volume, numbers: NDArray[np.uint16]) -> Iterator[_Found]:
    for kind, label in _KINDS.items():
        voxels = np.nonzero((labels.array == label) & (numbers == 0))
        if voxels[0].size:
            yield _Found(voxels, label, None, f"{kind} fragments", f"{kind.capitalize()} fragments, not measured", None)


def _moved(indices: _Indices, start: Sequence[int]) -> _Indices:
    return tuple(axis + first for axis, first in zip(indices, start, strict=True))


def _tracking_uid(series_uid: str, name: str, voxels: NDArray[np.intp]) -> str:
    """A UID made of the series, the name and the voxels (flat indices): PS3.5 B.2, from a name-based UUID."""
    content = hashlib.sha256(voxels.astype("<i8").tobytes()).hexdigest()
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{series_uid}/{name}/{content}').int}"


def _mismatch(labels: Volume, why: str) -> InputError:
    return InputError(f"{labels.name}: the measurements are of other labels, {why}; measure these labels.")
