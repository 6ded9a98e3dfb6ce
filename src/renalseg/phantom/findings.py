"""Findings that no label names: stones, a dilated collecting system, surgical clips."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from renalseg.phantom.fields import F32, Lattice, Noise, Vector

DILATED_SHARE, STONES_SHARE, STAGHORN_SHARE, CLIPS_SHARE = 0.1, 0.12, 0.1, 0.06
CLIP_REACH_MM = 30.0


@dataclass(frozen=True)
class Findings:
    """What a case carries beside its labels.

    Attributes:
        hila: where the renal vessels leave, (z, y, x) in mm.
        dilated: how far the collecting system at each hilum is dilated, 0 (not) to 1.
        metal: surgical clips, (z, y, x) in mm; they cast streaks.
    """

    hila: tuple[Vector, ...] = ()
    dilated: tuple[float, ...] = ()
    metal: tuple[Vector, ...] = ()

    def dilation(self, x: F32) -> F32:
        """The dilation of the nearer kidney at the positions ``x`` in mm, of any shape."""
        out = np.zeros(x.shape, np.float32)
        for hilum, share in zip(self.hila, self.dilated, strict=True):
            out[(x > 0) == (hilum[2] > 0)] = share
        return out

    def add_stones(self, rng: np.random.Generator, lattice: Lattice, sinus: F32, *tissues: F32) -> None:
        """Paints stones at the sinus into the attenuation of each tissue [z, y, x], in place; most cases have none.

        ``sinus`` is the signed distance to the renal sinus in mm.
        """
        if rng.uniform() > STONES_SHARE:
            return
        hu = float(rng.uniform(250, 1300))
        if rng.uniform() < STAGHORN_SHARE:
            cast = Noise.draw(rng, lattice, 8.0).on(lattice) - np.maximum(sinus, np.float32(0))
            share = np.clip((cast - np.float32(0.7)) / np.float32(0.5), 0, 1) * (sinus < 2)
            for tissue in tissues:
                tissue += share * (np.float32(hu) - tissue)
            return
        places = np.argwhere(np.abs(sinus) < 3.0)
        if len(places) == 0:
            return
        for index in places[rng.integers(len(places), size=int(rng.integers(1, 5)))]:
            _paint_stone(tissues, lattice, index, float(rng.uniform(1.2, 6.0)), hu)


def draw_findings(rng: np.random.Generator, hila: Sequence[Vector]) -> Findings:
    """Draws which collecting systems are dilated and where clips lie."""
    dilated = tuple(float(rng.uniform(0.2, 1.0)) if rng.uniform() < DILATED_SHARE else 0.0 for _ in hila)
    metal: list[Vector] = []
    if hila and rng.uniform() < CLIPS_SHARE:
        z, y, x = hila[int(rng.integers(len(hila)))]
        for _ in range(int(rng.integers(1, 6))):
            dz, dy, dx = rng.uniform(-CLIP_REACH_MM, CLIP_REACH_MM, 3)
            metal.append((z + float(dz), y - abs(float(dy)), x + float(dx)))
    return Findings(tuple(hila), dilated, tuple(metal))


def _paint_stone(tissues: Sequence[F32], lattice: Lattice, index: np.ndarray, radius: float, hu: float) -> None:
    """A round stone at a lattice point."""
    centre = [float(lattice.axis(i)[index[i]]) for i in range(3)]
    low, high = [c - radius - 2 for c in centre], [c + radius + 2 for c in centre]
    window = lattice.window((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    z, y, x = (lattice.axis(i)[window[i]] - centre[i] for i in range(3))
    r = np.sqrt(z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2)
    share = np.clip((np.float32(radius) - r) / np.float32(1.5) + np.float32(0.5), 0, 1)
    for tissue in tissues:
        tissue[window] += share * (np.float32(hu) - tissue[window])
