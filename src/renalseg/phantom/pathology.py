"""What lesions look like: the attenuation of tumors and cysts, each of them with a draw of its own.

The kinds follow the radiology of renal masses: clear cell carcinoma enhances about as much as cortex and unevenly,
papillary carcinoma hardly and evenly, chromophobe carcinoma and oncocytoma in between; cysts
by Bosniak's classes (Silverman et al. 2019, doi:10.1148/radiol.2019182646). The ranges are ours and wider than those
of the literature, on purpose: see ``draws``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from renalseg.phantom.draws import Contrast, Range
from renalseg.phantom.fields import F32, OUTSIDE_MM, Lattice, Noise, Window

PLAIN_HU = 33.0
"""Parenchyma without contrast; what lies above it is enhancement."""


@dataclass(frozen=True)
class TumorKind:
    """A kind of tumor.

    Attributes:
        share: of all tumors.
        enhancement: as a share of the parenchyma's.
        uneven: amplitude of the texture as a share of the enhancement.
        cystic, fatty: shares of such tumors within the kind.
    """

    share: float
    enhancement: Range
    uneven: Range
    cystic: float
    fatty: float


TUMOR_KINDS = {
    "clear cell": TumorKind(0.42, (0.4, 1.3), (0.05, 0.45), 0.12, 0.0),
    "papillary": TumorKind(0.17, (0.02, 0.35), (0.0, 0.12), 0.12, 0.0),
    "chromophobe or oncocytoma": TumorKind(0.17, (0.25, 1.0), (0.0, 0.15), 0.0, 0.0),
    "angiomyolipoma": TumorKind(0.05, (0.2, 0.9), (0.1, 0.4), 0.0, 0.85),
    "any": TumorKind(0.19, (0.0, 1.5), (0.0, 0.5), 0.1, 0.0),
}
WASHOUT = {"native": 1.0, "arterial": 1.0, "nephrographic": 0.8, "excretory": 0.75}
"""How much of a tumor's enhancement, beside the parenchyma's, is left in each phase."""

CYST_KINDS: tuple[tuple[float, Range], ...] = ((0.72, (-5, 20)), (0.12, (15, 38)), (0.16, (40, 90)))
"""(share, HU from and to): simple, with protein or blurred by their surroundings, haemorrhagic or hyperdense."""


@dataclass(frozen=True)
class Patch:
    """One lesion on its window of a lattice: signed distance in mm and attenuation in HU, float32 [z, y, x]."""

    window: Window
    distance: F32
    hu: F32


def merge(lattice: Lattice, patches: Sequence[Patch], default_hu: float) -> tuple[F32, F32]:
    """Distance and attenuation of several lesions on one lattice; each voxel takes the nearest lesion's."""
    distance = np.full(lattice.shape, OUTSIDE_MM, np.float32)
    hu = np.full(lattice.shape, default_hu, np.float32)
    for patch in patches:
        nearer = patch.distance < distance[patch.window]
        distance[patch.window][nearer] = patch.distance[nearer]
        hu[patch.window][nearer] = patch.hu[nearer]
    return distance, hu


def part_of(lattice: Lattice, window: Window) -> Lattice:
    """The lattice of a window."""
    origin = tuple(float(lattice.axis(i)[window[i]][0]) for i in range(3))
    size = tuple(window[i].stop - window[i].start for i in range(3))
    return Lattice((origin[0], origin[1], origin[2]), lattice.spacing, (size[0], size[1], size[2]))


def draw_tumor_kind(rng: np.random.Generator) -> TumorKind:
    """One of ``TUMOR_KINDS`` by their shares."""
    kinds = list(TUMOR_KINDS.values())
    return kinds[int(rng.choice(len(kinds), p=[k.share for k in kinds]))]


def tumor_mean_hu(rng: np.random.Generator, kind: TumorKind, contrast: Contrast) -> float:
    """Mean attenuation of a tumor's solid part: from far below the parenchyma's to above it."""
    parenchyma = 0.65 * contrast.hu["cortex"] + 0.35 * contrast.hu["medulla"]
    plain = float(rng.uniform(18, 52)) if rng.uniform() < 0.9 else float(rng.uniform(50, 80))  # the rest: blood
    enhancement = max(parenchyma - PLAIN_HU, 0.0) * float(rng.uniform(*kind.enhancement))
    return plain + enhancement * WASHOUT[contrast.phase]


