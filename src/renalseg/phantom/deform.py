"""Label maps deformed at random, so that a few hundred maps serve as many more.

Labels are pulled back through an affine map and a smooth displacement (cubic B-splines over random nodes, as in Billot
et al. 2023, doi:10.1016/j.media.2023.102789). Thick slices are first refined by shape-based interpolation of signed
distances (Raya and Udupa 1990, doi:10.1109/42.52980): the nearest of two 5 mm slices would leave steps of centimetres.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from renalseg.core.volume import Volume
from renalseg.phantom.fields import F32, Lattice, Noise, Vector, hat_matrix, upsample

SCALE, ROTATION_DEG = (0.85, 1.15), 8.0
NODES_MM, DISPLACEMENT_SD_MM, DISPLACEMENT_MAX_MM = 45.0, 3.0, 8.0
FLIP_SHARE = 0.5
REFINE_ABOVE_MM, COARSE_MM = 1.6, 8.0
STRENGTHS = (1.0, 0.5, 0.25, 0.0)
"""Shares of the drawn deformation that are tried until the kidneys fit into the grid; the last is none at all."""

Labels = NDArray[np.uint8]
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First index and index after the last, by axis."""


@dataclass(frozen=True)
class Warp:
    """A deformation about the centre of a box.

    Attributes:
        log_scale, angles: logarithms of the scales along (z, y, x), rotations about them in radians.
        bend: displacement in mm along (z, y, x), as unit noise.
    """

    log_scale: NDArray[np.float64]
    angles: NDArray[np.float64]
    bend: tuple[Noise, Noise, Noise]

    def matrix(self, strength: float) -> NDArray[np.float64]:
        """The affine part [3, 3], in mm, from source to output."""
        out = np.diag(np.exp(self.log_scale * strength))
        for axis, angle in enumerate(self.angles * strength):
            i, j = [k for k in range(3) if k != axis]
            turn = np.eye(3)
            turn[i, i] = turn[j, j] = np.cos(angle)
            turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
            out = turn @ out
        return out


def deform_labels(rng: np.random.Generator, labels: Volume) -> Volume:
    """Deforms a label map at random: mirrored in half of the draws, scaled, turned and bent.

    Kidneys that lie wholly within the grid stay so; those that the scan cuts go on being cut at the same end.

    Args:
        rng: source of randomness.
        labels: uint8 [z, y, x].

    Returns:
        The deformed labels on the same grid.
    """
    array = labels.array.astype(np.uint8, copy=False)
    if rng.uniform() < FLIP_SHARE:
        array = array[:, :, ::-1]
    spacing = labels.spacing_mm
    warp = _draw_warp(rng, Lattice((0.0, 0.0, 0.0), spacing, labels.shape))
    box = _bounding_box(array)
    if box is None:
        return labels.with_array(np.ascontiguousarray(array))
    for strength in STRENGTHS:
        moved, start = _pull(array, box, spacing, warp, strength)
        out = _place(moved, start, labels.shape, _touching(box, labels.shape))
        if out is not None:
            return labels.with_array(out)
    return labels.with_array(np.ascontiguousarray(array))


def _draw_warp(rng: np.random.Generator, grid: Lattice) -> Warp:
    scale = np.log(rng.uniform(*SCALE, 3))
    angles = np.deg2rad(rng.uniform(-ROTATION_DEG, ROTATION_DEG, 3))
    a, b, c = (Noise.draw(rng, grid, NODES_MM) for _ in range(3))
    return Warp(scale, angles, (a, b, c))


def _bounding_box(array: Labels) -> Box | None:
    """The box of all labels; None where there are none."""
    planes = np.asarray(array.any(axis=2))
    z, y = np.flatnonzero(planes.any(axis=1)), np.flatnonzero(planes.any(axis=0))
    if len(z) == 0:
        return None
    x = np.flatnonzero(array[z[0] : z[-1] + 1, y[0] : y[-1] + 1].any(axis=(0, 1)))
    return (int(z[0]), int(z[-1]) + 1), (int(y[0]), int(y[-1]) + 1), (int(x[0]), int(x[-1]) + 1)


