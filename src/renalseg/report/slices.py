"""Slices of a CT as they are drawn: windowed, with outlines, the patient's sides and a scale bar.

Radiological convention, as ``Volume`` has it: the patient's right is on the image's left.
"""

from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np

from renalseg.core.labels import PAINT_ORDER
from renalseg.core.volume import Volume
from renalseg.report.drawing import OUTLINE, TEXT_COLOUR, colour_of, write
from renalseg.report.sides import Kidney

WINDOW_HU, LEVEL_HU = 400, 40
AIR_HU = -300
CONTEXT_Z_MM = 150.0


@dataclass(frozen=True)
class Plane:
    """A slicing direction: the array axis it cuts, those it shows, and the patient's sides at the four edges."""

    name: str
    axis: int
    rows: int
    columns: int
    left: str
    right: str
    top: str
    bottom: str


PLANES = (
    Plane("Axial", 0, 1, 2, "R", "L", "A", "P"),
    Plane("Coronal", 1, 0, 2, "R", "L", "H", "F"),
    Plane("Sagittal", 2, 0, 1, "A", "P", "H", "F"),
)

Span = tuple[float, float]


def spans_of(ct: Volume, kidneys: tuple[Kidney, ...]) -> tuple[Span, Span, Span]:
    """What axial and coronal panels show along (z, y, x), in mm: the body, without the air and the table around it."""
    thinned = np.ascontiguousarray(ct.array[:: max(ct.shape[0] // 40, 1), ::2, ::2] > AIR_HU)
    thinned = cc3d.largest_k(thinned, k=1, connectivity=6) > 0
    spans = []
    for axis, (count, spacing) in enumerate(zip(ct.shape, ct.spacing_mm, strict=True)):
        first, last = 0.0, float(count)
        if axis > 0:
            occupied = np.flatnonzero(thinned.mean(axis=tuple(a for a in range(3) if a != axis)) > 0.01) * 2
            if len(occupied):
                margin = 8 / spacing
                first, last = occupied[0] - margin, occupied[-1] + 2 + margin
        if kidneys:
            margin = (CONTEXT_Z_MM if axis == 0 else 20) / spacing
            low = min(k.box[axis].start for k in kidneys) - margin
            high = max(k.box[axis].stop for k in kidneys) + margin
            first, last = (max(first, low), min(last, high)) if axis == 0 else (min(first, low), max(last, high))
        spans.append(((max(first, 0) - 0.5) * spacing, (min(last, count) - 0.5) * spacing))
    return spans[0], spans[1], spans[2]


def draw_slice(axes: Any, ct: Volume, labels: Volume, plane: Plane, index: int) -> None:
    """The windowed slice with one thin outline per label, in mm from the centre of voxel (0, 0)."""
    where = tuple(index if axis == plane.axis else slice(None) for axis in range(3))
    image, shown = ct.array[where], labels.array[where]
    dy, dx = ct.spacing_mm[plane.rows], ct.spacing_mm[plane.columns]
    height, width = image.shape
    axes.imshow(
        np.nan_to_num(image.astype(np.float32), nan=-1024),
        cmap="gray",
        vmin=LEVEL_HU - WINDOW_HU / 2,
        vmax=LEVEL_HU + WINDOW_HU / 2,
        extent=(-dx / 2, (width - 0.5) * dx, (height - 0.5) * dy, -dy / 2),
        origin="upper",
        interpolation="hanning",
    )
    x, y = np.arange(-1, width + 1) * dx, np.arange(-1, height + 1) * dy
    for label in PAINT_ORDER:
        mask = np.pad(shown == label, 1)
        if mask.any():
            axes.contour(x, y, mask.astype(np.float32), levels=[0.5], colors=[colour_of(label)], linewidths=1.3)


def frame_slice(axes: Any, plane: Plane, view: tuple[Span, Span]) -> None:
    """Crops to ``view`` (rows, columns; mm), marks the patient's sides and draws the scale bar."""
    (top, bottom), (left, right) = view
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], facecolor="black")
    axes.set_aspect("equal", adjustable="box", anchor="C")
    for spine in axes.spines.values():
        spine.set_visible(False)
    edge = {
        "color": TEXT_COLOUR,
        "fontsize": 13,
        "weight": "bold",
        "path_effects": OUTLINE,
        "transform": axes.transAxes,
    }
    write(axes, 0.015, 0.5, plane.left, va="center", **edge)
    write(axes, 0.985, 0.5, plane.right, ha="right", va="center", **edge)
    write(axes, 0.5, 0.985, plane.top, ha="center", va="top", **edge)
    write(axes, 0.5, 0.015, plane.bottom, ha="center", va="bottom", **edge)
    bar = _bar_mm(right - left)
    x, y = left + (right - left) * 0.03, bottom - (bottom - top) * 0.035
    axes.plot([x, x + bar], [y, y], color=TEXT_COLOUR, linewidth=2.5, solid_capstyle="butt", path_effects=OUTLINE)
    label_y = y - (bottom - top) * 0.015
    write(axes, x, label_y, f"{bar:g} mm", va="bottom", color=TEXT_COLOUR, fontsize=10.5, path_effects=OUTLINE)


def _bar_mm(width_mm: float) -> float:
    """A round length of at most a quarter of the panel's width."""
    return max((n for n in (1, 2, 5, 10, 20, 50, 100) if n <= width_mm / 4), default=width_mm / 4)
