"""One picture per case: outlines of what was found, on axial, coronal and sagittal slices of each kidney.

Radiological convention, as ``Volume`` has it: the patient's right is on the image's left. Matplotlib's ``Figure`` is
used directly, without pyplot, so that drawing leaves no global state and runs in any thread.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

import renalseg
from renalseg.core.errors import GeometryError
from renalseg.core.labels import CYST, KIDNEY, LABELS, PAINT_ORDER, TUMOR
from renalseg.core.volume import Volume
from renalseg.io.files import atomic_path
from renalseg.report.sides import Kidney, kidney_sides

__all__ = ["kidney_sides", "overlay"]

WINDOW_HU, LEVEL_HU = 400, 40

WIDTH_PX, HEADER_PX, HEADING_PX, PANEL_PX, CAPTION_PX, FOOTER_PX = 2000, 128, 64, 590, 56, 60
MARGIN_PX, GAP_PX, DPI = 40, 24, 100
CELL_PX = (WIDTH_PX - 2 * MARGIN_PX - 2 * GAP_PX) / 3

BACKGROUND_COLOUR, TEXT_COLOUR, QUIET_COLOUR, WARNING_COLOUR = "#0d1117", "#f0f3f6", "#9aa4b0", "#f2b84b"
FONT = "DejaVu Sans"
OUTLINE = [withStroke(linewidth=2.5, foreground="black")]

CONTEXT_Z_MM, CONTEXT_SAGITTAL_MM = 150.0, 35.0
AIR_HU = -300
NEARLY_LARGEST = 0.75


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
    spans = _spans(ct, kidneys)
    for row, kidney in enumerate(kidneys or (None,)):
        top_px = HEADER_PX + row * row_px
        _draw_heading(figure, kidney, top_px)
        indices, reason = _best_slices(kidney) if kidney else (tuple(n // 2 for n in ct.shape), "middle of the volume")
        for column, plane in enumerate(PLANES):
            axes = _add_cell(figure, column, top_px + HEADING_PX)
            _draw_slice(axes, ct, labels, plane, indices[plane.axis])
            _frame_slice(axes, plane, _view(ct, kidney, plane, spans))
            position = _position(ct, plane.axis, indices[plane.axis])
            _draw_caption(figure, column, top_px + HEADING_PX + PANEL_PX, plane.name, position, reason)
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(temporary, metadata={"Software": f"renalseg {renalseg.__version__}"})


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


def _spans(ct: Volume, kidneys: tuple[Kidney, ...]) -> tuple[Span, Span, Span]:
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


def _draw_slice(axes: Any, ct: Volume, labels: Volume, plane: Plane, index: int) -> None:
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
            axes.contour(x, y, mask.astype(np.float32), levels=[0.5], colors=[_colour(label)], linewidths=1.3)


def _frame_slice(axes: Any, plane: Plane, view: tuple[Span, Span]) -> None:
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
    _write(axes, 0.015, 0.5, plane.left, va="center", **edge)
    _write(axes, 0.985, 0.5, plane.right, ha="right", va="center", **edge)
    _write(axes, 0.5, 0.985, plane.top, ha="center", va="top", **edge)
    _write(axes, 0.5, 0.015, plane.bottom, ha="center", va="bottom", **edge)
    bar = _bar_mm(right - left)
    x, y = left + (right - left) * 0.03, bottom - (bottom - top) * 0.035
    axes.plot([x, x + bar], [y, y], color=TEXT_COLOUR, linewidth=2.5, solid_capstyle="butt", path_effects=OUTLINE)
    label_y = y - (bottom - top) * 0.015
    _write(axes, x, label_y, f"{bar:g} mm", va="bottom", color=TEXT_COLOUR, fontsize=10.5, path_effects=OUTLINE)


def _bar_mm(width_mm: float) -> float:
    """A round length of at most a quarter of the panel's width."""
    return max((n for n in (1, 2, 5, 10, 20, 50, 100) if n <= width_mm / 4), default=width_mm / 4)


def _position(ct: Volume, axis: int, index: int) -> str:
    """As in "slice 71 of 134 · z −123.4 mm": counted from the head, front or right; mm along the file's RAS axes."""
    centre = np.append((np.array(ct.shape) - 1) / 2, 1.0)
    centre[axis] = index
    world = float((ct.affine @ centre)[2 - axis])
    sign = "\N{MINUS SIGN}" if world < -0.05 else ""
    return f"slice {index + 1} of {ct.shape[axis]} · {'zyx'[axis]} {sign}{abs(world):.1f} mm"


