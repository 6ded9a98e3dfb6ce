"""The label table: ids, names, evaluation classes, tolerances, paint order, codes, colours. Nothing else defines them.

Source: KiTS23 (neheller/kits23, ``configuration/labels.py``); the codes are SNOMED CT.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BACKGROUND, KIDNEY, TUMOR, CYST = 0, 1, 2, 3


@dataclass(frozen=True)
class Label:
    """One value of a label map."""

    id: int
    name: str
    colour: tuple[int, int, int]
    snomed: str


LABELS = (
    Label(KIDNEY, "kidney", (46, 204, 113), "64033007"),
    Label(TUMOR, "tumor", (231, 76, 60), "108369006"),
    Label(CYST, "cyst", (52, 152, 219), "367643001"),
)
"""The foreground labels, by id."""

PAINT_ORDER = (KIDNEY, CYST, TUMOR)
"""Where annotations overlap, later ones win."""


@dataclass(frozen=True)
class EvaluationClass:
    """A hierarchical evaluation class (HEC): a union of labels, with the tolerance of its surface Dice in mm."""

    name: str
    title: str
    ids: tuple[int, ...]
    tolerance_mm: float

    def mask(self, labels: NDArray[np.integer]) -> NDArray[np.bool_]:
        """The voxels of ``labels`` (any shape) that belong to this class."""
        return np.isin(labels, self.ids)


HECS = (
    EvaluationClass("kidney", "Kidney and masses", (KIDNEY, TUMOR, CYST), 1.0330772532390826),
    EvaluationClass("masses", "Masses", (TUMOR, CYST), 1.1328796488598762),
    EvaluationClass("tumor", "Tumor", (TUMOR,), 1.1498198361434828),
)
"""KiTS23's three evaluation classes, in the order of the official CSV."""

MASSES = HECS[1]
"""Tumors and cysts."""