def _touching(box: Box, shape: tuple[int, int, int]) -> list[tuple[bool, bool]]:
    """Whether the box reaches the first and the last voxel, by axis."""
    return [(a == 0, b == n) for (a, b), n in zip(box, shape, strict=True)]


def _pull(array: Labels, box: Box, spacing: Vector, warp: Warp, strength: float) -> tuple[Labels, tuple[int, int, int]]:
    """The deformed labels [z, y, x] in a box of their own, and the grid index of its first voxel.

    One voxel of background is kept round the labels but where the grid ends: what lies beyond the box takes its edge,
    so kidneys that the scan cuts are continued.
    """
    wide = [(max(a - 1, 0), min(b + 1, n)) for (a, b), n in zip(box, array.shape, strict=True)]
    (z0, z1), (y0, y1), (x0, x1) = wide
    source = np.ascontiguousarray(array[z0:z1, y0:y1, x0:x1])
    factor = int(np.ceil(spacing[0] / REFINE_ABOVE_MM))
    if factor > 1 and strength > 0:
        source, step = _refined(source, factor, spacing), np.array([spacing[0] / factor, *spacing[1:]])
    else:
        step = np.array(spacing)
    low = np.array([z0, y0, x0]) * spacing
    centre = np.array([(a + b - 1) / 2 for a, b in box]) * spacing
    half = np.array([(b - a) / 2 for a, b in box]) * spacing
    matrix = warp.matrix(strength)
    reach = np.abs(matrix) @ half + DISPLACEMENT_MAX_MM * strength + 1
    first = np.floor((centre - reach) / spacing).astype(int)
    shape = np.ceil((centre + reach) / spacing).astype(int) - first + 1
    target = Lattice(_vector(first * spacing), spacing, (int(shape[0]), int(shape[1]), int(shape[2])))
    coarse = Lattice.covering(target.origin, _vector([target.axis(i)[-1] for i in range(3)]), (COARSE_MM,) * 3)
    index = _source_index(coarse, warp, strength, matrix, centre, low, step)
    return _gather(source, index, coarse, target, step), (int(first[0]), int(first[1]), int(first[2]))


def _source_index(
    coarse: Lattice,
    warp: Warp,
    strength: float,
    matrix: NDArray[np.float64],
    centre: NDArray[np.float64],
    low: NDArray[np.float64],
    step: NDArray[np.float64],
) -> list[F32]:
    """The source voxel (z, y, x), as floats, that each point of ``coarse`` takes its label from."""
    back = np.linalg.inv(matrix)
    d = np.meshgrid(*(coarse.axis(i) - centre[i] for i in range(3)), indexing="ij", sparse=True)
    out = []
    for i in range(3):
        bend = np.clip(warp.bend[i].on(coarse) * DISPLACEMENT_SD_MM, -DISPLACEMENT_MAX_MM, DISPLACEMENT_MAX_MM)
        position = centre[i] + back[i, 0] * d[0] + back[i, 1] * d[1] + back[i, 2] * d[2] + strength * bend
        out.append(np.asarray((position - low[i]) / step[i], dtype=np.float32))
    return out


def _gather(source: Labels, index: list[F32], coarse: Lattice, target: Lattice, step: NDArray[np.float64]) -> Labels:
    """The nearest source label of each voxel of ``target``; only where the coarse lattice sees labels near."""
    near = _near(source, index, step)
    axes = [hat_matrix(target.axis(i), coarse.origin[i], coarse.spacing[i], coarse.shape[i]).tocsr() for i in range(3)]
    out = np.zeros(target.shape, np.uint8)
    last = [n - 1 for n in source.shape]
    for k, z in enumerate(target.axis(0)):
        t = min(max((float(z) - coarse.origin[0]) / coarse.spacing[0], 0.0), coarse.shape[0] - 1.0)
        i = min(int(t), coarse.shape[0] - 2)
        part = np.float32(t - i)
        planes = [v[i] * (1 - part) + v[i + 1] * part for v in index]
        for rows, columns in _windows(near[i] | near[i + 1], coarse, target):
            my, mx = axes[1][rows], axes[2][columns]
            at = [
                np.clip(np.rint(upsample(p, my, mx)), 0, n).astype(np.intp) for p, n in zip(planes, last, strict=True)
            ]
            out[k, rows, columns] = source[at[0], at[1], at[2]]
    return out


