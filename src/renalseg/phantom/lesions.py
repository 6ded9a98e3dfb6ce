"""Tumors and cysts: where they sit and their shape. ``pathology`` says what they look like."""

from dataclasses import dataclass

import numpy as np

from renalseg.phantom.fields import F32, Points, Vector, ellipsoid, smooth_min
from renalseg.phantom.kidney import KidneyShape

ROOM_BEHIND_MM = 36.0
"""From the kidney's centre to the muscles of the back: masses do not grow into them."""


@dataclass(frozen=True)
class Mass:
    """A tumor or a cyst: an ellipsoid (or two) with a lobulated surface.

    Attributes:
        centre: (z, y, x) in mm.
        half: half axes along (z, y, x) in mm.
        lobe: centre of a second lobe, or None.
        rough: amplitude of the lobulation in mm.
    """

    centre: Vector
    half: Vector
    lobe: Vector | None
    rough: float

    @property
    def radius(self) -> float:
        """Mean radius in mm."""
        return float(np.prod(self.half) ** (1 / 3))

    def distance(self, points: Points, noise: F32) -> F32:
        """Signed distance in mm; ``noise`` is unit noise like ``points``."""
        out = ellipsoid(points, self.centre, self.half)
        if self.lobe is not None:
            r = 0.62 * self.radius
            out = smooth_min(out, ellipsoid(points, self.lobe, (r, r, r)), 0.5 * self.radius)
        return np.asarray(out + noise * np.float32(self.rough), dtype=np.float32)


def draw_mass(rng: np.random.Generator, kidney: KidneyShape, volume_ml: float, cyst: bool) -> Mass:
    """Draws a mass at the surface of ``kidney``, from wholly inside (endophytic) to mostly outside (exophytic)."""
    radius = (volume_ml * 1000 * 3 / (4 * np.pi)) ** (1 / 3)
    along, angle = rng.uniform(-0.92, 0.92), rng.uniform(-2.0, 2.0)
    if radius > 30:  # large masses grow away from the spine: forwards and sideways
        angle = (rng.uniform(0.0, 1.2) * kidney.side * -1) if rng.uniform() < 0.5 else rng.uniform(-1.0, 1.0)
    ring = np.sqrt(1 - along**2)
    a, b, c = kidney.half
    surface = np.array(
        [along * a, ring * np.cos(angle) * b - 0.3 * kidney.bend * b * along**2, ring * np.sin(angle) * c]
    )
    normal = surface / np.array([a, b, c]) ** 2
    normal /= np.linalg.norm(normal)
    out = (rng.uniform(-0.85, 0.55) if radius < 30 else rng.uniform(-0.2, 0.7)) * radius
    local = surface + normal * out
    z, y, x = kidney.world((local[0], local[1], local[2]))
    beyond = y + 0.9 * radius - (kidney.centre[1] + ROOM_BEHIND_MM)
    y -= float(np.clip(beyond, 0, 0.9 * radius))
    stretch = np.exp(rng.normal(0, 0.06 if cyst else 0.13, 3))
    stretch /= np.prod(stretch) ** (1 / 3)
    lobed = not cyst and rng.uniform() < 0.3
    scale = radius * (0.95 if lobed else 1.0)
    toward = rng.normal(0, 1, 3)
    toward *= 0.75 * radius / np.linalg.norm(toward)
    return Mass(
        (z, y, x),
        (float(scale * stretch[0]), float(scale * stretch[1]), float(scale * stretch[2])),
        (z + float(toward[0]), y + float(toward[1]), x + float(toward[2])) if lobed else None,
        float(rng.uniform(0.01, 0.03) if cyst else rng.uniform(0.02, 0.09)) * radius,
    )
