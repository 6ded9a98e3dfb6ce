"""From anatomy to CT: slices as averages of thin ones, the in-plane point spread, and correlated noise."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from renalseg.phantom.fields import F32, Lattice, Matrix, hat_matrix, upsample
from renalseg.phantom.scene import Layer, Renal

SUBSLICE_MM = 1.25
HU_RANGE = (-1024, 3071)


@dataclass(frozen=True)
class Scanner:
    """How a scan is made.

    Attributes:
        grid: the output voxels, in patient mm (``Lattice`` of the canonical [z, y, x] array).
        blur_px: standard deviation of the in-plane point spread in pixels.
        noise_hu: standard deviation of the noise in the middle of the body.
        grain_px: standard deviation of the filter that correlates the noise, in pixels.
    """

    grid: Lattice
    blur_px: float
    noise_hu: float
    grain_px: float


def draw_scanner(rng: np.random.Generator, grid: Lattice) -> Scanner:
    """Draws sharpness and noise: 7 to 15 HU at 5 mm, more in thin slices (less so than by photon counts
    alone: kernels are chosen to make up for it).
    """
    thin = (5.0 / grid.spacing[0]) ** 0.35
    pixel = grid.spacing[2]
    noise = float(np.clip(rng.uniform(7, 15) * thin, 7, 34))
    return Scanner(grid, float(rng.uniform(0.45, 0.75)) / pixel, noise, float(rng.uniform(0.5, 0.85)) / pixel)


def average_slices(planes: Iterable[F32]) -> F32:
    """The thick slice that thin ones [y, x] make: their mean."""
    total, count = None, 0
    for plane in planes:
        total = plane.astype(np.float32) if total is None else total + plane
        count += 1
    assert total is not None
    return np.asarray(total / np.float32(count), dtype=np.float32)


def subslices(centre_mm: float, thickness_mm: float) -> list[float]:
    """Heights in mm of the thin slices that make the slice at ``centre_mm``, evenly spread over its thickness."""
    count = int(np.clip(round(thickness_mm / SUBSLICE_MM), 1, 4))
    return [centre_mm + thickness_mm * ((i + 0.5) / count - 0.5) for i in range(count)]


def correlated_noise(rng: np.random.Generator, shape: tuple[int, int], grain_px: float) -> F32:
    """Noise [y, x] of unit variance, smooth at pixel scale, with few slow drifts, like filtered back-projection's."""
    white = rng.standard_normal(shape, dtype=np.float32)
    out = ndimage.gaussian_filter(white, grain_px, mode="wrap", truncate=3)
    out -= np.float32(0.6) * ndimage.gaussian_filter(out, 2.2 * grain_px, mode="wrap", truncate=2.5)
    return np.asarray(out / out.std(), dtype=np.float32)


