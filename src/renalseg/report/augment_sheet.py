"""A contact sheet of training samples: one panel a version, slices of the network's input with the label outlines.

Each panel shows the axial slice through the middle of the largest lesion and, below it, a coronal one, where changes
along z show. Pixels are those of the network's grid, so proportions are not the patient's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import renalseg
from renalseg.core.errors import InputError
from renalseg.core.labels import KIDNEY, LABELS, MASSES, PAINT_ORDER
from renalseg.io.files import atomic_path
from renalseg.report.drawing import (
    BACKGROUND_COLOUR,
    DPI,
    GAP_PX,
    MARGIN_PX,
    QUIET_COLOUR,
    WIDTH_PX,
    clean,
    colour_of,
    from_top,
    save_png,
    write_px,
)

TOP_PX, CAPTION_PX, BOTTOM_PX, SEAM_PX = 116, 38, 60, 6

Panel = tuple[str, NDArray[np.floating], NDArray[np.uint8]]


@dataclass(frozen=True)
class _Cut:
    """One slice of a panel: image and labels [rows, columns]."""

    image: NDArray[np.float32]
    labels: NDArray[np.uint8]


@dataclass(frozen=True)
class _Drawn:
    """A panel reduced to what is drawn of it."""

    title: str
    position: str
    axial: _Cut
    coronal: _Cut


def augment_sheet(
    panels: Iterable[Panel], path: Path, title: str, window_hu: tuple[float, float], subtitle: str = ""
) -> None:
    """Draws versions of one sample and writes them as one PNG: four in a row, six where they are tall.

    Args:
        panels: (title, image [z, y, x] in [-1, 1], labels uint8 of the same shape), all of one shape; consumed one at
            a time. Labels outside the label table are not drawn.
        path: the PNG file to write.
        title: the headline.
        window_hu: what -1 and 1 of the image stand for, in HU.
        subtitle: a second, quieter line.

    Raises:
        InputError: there is no panel, or their shapes differ.
        OutputError: the file could not be written.
    """
    drawn = [_reduce(*panel) for panel in panels]
    shapes = {(panel.axial.image.shape, panel.coronal.image.shape) for panel in drawn}
    if len(shapes) != 1:
        raise InputError(f"a sheet needs samples of one shape, not {len(shapes)}; give at least one sample.")
    (height, width), (depth, _) = shapes.pop()
    columns = 4 if height + depth <= width else 6
    cell_px = (WIDTH_PX - 2 * MARGIN_PX - (columns - 1) * GAP_PX) // columns
    axial_px, coronal_px = (max(round(cell_px * rows / width), 1) for rows in (height, depth))
    row_px = CAPTION_PX + axial_px + SEAM_PX + coronal_px + GAP_PX
    height_px = TOP_PX + row_px * -(-len(drawn) // columns) + BOTTOM_PX
    figure = Figure(figsize=(WIDTH_PX / DPI, height_px / DPI), dpi=DPI, facecolor=BACKGROUND_COLOUR)
    _draw_frame(figure, title, subtitle, window_hu)
    for place, panel in enumerate(drawn):
        left, top = MARGIN_PX + place % columns * (cell_px + GAP_PX), TOP_PX + place // columns * row_px
        _draw_caption(figure, panel, left, top + 24, cell_px)
        _draw_cut(figure, panel.axial, left, top + CAPTION_PX, (cell_px, axial_px))
        _draw_cut(figure, panel.coronal, left, top + CAPTION_PX + axial_px + SEAM_PX, (cell_px, coronal_px))
    with atomic_path(path) as temporary:
        save_png(figure, temporary)


def _reduce(title: str, image: NDArray[np.floating], labels: NDArray[np.uint8]) -> _Drawn:
    """Keeps the two slices through the middle of the largest lesion."""
    z, y = _middle(labels)
    axial, coronal = (_Cut(image[at].astype(np.float32), labels[at].copy()) for at in (np.s_[z], np.s_[:, y]))
    return _Drawn(title, f"z {z + 1} · y {y + 1}", axial, coronal)


def _middle(labels: NDArray[np.uint8]) -> tuple[int, int]:
    """Slice and row in the middle of the largest connected lesion, else kidney, else volume."""
    for mask in (MASSES.mask(labels), labels == KIDNEY):
        if mask.any():
            largest = cc3d.largest_k(np.ascontiguousarray(mask), k=1, connectivity=26) > 0
            areas = largest.sum(axis=(1, 2)), largest.sum(axis=(0, 2))
            z, y = (int(np.searchsorted(a.cumsum(), a.sum() / 2)) for a in areas)
            return z, y
    return labels.shape[0] // 2, labels.shape[1] // 2


def _draw_caption(figure: Any, panel: _Drawn, left_px: float, baseline_px: float, width_px: float) -> None:
    """What was done, and at the right where the slices lie, counted from 1."""
    write_px(figure, left_px, baseline_px, clean(panel.title, 30), fontsize=13, weight="bold")
    style = {"fontsize": 10.5, "color": QUIET_COLOUR, "ha": "right"}
    write_px(figure, left_px + width_px, baseline_px, panel.position, **style)


def _draw_cut(figure: Any, cut: _Cut, left_px: float, top_px: float, size_px: tuple[float, float]) -> None:
    """One slice with one thin outline per label, stretched to ``size_px`` (width, height)."""
    width, height = size_px[0] / WIDTH_PX, size_px[1] / (figure.get_figheight() * DPI)
    axes = figure.add_axes((left_px / WIDTH_PX, from_top(figure, top_px) - height, width, height))
    axes.imshow(cut.image, cmap="gray", vmin=-1.0, vmax=1.0, origin="upper", interpolation="hanning", aspect="auto")
    rows, columns = cut.image.shape
    y, x = np.arange(-1, rows + 1), np.arange(-1, columns + 1)
    for label in PAINT_ORDER:
        mask = np.pad(cut.labels == label, 1)
        if mask.any():
            axes.contour(x, y, mask.astype(np.float32), levels=[0.5], colors=[colour_of(label)], linewidths=1.0)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    axes.set_axis_off()


def _draw_frame(figure: Any, title: str, subtitle: str, window_hu: tuple[float, float]) -> None:
    """Headline, second line, colours, window and footer."""
    write_px(figure, MARGIN_PX, 48, clean(title, 80), fontsize=21, weight="bold")
    write_px(figure, MARGIN_PX, 86, clean(subtitle, 140), fontsize=12.5, color=QUIET_COLOUR)
    low, high = window_hu
    window = f"Window W {high - low:g} / L {(low + high) / 2:g} HU"
    right = WIDTH_PX - MARGIN_PX
    write_px(figure, right, 86, window, fontsize=12.5, color=QUIET_COLOUR, ha="right")
    for place, label in enumerate(LABELS):
        left = right - 205 + 80 * place
        write_px(figure, left, 48, label.name, fontsize=14, color=colour_of(label.id))
    bottom = figure.get_figheight() * DPI - 24
    footer = f"renalseg {renalseg.__version__} · research use only, not a medical device"
    write_px(figure, MARGIN_PX, bottom, footer, fontsize=11.5, color=QUIET_COLOUR)
    note = "Above axial, below coronal, on the network's grid: proportions are not the patient's"
    write_px(figure, right, bottom, note, fontsize=11.5, color=QUIET_COLOUR, ha="right")
