"""One picture per case: outlines of what was found, on axial, coronal and sagittal slices of each kidney.

Radiological convention, as ``Volume`` has it: the patient's right is on the image's left. Matplotlib's ``Figure`` is
used directly, without pyplot, so that drawing leaves no global state and runs in any thread.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import renalseg
from renalseg.core.errors import GeometryError
from renalseg.core.labels import CYST, KIDNEY, LABELS, TUMOR
from renalseg.core.volume import Volume
from renalseg.io.files import atomic_path
from renalseg.report.drawing import (
    BACKGROUND_COLOUR,
    DPI,
    GAP_PX,
    MARGIN_PX,
    QUIET_COLOUR,
    TEXT_COLOUR,
    WARNING_COLOUR,
    WIDTH_PX,
    clean,
    colour_of,
    from_top,
    save_png,
    write_px,
)
from renalseg.report.sides import Kidney, kidney_sides
from renalseg.report.slices import LEVEL_HU, PLANES, WINDOW_HU, Plane, Span, draw_slice, frame_slice, spans_of

HEADER_PX, HEADING_PX, PANEL_PX, CAPTION_PX, FOOTER_PX = 128, 64, 590, 56, 60
CELL_PX = (WIDTH_PX - 2 * MARGIN_PX - 2 * GAP_PX) / 3

CONTEXT_SAGITTAL_MM = 35.0
NEARLY_LARGEST = 0.75


def overlay(ct: Volume, labels: Volume, path: Path, title: str = "", subtitle: str = "") -> None:
    """Draws the outlines of kidneys, tumors and cysts on CT and writes them as one PNG, 2000 pixels wide.

    One row a kidney (right, left): axial, coronal and sagittal slices through its tumors, else its cysts, else the
    kidney, where they show most. Where no kidney is labelled, one row of middle slices says so. Proportions come from
    ``spacing_mm``; a shear of the grid is not undone.

    Args:
        ct: CT [z, y, x] in HU.
        labels: label map on the same grid; see ``core.labels``.
        path: the PNG file to write.
        title: the headline; the case's name where empty.
        subtitle: a second, quieter line.

    Raises:
        GeometryError: ``labels`` is not on the grid of ``ct``.
        OutputError: the file could not be written.
    """
    if not ct.same_grid(labels):
        raise GeometryError(f"{ct.name}: the labels {labels.shape} are not on the grid of the CT {ct.shape}")
    kidneys = kidney_sides(labels)
    row_px = HEADING_PX + PANEL_PX + CAPTION_PX
    height_px = HEADER_PX + row_px * max(len(kidneys), 1) + FOOTER_PX
    figure = Figure(figsize=(WIDTH_PX / DPI, height_px / DPI), dpi=DPI, facecolor=BACKGROUND_COLOUR)
    _draw_frame(figure, title or ct.name, subtitle)
    spans = spans_of(ct, kidneys)
    for row, kidney in enumerate(kidneys or (None,)):
        top_px = HEADER_PX + row * row_px
        _draw_heading(figure, kidney, top_px)
        indices, reason = _best_slices(kidney) if kidney else (tuple(n // 2 for n in ct.shape), "middle of the volume")
        for column, plane in enumerate(PLANES):
            axes = _add_cell(figure, column, top_px + HEADING_PX)
            draw_slice(axes, ct, labels, plane, indices[plane.axis])
            frame_slice(axes, plane, _view(ct, kidney, plane, spans))
            position = _position(ct, plane.axis, indices[plane.axis])
            _draw_caption(figure, column, top_px + HEADING_PX + PANEL_PX, plane.name, position, reason)
    with atomic_path(path) as temporary:
        save_png(figure, temporary)


def _best_slices(kidney: Kidney) -> tuple[tuple[int, ...], str]:
    """The index along (z, y, x) in the whole volume that shows most, and what it goes through.

    Of the slices with nearly the largest area of the tumor (else cyst, else kidney), the one with most labelled area:
    a mass that hangs off the kidney is then shown together with it.
    """
    label = next(i for i in (TUMOR, CYST, KIDNEY) if (kidney.labels == i).any())
    indices = []
    for axis, span in enumerate(kidney.box):
        others = tuple(a for a in range(3) if a != axis)
        area, labelled = (kidney.labels == label).sum(axis=others), (kidney.labels > 0).sum(axis=others)
        shown = np.where(area >= NEARLY_LARGEST * area.max(), labelled, 0)
        best = np.flatnonzero(shown == shown.max())
        indices.append(span.start + int(best[len(best) // 2]))
    name = next(entry.name for entry in LABELS if entry.id == label)
    return tuple(indices), f"through the {name}"


def _view(ct: Volume, kidney: Kidney | None, plane: Plane, spans: tuple[Span, Span, Span]) -> tuple[Span, Span]:
    """The shown part of a slice in mm, (rows, columns). Sagittal ones close in on the kidney."""
    if kidney is None or plane.name != "Sagittal":
        return spans[plane.rows], spans[plane.columns]
    sizes = []
    for axis in (plane.rows, plane.columns):
        sizes.append((kidney.box[axis].stop - kidney.box[axis].start) * ct.spacing_mm[axis] + 2 * CONTEXT_SAGITTAL_MM)
    height = max(sizes[0], sizes[1] * PANEL_PX / CELL_PX)
    wanted = height, height * CELL_PX / PANEL_PX
    views = []
    for axis, size in zip((plane.rows, plane.columns), wanted, strict=True):
        spacing = ct.spacing_mm[axis]
        length = ct.shape[axis] * spacing
        centre = (kidney.box[axis].start + kidney.box[axis].stop) / 2 * spacing
        first = min(max(centre - size / 2, 0), max(length - size, 0))
        views.append((first - spacing / 2, min(first + size, length) - spacing / 2))
    return views[0], views[1]


def _position(ct: Volume, axis: int, index: int) -> str:
    """As in "slice 71 of 134 · z −123.4 mm": counted from the head, front or right; mm along the file's RAS axes."""
    centre = np.append((np.array(ct.shape) - 1) / 2, 1.0)
    centre[axis] = index
    world = float((ct.affine @ centre)[2 - axis])
    sign = "\N{MINUS SIGN}" if world < -0.05 else ""
    return f"slice {index + 1} of {ct.shape[axis]} · {'zyx'[axis]} {sign}{abs(world):.1f} mm"


