"""What is rendered of the kidneys: painted layers, each a signed distance and an attenuation on one lattice."""

from dataclasses import dataclass, field, replace

import numpy as np

from renalseg.core.labels import CYST, KIDNEY, TUMOR
from renalseg.phantom import draws
from renalseg.phantom.draws import Contrast
from renalseg.phantom.fields import F32, Lattice, Noise, Points, Vector, smooth_min, tube
from renalseg.phantom.findings import Findings, draw_findings
from renalseg.phantom.kidney import KidneyShape, draw_kidney, kidney_fields, parenchyma_hu, sinus_hu
from renalseg.phantom.lesions import Mass, draw_mass
from renalseg.phantom.pathology import Patch, cyst_hu, merge, part_of, tumor_hu

REGION_SPACING_MM: Vector = (1.5, 1.3, 1.3)
ATROPHIC_SHARE, ATROPHIC_ML = 0.05, (30.0, 80.0)
HORSESHOE_SHARE = 0.015


@dataclass(frozen=True)
class Layer:
    """One tissue, painted over those before it.

    Attributes:
        label: the label it writes, or None for tissue that is not labelled (the renal sinus).
        distance: signed distance in mm, float32 [z, y, x], negative inside. Where a label map is given, labelled layers
            are painted by it instead.
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
        findings: what the case carries beside its labels.
    """

    lattice: Lattice
    layers: tuple[Layer, ...]
    occupied: F32
    hila: tuple[Vector, ...]
    findings: Findings = field(default_factory=Findings)


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
    kidneys, isthmus = _draw_pair(rng, spine_y, fat_mm)
    tumors = [draw_mass(rng, _pick(rng, kidneys), v, cyst=False) for v in draws.draw_tumors_ml(rng)]
    cysts = [draw_mass(rng, _pick(rng, kidneys), v, cyst=True) for v in draws.draw_cysts_ml(rng)]
    lattice = _region(kidneys, tumors + cysts)
    points = warped(lattice, rng, 3.5)
    hull, sinus = _hulls(rng, lattice, points, kidneys, isthmus)
    barrier = keep_out.distance(lattice)
    clear_mm = 8 + 1.5 * fat_mm
    hila = tuple(k.hilum for k in kidneys)
    findings = draw_findings(rng, hila)
    parenchyma = parenchyma_hu(rng, lattice, points, -hull, sinus, contrast)
    layers = (
        Layer(None, hull, sinus_hu(rng, lattice, contrast, findings)),
        Layer(KIDNEY, np.maximum(hull, -sinus), parenchyma),
        _masses(rng, CYST, cysts, lattice, points, barrier, clear_mm, contrast),
        _masses(rng, TUMOR, tumors, lattice, points, barrier, clear_mm, contrast),
    )
    findings.add_stones(rng, lattice, sinus, layers[0].hu, layers[1].hu)
    occupied = np.minimum(np.minimum(hull, layers[2].distance), layers[3].distance)
    return Renal(lattice, layers, occupied, hila, findings)


def _hulls(
    rng: np.random.Generator, lattice: Lattice, points: Points, kidneys: list[KidneyShape], isthmus: list[Vector]
) -> tuple[F32, F32]:
    """Signed distances of the kidneys' hulls, joined by ``isthmus`` if there is one, and of their sinuses."""
    lobes, wobble = Noise.draw(rng, lattice, 16.0).on(lattice), Noise.draw(rng, lattice, 8.0).on(lattice)
    lobes = lobes * np.float32(rng.uniform(0.4, 1.8))
    pairs = [kidney_fields(k, points, lobes, wobble) for k in kidneys]
    hull = np.minimum.reduce([h for h, _ in pairs])
    if isthmus:
        hull = smooth_min(hull, tube(points, isthmus, float(rng.uniform(9, 14))), 8.0)
    return hull, np.minimum.reduce([s for _, s in pairs])


def _masses(
    rng: np.random.Generator,
    label: int,
    masses: list[Mass],
    lattice: Lattice,
    points: Points,
    barrier: F32,
    clear_mm: float,
    contrast: Contrast,
) -> Layer:
    """The layer of all cysts or all tumors, each with a draw of its own; distances hold up to ``clear_mm``."""
    patches = []
    for mass in masses:
        reach = 1.6 * mass.radius + clear_mm
        low, high = [c - reach for c in mass.centre], [c + reach for c in mass.centre]
        window = lattice.window((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        part = part_of(lattice, window)
        noise = Noise.draw(rng, part, float(np.clip(0.7 * mass.radius, 5, 40))).on(part)
        near = (points[0][window], points[1][window], points[2][window])
        distance = np.maximum(mass.distance(near, noise), -barrier[window])
        hu = cyst_hu(rng, part, -distance) if label == CYST else tumor_hu(rng, part, -distance, contrast)
        patches.append(Patch(window, distance, hu))
    distance, hu = merge(lattice, patches, 10.0 if label == CYST else contrast.hu["tumor"])
    return Layer(label, distance, hu)


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


def _draw_pair(rng: np.random.Generator, spine_y: float, fat_mm: float) -> tuple[list[KidneyShape], list[Vector]]:
    """Mostly two kidneys; the path of the isthmus where they are fused to a horseshoe, else an empty one."""
    total = draws.draw_kidney_ml(rng)
    if rng.uniform() < draws.SOLITARY_RATE:
        return [draw_kidney(rng, int(rng.choice([-1, 1])), min(total, 330.0), spine_y, fat_mm)], []
    part = float(np.clip(rng.normal(0.5, 0.035), 0.3, 0.7))
    volumes = [total * part, total * (1 - part)]
    if rng.uniform() < ATROPHIC_SHARE:
        volumes[int(rng.integers(2))] = float(rng.uniform(*ATROPHIC_ML))
    kidneys = [draw_kidney(rng, s, v, spine_y, fat_mm) for s, v in zip((-1, 1), volumes, strict=True)]
    if rng.uniform() > HORSESHOE_SHARE:
        return kidneys, []
    fused = [_leaning(k) for k in kidneys]
    ends = [k.world((0.75 * k.half[0], 0.0, 0.0)) for k in fused]
    middle = (max(e[0] for e in ends) + 5.0, spine_y - 52.0, 0.0)
    return fused, [ends[0], middle, ends[1]]


def _leaning(kidney: KidneyShape) -> KidneyShape:
    """The kidney with its lower pole towards the midline, as in a horseshoe."""
    mirror = np.diag([1.0, 1.0, -1.0])
    long, lateral = kidney.axes[0] @ mirror, kidney.axes[1]
    lateral = lateral - (lateral @ long) * long
    lateral /= np.linalg.norm(lateral)
    z, y, x = kidney.centre
    return replace(kidney, centre=(z + 25.0, y - 8.0, x), axes=np.stack([long, lateral, np.cross(long, lateral)]))


def _pick(rng: np.random.Generator, kidneys: list[KidneyShape]) -> KidneyShape:
    return kidneys[int(rng.integers(len(kidneys)))]


def _region(kidneys: list[KidneyShape], masses: list[Mass]) -> Lattice:
    reach = [(k.centre, k.half[0] + 12) for k in kidneys] + [(m.centre, 1.6 * m.radius + 8) for m in masses]
    low = [min(c[i] - r for c, r in reach) for i in range(3)]
    high = [max(c[i] + r for c, r in reach) for i in range(3)]
    return Lattice.covering((low[0], low[1], low[2]), (high[0], high[1], high[2]), REGION_SPACING_MM)
