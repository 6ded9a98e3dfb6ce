"""Dice and surface Dice of one case, per evaluation class, by the official KiTS23 rules."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from renalseg.core.errors import GeometryError, InputError
from renalseg.core.labels import HECS, LABELS
from renalseg.core.volume import Volume
from renalseg.evaluate.surface import surface_dice
from renalseg.image.boxes import bounding_box


@dataclass(frozen=True)
class CaseMetrics:
    """The scores of one case, 0 to 1.

    Attributes:
        case_id: the case's name.
        dice: per evaluation class, by its name in ``core.labels.HECS``.
        surface_dice: likewise, at the class's tolerance.
    """

    case_id: str
    dice: Mapping[str, float]
    surface_dice: Mapping[str, float]

    @property
    def row(self) -> tuple[float, ...]:
        """The six scores in the order of the official CSV: Dice of each class, then surface Dice of each class."""
        return tuple(self.dice[hec.name] for hec in HECS) + tuple(self.surface_dice[hec.name] for hec in HECS)

    @classmethod
    def from_row(cls, case_id: str, row: tuple[float, ...]) -> "CaseMetrics":
        """The inverse of ``row``."""
        names = [hec.name for hec in HECS]
        return cls(case_id, dict(zip(names, row[:3], strict=True)), dict(zip(names, row[3:], strict=True)))


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Dice of two masks of one shape: twice the shared voxels over the sum of both.

    Returns:
        0 to 1. Both empty: 1. Exactly one empty: 0 (the KiTS23 rules).

    Raises:
        GeometryError: the shapes differ.
    """
    if a.shape != b.shape:
        raise GeometryError(f"Dice needs two masks of one shape, got {a.shape} and {b.shape}")
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return float(2 * np.count_nonzero(np.logical_and(a, b)) / total) if total else 1.0


def case_metrics(truth: Volume, prediction: Volume, case_id: str | None = None) -> CaseMetrics:
    """Scores a label map against the true one.

    Source: KiTS23 (neheller/kits23, ``evaluation/metrics.py``). Both class masks empty score 1 and 1, exactly one
    empty 0 and 0.

    Args:
        truth: labels 0 to 3, [z, y, x].
        prediction: likewise, on the same grid.
        case_id: the name in the result and in messages; ``truth.name`` where omitted.

    Raises:
        InputError: a label outside 0 to 3, or the grids differ (``GeometryError``).
    """
    case_id = truth.name if case_id is None else case_id
    _check_grids(truth, prediction, case_id)
    _check_labels(truth, f"{case_id}: the truth")
    _check_labels(prediction, f"{case_id}: the prediction")
    box = bounding_box((truth.array != 0) | (prediction.array != 0))
    crop = (slice(0, 0),) * 3 if box is None else box.slices
    dices, surface_dices = {}, {}
    for hec in HECS:
        a, b = hec.mask(truth.array[crop]), hec.mask(prediction.array[crop])
        dices[hec.name] = dice(a, b)
        surface_dices[hec.name] = surface_dice(a, b, truth.spacing_mm, hec.tolerance_mm)
    return CaseMetrics(case_id, dices, surface_dices)


def _check_grids(truth: Volume, prediction: Volume, case_id: str) -> None:
    if not truth.same_grid(prediction, tolerance_mm=0.1):
        raise GeometryError(
            f"{case_id}: the prediction's grid is {_geometry(prediction)}, but the truth's is {_geometry(truth)}; "
            "predict on the grid of the case's own image."
        )


def _check_labels(volume: Volume, what: str) -> None:
    array, highest = volume.array, max(label.id for label in LABELS)
    if array.size == 0:
        return
    whole = array.dtype.kind in "iub" or bool((array == np.rint(array)).all())
    if not whole or array.min() < 0 or array.max() > highest:
        raise InputError(
            f"{what} has values from {array.min():g} to {array.max():g}; labels are 0 to {highest}, whole."
        )


def _geometry(volume: Volume) -> str:
    shape = " x ".join(str(n) for n in volume.shape)
    spacing = " x ".join(f"{s:.6g}" for s in volume.spacing_mm)
    first, last = (
        ", ".join(f"{v:.3f}" for v in (volume.affine @ np.array([*index, 1]))[:3])
        for index in ((0, 0, 0), tuple(n - 1 for n in volume.shape))
    )
    return f"{shape} voxels (z, y, x) of {spacing} mm from ({first}) to ({last}) mm"
