"""Kidneys, tumors and cysts of a given label map, placed in a body that is drawn round them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from renalseg.core.labels import CYST, KIDNEY, TUMOR
from renalseg.core.volume import Volume
from renalseg.phantom.draws import Contrast
from renalseg.phantom.fields import F32, OUTSIDE_MM, Lattice, Vector, hat_matrix, separable, superellipse
from renalseg.phantom.findings import draw_findings
from renalseg.phantom.kidney import parenchyma_hu, sinus_hu
from renalseg.phantom.pathology import Patch, cyst_hu, merge, part_of, tumor_hu
from renalseg.phantom.physique import Physique, draw_physique
from renalseg.phantom.scene import REGION_SPACING_MM, Layer, Renal

MARGIN_MM = 16.0
LESION_MARGIN = 5
"""Lattice points round a lesion that take its attenuation: the map's own outline is finer than the lattice."""
CLOSING_MM = 9.0
KIDNEY_BEFORE_SPINE_MM = (2.0, 20.0)
"""How far the kidneys' centre lies in front of the vertebral bodies' centre."""
BODY_DRAWS, OUTLINE_STEP_MM, SPINE_RADIUS_MM = 24, 8.0, 24.0


@dataclass(frozen=True)
class Placement:
    """Where the kidneys of a label map are, in mm from the centre of its first voxel.

    Attributes:
        low, high: bounding box of all labelled voxels (z, y, x).
        centre: between the kidneys; its x is the midline of the body.
        sides: centre of each kidney with its masses.
    """

    low: Vector
    high: Vector
    centre: Vector
    sides: tuple[Vector, ...]


def locate(labels: Volume) -> Placement | None:
    """Finds the kidneys; None where the map is empty."""
    step = np.array([max(int(2.5 / s), 1) for s in labels.spacing_mm])
    coarse = labels.array[:: step[0], :: step[1], :: step[2]] > 0
    if not coarse.any():
        return None
    size = np.array(labels.spacing_mm)
    found = np.argwhere(coarse) * step * size
    parts, count = ndimage.label(coarse)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    big = [int(i) + 1 for i in np.argsort(sizes)[::-1][:2] if sizes[i] > 0.12 * sizes.max()]
    centres = [np.array(ndimage.center_of_mass(parts == i)) * step * size for i in big]
    middle = np.mean(centres, axis=0)
    field = labels.array.shape[2] * size[2] / 2
    if len(centres) == 2 and abs(centres[0][2] - centres[1][2]) < 55:
        centres = [middle]
    if len(centres) == 1:  # a solitary or fused kidney: the field of view tells the midline
        middle[2] = field
    return Placement(_vector(found.min(0)), _vector(found.max(0)), _vector(middle), tuple(_vector(c) for c in centres))


def fit_physique(rng: np.random.Generator, labels: Volume, at: Placement) -> tuple[Physique, Lattice]:
    """Draws a body round the labels; of many, the one that holds them best and that the field of view cuts least.

    Returns:
        The body, and the label map's grid in its coordinates.
    """
    size, shape = labels.spacing_mm, labels.shape
    least = (
        (at.centre[1] - at.low[1] + 75) / 2,
        max(at.high[2] - at.centre[2], at.centre[2] - at.low[2]),
    )
    outline = _outline(labels)
    best: tuple[float, Physique, Lattice] | None = None
    for _ in range(BODY_DRAWS):
        body = draw_physique(rng, shape[2] * size[2], least)
        before = float(rng.uniform(*KIDNEY_BEFORE_SPINE_MM))
        origin = (-at.centre[0], body.spine_y - before - at.centre[1], -at.centre[2])
        grid = Lattice(origin, size, shape)
        cut = 3 * _misfit(body, outline[0] + np.float32(origin[1]), outline[1] + np.float32(origin[2]))
        for i, half in ((1, body.half[0]), (2, body.half[1])):
            end = origin[i] + size[i] * shape[i]
            cut += max(origin[i] + half, 0) + max(half - end, 0)
        if best is None or cut < best[0]:
            best = (cut, body, grid)
    assert best is not None
    return best[1], best[2]


def _outline(labels: Volume) -> tuple[F32, F32]:
    """Some labelled positions (y, x) in mm from the first voxel, each float32 [n]."""
    step = [max(int(OUTLINE_STEP_MM / s), 1) for s in labels.spacing_mm]
    found = np.argwhere(labels.array[:: step[0], :: step[1], :: step[2]].any(axis=0))
    y, x = (found[:, i] * step[i + 1] * labels.spacing_mm[i + 1] for i in (0, 1))
    return y.astype(np.float32), x.astype(np.float32)