class NoiseTiles:
    """Noise for many slices from a few tiles: each slice is the sum of two, shifted at random."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], grain_px: float) -> None:
        """Draws four tiles larger than ``shape`` (y, x)."""
        self._tiles = [correlated_noise(rng, (shape[0] + 96, shape[1] + 96), grain_px) for _ in range(4)]
        self._shape = shape

    def draw(self, rng: np.random.Generator) -> F32:
        """Noise [y, x] of unit variance."""
        first, second = rng.choice(4, 2, replace=False)
        shifts = rng.integers(0, 97, 4)
        parts = []
        for tile, dy, dx in ((first, shifts[0], shifts[1]), (second, shifts[2], shifts[3])):
            parts.append(self._tiles[tile][dy : dy + self._shape[0], dx : dx + self._shape[1]])
        return np.asarray(
            (parts[0] + parts[1] * np.float32(rng.choice([-1, 1]))) * np.float32(0.5**0.5), dtype=np.float32
        )


class SliceRenderer:
    """Renders one slice at a time, so that memory does not grow with the number of slices."""

    def __init__(
        self, scanner: Scanner, body: F32, body_lattice: Lattice, renal: Renal | None, noise: NoiseTiles
    ) -> None:
        """Prepares the interpolation from the coarse lattices to the pixels of ``scanner.grid``."""
        self._noise = noise
        self.scanner, self.body, self.body_lattice, self.renal = scanner, body, body_lattice, renal
        self._y, self._x = self._matrices(body_lattice, slice(None), slice(None))
        if renal is not None:
            last = [float(renal.lattice.axis(i)[-1]) for i in range(3)]
            window = scanner.grid.window(renal.lattice.origin, (last[0], last[1], last[2]))
            self._rows, self._columns = window[1], window[2]
            self._ry, self._rx = self._matrices(renal.lattice, self._rows, self._columns)

    def _matrices(self, source: Lattice, rows: slice, columns: slice) -> tuple[Matrix, Matrix]:
        y, x = self.scanner.grid.axis(1)[rows], self.scanner.grid.axis(2)[columns]
        return (
            hat_matrix(y, source.origin[1], source.spacing[1], source.shape[1]),
            hat_matrix(x, source.origin[2], source.spacing[2], source.shape[2]),
        )

    def render(
        self, index: int, rng: np.random.Generator, given: NDArray[np.uint8] | None = None
    ) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """The CT slice in HU and its labels, both [y, x].

        Args:
            index: slice number.
            rng: source of the noise.
            given: labels of this slice, where a label map was given: they replace the layers' own shapes.
        """
        grid = self.scanner.grid
        centre = grid.origin[0] + grid.spacing[0] * index
        heights = subslices(centre, grid.spacing[0])
        plane = average_slices(_at_height(self.body, self.body_lattice, z) for z in heights)
        hu = upsample(plane, self._y, self._x)
        labels = np.zeros(grid.shape[1:], np.uint8) if given is None else given
        if self.renal is not None and self._rows.stop > self._rows.start and self._columns.stop > self._columns.start:
            self._paint_layers(hu, labels, heights, given)
        blurred = ndimage.gaussian_filter(hu, self.scanner.blur_px, mode="nearest", truncate=2.5)
        noise = self._noise.draw(rng)
        level = np.where(blurred < -850, np.float32(0.55), np.float32(1.0)) * np.float32(self.scanner.noise_hu)
        return np.clip(np.rint(blurred + level * noise), *HU_RANGE).astype(np.int16), labels

    def _paint_layers(
        self, hu: F32, labels: NDArray[np.uint8], heights: Sequence[float], given: NDArray[np.uint8] | None
    ) -> None:
        assert self.renal is not None
        low, high = self.renal.lattice.origin[0], float(self.renal.lattice.axis(0)[-1])
        if heights[-1] < low or heights[0] > high:
            return
        box = (self._rows, self._columns)
        background, edge = hu[box].copy(), max(self.scanner.grid.spacing[2], 0.7)
        thin, distances = [], []
        for z in heights:
            image, found = background.copy(), []
            for layer in self.renal.layers:
                distance = self._upsample(layer.distance, z)
                share = self._share(layer, distance, given, edge)
                image += share * (self._upsample(layer.hu, z) - image)
                found.append(distance)
            thin.append(image)
            distances.append(found)
        hu[box] = average_slices(thin)
        if given is None:
            for layer, each in zip(self.renal.layers, zip(*distances, strict=True), strict=True):
                if layer.label is not None:
                    labels[box][average_slices(each) < 0] = layer.label

    def _share(self, layer: Layer, distance: F32, given: NDArray[np.uint8] | None, edge: float) -> F32:
        if given is None or layer.label is None:
            return np.asarray(np.clip(np.float32(0.5) - distance / np.float32(edge), 0, 1), dtype=np.float32)
        return np.asarray(given[self._rows, self._columns] == layer.label, dtype=np.float32)

    def _upsample(self, values: F32, z: float) -> F32:
        assert self.renal is not None
        return upsample(_at_height(values, self.renal.lattice, z), self._ry, self._rx)


def _at_height(values: F32, lattice: Lattice, z: float) -> F32:
    t = float(np.clip((z - lattice.origin[0]) / lattice.spacing[0], 0, lattice.shape[0] - 1))
    i = min(int(t), lattice.shape[0] - 2)
    part = np.float32(t - i)
    return np.asarray(values[i] * (1 - part) + values[i + 1] * part, dtype=np.float32)
