"""The area over which a lesion borders on parenchyma, by counting crossings along lattice lines.

Crofton's formula: a surface of area S is crossed by random lines S / 2 times a unit of area of line bundle, whatever
its shape; Lehmann and Legland 2012 (Insight Journal, hdl:10380/3342) count the crossings in a voxel grid along the 13
directions of neighbours. Counting voxel faces instead gives up to 1.7 times the area of a slanted surface. Two things
are done otherwise here. Where spacings differ, the diagonals to neighbours nearly all point across the slices or lie in
them; longer steps join them, so that slants between have a direction near them. And the weights of the directions are
those that measure planes of all slants best, in least squares: odd spacings and sheared grids do not bias the mean.

Contact area as a measure of a tumor: Leslie et al. 2014, European Urology 66:884-893.
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Step = tuple[int, int, int]

N_SLANTS = 1500


def contact_area(lesion: NDArray[np.bool_], parenchyma: NDArray[np.bool_], axes: NDArray[np.float64]) -> float:
    """Area in mm2 of the surface between two masks that do not overlap.

    Args:
        lesion: bool [z, y, x].
        parenchyma: bool of the same shape; what lies beyond the box counts as neither.
        axes: float64 [3, 3], columns are the voxel steps along z, y, x in mm.
    """
    steps = lattice_steps(axes)
    counts = [crossings(lesion, parenchyma, step) for step in steps]
    return float(np.dot(counts, direction_weights(steps, axes)))


def reach(axes: NDArray[np.float64]) -> Step:
    """The longest step along each axis, in voxels: half the largest spacing, at least one voxel."""
    spacing = np.linalg.norm(axes, axis=0)
    z, y, x = np.maximum(1, np.round(spacing.max() / 2 / spacing)).astype(int).tolist()
    return z, y, x


def lattice_steps(axes: NDArray[np.float64]) -> tuple[Step, ...]:
    """The steps (z, y, x) along which crossings are counted, one of each opposite pair: to neighbours, and longer."""
    lengths = (1, 1, 1), reach(axes)
    steps = {(z * a, y * b, x * c) for a, b, c in lengths for z, y, x in product((-1, 0, 1), repeat=3)}
    lines = {step for step in steps if step > (0, 0, 0) and np.gcd.reduce(step) == 1}
    return tuple(sorted(lines))


def crossings(a: NDArray[np.bool_], b: NDArray[np.bool_], step: Step) -> int:
    """How many pairs of voxels one ``step`` apart, either way, have one in ``a`` and the other in ``b``."""
    here = tuple(slice(max(0, -s), max(0, n - max(0, s))) for s, n in zip(step, a.shape, strict=True))
    there = tuple(slice(max(0, s), max(0, n + min(0, s))) for s, n in zip(step, a.shape, strict=True))
    if any(n <= abs(s) for s, n in zip(step, a.shape, strict=True)):
        return 0
    return int(np.count_nonzero(a[here] & b[there]) + np.count_nonzero(b[here] & a[there]))


def direction_weights(steps: tuple[Step, ...], axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area in mm2 that a crossing along each of ``steps`` stands for, float64 [step].

    A plane with the unit normal n is crossed |n . step| / voxel volume times a unit of area, so the weights solve
    sum of weight * |n . step| / volume = 1 for normals n all over the sphere, none negative.
    """
    lengths = np.array(steps, np.float64) @ axes.T
    expected = np.abs(sphere(N_SLANTS) @ lengths.T) / abs(np.linalg.det(axes))
    weights: NDArray[np.float64] = nnls(expected, np.ones(N_SLANTS))[0]
    return weights


def sphere(n: int) -> NDArray[np.float64]:
    """``n`` unit vectors spread evenly over the sphere, float64 [n, 3] (a Fibonacci lattice)."""
    k = np.arange(n) + 0.5
    height, turn = 1 - 2 * k / n, np.pi * (1 + np.sqrt(5)) * k
    radius = np.sqrt(1 - height**2)
    return np.column_stack([radius * np.cos(turn), radius * np.sin(turn), height])