def _near(source: Labels, index: list[F32], step: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a label lies within about two steps of each coarse point's source voxel."""
    block = np.maximum((COARSE_MM / step).astype(int), 1)
    pads = [(0, int(-n % b)) for n, b in zip(source.shape, block, strict=True)]
    z, y, x = np.pad(source > 0, pads, mode="edge").shape // block
    blocks = np.pad(source > 0, pads, mode="edge").reshape(z, block[0], y, block[1], x, block[2]).any(axis=(1, 3, 5))
    blocks = ndimage.binary_dilation(blocks, np.ones((3, 3, 3)), iterations=2)
    at = [np.clip(v // b, 0, n - 1).astype(int) for v, b, n in zip(index, block, blocks.shape, strict=True)]
    return np.asarray(blocks[at[0], at[1], at[2]])


def _windows(near: NDArray[np.bool_], coarse: Lattice, target: Lattice) -> list[tuple[slice, slice]]:
    """The rows and columns of ``target`` round each group of true coarse points [y, x]."""
    groups, _ = ndimage.label(near, np.ones((3, 3)))
    out = []
    for found in ndimage.find_objects(groups):
        cut = []
        for i, part in zip((1, 2), found, strict=True):
            low = coarse.origin[i] + coarse.spacing[i] * (part.start - 1) - target.origin[i]
            high = coarse.origin[i] + coarse.spacing[i] * part.stop - target.origin[i]
            cut.append(slice(max(int(low / target.spacing[i]), 0), int(high / target.spacing[i]) + 1))
        out.append((cut[0], cut[1]))
    return out


def _refined(labels: Labels, factor: int, spacing: Vector) -> Labels:
    """``factor`` times as many slices, by interpolating the signed distances of each label and of the background."""
    values = [0, *(int(v) for v in np.unique(labels) if v)]
    distance = np.stack([_plane_distances(labels == v, spacing) for v in values])
    out = np.empty(((labels.shape[0] - 1) * factor + 1, *labels.shape[1:]), np.uint8)
    table = np.array(values, np.uint8)
    for k in range(out.shape[0]):
        i, part = divmod(k, factor)
        if part == 0:
            out[k] = labels[i]
            continue
        f = np.float32(part / factor)
        out[k] = table[np.argmin(distance[:, i] * (1 - f) + distance[:, i + 1] * f, axis=0)]
    return out


def _plane_distances(mask: NDArray[np.bool_], spacing: Vector) -> F32:
    """Signed distance in mm within each slice, negative inside; the slices' distance where one is empty."""
    out = np.full(mask.shape, spacing[0], np.float32)
    for plane, inside in zip(out, mask, strict=True):
        if inside.all():
            plane[...] = -spacing[0]
        elif inside.any():
            plane[...] = ndimage.distance_transform_edt(~inside, sampling=spacing[1:])
            plane -= ndimage.distance_transform_edt(inside, sampling=spacing[1:])
    return out


def _place(
    moved: Labels, start: tuple[int, int, int], shape: tuple[int, int, int], touching: list[tuple[bool, bool]]
) -> Labels | None:
    """``moved`` on the grid, shifted back where it would leave it; None where it does not fit."""
    box = _bounding_box(moved)
    if box is None:
        return None
    to, cut = [], []
    for (a, b), s, n, (at_low, at_high) in zip(box, start, shape, touching, strict=True):
        below = max(0, -(s + a)) * (not at_low)
        above = max(0, s + b - n) * (not at_high)
        if below and above:
            return None
        s += below - above
        if (s + a < 0 and not at_low) or (s + b > n and not at_high):
            return None
        low, high = max(s + a, 0), min(s + b, n)
        to.append(slice(low, high))
        cut.append(slice(low - s, high - s))
    out = np.zeros(shape, np.uint8)
    out[to[0], to[1], to[2]] = moved[cut[0], cut[1], cut[2]]
    return out


def _vector(values: NDArray[np.float64] | list[np.float32]) -> Vector:
    return float(values[0]), float(values[1]), float(values[2])