def _draw_frame(figure: Any, title: str, subtitle: str) -> None:
    """Headline, second line, window and footer."""
    _write_px(figure, MARGIN_PX, 52, _clean(title, 80), fontsize=21, weight="bold")
    _write_px(figure, MARGIN_PX, 92, _clean(subtitle, 140), fontsize=12.5, color=QUIET_COLOUR)
    window = f"Window W {WINDOW_HU} / L {LEVEL_HU} HU"
    _write_px(figure, WIDTH_PX - MARGIN_PX, 92, window, fontsize=12.5, color=QUIET_COLOUR, ha="right")
    bottom = figure.get_figheight() * DPI - 24
    footer = f"renalseg {renalseg.__version__} · research use only, not a medical device"
    _write_px(figure, MARGIN_PX, bottom, footer, fontsize=11.5, color=QUIET_COLOUR)
    sides = "Patient's right is on the image's left · x, y, z as in the file, RAS"
    _write_px(figure, WIDTH_PX - MARGIN_PX, bottom, sides, fontsize=11.5, color=QUIET_COLOUR, ha="right")


def _draw_heading(figure: Any, kidney: Kidney | None, top_px: float) -> None:
    """The row's name at the left; at the right the colours with the volumes."""
    baseline = top_px + 40
    if kidney is None:
        _write_px(figure, MARGIN_PX, baseline, "No kidney found", fontsize=17, weight="bold", color=WARNING_COLOUR)
        return
    _write_px(figure, MARGIN_PX, baseline, kidney.title, fontsize=17, weight="bold")
    _write_px(figure, MARGIN_PX + 230, baseline, kidney.note, fontsize=12.5, color=WARNING_COLOUR)
    for place, label in enumerate(LABELS):
        x = WIDTH_PX - MARGIN_PX - 185 - 240 * (len(LABELS) - 1 - place)
        ml = kidney.volumes_ml[label.name]
        line = Line2D([0, 0], [0, 0], color=_colour(label.id), linewidth=3)
        line.set_data([x / WIDTH_PX, (x + 34) / WIDTH_PX], [_from_top(figure, baseline - 7)] * 2)
        figure.add_artist(line)
        colour = TEXT_COLOUR if ml > 0 else QUIET_COLOUR
        _write_px(figure, x + 46, baseline, f"{label.name} {_volume(ml)}", fontsize=14, color=colour)


def _draw_caption(figure: Any, column: int, top_px: float, name: str, position: str, reason: str) -> None:
    left = MARGIN_PX + column * (CELL_PX + GAP_PX)
    _write_px(figure, left, top_px + 26, name, fontsize=12, weight="bold")
    _write_px(figure, left + 92, top_px + 26, position, fontsize=12)
    _write_px(figure, left + CELL_PX, top_px + 26, reason, fontsize=11, color=QUIET_COLOUR, ha="right")


def _volume(ml: float) -> str:
    if ml == 0:
        return "none"
    return f"{ml:.1f} ml" if ml >= 0.05 else "< 0.1 ml"


def _add_cell(figure: Any, column: int, top_px: float) -> Any:
    left = MARGIN_PX + column * (CELL_PX + GAP_PX)
    height = PANEL_PX / (figure.get_figheight() * DPI)
    return figure.add_axes((left / WIDTH_PX, _from_top(figure, top_px) - height, CELL_PX / WIDTH_PX, height))


def _from_top(figure: Any, pixels: float) -> float:
    return 1 - pixels / float(figure.get_figheight() * DPI)


def _write_px(figure: Any, x: float, y: float, text: str, **style: Any) -> None:
    """Writes at pixels from the left and top; ``y`` is the baseline."""
    _write(figure, x / WIDTH_PX, _from_top(figure, y), text, **{"color": TEXT_COLOUR, "va": "baseline", **style})


def _write(target: Any, x: float, y: float, text: str, **style: Any) -> None:
    """Writes with the font that matplotlib brings along, and without reading ``$`` as mathematics."""
    target.text(x, y, text, fontfamily=FONT, parse_math=False, **style)


def _clean(text: str, length: int) -> str:
    """One line of at most ``length`` characters; what the font cannot show becomes a replacement character."""
    known = get_font(findfont(FONT)).get_charmap()
    line = "".join(c if ord(c) in known else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
    return line if len(line) <= length else line[: length - 1] + "…"


def _colour(label: int) -> tuple[float, ...]:
    return next(tuple(c / 255 for c in entry.colour) for entry in LABELS if entry.id == label)
