"""Random draws: grids, volumes and contrast, with the distributions measured on the 489 public KiTS23 label maps.

Source: METHOD, section 1 ("Data and geometry"): percentiles of spacing, slice count, and volumes. The attenuation
ranges are ours, wide and overlapping, after the usual values of the radiological literature.
"""

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
TUMOR_ML = (0.6, 2.9, 12.0, 32.0, 120.0, 664.0, 1500.0)
CYST_ML = (0.06, 0.21, 1.2, 4.4, 16.0, 95.0, 250.0)
MATRIX = 512
CYST_RATE, SOLITARY_RATE, SECOND_TUMOR_RATE = 248 / 489, 12 / 489, 0.06
PHASE_RATES = {"arterial": 0.7, "nephrographic": 0.2, "native": 0.05, "excretory": 0.05}

HU_RANGES: dict[str, dict[str, Range]] = {
    "native": {
        "cortex": (26, 42), "medulla": (25, 42), "pelvis": (0, 15), "tumor": (20, 48), "aorta": (32, 50),
        "ivc": (32, 48), "renal_vein": (32, 48), "portal": (32, 48), "liver": (40, 66), "spleen": (40, 56),
        "pancreas": (28, 48), "bowel": (25, 45), "muscle": (42, 60),
    },
    "arterial": {
        "cortex": (125, 240), "medulla": (50, 125), "pelvis": (0, 30), "tumor": (35, 165), "aorta": (190, 390),
        "ivc": (50, 150), "renal_vein": (90, 210), "portal": (60, 170), "liver": (55, 110), "spleen": (85, 160),
        "pancreas": (70, 130), "bowel": (45, 105), "muscle": (45, 68),
    },
    "nephrographic": {
        "cortex": (125, 210), "medulla": (115, 200), "pelvis": (0, 40), "tumor": (40, 135), "aorta": (105, 185),
        "ivc": (100, 175), "renal_vein": (110, 185), "portal": (110, 190), "liver": (80, 130), "spleen": (95, 140),
        "pancreas": (65, 115), "bowel": (50, 100), "muscle": (48, 70),
    },
    "excretory": {
        "cortex": (95, 165), "medulla": (90, 170), "pelvis": (150, 700), "tumor": (35, 105), "aorta": (80, 135),
        "ivc": (80, 130), "renal_vein": (80, 135), "portal": (85, 135), "liver": (70, 110), "spleen": (75, 115),
        "pancreas": (55, 95), "bowel": (40, 85), "muscle": (46, 68),
    },
}  # fmt: skip
"""Attenuation ranges in HU by contrast phase and tissue; the mean of each tissue is drawn uniformly."""


@dataclass(frozen=True)
class Sampling:
    """The grid of a CT volume: voxels (z, y, x) and their size in mm."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Contrast:
    """The contrast phase and the mean attenuation of each tissue in HU."""

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


def draw_contrast(rng: np.random.Generator) -> Contrast:
    """Draws the phase and the tissues' mean attenuation. Medulla follows cortex unless the phase parts them."""
    phase = str(rng.choice(list(PHASE_RATES), p=list(PHASE_RATES.values())))
    hu = {name: float(rng.uniform(*span)) for name, span in HU_RANGES[phase].items()}
    if phase == "arterial":
        hu["medulla"] = min(hu["medulla"], hu["cortex"] - 20)
    else:
        hu["medulla"] = hu["cortex"] * float(rng.uniform(0.88, 1.0))
    return Contrast(phase, hu)


def draw_kidney_ml(rng: np.random.Generator) -> float:
    """Total volume of the kidney label in ml."""
    return quantile(rng, KIDNEY_ML, log=True)


def draw_tumors_ml(rng: np.random.Generator) -> list[float]:
    """Volumes of the case's tumors in ml; mostly one. The percentiles hold for their sum."""
    total = quantile(rng, TUMOR_ML, log=True)
    if rng.uniform() > SECOND_TUMOR_RATE:
        return [total]
    part = float(rng.uniform(0.05, 0.4))
    return [total * (1 - part), total * part]


def draw_cysts_ml(rng: np.random.Generator) -> list[float]:
    """Volumes of the case's cysts in ml: none, or one to four. The percentiles hold for their sum."""
    if rng.uniform() > CYST_RATE:
        return []
    total = quantile(rng, CYST_ML, log=True)
    count = int(rng.choice([1, 2, 3, 4], p=[0.6, 0.22, 0.1, 0.08])) if total > 1 else 1
    return [float(v) for v in total * rng.dirichlet(np.full(count, 1.5))]
