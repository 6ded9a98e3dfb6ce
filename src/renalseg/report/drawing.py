"""What the drawn pages share: size, colours, font, text set by pixels from the left and top, and how they are saved."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.font_manager import findfont, get_font
from matplotlib.patheffects import withStroke
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from renalseg import __version__
from renalseg.core.labels import LABELS

WIDTH_PX, MARGIN_PX, GAP_PX, DPI = 2000, 40, 24, 100

BACKGROUND_COLOUR, TEXT_COLOUR, QUIET_COLOUR, WARNING_COLOUR = "#0d1117", "#f0f3f6", "#9aa4b0", "#f2b84b"
FONT = "DejaVu Sans"
OUTLINE = [withStroke(linewidth=2.5, foreground="black")]

PNG_LEVEL = 3
"""Of compression: of a case's picture, the default of 6 was measured to take 2.5 times as long and to save 4 %."""


def rasterised(figure: Any) -> Image.Image:
    """``figure`` as red, green and blue, without transparency."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def save_png(figure: Any, path: Path) -> None:
    """Draws ``figure`` and writes it to ``path``, whatever its suffix, as a PNG without transparency."""
    info = PngInfo()
    info.add_text("Software", f"renalseg {__version__}")
    rasterised(figure).save(path, "PNG", compress_level=PNG_LEVEL, pnginfo=info, dpi=(figure.dpi, figure.dpi))


def from_top(figure: Any, pixels: float) -> float:
    """A height in pixels from the top as a share of the figure from its bottom."""
    return 1 - pixels / float(figure.get_figheight() * DPI)


def write_px(figure: Any, x: float, y: float, text: str, **style: Any) -> None:
    """Writes at pixels from the left and top; ``y`` is the baseline."""
    write(figure, x / WIDTH_PX, from_top(figure, y), text, **{"color": TEXT_COLOUR, "va": "baseline", **style})


def write(target: Any, x: float, y: float, text: str, **style: Any) -> None:
    """Writes with the font that matplotlib brings along, and without reading ``$`` as mathematics."""
    target.text(x, y, text, fontfamily=FONT, parse_math=False, **style)


def clean(text: str, length: int) -> str:
    """One line of at most ``length`` characters; what the font cannot show becomes a replacement character."""
    known = get_font(findfont(FONT)).get_charmap()
    line = "".join(c if ord(c) in known else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
    return line if len(line) <= length else line[: length - 1] + "…"


def colour_of(label: int) -> tuple[float, ...]:
    """The colour of a label, red, green and blue in [0, 1]."""
    return next(tuple(c / 255 for c in entry.colour) for entry in LABELS if entry.id == label)
