"""Which labelled voxels belong to the patient's right kidney and which to the left, from connected components."""

from dataclasses import dataclass
from typing import Any, Literal

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from renalseg.core.labels import KIDNEY, LABELS
from renalseg.core.volume import Volume

Side = Literal["right", "left", "both"]
SIDES: dict[str, Side] = {"Right kidney": "right", "Left kidney": "left", "Both kidneys": "both"}
"""The patient's side by the title of a kidney."""

SMALLEST_KIDNEY_ML = 5.0
"""With less kidney tissue, a component is a fragment or a detached mass, not the second kidney. Our choice."""

SMALLEST_DISTANCE_MM = 50.0
"""Two kidneys' centres lie at least this far apart from right to left; closer components are one. Our choice."""

SURE_SIDE_MM = 30.0
"""A single kidney whose centre lies nearer than this to the middle of the grid may be either. Our choice."""

FARTHEST_PIECE_MM = 10.0
"""A piece with a wider gap to the kidney is detached from it; a narrower gap is a slip of the labels. Our choice."""

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
        body: bool [z, y, x], the kidney itself with its masses: the connected piece and what lies within
            ``FARTHEST_PIECE_MM`` of it; all other voxels are detached.
        volumes_ml: volume by label name, detached pieces included.
    """

    title: str
    note: str
    box: tuple[slice, slice, slice]
    labels: NDArray[np.uint8]
    body: NDArray[np.bool_]
    volumes_ml: dict[str, float]

    @property
    def attached(self) -> NDArray[np.uint8]:
        """``labels`` without what is detached."""
        return np.where(self.body, self.labels, 0).astype(np.uint8)

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

    The two largest components with kidney tissue that lie far enough apart are the kidneys; all else goes with the
    nearer one. A mass without kidney tissue counts as the second only on the other side of the grid's middle: what is
    left of a kidney that its tumor has replaced. Where there is only one, its side is told by the middle of the grid,
    unless it is wide enough to be both.

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
    middle = (labels.shape[2] - 1) / 2 - box[2].start
    right_mm = (middle - statistics["centroids"][1:, 2]) * labels.spacing_mm[2]
    per_ml = labels.voxel_mm3 / 1000
    ml = statistics["voxel_counts"][1:] * per_ml
    tissue_ml = np.bincount(components[labels.array[box] == KIDNEY], minlength=len(ml) + 1)[1:] * per_ml
    has_tissue = tissue_ml >= SMALLEST_KIDNEY_ML
    order = np.lexsort((-ml, ~has_tissue))
    first = order[0]
    far = np.abs(right_mm - right_mm[first]) >= SMALLEST_DISTANCE_MM
    replaced = (ml >= SMALLEST_KIDNEY_ML) & (right_mm * right_mm[first] < 0)
    partners = [i for i in order[1:] if far[i] and (has_tissue[i] or replaced[i])]
    if not partners:
        everything = np.ones(len(ml), np.bool_)
        body = _body(components, statistics["bounding_boxes"], int(first), everything, labels.affine)
        return (_single(labels, box, body, float(right_mm[first])),)
    is_right = right_mm > (right_mm[first] + right_mm[partners[0]]) / 2
    found = []
    for title, own in (("Right kidney", is_right), ("Left kidney", ~is_right)):
        main = next(i for i in (first, partners[0]) if own[i])
        note = "" if tissue_ml[main] else "no kidney tissue is labelled: its side is told by that of the mass"
        mask = np.concatenate([[False], own])[components]
        body = _body(components, statistics["bounding_boxes"], int(main), own, labels.affine)
        found.append(_cut_out(labels, box, mask, body, title, note))
    return tuple(found)


def _body(
    components: NDArray[np.integer[Any]],
    boxes: list[tuple[slice, slice, slice]],
    main: int,
    own: NDArray[np.bool_],
    affine: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Component ``main`` with those of ``own`` (from 0) that lie near it: bool [z, y, x]; ``boxes`` start with all.

    ``affine`` float64 [4, 4] maps index (z, y, x, 1) to mm; gaps are those between voxel centres.
    """
    near = np.zeros(len(own) + 1, np.bool_)
    near[main + 1] = True
    columns = affine[:3, :3]
    reach = np.ceil(FARTHEST_PIECE_MM * np.linalg.norm(np.linalg.inv(columns), axis=1)).astype(int).tolist()
    for i in np.flatnonzero(own):
        around = tuple(slice(max(0, s.start - r), s.stop + r) for s, r in zip(boxes[i + 1], reach, strict=True))
        part = components[around]
        if i != main and (part == main + 1).any():
            here, there = (np.argwhere(part == k + 1) @ columns.T for k in (i, main))
            gaps_mm, _ = cKDTree(there).query(here, distance_upper_bound=FARTHEST_PIECE_MM + 1e-6)
            near[i + 1] = np.isfinite(gaps_mm).any()
    found: NDArray[np.bool_] = near[components]
    return found


def _single(labels: Volume, box: tuple[slice, slice, slice], body: NDArray[np.bool_], right_mm: float) -> Kidney:
    """Everything labelled as one entry; the centre of ``body``, in ``box``, lies ``right_mm`` right of the middle."""
    cut = labels.array[box]
    columns = np.flatnonzero((body & (cut == KIDNEY)).any(axis=(0, 1)))
    if len(columns) and (columns[-1] + 1 - columns[0]) * labels.spacing_mm[2] > WIDEST_KIDNEY_MM:
        return _cut_out(labels, box, cut > 0, body, "Both kidneys", "fused or touching: one connected piece")
    note = "the only kidney found"
    if abs(right_mm) < SURE_SIDE_MM:
        note += "; its side is not sure, since it lies near the middle of the volume"
    return _cut_out(labels, box, cut > 0, body, "Left kidney" if right_mm < 0 else "Right kidney", note)


def _cut_out(
    labels: Volume,
    box: tuple[slice, slice, slice],
    mask: NDArray[np.bool_],
    body: NDArray[np.bool_],
    title: str,
    note: str,
) -> Kidney:
    """The part of ``labels`` under ``mask`` (bool [z, y, x], on ``box``, like ``body``) with its own, tight box."""
    inner = _box(mask)
    own = np.where(mask[inner], labels.array[box][inner], 0).astype(np.uint8)
    z, y, x = (slice(b.start + i.start, b.start + i.stop) for b, i in zip(box, inner, strict=True))
    counts = np.bincount(own.ravel(), minlength=len(LABELS) + 1)
    volumes_ml = {label.name: float(counts[label.id] * labels.voxel_mm3 / 1000) for label in LABELS}
    return Kidney(title, note, (z, y, x), own, body[inner], volumes_ml)


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """The tight bounding box of a mask that is not empty."""
    z, y, x = (np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    return slice(int(z[0]), int(z[-1]) + 1), slice(int(y[0]), int(y[-1]) + 1), slice(int(x[0]), int(x[-1]) + 1)
