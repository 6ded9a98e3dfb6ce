"""The canvas that the body is painted on: attenuation on a coarse lattice, organs laid over one another."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from renalseg.phantom.fields import F32, Lattice, Noise, Points, Vector, Window, ellipsoid, hat_matrix, separable, tube

MARGIN_MM = 14.0
"""Windows are this much larger than the shape in them, for the warp and the soft edge."""


@dataclass(frozen=True)
class Canvas:
    """Attenuation that is painted in place.

    Attributes:
        lattice: the grid, in patient mm.
        points: displaced patient coordinates (z, y, x), each float32 [z, y, x].
        hu: float32 [z, y, x], painted in place.
        cavity: signed distance to the wall of the abdominal cavity, negative inside.
        edge_mm: width over which one tissue fades into the next.
    """

    lattice: Lattice
    points: Points
    hu: F32
    cavity: F32
    edge_mm: float = 2.0

    def window(self, centre: Vector, reach: Vector) -> Window:
        """The part of the lattice round a shape."""
        low = (centre[0] - reach[0] - MARGIN_MM, centre[1] - reach[1] - MARGIN_MM, centre[2] - reach[2] - MARGIN_MM)
        high = (centre[0] + reach[0] + MARGIN_MM, centre[1] + reach[1] + MARGIN_MM, centre[2] + reach[2] + MARGIN_MM)
        return self.lattice.window(low, high)

    def at(self, window: Window) -> Points:
        """The coordinates in ``window``."""
        return self.points[0][window], self.points[1][window], self.points[2][window]

    def evaluate(self, window: Window, shape: Callable[[Points], F32]) -> F32:
        """A smooth shape's distances in ``window``, from every second point of each axis: an eighth of the work."""
        z, y, x = self.at(window)
        half = (slice(None, None, 2),) * 3
        values = shape((z[half], y[half], x[half]))
        m = [hat_matrix(np.arange(n, dtype=np.float32), 0, 2, k) for n, k in zip(z.shape, values.shape, strict=True)]
        return separable(values, m[0], m[1], m[2])

    def paint(self, distance: F32, hu: F32 | float, window: Window | None = None) -> None:
        """Blends ``hu`` in where ``distance`` is negative, with a soft edge."""
        target = self.hu[window] if window else self.hu
        share = np.clip(np.float32(0.5) - distance / np.float32(self.edge_mm), 0, 1)
        target += share * (np.asarray(hu, np.float32) - target)

    def blob(self, centre: Vector, half: Vector, hu: F32 | float, inside: bool = True) -> None:
        """Paints an ellipsoid, kept within the cavity where ``inside``."""
        window = self.window(centre, half)
        if self.hu[window].size == 0:
            return
        distance = ellipsoid(self.at(window), centre, half)
        if inside:
            distance = np.maximum(distance, self.cavity[window] + np.float32(1.5))
        self.paint(distance, hu, window)

    def pipe(self, path: list[Vector], radius: float | list[float], hu: float) -> None:
        """Paints a tube along ``path``."""
        widest = max(radius) if isinstance(radius, list) else radius
        low, high = np.min(path, axis=0), np.max(path, axis=0)
        centre, reach = (low + high) / 2, (high - low) / 2 + widest
        window = self.window((centre[0], centre[1], centre[2]), (reach[0], reach[1], reach[2]))
        if self.hu[window].size:
            self.paint(tube(self.at(window), path, radius), hu, window)

    def noise(self, rng: np.random.Generator, scale_mm: float | Vector, window: Window | None = None) -> F32:
        """Unit noise on the canvas or a window of it."""
        return Noise.draw(rng, self.lattice, scale_mm).on(self.lattice, window)
