"""One phantom: draws a grid, a body and its kidneys, and scans them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import renalseg
from renalseg.core.labels import LABELS
from renalseg.core.volume import Grid, Volume
from renalseg.phantom import draws
from renalseg.phantom.acquisition import NoiseTiles, SliceRenderer, draw_scanner
from renalseg.phantom.anatomy import BODY_SPACING_MM, paint_body
from renalseg.phantom.bodies import RealBody, load_body
from renalseg.phantom.deform import deform_labels
from renalseg.phantom.draws import Contrast, Sampling
from renalseg.phantom.fields import F32, Lattice, Vector
from renalseg.phantom.given import fit_physique, given_renal, locate
from renalseg.phantom.implant import paint_real
from renalseg.phantom.physique import Physique, draw_physique
from renalseg.phantom.scene import KeepOut, Renal, draw_renal
from renalseg.phantom.warp import Warp, covered, draw_warp, draw_warp_beside

Seed = int | Sequence[int]
DRAWN = "drawn"
CUT_SHARE, CUT_PART = 0.05, (0.1, 0.6)
"""The share of drawn scans that begin or end within the kidneys, and how much of their height is then missing."""
REAL_SPACING_MM: Vector = (2.0, 1.1, 1.1)
"""Finer than ``BODY_SPACING_MM``, since a real body has texture."""


def render_case(
    seed: Seed,
    labels: Volume | None = None,
    *,
    kidneys: str = "both",
    in_plane: int = draws.MATRIX,
    max_slices: int | None = None,
    bodies: Sequence[Path] = (),
    deform: bool = False,
    phases: Sequence[str] = draws.PHASES,
) -> tuple[Volume, Volume, dict[str, Any]]:
    """Renders a CT volume with its label map.

    Args:
        seed: one number or several; equal seeds give equal volumes.
        labels: a label map [z, y, x] whose kidneys are set into a body. The CT lies on its grid and the labels come
            back unchanged. None draws the kidneys too.
        kidneys: "both", or "none" for a scan that ends above (or starts below) the kidneys. Without ``labels`` only.
        in_plane: matrix size; the field of view does not depend on it. Without ``labels`` only.
        max_slices: upper bound of the number of slices. Without ``labels`` only.
        bodies: folders of real bodies (see ``bodies.load_body``); one is drawn and replaces the painted body. CT and
            labels then lose the slices that its scan does not reach. A scan without kidneys shows a range of it above
            or below its own kidneys; where that is too short, the painted body.
        deform: deforms ``labels`` first.
        phases: contrast phases to draw from; see ``draws.PHASES``.

    Returns:
        CT (int16, HU), labels (uint8), both [z, y, x] on one grid, and a record of what was drawn, JSON-ready.

    Raises:
        InputError: a real body cannot be read.
    """
    rng = np.random.default_rng(seed)
    if deform and labels is not None:
        labels = deform_labels(rng, labels)
    contrast = draws.draw_contrast(rng, phases)
    if labels is None:
        sampling = draws.draw_sampling(rng, in_plane, max_slices)
        body, grid, renal = _draw(rng, sampling, contrast, kidneys)
    else:
        body, grid, renal = _place(rng, labels, contrast)
    laid = _draw_real(rng, bodies, grid, renal)
    if laid is None:
        painted = _paint(rng, body, grid, contrast, renal)
    else:
        real, warp, slices = laid
        grid, labels = _crop(grid, labels, slices)
        painted = _paint_real(rng, real, warp, grid, contrast, renal)
    given = None if labels is None else labels.array.astype(np.uint8, copy=False)
    ct, found, noise_hu = _scan(rng, painted, grid, renal, given)
    volume = Volume.from_array(ct, grid.spacing, "phantom") if labels is None else labels.with_array(ct)
    out = volume.with_array(found) if labels is None else labels
    record = {
        "seed": list(seed) if isinstance(seed, Sequence) else seed,
        "source": DRAWN if labels is None else labels.name,
        "body": DRAWN if laid is None else laid[0].name,
        "phase": contrast.phase,
        "noise_hu": round(noise_hu, 2),
        **_measures(out),
        "version": renalseg.__version__,
    }
    return volume, out, record


def _measures(labels: Volume) -> dict[str, Any]:
    """Shape, spacing and the labels' volumes, for the record."""
    count = {label.id: np.count_nonzero(labels.array == label.id) for label in LABELS}
    return {
        "shape": list(labels.shape),
        "spacing_mm": [round(s, 6) for s in labels.spacing_mm],
        "volumes_ml": {label.name: round(float(count[label.id] * labels.voxel_mm3) / 1000, 3) for label in LABELS},
    }


def _draw(
    rng: np.random.Generator, sampling: Sampling, contrast: Contrast, kidneys: str
) -> tuple[Physique, Lattice, Renal | None]:
    field = sampling.shape[1] * sampling.spacing_mm[1]
    body = draw_physique(rng, field)
    renal = None
    if kidneys == "both":
        bounds = KeepOut((body.cavity_half[0] + 5, body.cavity_half[1] + 5), body.cavity_y, body.spine_y)
        renal = draw_renal(rng, contrast, body.spine_y, body.fat_mm, bounds)
    start = _first_slice(rng, sampling, renal)
    y, x = rng.normal(0, 8, 2) - (field - sampling.spacing_mm[1]) / 2
    return body, Lattice((start, float(y), float(x)), sampling.spacing_mm, sampling.shape), renal


