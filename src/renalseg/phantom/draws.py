"""Random draws: grids, volumes and contrast, with the distributions measured on the 489 public KiTS23 label maps.

Source: METHOD, section 1 ("Data and geometry"): percentiles of spacing, slice count, and volumes. The attenuation
ranges are ours, wide and overlapping, after the usual values of the radiological literature, and at times widened
beyond them: networks trained on contrasts wider than the real ones transfer to real ones (SynthSeg, Billot et al.
2023, doi:10.1016/j.media.2023.102789).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Range = tuple[float, float]

SLICE_SPACINGS_MM = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
SLICE_SPACING_WEIGHTS = (0.07, 0.02, 0.09, 0.03, 0.01, 0.09, 0.09, 0.26, 0.03, 0.31)
PERCENTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
IN_PLANE_SPACING_MM = (0.39, 0.64, 0.72, 0.78, 0.87, 0.98, 1.04)
SCAN_LENGTH_MM = (145.0, 187.0, 258.0, 405.0, 485.0, 675.0, 735.0)
THIN_SCAN_LENGTH_MM = (230.0, 255.0, 272.0, 298.0, 330.0, 400.0, 530.0)
THIN_MM = 0.9
"""Scans of slices thinner than this are shorter: abdomen without pelvis (measured on 122 of the label maps)."""
KIDNEY_ML = (150.0, 249.0, 335.0, 395.0, 465.0, 612.0, 750.0)
TUMOR_ML = (0.2, 2.9, 12.0, 32.0, 120.0, 664.0, 2500.0)
CYST_ML = (0.06, 0.21, 1.2, 4.4, 16.0, 95.0, 600.0)
MATRIX = 512
CYST_RATE, SOLITARY_RATE = 248 / 489, 12 / 489
TUMOR_COUNTS = {0: 0.06, 1: 0.8, 2: 0.09, 3: 0.03, 5: 0.02}
"""Shares of the numbers of tumors. KiTS23 has no case without one; readers of the product do."""
CYST_COUNTS = {1: 0.55, 2: 0.22, 3: 0.1, 4: 0.08, 8: 0.05}

PHASES = ("native", "arterial", "nephrographic", "excretory")
PHASE_TIMES: tuple[tuple[float, Range], ...] = (
    (0.18, (0.0, 0.0)), (0.05, (0.15, 0.7)), (0.42, (0.7, 1.4)), (0.23, (1.4, 2.2)), (0.12, (2.2, 3.0)),
)  # fmt: skip
"""(share, from and to) of the time since injection, in phases: 1.3 is 0.3 of the way from arterial to nephrographic."""
WIDE_SHARE, WIDE = 0.3, 0.45
"""The share of scans whose tissues leave their ranges, and by how much at most, in widths of the range."""
CORTEX_OVER_MEDULLA: tuple[Range, ...] = ((-5.0, 5.0), (0.0, 150.0), (-5.0, 35.0), (-12.0, 15.0))
"""Attenuation of the cortex above the medulla's in HU, by phase; the upper half of the range is the likelier."""
FAINT_MEDULLA_SHARE = 0.12
"""The share of kidneys whose medulla does not show, whatever the phase."""
MIN_MEDULLA_HU = 22.0

HU_RANGES: dict[str, dict[str, Range]] = {
    "native": {
        "cortex": (22, 44), "medulla": (22, 44), "pelvis": (-5, 18), "tumor": (18, 52), "aorta": (28, 52),
        "ivc": (28, 50), "renal_vein": (28, 50), "portal": (28, 50), "liver": (28, 70), "spleen": (36, 60),
        "pancreas": (20, 50), "bowel": (15, 48), "muscle": (35, 65),
    },
    "arterial": {
        "cortex": (105, 260), "medulla": (40, 240), "pelvis": (0, 30), "tumor": (35, 165), "aorta": (190, 390),
        "ivc": (50, 150), "renal_vein": (90, 210), "portal": (50, 180), "liver": (50, 125), "spleen": (80, 185),
        "pancreas": (60, 140), "bowel": (35, 125), "muscle": (42, 75),
    },
    "nephrographic": {
        "cortex": (110, 225), "medulla": (100, 220), "pelvis": (0, 40), "tumor": (40, 135), "aorta": (105, 185),
        "ivc": (100, 175), "renal_vein": (110, 185), "portal": (110, 190), "liver": (70, 140), "spleen": (85, 155),
        "pancreas": (55, 120), "bowel": (40, 110), "muscle": (44, 78),
    },
    "excretory": {
        "cortex": (85, 175), "medulla": (80, 180), "pelvis": (100, 1100), "tumor": (35, 105), "aorta": (80, 135),
        "ivc": (80, 130), "renal_vein": (80, 135), "portal": (85, 135), "liver": (60, 120), "spleen": (65, 125),
        "pancreas": (45, 100), "bowel": (35, 90), "muscle": (42, 74),
    },
}  # fmt: skip
"""Attenuation ranges in HU by contrast phase and tissue; between two phases, the ranges are mixed."""


