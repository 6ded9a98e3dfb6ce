"""Histograms as inline SVG, in colours that the page's style sheet decides."""

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 420, 170
LEFT, RIGHT, TOP, BOTTOM = 30, 14, 14, 34
MOST_BINS = 12


def histogram(
    title: str, unit: str, values: Sequence[float], limits: tuple[float, float] | None = None, low: float | None = None
) -> Markup:
    """One card: a headline, the number of values with median and range, and how often each range of values occurs.

    Args:
        title: the headline.
        unit: of the values, or an empty string.
        values: at least one.
        limits: the axis; from the values where None.
        low: bins below this are marked.
    """
    edges = bin_edges(values, limits)
    counts = bin_counts(values, edges)
    middle = sorted(values)[(len(values) - 1) // 2 : len(values) // 2 + 1]
    of = f" {unit}" if unit else ""
    summary = (
        f"n = {len(values)}, median {_text(sum(middle) / len(middle))}{of}, "
        f"{_text(min(values))} to {_text(max(values))}{of}"
    )
    return Markup(
        '<section class="card"><h3>{title}</h3><p>{summary}</p><svg class="chart" viewBox="0 0 {w} {h}" role="img" '
        'aria-label="{title}: {summary}">{inner}</svg></section>'
    ).format(title=title, summary=summary, w=WIDTH, h=HEIGHT, inner=_drawing(edges, counts, unit, low))


def bin_edges(values: Sequence[float], limits: tuple[float, float] | None) -> list[float]:
    """Round edges, at most ``MOST_BINS`` bins, that hold every value; bins are half-open but for the last."""
    first, last = limits or (min(values), max(values))
    span = (last - first) or max(abs(first), 1.0) / 10
    step = 10.0 ** math.floor(math.log10(span / MOST_BINS))
    step = next(step * m for m in (1, 2, 5, 10, 20, 50) if span / (step * m) <= MOST_BINS - 1)
    start = math.floor(first / step + 1e-9)
    stop = max(math.ceil(last / step - 1e-9), start + 1)
    return [round(i * step, 12) for i in range(start, stop + 1)]


def bin_counts(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """How many values lie in each bin."""
    counts = [0] * (len(edges) - 1)
    for value in values:
        inside = sum(value >= edge for edge in edges) - 1
        counts[min(max(inside, 0), len(counts) - 1)] += 1
    return counts


def _drawing(edges: Sequence[float], counts: Sequence[int], unit: str, low: float | None) -> Markup:
    width = (WIDTH - LEFT - RIGHT) / len(counts)
    floor_y, most = HEIGHT - BOTTOM, max(counts)
    parts = [
        Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, floor_y, floor_y)
    ]
    for place, count in enumerate(counts):
        height = (floor_y - TOP) * count / most
        kind = "bar low" if low is not None and edges[place + 1] <= low + 1e-9 else "bar"
        x = LEFT + place * width
        if count:
            parts.append(
                Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="2"/>').format(
                    kind, x + 1, floor_y - height, width - 2, height
                )
            )
            parts.append(_words(x + width / 2, floor_y - height - 3, str(count)))
    every = math.ceil(len(edges) / 7)
    for place, edge in enumerate(edges):
        if place % every == 0:
            parts.append(_words(LEFT + place * width, floor_y + 15, f"{edge:g}"))
    parts.append(_words((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, unit))
    return Markup("").join(parts)


def _words(x: float, y: float, text: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>').format(x, y, escape(text))


def _text(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
