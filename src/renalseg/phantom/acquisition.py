"""From anatomy to CT: slices as averages of thin ones, the kernel's point spread, noise, and what scanners add."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from renalseg.phantom.fields import F32, Lattice, Matrix, hat_matrix, upsample
from renalseg.phantom.scene import Renal

SUBSLICE_MM = 1.25
HU_RANGE = (-1024, 3071)
NOISE_HU = (5.0, 45.0)
THIN_SLICES_MM = 2.0
LOW_DOSE_SHARE, OVERLAP_SHARE, SHADED_SHARE, STREAKY_SHARE = 0.12, 0.4, 0.25, 0.12
PADDED_SHARE, PADDINGS = 0.15, (-1024, -2000, -3024)
AIR_BELOW_HU = -850.0
CLIP_HU, CLIP_RADIUS_MM = 2600.0, 1.6


@dataclass(frozen=True)
class Scanner:
    """How a scan is made.

    Attributes:
        grid: the output voxels, in patient mm (``Lattice`` of the canonical [z, y, x] array).
        blur_px: standard deviation of the in-plane point spread in pixels.
        noise_hu: standard deviation of the noise in the middle of the body.
        grain_px: standard deviation of the filter that correlates the noise, in pixels.
        edge: how much a sharp kernel overshoots at edges, 0 for none.
        overlap: thickness of a slice over the distance of slices.
        noise_along: correlation of the noise of neighbouring slices.
        offset_hu: error of the calibration.
        padding: value outside of the circle of reconstruction, or None where the scanner reconstructs the square.
        shading: slow error in HU, float32 [y, x]: beam hardening and scatter.
    """

    grid: Lattice
    blur_px: float
    noise_hu: float
    grain_px: float
    edge: float
    overlap: float
    noise_along: float
    offset_hu: float
    padding: int | None
    shading: F32


def draw_scanner(rng: np.random.Generator, grid: Lattice) -> Scanner:
    """Draws how a scan is made: kernel from soft to sharp, noise from 5 to 45 HU, more of it in thin slices (less so
    than by photon counts alone: kernels are chosen to make up for it) and with sharp kernels.
    """
    pixel, spacing = grid.spacing[2], grid.spacing[0]
    sharp = float(rng.uniform())
    dose = float(rng.uniform(1.4, 2.5)) if rng.uniform() < LOW_DOSE_SHARE else 1.0
    level = float(np.exp(rng.uniform(np.log(5), np.log(15)))) * dose * (0.75 + 0.5 * sharp)
    blur_mm = 1.0 - 0.65 * sharp
    along = float(rng.uniform(0.0, 0.8)) if spacing <= THIN_SLICES_MM and rng.uniform() < 0.6 else 0.0
    return Scanner(
        grid,
        blur_px=blur_mm / pixel,
        noise_hu=float(np.clip(level * (5.0 / spacing) ** 0.35, *NOISE_HU)),
        grain_px=max(blur_mm * float(rng.uniform(0.8, 1.3)), 0.4) / pixel,
        edge=float(rng.uniform(0.2, 0.9)) if rng.uniform() < 0.6 * sharp else 0.0,
        overlap=float(rng.uniform(1.0, 1.5)) if rng.uniform() < OVERLAP_SHARE else 1.0,
        noise_along=along,
        offset_hu=float(rng.uniform(-5, 5)),
        padding=int(rng.choice(PADDINGS)) if rng.uniform() < PADDED_SHARE else None,
        shading=_shading(rng, grid.shape[1:]),
    )


def _shading(rng: np.random.Generator, shape: tuple[int, int]) -> F32:
    """Slow errors [y, x] in HU: a cup towards the middle, and drifts; small in most scans."""
    y, x = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None], np.linspace(-1, 1, shape[1], dtype=np.float32)
    amplitude = float(rng.uniform(2, 10)) if rng.uniform() < SHADED_SHARE else float(rng.uniform(0, 2))
    phase, waves = rng.uniform(0, 2 * np.pi, 4).astype(np.float32), rng.uniform(1, 4, 4).astype(np.float32)
    drift = np.sin(waves[0] * x + waves[1] * y + phase[0]) + np.sin(waves[2] * x - waves[3] * y + phase[1])
    cup = np.float32(rng.uniform(-1, 1)) * (1 - 3 * (x**2 + y**2))
    return np.asarray(np.float32(amplitude / 2) * (drift + cup), dtype=np.float32)


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


def correlated_noise(rng: np.random.Generator, shape: tuple[int, int], grain_px: float, stretch: float = 1.0) -> F32:
    """Noise [y, x] of unit variance, smooth at pixel scale, with few slow drifts, like filtered back-projection's.

    ``stretch`` draws it out along x, as where the body's width starves the detector of photons.
    """
    white = rng.standard_normal(shape, dtype=np.float32)
    grain = np.array([1.0, stretch]) * grain_px
    out = ndimage.gaussian_filter(white, grain, mode="wrap", truncate=3)
    out -= np.float32(0.6) * ndimage.gaussian_filter(out, 2.2 * grain, mode="wrap", truncate=2.5)
    return np.asarray(out / out.std(), dtype=np.float32)


class NoiseTiles:
    """Noise for many slices from a few tiles: each slice is the sum of two, shifted at random."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], grain_px: float) -> None:
        """Draws four tiles larger than ``shape`` (y, x)."""
        stretch = float(rng.uniform(1.5, 5.0)) if rng.uniform() < STREAKY_SHARE else 1.0
        self._tiles = [correlated_noise(rng, (shape[0] + 96, shape[1] + 96), grain_px, stretch) for _ in range(4)]
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
    """Renders one slice at a time, in order, so that memory does not grow with the number of slices."""

    def __init__(
        self, scanner: Scanner, body: F32, body_lattice: Lattice, renal: Renal | None, noise: NoiseTiles
    ) -> None:
        """Prepares the interpolation from the coarse lattices to the pixels of ``scanner.grid``."""
        self._noise = noise
        self._last_noise: F32 | None = None
        self._profile = _noise_profile(scanner.grid.shape[1:])
        self._outside = _outside_circle(scanner.grid.shape[1:]) if scanner.padding is not None else None
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
        self,
        index: int,
        rng: np.random.Generator,
        given: NDArray[np.uint8] | None = None,
        around: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None,
    ) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """The CT slice in HU and its labels, both [y, x].

        Args:
            index: slice number.
            rng: source of the noise.
            given: labels of this slice, where a label map was given: they replace the layers' own shapes.
            around: labels of the slices above and below, which overlapping slices see too.
        """
        grid, scanner = self.scanner.grid, self.scanner
        centre = grid.origin[0] + grid.spacing[0] * index
        heights = subslices(centre, grid.spacing[0] * scanner.overlap)
        plane = average_slices(_at_height(self.body, self.body_lattice, z) for z in heights)
        hu = upsample(plane, self._y, self._x)
        labels = np.zeros(grid.shape[1:], np.uint8) if given is None else given
        if self.renal is not None and self._rows.stop > self._rows.start and self._columns.stop > self._columns.start:
            self._paint_layers(hu, labels, heights, given, around)
            self._add_metal(hu, rng, centre)
        return self._detect(hu, rng), labels

    def _detect(self, hu: F32, rng: np.random.Generator) -> NDArray[np.int16]:
        """The slice as the scanner writes it: kernel, errors of calibration, noise, padding."""
        scanner = self.scanner
        blurred = ndimage.gaussian_filter(hu, scanner.blur_px, mode="nearest", truncate=2.5)
        if scanner.edge:
            soft = ndimage.gaussian_filter(blurred, 1.3 * scanner.blur_px, mode="nearest", truncate=2.0)
            blurred += np.float32(scanner.edge) * (blurred - soft)
        noise = self._noise.draw(rng)
        if scanner.noise_along and self._last_noise is not None:
            along = np.float32(scanner.noise_along)
            noise = along * self._last_noise + np.sqrt(1 - along**2) * noise
        self._last_noise = noise
        air = blurred < AIR_BELOW_HU
        out = blurred + np.where(air, np.float32(0.55), self._profile) * np.float32(scanner.noise_hu) * noise
        out += np.where(air, np.float32(0), scanner.shading + np.float32(scanner.offset_hu))
        values: NDArray[np.int16] = np.clip(np.rint(out), *HU_RANGE).astype(np.int16)
        if self._outside is not None and scanner.padding is not None:
            values[self._outside] = scanner.padding
        return values

    def _add_metal(self, hu: F32, rng: np.random.Generator, z: float) -> None:
        """Adds metal and the rays that it casts over its slice, in place."""
        assert self.renal is not None
        grid = self.scanner.grid
        for clip in self.renal.findings.metal:
            if abs(clip[0] - z) > grid.spacing[0] / 2 + 2:
                continue
            y, x = grid.axis(1)[:, None] - np.float32(clip[1]), grid.axis(2)[None, :] - np.float32(clip[2])
            angle, rays = np.arctan2(y, x), np.zeros(hu.shape, np.float32)
            for k in range(2, 12):
                rays += np.float32(rng.normal()) * np.cos(np.float32(k) * angle + np.float32(rng.uniform(0, 6.3)))
            fade = np.exp(-np.hypot(y, x) / np.float32(rng.uniform(12, 45)))
            hu += np.where(hu > AIR_BELOW_HU, rays * fade * np.float32(rng.uniform(10, 80)), np.float32(0))
            hu[np.hypot(y, x) < CLIP_RADIUS_MM] = CLIP_HU

    def _paint_layers(
        self,
        hu: F32,
        labels: NDArray[np.uint8],
        heights: Sequence[float],
        given: NDArray[np.uint8] | None,
        around: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None,
    ) -> None:
        assert self.renal is not None
        low, high = self.renal.lattice.origin[0], float(self.renal.lattice.axis(0)[-1])
        if heights[-1] < low or heights[0] > high:
            return
        box = (self._rows, self._columns)
        background, edge = hu[box].copy(), max(self.scanner.grid.spacing[2], 0.7)
        shares = {} if given is None else self._given_shares(given, around)
        thin, distances = [], []
        for z in heights:
            image, found = background.copy(), []
            for layer in self.renal.layers:
                share = shares.get(layer.label)
                if given is None or layer.label is None:
                    distance = self._upsample(layer.distance, z)
                    share = np.clip(np.float32(0.5) - distance / np.float32(edge), 0, 1)
                    found.append(distance)
                if share is not None:
                    image += share * (self._upsample(layer.hu, z) - image)
            thin.append(image)
            distances.append(found)
        hu[box] = average_slices(thin)
        if given is None:
            for layer, each in zip(self.renal.layers, zip(*distances, strict=True), strict=True):
                if layer.label is not None:
                    labels[box][average_slices(each) < 0] = layer.label

    def _given_shares(
        self, given: NDArray[np.uint8], around: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None
    ) -> dict[int | None, F32]:
        """How much of each pixel a given label fills, for the labels that are there; each painted over those before."""
        assert self.renal is not None
        box = (self._rows, self._columns)
        beside = 0.5 - 0.5 / self.scanner.overlap if around is not None else 0.0
        slices = [(given[box], np.float32(1 - 2 * beside))]
        if around is not None and beside > 0:
            slices += [(part[box], np.float32(beside)) for part in around]
        covered = np.zeros(given[box].shape, np.float32)
        out: dict[int | None, F32] = {}
        for layer in reversed(self.renal.layers):
            if layer.label is None or not any((part == layer.label).any() for part, _ in slices):
                continue
            share = sum(((part == layer.label) * weight for part, weight in slices), np.float32(0))
            covered = np.asarray(covered + share, dtype=np.float32)
            out[layer.label] = np.asarray(share / np.maximum(1 - covered + share, np.float32(1e-6)), dtype=np.float32)
        return out

    def _upsample(self, values: F32, z: float) -> F32:
        assert self.renal is not None
        return upsample(_at_height(values, self.renal.lattice, z), self._ry, self._rx)


def _at_height(values: F32, lattice: Lattice, z: float) -> F32:
    t = float(np.clip((z - lattice.origin[0]) / lattice.spacing[0], 0, lattice.shape[0] - 1))
    i = min(int(t), lattice.shape[0] - 2)
    part = np.float32(t - i)
    return np.asarray(values[i] * (1 - part) + values[i + 1] * part, dtype=np.float32)


def _noise_profile(shape: tuple[int, int]) -> F32:
    """Noise [y, x] relative to the middle of the field: less towards its edge, where rays pass less of the body."""
    y, x = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None], np.linspace(-1, 1, shape[1], dtype=np.float32)
    return np.asarray(np.float32(1.05) - np.float32(0.35) * np.minimum(x**2 + y**2, 1), dtype=np.float32)


def _outside_circle(shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels [y, x] outside of the circle that touches the edges of the image."""
    y, x = np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])
    return np.asarray(x**2 + y**2 > 1)