def _misfit(body: Physique, y: F32, x: F32) -> float:
    """How far in mm the positions reach out of the abdominal cavity or into the spine, at most."""
    if len(y) == 0:
        return 0.0
    outside = superellipse(y - np.float32(body.cavity_y), x, body.cavity_half, 2.4)
    spine = SPINE_RADIUS_MM - np.hypot(y - np.float32(body.spine_y), x)
    return float(max(outside.max(), 0.0) + max(spine.max(), 0.0))


def given_renal(rng: np.random.Generator, labels: Volume, at: Placement, grid: Lattice, contrast: Contrast) -> Renal:
    """Builds the kidneys' layers from the label map.

    Args:
        rng: source of randomness.
        labels: uint8 [z, y, x].
        at: where its kidneys are.
        grid: its grid in patient mm.
        contrast: phase and attenuation.
    """
    low = tuple(o + a - MARGIN_MM for o, a in zip(grid.origin, at.low, strict=True))
    high = tuple(o + a + MARGIN_MM for o, a in zip(grid.origin, at.high, strict=True))
    lattice = Lattice.covering((low[0], low[1], low[2]), (high[0], high[1], high[2]), REGION_SPACING_MM)
    masks = {label: _mask(labels.array, label, grid, lattice) for label in (KIDNEY, CYST, TUMOR)}
    occupied = _signed(np.logical_or.reduce(list(masks.values())), lattice)
    closed = _signed(_signed(occupied < CLOSING_MM, lattice) < -CLOSING_MM, lattice)
    closed = np.minimum(closed, occupied)
    sinus = _signed((closed < 0) & (occupied > 0), lattice)
    points = (lattice.axis(0)[:, None, None], lattice.axis(1)[None, :, None], lattice.axis(2)[None, None, :])
    hila = []
    for side in at.sides:
        z, y, x = (o + c for o, c in zip(grid.origin, side, strict=True))
        hila.append((z, y - 6, x - 22 * float(np.sign(x))))
    findings = draw_findings(rng, hila)
    parenchyma = parenchyma_hu(rng, lattice, points, -closed, sinus, contrast)
    layers = (
        Layer(None, closed, sinus_hu(rng, lattice, contrast, findings)),
        Layer(KIDNEY, np.where(masks[KIDNEY], np.float32(-1), np.float32(1)), parenchyma),
        _lesions(rng, CYST, masks[CYST], lattice, contrast),
        _lesions(rng, TUMOR, masks[TUMOR], lattice, contrast),
    )
    findings.add_stones(rng, lattice, sinus, layers[0].hu, layers[1].hu)
    return Renal(lattice, layers, closed, tuple(hila), findings)


def _lesions(
    rng: np.random.Generator, label: int, mask: NDArray[np.bool_], lattice: Lattice, contrast: Contrast
) -> Layer:
    """The layer of all cysts or all tumors: each connected component is a lesion with a draw of its own."""
    parts, _ = ndimage.label(mask)
    patches = []
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        z, y, x = (
            slice(max(b.start - LESION_MARGIN, 0), min(b.stop + LESION_MARGIN, n))
            for b, n in zip(box, mask.shape, strict=True)
        )
        part = part_of(lattice, (z, y, x))
        distance = _signed(parts[z, y, x] == number, part)
        drawn = cyst_hu(rng, part, -distance) if label == CYST else tumor_hu(rng, part, -distance, contrast)
        patches.append(Patch((z, y, x), distance, drawn))
    distance, hu = merge(lattice, patches, 10.0 if label == CYST else contrast.hu["tumor"])
    return Layer(label, distance, hu)


def _mask(array: NDArray[np.uint8], label: int, grid: Lattice, lattice: Lattice) -> NDArray[np.bool_]:
    """The label on ``lattice``, by linear interpolation of its box."""
    last = [float(lattice.axis(i)[-1]) for i in range(3)]
    window = grid.window(lattice.origin, (last[0], last[1], last[2]))
    part = (array[window] == label).astype(np.float32)
    if not part.any():
        return np.zeros(lattice.shape, np.bool_)
    z, y, x = (
        hat_matrix(lattice.axis(i), float(grid.axis(i)[window[i]][0]), grid.spacing[i], part.shape[i]) for i in range(3)
    )
    return separable(part, z, y, x) >= 0.5


def _signed(mask: NDArray[np.bool_], lattice: Lattice) -> F32:
    """Signed distance in mm to the surface of ``mask``."""
    if not mask.any():
        return np.full(mask.shape, OUTSIDE_MM, np.float32)
    outside = ndimage.distance_transform_edt(~mask, sampling=lattice.spacing).astype(np.float32)
    inside = ndimage.distance_transform_edt(mask, sampling=lattice.spacing).astype(np.float32)
    return np.asarray(outside - inside, dtype=np.float32)


def _vector(values: NDArray[np.float64]) -> Vector:
    return float(values[0]), float(values[1]), float(values[2])
