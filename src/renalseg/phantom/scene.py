"""What is rendered of the kidneys: painted layers, each a signed distance and an attenuation on one lattice."""

from dataclasses import dataclass

import numpy as np

from renalseg.core.labels import CYST, KIDNEY, TUMOR
from renalseg.phantom import draws
from renalseg.phantom.draws import Contrast
from renalseg.phantom.fields import F32, Lattice, Noise, Points, Vector
from renalseg.phantom.kidney import KidneyShape, draw_kidney, kidney_fields, parenchyma_hu, sinus_hu
from renalseg.phantom.lesions import Mass, cyst_hu, draw_mass, tumor_hu

REGION_SPACING_MM: Vector = (1.5, 1.3, 1.3)


@dataclass(frozen=True)
class Layer:
    """One tissue, painted over those before it.

    Attributes:
        label: the label it writes, or None for tissue that is not labelled (the renal sinus).
        distance: signed distance in mm, float32 [z, y, x], negative inside.
        hu: attenuation, float32 [z, y, x].
    """

    label: int | None
    distance: F32
    hu: F32


@dataclass(frozen=True)
class Renal:
    """The kidneys with their masses.

    Attributes:
        lattice: grid of the layers, in patient mm.
        layers: in paint order.
        occupied: signed distance to kidneys and masses together; other organs give way to it.
        hila: where the renal vessels end.
    """

    lattice: Lattice
    layers: tuple[Layer, ...]
    occupied: F32
    hila: tuple[Vector, ...]


def draw_renal(
    rng: np.random.Generator, contrast: Contrast, spine_y: float, fat_mm: float, keep_out: "KeepOut"
) -> Renal:
    """Draws kidneys, tumors and cysts and evaluates them.

    Args:
        rng: source of randomness.
        contrast: phase and attenuation.
        spine_y: y of the vertebral bodies' centre in mm.
        fat_mm: thickness of the perirenal fat.
        keep_out: what masses may not grow into: spine and the outside of the body.
    """
    kidneys = _draw_pair(rng, spine_y, fat_mm)
    tumors = [draw_mass(rng, _pick(rng, kidneys), v, cyst=False) for v in draws.draw_tumors_ml(rng)]
    cysts = [draw_mass(rng, _pick(rng, kidneys), v, cyst=True) for v in draws.draw_cysts_ml(rng)]
    return _evaluate(rng, contrast, kidneys, tumors, cysts, keep_out)


def _evaluate(
    rng: np.random.Generator,
    contrast: Contrast,
    kidneys: list[KidneyShape],
    tumors: list[Mass],
    cysts: list[Mass],
    keep_out: "KeepOut",
) -> Renal:
    lattice = _region(kidneys, tumors + cysts)
    points = warped(lattice, rng, 3.5)
    lobes, wobble = Noise.draw(rng, lattice, 16.0).on(lattice), Noise.draw(rng, lattice, 8.0).on(lattice)
    pairs = [kidney_fields(k, points, lobes, wobble) for k in kidneys]
    hull = np.minimum.reduce([h for h, _ in pairs])
    sinus = np.minimum.reduce([s for _, s in pairs])
    barrier = keep_out.distance(lattice)
    tumor, cyst = _union(rng, lattice, points, tumors), _union(rng, lattice, points, cysts)
    tumor, cyst = np.maximum(tumor, -barrier), np.maximum(cyst, -barrier)
    layers = (
        Layer(None, hull, sinus_hu(rng, lattice, contrast)),
        Layer(KIDNEY, np.maximum(hull, -sinus), parenchyma_hu(rng, lattice, points, -hull, sinus, contrast)),
        Layer(CYST, cyst, cyst_hu(rng, lattice)),
        Layer(TUMOR, tumor, tumor_hu(rng, lattice, -tumor, contrast)),
    )
    occupied = np.minimum(np.minimum(hull, tumor), cyst)
    return Renal(lattice, layers, occupied, tuple(k.hilum for k in kidneys))


@dataclass(frozen=True)
class KeepOut:
    """Bounds for masses: an upright box-like body and the column of the spine; distances in mm, positive where free."""

    half: tuple[float, float]
    centre_y: float
    spine_y: float
    spine_radius: float = 26.0

    def distance(self, lattice: Lattice) -> F32:
        """Distance to what may not be entered, positive where a mass may be, [z, y, x] broadcast over z."""
        y, x = lattice.axis(1)[:, None], lattice.axis(2)[None, :]
        spine = np.hypot((y - self.spine_y) * np.where(y > self.spine_y, 0.5, 1.0), x) - self.spine_radius
        r = np.sqrt(((y - self.centre_y) / self.half[0]) ** 2 + (x / self.half[1]) ** 2)
        body = (1 - r) * min(self.half)
        return np.broadcast_to(np.minimum(spine, body).astype(np.float32), lattice.shape)


def warped(lattice: Lattice, rng: np.random.Generator, amplitude_mm: float) -> Points:
    """The patient coordinates of ``lattice``, displaced by smooth noise so that no shape stays analytic."""
    z, y, x = (lattice.axis(i) for i in range(3))
    flat = (z[:, None, None], y[None, :, None], x[None, None, :])
    a, b, c = (p + Noise.draw(rng, lattice, 32.0).on(lattice) * np.float32(amplitude_mm / 2) for p in flat)
    return a, b, c


def _draw_pair(rng: np.random.Generator, spine_y: float, fat_mm: float) -> list[KidneyShape]:
    total = draws.draw_kidney_ml(rng)
    if rng.uniform() < draws.SOLITARY_RATE:
        return [draw_kidney(rng, int(rng.choice([-1, 1])), min(total, 330.0), spine_y, fat_mm)]
    part = float(np.clip(rng.normal(0.5, 0.035), 0.3, 0.7))
    return [draw_kidney(rng, s, total * p, spine_y, fat_mm) for s, p in ((-1, part), (1, 1 - part))]


def _pick(rng: np.random.Generator, kidneys: list[KidneyShape]) -> KidneyShape:
    return kidneys[int(rng.integers(len(kidneys)))]


def _region(kidneys: list[KidneyShape], masses: list[Mass]) -> Lattice:
    reach = [(k.centre, k.half[0] + 12) for k in kidneys] + [(m.centre, 1.6 * m.radius + 8) for m in masses]
    low = [min(c[i] - r for c, r in reach) for i in range(3)]
    high = [max(c[i] + r for c, r in reach) for i in range(3)]
    return Lattice.covering((low[0], low[1], low[2]), (high[0], high[1], high[2]), REGION_SPACING_MM)


def _union(rng: np.random.Generator, lattice: Lattice, points: Points, masses: list[Mass]) -> F32:
    out = np.full(lattice.shape, 60.0, np.float32)
    for mass in masses:
        noise = Noise.draw(rng, lattice, float(np.clip(0.7 * mass.radius, 5, 40))).on(lattice)
        out = np.minimum(out, mass.distance(points, noise))
    return out
