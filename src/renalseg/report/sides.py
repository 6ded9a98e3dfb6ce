"""Which labelled voxels belong to the patient's right kidney and which to the left, from connected components."""

from dataclasses import dataclass
from typing import Literal

import cc3d
import numpy as np
from numpy.typing import NDArray

from renalseg.core.labels import KIDNEY, LABELS
from renalseg.core.volume import Volume

Side = Literal["right", "left", "both"]
SIDES: dict[str, Side] = {"Right kidney": "right", "Left kidney": "left", "Both kidneys": "both"}
"""The patient's side by the title of a kidney."""

SMALLEST_KIDNEY_ML = 5.0
"""Below this, a component is a fragment or a detached mass, not the second kidney. Our choice."""

SMALLEST_DISTANCE_MM = 50.0
"""Two kidneys' centres lie at least this far apart from right to left; closer components are one. Our choice."""

WIDEST_KIDNEY_MM = 140.0
"""Kidney tissue in one piece that spans more than this from right to left is two kidneys. Our choice."""


@dataclass(frozen=True)
class Kidney:
    """One kidney with its masses, or two that form one piece.

    Attributes:
        title: "Right kidney", "Left kidney" or "Both kidneys": the patient's sides.
        note: what is special about it, or an empty string.
        box: where ``labels`` lies in the whole volume, [z, y, x].
        labels: uint8 [z, y, x], cut out of the label map at ``box``; voxels of other kidneys are 0.
        volumes_ml: volume by label name.
    """

    title: str
    note: str
    box: tuple[slice, slice, slice]
    labels: NDArray[np.uint8]
    volumes_ml: dict[str, float]

    @property
    def side(self) -> Side:
        """The patient's side."""
        return SIDES[self.title]

    @property
    def start(self) -> tuple[int, int, int]:
        """Index (z, y, x) of ``labels[0, 0, 0]`` in the whole volume."""
        z, y, x = self.box
        return z.start, y.start, x.start


def kidney_sides(labels: Volume) -> tuple[Kidney, ...]:
    """Splits a label map into the patient's right and left kidney, each with its tumors and cysts.

    The two largest components far enough apart are the kidneys; fragments go with the nearer one. Where there is only
    one, its side is told by the middle of the grid, unless it is wide enough to be both.

    Args:
        labels: label map [z, y, x] on its grid; see ``core.labels``.

    Returns:
        The right kidney first; one entry for a solitary kidney or fused kidneys; none without any label.
    """
    foreground = labels.array > 0
    if not foreground.any():
        return ()
    box = _box(foreground)
    components = cc3d.connected_components(np.ascontiguousarray(foreground[box]), connectivity=26)
    statistics = cc3d.statistics(components)
    centres = statistics["centroids"][1:, 2]
    order = np.argsort(-statistics["voxel_counts"][1:].astype(np.int64), kind="stable")
    ml = statistics["voxel_counts"][1:] * labels.voxel_mm3 / 1000
    far = np.abs(centres - centres[order[0]]) * labels.spacing_mm[2] >= SMALLEST_DISTANCE_MM
    partners = [i for i in order[1:] if far[i] and ml[i] >= SMALLEST_KIDNEY_ML]
    if not partners:
        return (_single(labels, box, components == order[0] + 1, float(centres[order[0]])),)
    middle = (centres[order[0]] + centres[partners[0]]) / 2
    is_left = np.concatenate([[False], centres > middle])[components]
    right = _cut_out(labels, box, (components > 0) & ~is_left, "Right kidney")
    return right, _cut_out(labels, box, is_left, "Left kidney")


def _single(labels: Volume, box: tuple[slice, slice, slice], largest: NDArray[np.bool_], centre: float) -> Kidney:
    """Everything labelled as one entry; ``centre`` is the mean x of the ``largest`` component in ``box``, in voxels."""
    cut = labels.array[box]
    columns = np.flatnonzero((largest & (cut == KIDNEY)).any(axis=(0, 1)))
    if len(columns) and (columns[-1] + 1 - columns[0]) * labels.spacing_mm[2] > WIDEST_KIDNEY_MM:
        return _cut_out(labels, box, cut > 0, "Both kidneys", "fused or touching: one connected piece")
    is_left = box[2].start + centre > (labels.shape[2] - 1) / 2
    return _cut_out(labels, box, cut > 0, "Left kidney" if is_left else "Right kidney", "the only kidney found")


def _cut_out(
    labels: Volume, box: tuple[slice, slice, slice], mask: NDArray[np.bool_], title: str, note: str = ""
) -> Kidney:
    """The part of ``labels`` under ``mask`` (bool [z, y, x], on ``box``) with its own, tight box."""
    inner = _box(mask)
    own = np.where(mask[inner], labels.array[box][inner], 0).astype(np.uint8)
    z, y, x = (slice(b.start + i.start, b.start + i.stop) for b, i in zip(box, inner, strict=True))
    counts = np.bincount(own.ravel(), minlength=len(LABELS) + 1)
    volumes_ml = {label.name: float(counts[label.id] * labels.voxel_mm3 / 1000) for label in LABELS}
    return Kidney(title, note, (z, y, x), own, volumes_ml)


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """The tight bounding box of a mask that is not empty."""
    z, y, x = (np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    return slice(int(z[0]), int(z[-1]) + 1), slice(int(y[0]), int(y[-1]) + 1), slice(int(x[0]), int(x[-1]) + 1)
