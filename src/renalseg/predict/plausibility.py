"""Step 8, the anatomy: volumes, number, sides and borders of what was found, and what is odd about them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from renalseg.core.labels import KIDNEY
from renalseg.core.volume import Volume
from renalseg.image.boxes import bounding_box

UNUSUAL, CONTRADICTION = 0.8, 0.5
"""Factors of the value: for what a few in 100 true scans show, and for what hardly any does. Settled."""

LARGE_ML = 20.0
"""Components from here on can be a kidney: the rule of ``clean``, docs/benchmarks.md."""

SMALLEST_ML, LARGEST_ML = 90.0, 612.0
"""One kidney. Every true component of 122 KiTS23 cases, masses included, has 93 ml or more (docs/benchmarks.md); kidney
tissue of both kidneys together has 612 ml at the 95th percentile of the 489."""

MASSES_ML, MASSES_SHARE = 2500.0, 0.9
"""Upper limits of all masses together: about KiTS23's largest; and that beside 249 ml of kidney, its 5th percentile."""

OFFSET_MM = 120.0
"""Two kidneys' centres lie no further apart from top to bottom: about a kidney's length. Settled."""

BODY_HU = -500.0
"""Between air and fat: above it is the patient."""

_BORDERS = ("first slice", "last slice"), ("anterior border", "posterior border"), ("right border", "left border")


@dataclass(frozen=True)
class Finding:
    """Something implausible about a label map: one sentence with its numbers, and what it does to the value."""

    sentence: str
    factor: float


@dataclass(frozen=True)
class Piece:
    """A connected component (26-connected) of all labels.

    Attributes:
        ml: its volume, masses included.
        kidney_ml: that of its kidney tissue.
        centre_mm: its centroid (z, y, x), in mm along the axes of the volume.
    """

    ml: float
    kidney_ml: float
    centre_mm: tuple[float, float, float]


def plausibility(ct: Volume, labels: NDArray[np.uint8]) -> tuple[dict[str, Any], list[Finding]]:
    """Volume, count, side and position of what was found, and what is odd about them.

    Args:
        ct: the CT in HU.
        labels: uint8 [z, y, x] on its grid, with at least one voxel.
    """
    pieces = find_pieces(labels, ct)
    kidneys = [p for p in pieces if p.kidney_ml > 0 and p.ml >= LARGE_ML]
    middle = _midline_mm(ct, labels)
    sides = [p.centre_mm[2] - middle for p in kidneys]
    total = sum(p.ml for p in pieces)
    masses = total - sum(p.kidney_ml for p in pieces)
    offset = abs(kidneys[0].centre_mm[0] - kidneys[1].centre_mm[0]) if len(kidneys) > 1 else None
    touched = _touched_cm2(labels, ct.spacing_mm)
    findings = [
        *_count_findings(kidneys, pieces),
        *_volume_findings(kidneys[:2], masses, masses / total),
        *_position_findings(sides[:2], offset),
        *_border_findings(touched),
    ]
    facts = {
        "kidneys": [
            {"ml": round(p.ml, 3), "kidney_ml": round(p.kidney_ml, 3), "left_of_midline_mm": round(side, 1)}
            for p, side in zip(kidneys, sides, strict=True)
        ],
        "masses_share": round(masses / total, 4),
        "vertical_offset_mm": None if offset is None else round(offset, 1),
        "touched_cm2": {border: round(area, 3) for border, area in touched.items()},
    }
    return facts, findings


def find_pieces(labels: NDArray[np.uint8], grid: Volume) -> list[Piece]:
    """The connected components of ``labels`` [z, y, x], which lie on the grid of ``grid``, largest first."""
    box = bounding_box(labels > 0)
    if box is None:
        return []
    cut = labels[box.slices]
    components = cc3d.connected_components(cut > 0, connectivity=26)
    statistics = cc3d.statistics(components)
    ml = grid.voxel_mm3 / 1000
    pieces = []
    for number in range(1, len(statistics["voxel_counts"])):
        where = statistics["bounding_boxes"][number]
        kidney = np.count_nonzero((components[where] == number) & (cut[where] == KIDNEY))
        centre = (np.array(box.start) + statistics["centroids"][number]) * grid.spacing_mm
        z, y, x = (float(c) for c in centre)
        pieces.append(Piece(float(statistics["voxel_counts"][number]) * ml, kidney * ml, (z, y, x)))
    return sorted(pieces, key=lambda piece: -piece.ml)