def _first_slice(rng: np.random.Generator, sampling: Sampling, renal: Renal | None) -> float:
    """Height of the first slice: any that keeps the kidneys in the scan, or none of them where ``renal`` is None.

    A few scans cut them. That is drawn from a generator of its own, so that all other scans do not depend on it.
    """
    length = sampling.spacing_mm[0] * (sampling.shape[0] - 1)
    if renal is None:
        above = rng.uniform() < 0.7
        return float(rng.uniform(-110, -80) - length if above else rng.uniform(95, 120))
    occupied = np.flatnonzero((renal.occupied < 0).any(axis=(1, 2)))
    z = renal.lattice.axis(0)
    low, high = float(z[occupied[0]]) - 4, float(z[occupied[-1]]) + 4
    latest, earliest = low, high - length
    apart = rng.spawn(1)[0]
    if apart.uniform() < CUT_SHARE:
        missing = float(apart.uniform(*CUT_PART)) * (high - low)
        return latest + missing if apart.uniform() < 0.5 else earliest - missing
    if earliest > latest:
        return (low + high - length) / 2
    return float(rng.uniform(max(earliest, -330), max(latest, earliest)))


def _place(rng: np.random.Generator, labels: Volume, contrast: Contrast) -> tuple[Physique, Lattice, Renal | None]:
    at = locate(labels)
    if at is None:
        sampling = Sampling(labels.shape, labels.spacing_mm)
        return _draw(rng, sampling, contrast, "none")
    body, grid = fit_physique(rng, labels, at)
    return body, grid, given_renal(rng, labels, at, grid, contrast)


def _draw_real(
    rng: np.random.Generator, bodies: Sequence[Path], grid: Lattice, renal: Renal | None
) -> tuple[RealBody, Warp, slice] | None:
    """Draws one of ``bodies``, how it lies, and the slices that it fills; None where a painted one is needed."""
    if not bodies:
        return None
    body = load_body(bodies[int(rng.integers(len(bodies)))])
    if renal is None:
        beside = draw_warp_beside(rng, body, grid)
        return None if beside is None else (body, *beside)
    warp = draw_warp(rng, body, grid, renal)
    return body, warp, covered(body, warp, grid)


def _crop(grid: Lattice, labels: Volume | None, slices: slice) -> tuple[Lattice, Volume | None]:
    """Keeps ``slices`` of the grid and of the label map, whose grid starts later then."""
    count = slices.stop - slices.start
    if count == grid.shape[0]:
        return grid, labels
    origin = (grid.origin[0] + grid.spacing[0] * slices.start, grid.origin[1], grid.origin[2])
    grid = replace(grid, origin=origin, shape=(count, *grid.shape[1:]))
    if labels is None:
        return grid, None
    affine = labels.affine.copy()
    affine[:, 3] = affine @ (slices.start, 0, 0, 1)
    array = np.ascontiguousarray(labels.array[slices])
    return grid, Volume.from_stored(array, Grid(grid.shape, affine), labels.name, labels.warnings)


def _paint(
    rng: np.random.Generator, body: Physique, grid: Lattice, contrast: Contrast, renal: Renal | None
) -> tuple[F32, Lattice]:
    """The drawn body and the lattice that it is painted on."""
    fine = max(BODY_SPACING_MM[1], 0.75 * grid.spacing[1])
    coarse = _round(grid, (max(BODY_SPACING_MM[0], 0.5 * grid.spacing[0]), fine, fine))
    return paint_body(rng, coarse, body, contrast, renal), coarse


def _paint_real(
    rng: np.random.Generator, body: RealBody, warp: Warp, grid: Lattice, contrast: Contrast, renal: Renal | None
) -> tuple[F32, Lattice]:
    """The real body and the lattice that it is painted on."""
    fine = max(REAL_SPACING_MM[1], grid.spacing[1])
    coarse = _round(grid, (max(REAL_SPACING_MM[0], 0.5 * grid.spacing[0]), fine, fine))
    return paint_real(rng, coarse, body, warp, contrast, renal), coarse


def _round(grid: Lattice, step: Vector) -> Lattice:
    """The lattice of ``step`` mm that covers the slices of ``grid`` with their thickness."""
    last: Vector = (float(grid.axis(0)[-1]), float(grid.axis(1)[-1]), float(grid.axis(2)[-1]))
    pad = max(grid.spacing[0] / 2, step[0])
    return Lattice.covering(
        (grid.origin[0] - pad, grid.origin[1], grid.origin[2]), (last[0] + pad, last[1], last[2]), step
    )


def _scan(
    rng: np.random.Generator,
    painted: tuple[F32, Lattice],
    grid: Lattice,
    renal: Renal | None,
    given: NDArray[np.uint8] | None,
) -> tuple[NDArray[np.int16], NDArray[np.uint8], float]:
    scanner = draw_scanner(rng, grid)
    noise = NoiseTiles(rng, grid.shape[1:], scanner.grain_px)
    renderer = SliceRenderer(scanner, *painted, renal, noise)
    ct = np.empty(grid.shape, np.int16)
    labels = np.empty(grid.shape, np.uint8) if given is None else given
    last = grid.shape[0] - 1
    for i in range(last + 1):  # in order: noise may go on from slice to slice
        if given is None:
            ct[i], labels[i] = renderer.render(i, rng)
        else:
            ct[i], _ = renderer.render(i, rng, given[i], (given[max(i - 1, 0)], given[min(i + 1, last)]))
    return ct, labels, scanner.noise_hu