def tumor_hu(rng: np.random.Generator, lattice: Lattice, depth: F32, contrast: Contrast) -> F32:
    """Attenuation of one tumor: even or uneven, at times necrotic, cystic, bleeding, fatty, calcified or encapsulated.

    Args:
        rng: source of randomness.
        lattice: grid of the arrays.
        depth: depth under the tumor's surface in mm, [z, y, x], positive inside.
        contrast: phase and mean attenuation.

    Returns:
        float32 [z, y, x] in HU; meaningful inside the tumor only.
    """
    kind = draw_tumor_kind(rng)
    mean = tumor_mean_hu(rng, kind, contrast)
    radius = max(float(depth.max()), 1.0)
    coarse = Noise.draw(rng, lattice, float(np.clip(radius * rng.uniform(0.3, 0.9), 4, 30))).on(lattice)
    fine = Noise.draw(rng, lattice, float(np.clip(radius * rng.uniform(0.12, 0.3), 2.5, 8))).on(lattice)
    uneven = 1.5 + float(rng.uniform(*kind.uneven)) * max(mean - PLAIN_HU, 8.0)
    hu = np.float32(mean) + (coarse * np.float32(0.8) + fine * np.float32(0.6)) * np.float32(uneven)
    shape = coarse + np.float32(0.6) * fine
    if rng.uniform() < kind.cystic:
        hu = _cystic(rng, hu, depth, radius, shape)
    elif rng.uniform() < np.clip(radius / 32, 0.05, 0.8):
        dead = depth / np.float32(radius) + np.float32(rng.uniform(0.1, 0.45)) * shape
        hu = _blend(hu, (dead - np.float32(rng.uniform(0.3, 0.9))) / np.float32(rng.uniform(0.05, 0.3)), _dead_hu(rng))
    if rng.uniform() < kind.fatty:
        share = shape * np.float32(rng.uniform(0.5, 1.5)) + np.float32(rng.uniform(-1.2, 1.5))
        hu = _blend(hu, share, rng.uniform(-110, -25))
    if rng.uniform() < 0.08:
        hu = _blend(hu, np.float32(2) * (shape - np.float32(rng.uniform(0.5, 1.5))), rng.uniform(45, 85))
    if rng.uniform() < 0.25:
        rim = np.clip(1 - np.abs(depth - np.float32(1.0)), 0, 1)
        hu = hu + rim * np.float32(rng.uniform(-35, 55))
    if rng.uniform() < 0.12:
        hu = _calcified(rng, lattice, hu, depth)
    return np.asarray(hu, dtype=np.float32)


def cyst_hu(rng: np.random.Generator, lattice: Lattice, depth: F32) -> F32:
    """Attenuation of one cyst: even, mostly of water, at times dense, septated, or with a thin or calcified wall.

    Args:
        rng: source of randomness.
        lattice: grid of the arrays.
        depth: depth under the cyst's surface in mm, [z, y, x], positive inside.
    """
    pick = int(rng.choice(len(CYST_KINDS), p=[s for s, _ in CYST_KINDS]))
    mean = float(rng.uniform(*CYST_KINDS[pick][1]))
    drift = Noise.draw(rng, lattice, 45.0).on(lattice)
    hu = np.float32(mean) + drift * np.float32(rng.uniform(0, 3))
    if rng.uniform() < 0.12 and depth.max() > 6:
        sheet = np.abs(Noise.draw(rng, lattice, float(rng.uniform(14, 30))).on(lattice))
        hu = _blend(hu, np.float32(1) - sheet / np.float32(0.09), mean + rng.uniform(15, 60))
    if rng.uniform() < 0.15:
        hu = hu + np.clip(1 - np.abs(depth - np.float32(0.7)), 0, 1) * np.float32(rng.uniform(10, 60))
    if rng.uniform() < 0.08:
        hu = _calcified(rng, lattice, hu, depth)
    return np.asarray(hu, dtype=np.float32)


def _blend(hu: F32, share: NDArray[Any], to: float) -> F32:
    """``hu`` where ``share`` is 0 or less, ``to`` where it is 1 or more."""
    return np.asarray(hu + np.clip(share, 0, 1) * (np.float32(to) - hu), dtype=np.float32)


def _dead_hu(rng: np.random.Generator) -> float:
    return float(rng.uniform(3, 42))


def _cystic(rng: np.random.Generator, hu: F32, depth: F32, radius: float, shape: F32) -> F32:
    """A thick irregular wall, with nodules and septa, round a watery centre."""
    wall = max(float(rng.uniform(1.5, 6.0)), radius * float(rng.uniform(0.05, 0.3)))
    share = (depth - np.float32(wall)) / np.float32(1.5) - np.float32(rng.uniform(0.3, 1.5)) * np.abs(shape)
    septa = np.abs(shape) > np.float32(rng.uniform(0.03, 0.15))
    return _blend(hu, np.where(septa, share, np.float32(0)), rng.uniform(0, 28))


def _calcified(rng: np.random.Generator, lattice: Lattice, hu: F32, depth: F32) -> F32:
    """Grains of calcium, or pieces of a shell."""
    chalk = Noise.draw(rng, lattice, float(rng.uniform(3.5, 8.0))).on(lattice)
    if rng.uniform() < 0.5:
        share = chalk - np.float32(rng.uniform(1.3, 2.2))
    else:
        share = np.clip(1 - np.abs(depth - np.float32(1.0)) / np.float32(1.2), 0, 1) * (chalk + np.float32(0.3))
    return np.asarray(hu + np.clip(share, 0, 1) * np.float32(rng.uniform(150, 700)), dtype=np.float32)
