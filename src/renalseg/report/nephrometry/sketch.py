"""A drawing of a kidney with one lesion and what its scores were told by, as PNG."""

from collections.abc import Mapping
from io import BytesIO
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from renalseg.core.errors import InputError
from renalseg.core.labels import CYST, KIDNEY, LABELS, TUMOR
from renalseg.core.notice import NOTICE
from renalseg.core.volume import Volume
from renalseg.report.measure.diameters import shifted, to_world
from renalseg.report.measure.grid import GRID_MM
from renalseg.report.measure.lesions import lesion_mask
from renalseg.report.measure.results import Lesion, Measurements
from renalseg.report.nephrometry.kidney import KidneyFacts, Landmarks
from renalseg.report.nephrometry.results import Nephrometry
from renalseg.report.nephrometry.score import kidneys_of

Array = NDArray[np.float64]

CELL_MM = 1.5
SINUS_COLOUR = (0.95, 0.77, 0.06)
COLOURS = {label.id: tuple(c / 255 for c in label.colour) for label in LABELS}


def sketch(
    score: Nephrometry,
    labels: Volume,
    measurements: Measurements,
    kidneys: Mapping[str, KidneyFacts] | None = None,
) -> bytes:
    """Draws the coronal projection as seen from the front, the patient's right on the left, as PNG.

    Args:
        score: of one lesion.
        labels: the label map [z, y, x] that it was told by.
        measurements: of ``labels``, with that lesion.
        kidneys: from ``kidneys_of``, where a caller has them already.

    Raises:
        InputError: the measurements are those of another label map, or have no such lesion.
    """
    lesion = next((found for found in measurements.lesions if found.id == score.lesion), None)
    if lesion is None:
        raise InputError(f"{labels.name}: the measurements have no lesion {score.lesion}; score this label map again.")
    kidney = (kidneys_of(labels, measurements) if kidneys is None else kidneys)[lesion.side]
    figure = Figure(figsize=(6.4, 4.4), dpi=110, layout="constrained")
    axes, text = figure.subplots(1, 2, width_ratios=(3, 2))
    _shapes(axes, kidney, labels, lesion)
    if kidney.landmarks is not None:
        _landmarks(axes, kidney.landmarks)
    _parts(axes, score)
    text.set_axis_off()
    text.text(0, 1, _words(score, lesion), va="top", fontsize=9, transform=text.transAxes)
    figure.supxlabel(NOTICE, fontsize=7)
    buffer = BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _shapes(axes: Axes, kidney: KidneyFacts, labels: Volume, lesion: Lesion) -> None:
    """Parenchyma, all lesions faintly, the lesion, and the sinus, as filled projections."""
    width, height = _cell(kidney.affine)
    for label in (KIDNEY, CYST, TUMOR):
        if (kidney.labels == label).any():
            points = to_world(kidney.affine, np.argwhere(kidney.labels == label))
            _fill(axes, points, COLOURS[label], 0.35, width, height)
    own = to_world(shifted(labels.affine, lesion.box.start), np.argwhere(lesion_mask(labels, lesion)))
    _fill(axes, own, COLOURS[TUMOR if lesion.kind == "tumor" else CYST], 0.8, width, height)
    if kidney.landmarks is not None:
        _fill(axes, kidney.landmarks.sinus.points, SINUS_COLOUR, 0.45, GRID_MM, GRID_MM)
    axes.set_aspect("equal")
    axes.invert_xaxis()
    axes.set_xlabel("patient's right  <  mm  >  left", fontsize=7)
    axes.set_ylabel("superior, mm", fontsize=7)
    axes.tick_params(labelsize=6)


def _cell(affine: Array) -> tuple[float, float]:
    """Extent in mm of a voxel along right and superior, at least ``CELL_MM``: cells that large leave no gaps."""
    right, _, superior = np.abs(affine[:3, :3]).sum(axis=1).tolist()
    return max(CELL_MM, right), max(CELL_MM, superior)


def _fill(axes: Axes, points: Array, colour: tuple[float, ...], alpha: float, width: float, height: float) -> None:
    """Fills the coronal projection of voxel centres [n, 3] (RAS mm) on cells of ``width`` x ``height`` mm."""
    left, _, bottom = points.min(axis=0) - [2 * width, 0, 2 * height]
    across = np.rint((points[:, 0] - left) / width).astype(int)
    up = np.rint((points[:, 2] - bottom) / height).astype(int)
    seen = np.zeros((up.max() + 3, across.max() + 3))
    seen[up, across] = 1
    xs, zs = left + np.arange(seen.shape[1]) * width, bottom + np.arange(seen.shape[0]) * height
    axes.contourf(xs, zs, seen, levels=[0.5, 1.5], colors=[colour], alpha=alpha)


def _landmarks(axes: Axes, marks: Landmarks) -> None:
    """Polar lines and axial midline."""
    upper, lower = marks.upper_mm, marks.lower_mm
    for height, name, style in ((upper, "upper polar line", "--"), (lower, "lower polar line", "--")):
        axes.axhline(height, color="0.2", linewidth=1, linestyle=style)
        _name(axes, name, height)
    axes.axhline(marks.midline_mm, color="0.5", linewidth=0.8, linestyle=":")
    _name(axes, "midline", marks.midline_mm)


def _name(axes: Axes, name: str, height_mm: float) -> None:
    """Names a line, in black with a white edge, which can be read on any colour."""
    note = axes.annotate(name, (0.01, height_mm), xycoords=("axes fraction", "data"), fontsize=7, va="bottom")
    note.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _parts(axes: Axes, score: Nephrometry) -> None:
    """The diameter, the shortest way to the sinus, and the line between the centres."""
    for part, keys, style, colour in (
        (score.renal.parts["R"], ("ends_ras_mm",), "-", "black"),
        (score.renal.parts["N"], ("lesion_ras_mm", "sinus_ras_mm"), "-", "purple"),
        (score.c_index, ("kidney_centre_ras_mm", "lesion_centre_ras_mm"), ":", "navy"),
    ):
        if all(key in part.geometry for key in keys):
            ends = np.array([part.geometry[key] for key in keys]).reshape(-1, 3)
            axes.plot(ends[:, 0], ends[:, 2], style, color=colour, linewidth=1.2, marker=".", markersize=4)


def _words(score: Nephrometry, lesion: Lesion) -> str:
    def total(value: int | None) -> str:
        return "not told" if value is None else str(value)

    lines = [f"Lesion {lesion.id} ({lesion.kind}, {lesion.side} kidney)", ""]
    lines.append(f"R.E.N.A.L. {total(score.renal.total)}{score.renal.suffix}")
    for name, part in score.renal.parts.items():
        value = "" if part.value is None or name == "A" else f" ({part.value:.3g} {part.unit})"
        points = score.renal.suffix[:1] or "-" if name == "A" else total(part.points)
        lines.append(f"   {name}: {points}{value}")
    lines += ["", f"PADUA {total(score.padua.total)}{score.padua.suffix}", f"SPARE {total(score.spare.total)}"]
    lines.append("C-index " + ("not told" if score.c_index.value is None else f"{score.c_index.value:.2f}"))
    lines += ["", "yellow: estimated sinus", "black: diameter", "purple: to the sinus", "dotted blue: centres", ""]
    return "\n".join([*lines, *(fill(reason, 40) for reason in score.abstained)])
