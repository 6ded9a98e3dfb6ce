"""Line charts as inline SVG: text that any browser draws, in colours that the page's style sheet decides."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

Point = tuple[float, float]

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 30
MARKED = 60
"""A curve of at most so many points shows each of them."""

STYLE = """
.chart { width: 100%; height: auto; display: block; }
.chart text { fill: var(--quiet); font-size: 12px; }
.chart .grid { stroke: var(--line); stroke-width: 1; }
.chart .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 0 0 6px; font-size: 13px; color: var(--quiet); }
.legend b { color: var(--text); font-weight: 600; }
.swatch { display: inline-block; width: 14px; height: 3px; margin-right: 6px; vertical-align: middle; }
.s0 { stroke: var(--c0); fill: var(--c0); background: var(--c0); }
.s1 { stroke: var(--c1); fill: var(--c1); background: var(--c1); }
.s2 { stroke: var(--c2); fill: var(--c2); background: var(--c2); }
.s3 { stroke: var(--c3); fill: var(--c3); background: var(--c3); }
"""
"""CSS of the charts; the page defines the colours text, quiet, line and c0 to c3."""


def chart(
    title: str,
    series: Mapping[str, Sequence[Point]],
    show: Callable[[float], str] = "{:.4g}".format,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> str:
    """One card: a headline, a legend with the latest values, and up to four curves over epochs.

    Args:
        title: the headline.
        series: name to points (epoch, value), in order; at least one point in all.
        show: how a value is written.
        limits: what values can be at all; the axis does not go beyond.
    """
    points = [p for curve in series.values() for p in curve]
    first, last = min(p[0] for p in points), max(p[0] for p in points)
    columns = _ticks(first, last, 6, whole=True)
    rows = _ticks(*_range([p[1] for p in points], limits), 4)

    def place(point: Point) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * (0.5 if last == first else (point[0] - first) / (last - first))
        y = TOP + (HEIGHT - TOP - BOTTOM) * (rows[-1] - point[1]) / (rows[-1] - rows[0])
        return round(x, 1), round(y, 1)

    parts = _axes([c for c in columns if first <= c <= last], rows, place, show)
    for number, (name, curve) in enumerate(series.items()):
        parts += _curve(name, curve, number, place, show)
    legend = "".join(
        f'<span><i class="swatch s{number}"></i>{escape(name)} <b>{escape(show(curve[-1][1]))}</b></span>'
        for number, (name, curve) in enumerate(series.items())
        if curve
    )
    label = escape(f"{title} over epochs {first:g} to {last:g}", quote=True)
    return (
        f'<section class="card"><h2>{escape(title)}</h2><p class="legend">{legend}</p>'
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
        "</section>"
    )


def _axes(
    columns: Sequence[float],
    rows: Sequence[float],
    place: Callable[[Point], tuple[float, float]],
    show: Callable[[float], str],
) -> list[str]:
    """A line and a number a row, a number a column."""
    parts = [f'<text x="0" y="{HEIGHT - 10}">epoch</text>']
    for value in rows:
        _, y = place((1.0, value))
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{escape(show(value))}</text>')
    for value in columns:
        x, _ = place((value, rows[0]))
        parts.append(f'<text x="{x}" y="{HEIGHT - 10}" text-anchor="middle">{value:g}</text>')
    return parts


def _curve(
    name: str,
    curve: Sequence[Point],
    number: int,
    place: Callable[[Point], tuple[float, float]],
    show: Callable[[float], str],
) -> list[str]:
    """A line, and dots with tooltips where there are few points."""
    placed = [place(p) for p in curve]
    parts = []
    if len(placed) > 1:
        line = " ".join(f"{x},{y}" for x, y in placed)
        parts.append(f'<polyline class="curve s{number}" style="fill:none" points="{line}"/>')
    if len(placed) <= MARKED:
        for (x, y), (epoch, value) in zip(placed, curve, strict=True):
            tip = escape(f"epoch {epoch:g}: {name} {show(value)}")
            parts.append(f'<circle class="s{number}" cx="{x}" cy="{y}" r="2.5"><title>{tip}</title></circle>')
    return parts


def _range(values: Sequence[float], limits: tuple[float, float]) -> tuple[float, float]:
    """From the lowest to the highest value, or round a single one, within ``limits``."""
    low, high = min(values), max(values)
    if high - low <= 1e-9 * abs(high):
        spread = abs(high) / 10 or 0.1
        low, high = max(low - spread, limits[0]), min(high + spread, limits[1])
    return low, high


def _ticks(low: float, high: float, count: int, whole: bool = False) -> list[float]:
    """Round values, evenly spaced, about ``count`` of them, from at most ``low`` to at least ``high``; at least two."""
    rough = (high - low) / count if high > low else 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    step = max(1.0, round(step)) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]