def _midline_mm(ct: Volume, labels: NDArray[np.uint8]) -> float:
    """Where the body's middle is from right to left, mm: the centroid of the body in the slices with labels."""
    slices = np.flatnonzero(labels.any(axis=(1, 2)))
    body = (ct.array[slices[0] : slices[-1] + 1] > BODY_HU).sum(axis=(0, 1))
    columns = np.arange(ct.shape[2])
    middle = float((body * columns).sum() / body.sum()) if body.any() else float(columns.mean())
    return middle * ct.spacing_mm[2]


def _touched_cm2(labels: NDArray[np.uint8], spacing_mm: tuple[float, float, float]) -> dict[str, float]:
    """Border of the scan to the area of labels on it, for each of the six that is touched."""
    touched: dict[str, float] = {}
    for axis, names in enumerate(_BORDERS):
        cm2 = math.prod(spacing_mm[a] for a in range(3) if a != axis) / 100
        for name, index in zip(names, (0, -1), strict=True):
            voxels = np.count_nonzero(labels.take(index, axis))
            if voxels:
                touched[name] = int(voxels) * cm2
    return touched


def _count_findings(kidneys: Sequence[Piece], pieces: Sequence[Piece]) -> Iterator[Finding]:
    listed = ", ".join(f"{p.ml:.1f} ml" for p in kidneys)
    if not kidneys:
        largest = f"the largest component has {pieces[0].ml:.1f} ml"
        yield Finding(f"No component with kidney tissue has {LARGE_ML:g} ml; {largest}.", CONTRADICTION)
    if len(kidneys) == 1:
        yield Finding(f"Only one connected kidney found ({listed}): solitary, fused, or one was missed.", UNUSUAL)
    if len(kidneys) > 2:
        yield Finding(f"{len(kidneys)} separate components could be kidneys: {listed}.", CONTRADICTION)
    loose = ", ".join(f"{p.ml:.2f} ml" for p in pieces if p.kidney_ml == 0)
    if loose:
        yield Finding(f"Masses touch no kidney tissue: {loose}.", CONTRADICTION)


def _volume_findings(kidneys: Sequence[Piece], masses_ml: float, share: float) -> Iterator[Finding]:
    for p in kidneys:
        if p.ml < SMALLEST_ML:
            yield Finding(f"A kidney with its masses has {p.ml:.1f} ml, under {SMALLEST_ML:g} ml.", UNUSUAL)
        if p.kidney_ml > LARGEST_ML:
            yield Finding(f"A kidney without its masses has {p.kidney_ml:.1f} ml, over {LARGEST_ML:g} ml.", UNUSUAL)
    if masses_ml > MASSES_ML:
        yield Finding(f"The masses have {masses_ml:.1f} ml, over {MASSES_ML:g} ml.", CONTRADICTION)
    if share > MASSES_SHARE:
        yield Finding(f"Masses are {share:.1%} of all that is labelled, over {MASSES_SHARE:.0%}.", CONTRADICTION)


def _position_findings(sides_mm: Sequence[float], offset_mm: float | None) -> Iterator[Finding]:
    """Of up to two kidneys: ``sides_mm`` to the left of the midline, and how far apart from top to bottom."""
    if len(sides_mm) == 2 and sides_mm[0] * sides_mm[1] > 0:
        side = "left" if sides_mm[0] > 0 else "right"
        distances = " and ".join(f"{abs(s):.0f} mm" for s in sides_mm)
        yield Finding(f"Both kidneys lie {side} of the body's midline, by {distances}.", CONTRADICTION)
    if offset_mm is not None and offset_mm > OFFSET_MM:
        yield Finding(f"One kidney lies {offset_mm:.0f} mm below the other, over {OFFSET_MM:g} mm.", CONTRADICTION)


def _border_findings(touched_cm2: Mapping[str, float]) -> Iterator[Finding]:
    for border, area in touched_cm2.items():
        yield Finding(f"The labels touch the {border} with {area:.1f} cm2: a kidney may be cut off.", UNUSUAL)
