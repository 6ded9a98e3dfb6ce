"""What is measured of a case, and the same percentiles of the 489 public training cases of KiTS23.

The published side was computed once, on all 489 label maps of neheller/kits23 (the CC BY-NC-SA 4.0 dataset).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from renalseg.core.labels import LABELS

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
HU_PERCENTILES = (5, 25, 50, 75, 95)

Row = dict[str, float | int | str | bool | None]
"""One case: column to value; None where it could not be measured."""

Percentiles = tuple[float | None, ...]
"""One value for each of ``PERCENTILES``; None where unknown."""

KITS23_CASES, KITS23_WITH_CYST = 489, 248

KITS23: dict[str, Percentiles] = {
    "slice_spacing_mm": (0.5, 0.5, 2.0, 3.0, 5.0, 5.0, 5.0),
    "in_plane_spacing_mm": (0.39, 0.64, 0.72, 0.78, 0.87, 0.98, 1.04),
    "slices": (29, 44, 84, 104, 211, 635, 1059),
    "roi_z": (20, 22, 27, 37, 64, 241, 335),
    "roi_y": (68, 87, 105, 120, 138, 179, 294),
    "roi_x": (78, 227, 262, 285, 309, 341, 458),
    "roi_z_mm": (None, None, None, 130, None, None, 240),
    "roi_y_mm": (None, None, None, 95, None, None, 185),
    "roi_x_mm": (None, None, None, 227, None, None, 297),
    "kidney_ml": (None, 249, None, 395, None, 612, None),
    "tumor_ml": (None, 2.9, None, 32, None, 664, None),
    "cyst_ml": (None, 0.21, None, 4.4, None, 95, None),
}
"""Quantity to its percentiles over KiTS23."""

KITS23_COUNTS: dict[str, int] = {
    "axes I, P, L": 489,
    "sform 2, qform 0": 489,
    "with tumor": 489,
    "with cyst": KITS23_WITH_CYST,
    "one component": 12,
    "not 512 x 512 in plane": 3,
}
"""How many of KiTS23's cases are so."""


@dataclass(frozen=True)
class Quantity:
    """A column of the table whose distribution is looked at.

    Attributes:
        name: the column.
        title: for readers.
        unit: of the values; empty for counts.
        is_volume: a volume in ml, where 0 means that the class is absent: not counted, and drawn on a log axis.
    """

    name: str
    title: str
    unit: str = ""
    is_volume: bool = False

    @property
    def label(self) -> str:
        """Title and unit, for an axis."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def published(self) -> Percentiles | None:
        """KiTS23's percentiles, where known."""
        return KITS23.get(self.name)

    @property
    def n_published(self) -> int:
        """How many cases of KiTS23 these are."""
        return KITS23_WITH_CYST if self.name == "cyst_ml" else KITS23_CASES

    def values(self, rows: Iterable[Row]) -> list[float]:
        """The measured values of this quantity."""
        found = [value for row in rows if isinstance(value := row[self.name], int | float)]
        return [value for value in found if value > 0 or not self.is_volume]


GEOMETRY = (
    Quantity("slice_spacing_mm", "Slice spacing", "mm"),
    Quantity("in_plane_spacing_mm", "In-plane spacing", "mm"),
    Quantity("slices", "Slices"),
    Quantity("scan_length_mm", "Scan length", "mm"),
)
BOX_VOXELS = tuple(Quantity(f"roi_{axis}", f"Box of kidneys and masses, {axis}", "voxels") for axis in "zyx")
BOX_MM = tuple(Quantity(f"roi_{axis}_mm", f"Box of kidneys and masses, {axis}", "mm") for axis in "zyx")
VOLUMES = tuple(
    Quantity(f"{label.name}_ml", f"Volume of {label.name} where present", "ml", is_volume=True) for label in LABELS
)
INTENSITY = tuple(Quantity(f"hu_{label.name}_p50", f"Median of {label.name}", "HU") for label in LABELS)
QUANTITIES = (
    *GEOMETRY,
    *BOX_VOXELS,
    *BOX_MM,
    *VOLUMES,
    Quantity("components", "Components, fragments included"),
    *INTENSITY,
)

COLUMNS = (
    *("case_id", "usable", "findings", "has_image", "has_labels", "axis_codes", "sform_code", "qform_code"),
    *("slices", "in_plane_y", "in_plane_x", "slice_spacing_mm", "in_plane_spacing_mm", "scan_length_mm"),
    *("roi_start_z", "roi_start_y", "roi_start_x", *(q.name for q in (*BOX_VOXELS, *BOX_MM, *VOLUMES)), "components"),
    *("hu_min", "hu_max", *(f"hu_{label.name}_p{p}" for label in LABELS for p in HU_PERCENTILES)),
)
"""The columns of ``inspect.csv``."""


def percentiles(values: list[float]) -> Percentiles:
    """``PERCENTILES`` of ``values``, by linear interpolation; all None where there are none."""
    if not values:
        return (None,) * len(PERCENTILES)
    return tuple(round(float(v), 6) for v in np.percentile(np.array(values, np.float64), PERCENTILES))
