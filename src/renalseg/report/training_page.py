"""How a training goes, as one HTML file: curves, scores, pictures, provenance. No scripts and nothing from outside."""

import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from renalseg import __version__
from renalseg.config import Config, Stage
from renalseg.core.volume import Volume
from renalseg.io.files import atomic_path, write_text
from renalseg.report.curves import STYLE, Point, chart
from renalseg.report.example import description, example_png

REFRESH_S = 30

_STYLE = (
    """
:root { color-scheme: light dark; --page: #f6f8fa; --card: #ffffff; --text: #1f2328; --quiet: #59636e; --line: #d8dee4;
  --c0: #0969da; --c1: #bc4c00; --c2: #8250df; --c3: #1a7f37; }
@media (prefers-color-scheme: dark) { :root { --page: #0d1117; --card: #161b22; --text: #f0f3f6; --quiet: #9aa4b0;
  --line: #30363d; --c0: #58a6ff; --c1: #f2b84b; --c2: #d2a8ff; --c3: #56d364; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px; max-width: 1240px; background: var(--page); color: var(--text);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 15px; margin: 0 0 6px; }
.quiet { color: var(--quiet); margin: 0 0 16px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 16px;
  margin: 16px 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; min-width: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 16px; margin: 16px 0; }
.tile span { display: block; color: var(--quiet); font-size: 13px; }
.tile b { font-size: 20px; font-weight: 600; } .tile small { color: var(--quiet); display: block; }
.track { height: 6px; border-radius: 3px; background: var(--line); overflow: hidden; }
.track div { height: 100%; background: var(--c0); }
figure { margin: 0; } figcaption { color: var(--quiet); font-size: 13px; margin-top: 6px; }
img { width: 100%; height: auto; display: block; border-radius: 4px; }
table { border-collapse: collapse; width: 100%; } td { padding: 3px 16px 3px 0; vertical-align: top; }
td:first-child { color: var(--quiet); white-space: nowrap; width: 1%; } td { overflow-wrap: anywhere; }
"""
    + STYLE
)

SHARE = (0.0, 1.0)
CURVES = (
    ("Dice in validation", "dice_"),
    ("Surface Dice in validation", "sd_"),
    ("True voxels inside the box", "box_coverage"),
)


@dataclass(frozen=True)
class About:
    """What a page says about its run beside the records."""

    stage: Stage
    config: Config
    fold: int | None = None


