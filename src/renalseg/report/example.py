"""A small picture of one validated case: the slice that shows most, with the true outlines and the predicted ones."""

from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from renalseg.core.labels import CYST, HECS, KIDNEY, TUMOR
from renalseg.core.volume import Volume
from renalseg.evaluate.metrics import dice
from renalseg.image.boxes import Box, bounding_box
from renalseg.report.drawing import BACKGROUND_COLOUR, FONT, OUTLINE, TEXT_COLOUR, rasterised
from renalseg.report.slices import PLANES, Span, draw_slice, frame_slice

PANEL_INCHES, DPI, GAP_INCHES = 5.0, 72, 0.1
MARGIN_MM = 25.0
TALLEST, FLATTEST = 1.0, 0.5
"""Height of a panel over its width."""


def example_png(ct: Volume, predicted: Volume, truth: Volume) -> bytes:
    """Truth at the left, prediction at the right, on an axial slice through the tumor, else the cyst, else the kidney.

    The PNG's ``Description`` says the case, the slice and the Dice of each evaluation class.

    Args:
        ct: CT [z, y, x] in HU.
        predicted: label map on the same grid.
        truth: the true one.
    """
    box = bounding_box((truth.array > 0) | (predicted.array > 0)) or Box((0, 0, 0), ct.shape)
    true, found = truth.array[box.slices], predicted.array[box.slices]
    index = box.start[0] + _slice_of(true if true.any() else found)
    view = _view(ct, box)
    height = PANEL_INCHES * (view[0][1] - view[0][0]) / (view[1][1] - view[1][0])
    figure = Figure(figsize=(2 * PANEL_INCHES + GAP_INCHES, height), dpi=DPI, facecolor=BACKGROUND_COLOUR)
    share = PANEL_INCHES / (2 * PANEL_INCHES + GAP_INCHES)
    for left, name, labels in ((0.0, "truth", truth), (1 - share, "prediction", predicted)):
        axes = figure.add_axes((left, 0, share, 1))
        draw_slice(axes, ct, labels, PLANES[0], index)
        frame_slice(axes, PLANES[0], view)
        style: dict[str, Any] = {"color": TEXT_COLOUR, "fontsize": 14, "path_effects": OUTLINE, "fontfamily": FONT}
        axes.text(0.02, 0.98, name, va="top", transform=axes.transAxes, **style)
    scores = ", ".join(f"{hec.name} {dice(hec.mask(true), hec.mask(found)):.3f}" for hec in HECS)
    return _encode(figure, f"{ct.name}: slice {index + 1} of {ct.shape[0]}; Dice {scores}")


def description(png: bytes) -> str:
    """What ``example_png`` wrote about its picture."""
    with Image.open(BytesIO(png)) as image:
        return str(image.info.get("Description", ""))


def _slice_of(labels: NDArray[np.integer]) -> int:
    """The slice of [z, y, x] with most of what matters most; the middle one where there is nothing."""
    for label in (TUMOR, CYST, KIDNEY):
        area = (labels == label).sum(axis=(1, 2))
        if area.any():
            return int(area.argmax())
    return len(labels) // 2


def _view(ct: Volume, box: Box) -> tuple[Span, Span]:
    """The rows and columns to show, in mm: the box with a margin, not too tall and not too flat."""
    centres, sizes = [], []
    for axis in (1, 2):
        spacing = ct.spacing_mm[axis]
        centres.append((box.start[axis] + box.stop[axis] - 1) / 2 * spacing)
        sizes.append((box.stop[axis] - box.start[axis]) * spacing + 2 * MARGIN_MM)
    width = max(sizes[1], sizes[0] / TALLEST)
    height = max(sizes[0], width * FLATTEST)
    (y, x), (half_y, half_x) = centres, (height / 2, width / 2)
    return (y - half_y, y + half_y), (x - half_x, x + half_x)


def _encode(figure: Figure, text: str) -> bytes:
    info, stream = PngInfo(), BytesIO()
    info.add_itxt("Description", text)
    rasterised(figure).save(stream, "PNG", pnginfo=info, optimize=True)
    return stream.getvalue()
