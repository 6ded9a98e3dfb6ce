"""Distributions of a dataset beside the published percentiles of KiTS23, in the style of ``report.figures``."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from renalseg import __version__
from renalseg.core.labels import LABELS
from renalseg.io.files import atomic_path
from renalseg.report.drawing import (
    BACKGROUND_COLOUR,
    DPI,
    FONT,
    MARGIN_PX,
    QUIET_COLOUR,
    TEXT_COLOUR,
    WARNING_COLOUR,
    WIDTH_PX,
    clean,
    save_png,
)
from renalseg.report.inspect.cohort import Inspection
from renalseg.report.inspect.quantities import (
    BOX_MM,
    BOX_VOXELS,
    GEOMETRY,
    INTENSITY,
    KITS23_CASES,
    VOLUMES,
    Percentiles,
    Quantity,
    Row,
    percentiles,
)

HEADER_PX, FOOTER_PX, HISTOGRAM_PX, STRIP_PX, AXIS_PX, GAP_PX = 150, 50, 250, 74, 84, 150
PANEL_COLOUR, HERE_COLOUR, KITS23_COLOUR = "#161b22", "#58a6ff", WARNING_COLOUR
N_BINS = 24


@dataclass(frozen=True)
class Page:
    """One picture: its file, its headline, and its panels in ``columns``."""

    file: str
    title: str
    quantities: tuple[Quantity, ...]
    columns: int


PAGES = (
    Page("inspect_geometry.png", "Scans", GEOMETRY, 2),
    Page("inspect_anatomy.png", "Kidneys and masses", (*BOX_VOXELS, *BOX_MM, *VOLUMES), 3),
    Page("inspect_intensity.png", "Intensity", INTENSITY, 3),
)


def write_figures(result: Inspection, folder: Path) -> list[Path]:
    """Draws the ``PAGES`` for which something was measured; a page of an earlier run that no longer applies goes.

    Raises:
        OutputError: a file could not be written.
    """
    written, rows = [], result.counted
    for page in PAGES:
        path = folder / page.file
        if any(quantity.values(rows) for quantity in page.quantities):
            _draw_page(page, result.name, rows, path)
            written.append(path)
        else:
            with suppress(OSError):
                path.unlink(missing_ok=True)
    return written


def _draw_page(page: Page, name: str, rows: Sequence[Row], path: Path) -> None:
    n_rows = -(-len(page.quantities) // page.columns)
    row_px = HISTOGRAM_PX + STRIP_PX + AXIS_PX
    height_px = HEADER_PX + n_rows * row_px + FOOTER_PX
    figure = Figure(figsize=(WIDTH_PX / DPI, height_px / DPI), dpi=DPI, facecolor=BACKGROUND_COLOUR)
    is_published = any(quantity.published for quantity in page.quantities)
    _draw_frame(figure, f"{page.title} of {name}", len(rows), is_published, height_px)
    width_px = (WIDTH_PX - 2 * MARGIN_PX - page.columns * GAP_PX) / page.columns
    for place, quantity in enumerate(page.quantities):
        row, column = divmod(place, page.columns)
        left, top = MARGIN_PX + GAP_PX + column * (width_px + GAP_PX), HEADER_PX + row * row_px

        def cell(top_px: float, height: float, left: float = left) -> Any:
            box = (left / WIDTH_PX, 1 - (top_px + height) / height_px, width_px / WIDTH_PX, height / height_px)
            return figure.add_axes(box, facecolor=PANEL_COLOUR)

        _draw_quantity(cell(top, HISTOGRAM_PX), cell(top + HISTOGRAM_PX, STRIP_PX), quantity, quantity.values(rows))
    with atomic_path(path) as temporary:
        save_png(figure, temporary)


def _draw_frame(figure: Any, title: str, n: int, is_published: bool, height_px: float) -> None:
    def write(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x / WIDTH_PX, 1 - y / height_px, text, fontfamily=FONT, parse_math=False, **style)

    write(MARGIN_PX, 52, clean(title, 80), fontsize=21, weight="bold", color=TEXT_COLOUR)
    what = f"{n} case{'s' if n != 1 else ''}"
    if is_published:
        what += f", beside the {KITS23_CASES} public training cases of KiTS23 where their percentiles are known"
    write(MARGIN_PX, 88, what, fontsize=12.5, color=QUIET_COLOUR)
    legend = "Bars: cases of this dataset. Below: box 25 to 75 %, line 5 to 95 %, tick median, dots minimum and maximum"
    write(MARGIN_PX, 116, legend, fontsize=12.5, color=QUIET_COLOUR)
    footer = f"renalseg {__version__} · research use only, not a medical device"
    write(MARGIN_PX, height_px - 18, footer, fontsize=11.5, color=QUIET_COLOUR)


def _draw_quantity(histogram: Any, strip: Any, quantity: Quantity, values: list[float]) -> None:
    """The histogram of ``values``, and under it, on the same axis, both rows of percentiles."""
    here, published = percentiles(values), quantity.published
    known = [v for v in (*here, *(published or ())) if v is not None]
    edges = _edges(min(known), max(known), quantity.is_volume) if known else np.linspace(0.0, 1.0, N_BINS + 1)
    for axes in (histogram, strip):
        if quantity.is_volume:
            axes.set_xscale("log")
        axes.set_xlim(edges[0], edges[-1])
        axes.tick_params(colors=QUIET_COLOUR, labelsize=11.5, labelfontfamily=FONT)
        for spine in axes.spines.values():
            spine.set_color("#30363d")
    histogram.hist(values, bins=edges, color=_colour(quantity), rwidth=0.9)
    histogram.set_ylabel("cases", color=QUIET_COLOUR, fontsize=12, fontfamily=FONT)
    histogram.yaxis.get_major_locator().set_params(integer=True)
    histogram.tick_params(axis="x", which="both", bottom=False, labelbottom=False)
    _draw_percentiles(strip, here, 1, _colour(quantity))
    _draw_percentiles(strip, published or (), 0, KITS23_COLOUR)
    names = [f"this, n {len(values)}", *([f"KiTS23, n {quantity.n_published}"] if published else [])]
    strip.set(ylim=(-0.6, 1.6))
    strip.set_yticks([1, 0][: len(names)], names)
    strip.set_xlabel(quantity.label, color=TEXT_COLOUR, fontsize=13, fontfamily=FONT)
    if quantity.is_volume:
        decades = float(np.log10(edges[-1] / edges[0]))
        subs = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if decades < 1 else (1.0, 2.0, 5.0) if decades < 2 else (1.0,)
        strip.xaxis.set_major_locator(LogLocator(subs=subs, numticks=20))
        strip.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        strip.xaxis.set_minor_formatter(NullFormatter())
    else:
        strip.locator_params(axis="x", nbins=7)


def _draw_percentiles(axes: Any, values: Percentiles, y: float, colour: Any) -> None:
    """One row of the strip; percentiles that are not known are left out."""
    if not values or all(value is None for value in values):
        return
    lowest, p5, p25, median, p75, p95, highest = values
    if p5 is not None and p95 is not None:
        axes.plot([p5, p95], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
    if p25 is not None and p75 is not None:
        axes.plot([p25, p75], [y, y], color=colour, linewidth=9, alpha=0.55, solid_capstyle="butt")
    if median is not None:
        axes.plot([median, median], [y - 0.35, y + 0.35], color=TEXT_COLOUR, linewidth=2.5, solid_capstyle="butt")
    ends = [value for value in (lowest, highest) if value is not None]
    axes.plot(ends, [y] * len(ends), linestyle="none", marker="o", markersize=5, color=colour)


def _edges(low: float, high: float, is_log: bool) -> Any:
    """Edges of the bins, a little wider than the values, evenly spaced on the axis that is drawn."""
    if is_log:
        low, high = np.log10(low), np.log10(high)
    margin = 0.04 * (high - low) or max(abs(high) * 0.1, 0.1)
    edges = np.linspace(low - margin, high + margin, N_BINS + 1)
    return 10**edges if is_log else edges


def _colour(quantity: Quantity) -> Any:
    """The colour of the label that the quantity is about, else that of everything else."""
    for label in LABELS:
        if label.name in quantity.name.split("_"):
            return tuple(c / 255 for c in label.colour)
    return HERE_COLOUR