class TrainingPage:
    """Keeps ``<stage>/report.html`` and ``<stage>/examples/`` in a weights folder up to date while its stage trains."""

    def __init__(self, out: Path, about: About) -> None:
        """Writes nothing yet; ``out`` is the weights folder."""
        self.path = out / about.stage / "report.html"
        self.about = about
        self._examples = out / about.stage / "examples"
        self._stale = True
        self._finished_at: list[float] = []

    def add_example(self, ct: Volume, predicted: Volume, truth: Volume) -> None:
        """Draws a validated case; the first one since the last ``update`` does away with those before."""
        if self._stale:
            for old in self._examples.glob("*.png"):
                old.unlink()
            self._stale = False
        with atomic_path(self._examples / f"{ct.name}.png") as temporary:
            temporary.write_bytes(example_png(ct, predicted, truth))

    def update(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Writes the page anew, once an epoch is done.

        Raises:
            OutputError: it could not be written.
        """
        self._stale = True
        self._finished_at.append(time.monotonic())
        pictures = [path.read_bytes() for path in sorted(self._examples.glob("*.png"))]
        write_text(to_html(self.about, history, pictures, self._seconds_an_epoch(history)), self.path)

    def _seconds_an_epoch(self, history: Sequence[Mapping[str, Any]]) -> float:
        """By the clock, validation and all, over the epochs seen here; else by the records, without validation."""
        times = self._finished_at
        if len(times) > 1:
            return (times[-1] - times[0]) / (len(times) - 1)
        return float(sum(r["seconds"] for r in history) / len(history))


def to_html(
    about: About, history: Sequence[Mapping[str, Any]], pictures: Sequence[bytes], seconds_an_epoch: float
) -> str:
    """The page as text.

    Args:
        about: the run.
        history: the records of ``metrics.jsonl``, one an epoch; at least one.
        pictures: of the last validation, from ``report.example``.
        seconds_an_epoch: to project the remaining time.
    """
    total = about.config.training[about.stage].epochs
    running = history[-1]["epoch"] < total
    refresh = f'<meta http-equiv="refresh" content="{REFRESH_S}">' if running else ""
    fold = "every case trains" if about.fold is None else f"fold {about.fold} held out"
    state = f"reloads every {REFRESH_S} s" if running else "finished"
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{refresh}<title>{history[-1]['epoch']}/{total} {about.stage} · renalseg</title><style>{_STYLE}</style>"
        f"</head><body><h1>Training of the {about.stage} stage</h1>"
        f'<p class="quiet">preset {escape(about.config.name)} · {fold} · {state}</p>'
        f"{_tiles(history, total, seconds_an_epoch)}"
        f'<div class="cards">{"".join(_charts(history))}</div>'
        f"{_gallery(history, pictures)}{_tables(about, history)}"
        f'<p class="quiet">renalseg {__version__} · research use only, not a medical device</p></body></html>\n'
    )


def _tiles(history: Sequence[Mapping[str, Any]], total: int, seconds_an_epoch: float) -> str:
    """Where the run stands."""
    done = history[-1]["epoch"]
    scored = [r for r in history if "score" in r]
    best = max(scored, key=lambda r: r["score"], default=None)
    spent = sum(r["seconds"] for r in history)
    tiles = [
        (
            "Epoch",
            f"{done} of {total}",
            f'<div class="track"><div style="width:{100 * done / total:.1f}%"></div></div>',
        ),
        ("Loss", f"{history[-1]['loss']:.4g}", "mean of the last epoch"),
        ("Best score", f"{best['score']:.4f}", f"epoch {best['epoch']}")
        if best
        else ("Best score", "none", "not validated yet"),
        ("Elapsed", _duration(spent), "without validation"),
    ]
    if done < total:
        tiles.append(("Remaining", _duration((total - done) * seconds_an_epoch), "projected from the epochs so far"))
    cells = (f'<div class="card tile"><span>{a}</span><b>{b}</b><small>{c}</small></div>' for a, b, c in tiles)
    return f'<div class="tiles">{"".join(cells)}</div>'


def _charts(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Loss, learning rate, waiting, and what validation measured."""
    waited = [(r["epoch"], r["wait_seconds"] / r["seconds"] if r["seconds"] else 0.0) for r in history]
    charts = [
        chart("Loss in training", {"loss": _points(history, "loss")}),
        chart("Learning rate", {"rate": _points(history, "lr")}, "{:.2g}".format),
        chart("Share of the time spent waiting for data", {"waiting": waited}, _percent, SHARE),
    ]
    for title, start in CURVES:
        names = [name for name in dict.fromkeys(k for r in history for k in r) if name.startswith(start)]
        series = {name.removeprefix(start) or "mean over the cases": _points(history, name) for name in names[:4]}
        if series:
            charts.append(chart(title, series, "{:.4g}".format, SHARE))
    return charts


def _points(history: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    return [(r["epoch"], float(r[name])) for r in history if name in r]


def _gallery(history: Sequence[Mapping[str, Any]], pictures: Sequence[bytes]) -> str:
    """The pictures of the last validation."""
    if not pictures:
        return ""
    epochs = [r["epoch"] for r in history if "score" in r]
    when = f" after epoch {epochs[-1]}" if epochs else ""
    figures = []
    for png in pictures:
        caption = escape(description(png))
        data = b64encode(png).decode()
        figures.append(
            f'<figure class="card"><img alt="{caption}" src="data:image/png;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    return (
        f"<h2>Validated cases{when}: truth at the left, prediction at the right</h2>"
        "<p class=\"quiet\">Kidney green, tumor red, cyst blue; the patient's right is on the image's left.</p>"
        f'<div class="cards">{"".join(figures)}</div>'
    )


def _tables(about: About, history: Sequence[Mapping[str, Any]]) -> str:
    """The last record in full, and what made this run."""
    settings = about.config.training[about.stage]
    provenance = {
        "renalseg": __version__,
        "preset": about.config.name,
        "configuration": f"SHA-256 {about.config.sha256()}",
        "seed": str(settings.seed),
        "fold": "none" if about.fold is None else str(about.fold),
        "batch, patch": f"{settings.batch}, {' x '.join(map(str, settings.patch))}",
        "written": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
    }
    scored: Mapping[str, Any] = next((r for r in reversed(history) if "score" in r), {})
    latest = {k: f"{v:.5g}" for k, v in {**scored, **history[-1]}.items()}
    if scored:
        latest["validated after epoch"] = str(scored["epoch"])
    return f'<div class="cards">{_table("Latest numbers", latest)}{_table("Provenance", provenance)}</div>'


def _table(title: str, rows: Mapping[str, str]) -> str:
    cells = "".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in rows.items())
    return f'<section class="card"><h2>{title}</h2><table>{cells}</table></section>'


def _percent(value: float) -> str:
    return f"{100 * value:.2g} %" if value < 0.1 else f"{100 * value:.0f} %"


def _duration(seconds: float) -> str:
    """As in "2 d 3 h", "1 h 20 min", "35 s": two units at most."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"