@dataclass(frozen=True)
class Sampling:
    """The grid of a CT volume: voxels (z, y, x) and their size in mm."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Contrast:
    """The contrast phase (the nearest of ``PHASES``) and the mean attenuation of each tissue in HU."""

    phase: str
    hu: dict[str, float]


def quantile(rng: np.random.Generator, values: tuple[float, ...], log: bool = False) -> float:
    """Draws from the distribution whose values at ``PERCENTILES`` are given, linear (or log-linear) in between."""
    u = float(rng.uniform())
    if log:
        return float(np.exp(np.interp(u, PERCENTILES, np.log(values))))
    return float(np.interp(u, PERCENTILES, values))


def draw_sampling(rng: np.random.Generator, in_plane: int = MATRIX, max_slices: int | None = None) -> Sampling:
    """Draws slice spacing, scan length and field of view.

    Args:
        rng: source of randomness.
        in_plane: matrix size; the field of view does not depend on it.
        max_slices: the spacing is drawn among those that need no more slices; the scan is cut where none does.
    """
    u = rng.uniform()
    field_mm = MATRIX * quantile(rng, IN_PLANE_SPACING_MM)
    spacings, weights = np.array(SLICE_SPACINGS_MM), np.array(SLICE_SPACING_WEIGHTS)
    lengths = np.where(
        spacings < THIN_MM, np.interp(u, PERCENTILES, THIN_SCAN_LENGTH_MM), np.interp(u, PERCENTILES, SCAN_LENGTH_MM)
    )
    if max_slices is not None:
        weights = np.where(lengths / spacings <= max_slices, weights, 0)
        if weights.sum() == 0:
            weights[-1] = 1
    pick = int(rng.choice(len(spacings), p=weights / weights.sum()))
    spacing = float(spacings[pick])
    slices = max(round(float(lengths[pick]) / spacing), 8)
    if max_slices is not None:
        slices = min(slices, max_slices)
    pixel = field_mm / in_plane
    return Sampling((slices, in_plane, in_plane), (spacing, pixel, pixel))


def draw_contrast(rng: np.random.Generator, phases: Sequence[str] = PHASES) -> Contrast:
    """Draws the time since injection, continuous from native to excretory, and the tissues' mean attenuation at it.

    Args:
        rng: source of randomness.
        phases: draws again until the nearest phase is one of these.
    """
    while True:
        contrast = _draw_contrast(rng)
        if contrast.phase in phases:
            return contrast


def _draw_contrast(rng: np.random.Generator) -> Contrast:
    share = [s for s, _ in PHASE_TIMES]
    time = float(rng.uniform(*PHASE_TIMES[int(rng.choice(len(share), p=share))][1]))
    beyond = WIDE if rng.uniform() < WIDE_SHARE else 0.0
    first = min(int(time), len(PHASES) - 2)
    hu = {}
    for name in HU_RANGES[PHASES[0]]:
        low, high = _mixed([HU_RANGES[p][name] for p in PHASES], first, time - first)
        hu[name] = low + float(rng.uniform(-beyond, 1 + beyond)) * (high - low)
    low, high = _mixed(list(CORTEX_OVER_MEDULLA), first, time - first)
    over = 0.0 if rng.uniform() < FAINT_MEDULLA_SHARE else low + float(rng.beta(1.5, 1.0)) * (high - low)
    hu["medulla"] = max(hu["cortex"] - over, min(hu["cortex"], MIN_MEDULLA_HU))
    return Contrast(PHASES[int(time + 0.5)], hu)


def _mixed(ranges: list[Range], first: int, part: float) -> Range:
    """The range between number ``first`` and the next one."""
    (a, b), (c, d) = ranges[first], ranges[first + 1]
    return a + part * (c - a), b + part * (d - b)


def draw_kidney_ml(rng: np.random.Generator) -> float:
    """Total volume of the kidney label in ml."""
    return quantile(rng, KIDNEY_ML, log=True)


def draw_tumors_ml(rng: np.random.Generator) -> list[float]:
    """Volumes of the case's tumors in ml; mostly one. The percentiles hold for their sum."""
    count = int(rng.choice(list(TUMOR_COUNTS), p=list(TUMOR_COUNTS.values())))
    total = quantile(rng, TUMOR_ML, log=True)
    return [float(v) for v in total * rng.dirichlet(np.full(count, 1.2))] if count else []


def draw_cysts_ml(rng: np.random.Generator) -> list[float]:
    """Volumes of the case's cysts in ml: none, or one to eight. The percentiles hold for their sum."""
    if rng.uniform() > CYST_RATE:
        return []
    total = quantile(rng, CYST_ML, log=True)
    count = int(rng.choice(list(CYST_COUNTS), p=list(CYST_COUNTS.values()))) if total > 1 else 1
    return [float(v) for v in total * rng.dirichlet(np.full(count, 1.5))]