def _draw_frame(figure: Any, title: str, subtitle: str) -> None:
    """Headline, second line, window and footer."""
    write_px(figure, MARGIN_PX, 52, clean(title, 80), fontsize=21, weight="bold")
    write_px(figure, MARGIN_PX, 92, clean(subtitle, 140), fontsize=12.5, color=QUIET_COLOUR)
    window = f"Window W {WINDOW_HU} / L {LEVEL_HU} HU"
    write_px(figure, WIDTH_PX - MARGIN_PX, 92, window, fontsize=12.5, color=QUIET_COLOUR, ha="right")
    bottom = figure.get_figheight() * DPI - 24
    footer = f"renalseg {renalseg.__version__} · research use only, not a medical device"
    write_px(figure, MARGIN_PX, bottom, footer, fontsize=11.5, color=QUIET_COLOUR)
    sides = "Patient's right is on the image's left · x, y, z as in the file, RAS"
    write_px(figure, WIDTH_PX - MARGIN_PX, bottom, sides, fontsize=11.5, color=QUIET_COLOUR, ha="right")


def _draw_heading(figure: Any, kidney: Kidney | None, top_px: float) -> None:
    """The row's name at the left; at the right the colours with the volumes."""
    baseline = top_px + 40
    if kidney is None:
        write_px(figure, MARGIN_PX, baseline, "No kidney found", fontsize=17, weight="bold", color=WARNING_COLOUR)
        return
    write_px(figure, MARGIN_PX, baseline, kidney.title, fontsize=17, weight="bold")
    write_px(figure, MARGIN_PX + 230, baseline, kidney.note, fontsize=12.5, color=WARNING_COLOUR)
    for place, label in enumerate(LABELS):
        x = WIDTH_PX - MARGIN_PX - 185 - 240 * (len(LABELS) - 1 - place)
        ml = kidney.volumes_ml[label.name]
        line = Line2D([0, 0], [0, 0], color=colour_of(label.id), linewidth=3)
        line.set_data([x / WIDTH_PX, (x + 34) / WIDTH_PX], [from_top(figure, baseline - 7)] * 2)
        figure.add_artist(line)
        colour = TEXT_COLOUR if ml > 0 else QUIET_COLOUR
        write_px(figure, x + 46, baseline, f"{label.name} {_volume(ml)}", fontsize=14, color=colour)


def _draw_caption(figure: Any, column: int, top_px: float, name: str, position: str, reason: str) -> None:
    left = MARGIN_PX + column * (CELL_PX + GAP_PX)
    write_px(figure, left, top_px + 26, name, fontsize=12, weight="bold")
    write_px(figure, left + 92, top_px + 26, position, fontsize=12)
    write_px(figure, left + CELL_PX, top_px + 26, reason, fontsize=11, color=QUIET_COLOUR, ha="right")


def _volume(ml: float) -> str:
    if ml == 0:
        return "none"
    return f"{ml:.1f} ml" if ml >= 0.05 else "< 0.1 ml"


def _add_cell(figure: Any, column: int, top_px: float) -> Any:
    left = MARGIN_PX + column * (CELL_PX + GAP_PX)
    height = PANEL_PX / (figure.get_figheight() * DPI)
    place = (left / WIDTH_PX, from_top(figure, top_px) - height, CELL_PX / WIDTH_PX, height)
    return figure.add_axes(place, xticks=[], yticks=[])
