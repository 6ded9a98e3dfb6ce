"""The body round the kidneys, painted from the outside in: air, skin, fat, muscle, chest, organs, bones, vessels."""

import numpy as np

from renalseg.phantom.canvas import Canvas
from renalseg.phantom.draws import Contrast
from renalseg.phantom.fields import (
    F32,
    Lattice,
    Noise,
    Points,
    Vector,
    ellipsoid,
    ellipsoid_local,
    resample,
    superellipse,
)
from renalseg.phantom.organs import paint_organs
from renalseg.phantom.pathology import part_of
from renalseg.phantom.physique import Physique
from renalseg.phantom.retroperitoneum import paint_retroperitoneum
from renalseg.phantom.scene import Renal, warped
from renalseg.phantom.skeleton import paint_skeleton
from renalseg.phantom.vessels import paint_vessels

BODY_SPACING_MM: Vector = (2.5, 1.8, 1.8)
AIR_HU = -1000.0
ARMS_SHARE = 0.1


def paint_body(
    rng: np.random.Generator, lattice: Lattice, body: Physique, contrast: Contrast, renal: Renal | None
) -> F32:
    """Paints everything but the kidneys.

    Args:
        rng: source of randomness.
        lattice: the grid, in patient mm.
        body: proportions.
        contrast: phase and attenuation.
        renal: the kidneys that organs give way to; None where the scan has none.

    Returns:
        float32 [z, y, x] in HU.
    """
    canvas = _paint_trunk(rng, lattice, body, contrast)
    dome = _diaphragm(canvas, rng, body)
    paint_organs(canvas, rng, body, contrast, dome)
    if renal is not None:
        clear_bed(canvas.hu, lattice, canvas.cavity, rng, body.fat_mm, renal)
    _paint_chest(canvas, rng, body, contrast, dome)
    _paint_back(canvas, rng, body, contrast)
    paint_skeleton(canvas, rng, body)
    paint_vessels(canvas, rng, body, contrast, renal.hila if renal else ())
    if renal is not None:
        paint_retroperitoneum(canvas, rng, body, contrast, renal)
    return canvas.hu


def _paint_trunk(rng: np.random.Generator, lattice: Lattice, body: Physique, contrast: Contrast) -> Canvas:
    half = lattice.thinned(2)
    coarse = warped(half, rng, 7.0)
    outer, wall, cavity = (resample(d, half, lattice) for d in _shells(coarse, body))
    z, y, x = (resample(p, half, lattice) for p in coarse)
    canvas = Canvas(lattice, (z, y, x), np.full(lattice.shape, AIR_HU, np.float32), cavity)
    fat = np.float32(rng.uniform(-112, -92)) + canvas.noise(rng, 10) * np.float32(4)
    _paint_table(canvas, rng, body)
    canvas.paint(outer, 10.0)
    canvas.paint(outer + np.float32(2.2), fat)
    streaks = canvas.noise(rng, (16, 5, 5))
    muscle = np.float32(contrast.hu["muscle"]) + streaks * np.float32(rng.uniform(4, 14))
    canvas.paint(wall, muscle)
    layers = np.abs(np.mod(cavity, np.float32(5.0)) - np.float32(2.5))  # fat planes between the wall's sheets
    canvas.hu[...] -= np.where((cavity > 2) & (wall < -2) & (layers > 2), np.float32(45), np.float32(0))
    canvas.paint(cavity, fat + canvas.noise(rng, 5) * np.float32(5) + np.float32(5))
    if rng.uniform() < ARMS_SHARE:
        height, gap = float(rng.uniform(-60, 20)), float(rng.uniform(38, 60))
        for side in (-1, 1):
            limb = ellipsoid((z * 0.1, y, x), (0, height, side * (body.half[1] + gap)), (40, 34, 34))
            canvas.paint(limb, -100.0)
            canvas.paint(limb + np.float32(8), contrast.hu["muscle"])
            canvas.paint(limb + np.float32(24), 500.0)
    return canvas


def _shells(points: Points, body: Physique) -> tuple[F32, F32, F32]:
    """Signed distances to the skin, to the outside of the muscular wall, and to the cavity."""
    z, y, x = points
    waist = np.float32(1) + np.float32(0.05) * np.cos(z / np.float32(90))
    outer = superellipse(y * waist, x * waist, body.half, 2.25)
    wall = superellipse((y - np.float32(body.centre_y)) * waist, x * waist, body.wall_half, 2.25)
    return outer, wall, superellipse((y - np.float32(body.cavity_y)) * waist, x * waist, body.cavity_half, 2.4)


def _paint_table(canvas: Canvas, rng: np.random.Generator, body: Physique) -> None:
    _, y, x = (canvas.lattice.axis(i) for i in range(3))
    top = np.float32(body.half[0] + rng.uniform(4, 22)) - (x / np.float32(220)) ** 2 * np.float32(rng.uniform(5, 60))
    depth = y[:, None] - top[None, :]
    shell = np.where((depth > 0) & (depth < 50), np.float32(-960), np.float32(AIR_HU))
    for start, hu in ((2, rng.uniform(-700, 300)), (52, rng.uniform(-400, 300))):
        cover = np.clip(0.5 + (rng.uniform(1.2, 2.5) - np.abs(depth - start)) / canvas.lattice.spacing[1], 0, 1)
        shell = shell + cover.astype(np.float32) * (np.float32(hu) - shell)
    shell = np.where(np.abs(x)[None, :] < 215, shell, np.float32(AIR_HU))
    canvas.hu[...] = np.maximum(canvas.hu, shell[None])


def _diaphragm(canvas: Canvas, rng: np.random.Generator, body: Physique) -> F32:
    """Signed distance to the space under the diaphragm, negative below it: domes, lower towards the wall."""
    z, y, x = canvas.points
    rx, ry = np.float32(body.cavity_half[1]), np.float32(body.cavity_half[0])
    tilt = np.float32(rng.uniform(5, 20))
    lateral = (np.abs(x) / rx - np.float32(0.5)) / np.float32(0.55)
    height = np.float32(body.dome_z) + np.float32(70) * (
        lateral**2 * np.float32(0.9) + ((y - np.float32(body.cavity_y)) / ry) ** 2
    )
    height = height + tilt * np.clip(x / rx, 0, 1)
    return np.asarray((height - z) * np.float32(0.75), dtype=np.float32)


def _paint_chest(canvas: Canvas, rng: np.random.Generator, body: Physique, contrast: Contrast, dome: F32) -> None:
    _, y, x = canvas.points
    if float(canvas.lattice.origin[0]) > body.dome_z + 110:
        return
    lung = np.maximum(canvas.cavity + np.float32(1), np.float32(3) - dome)
    side = np.abs(x) - np.float32(30) + canvas.noise(rng, 28) * np.float32(7)
    middle = np.maximum(side, y - np.float32(body.spine_y + 20))
    lung = np.maximum(lung, -middle)
    vessels = np.clip(np.abs(canvas.noise(rng, 11)) + np.abs(canvas.noise(rng, 11)) - np.float32(0.12), 0, 0.25) * 4
    hu = np.float32(30) - vessels * np.float32(rng.uniform(830, 900))
    chest = np.maximum(canvas.cavity, np.float32(1) - dome)
    canvas.paint(chest, contrast.hu["muscle"])
    canvas.paint(chest + np.float32(3), canvas.noise(rng, 9) * np.float32(25) - np.float32(70))
    canvas.paint(lung, hu + canvas.noise(rng, 30) * np.float32(25))
    ry = body.cavity_half[0]
    heart = (body.dome_z - 38, body.cavity_y - 0.4 * ry, 20.0)
    canvas.blob(heart, (54, 0.62 * ry, 72), -85.0)
    canvas.blob(heart, (47, 0.52 * ry, 62), 0.5 * contrast.hu["aorta"] + 40)
    canvas.blob((heart[0] - 5, heart[1] + 5, heart[2] + 12), (30, 0.25 * ry, 30), 0.85 * contrast.hu["aorta"])
    canvas.pipe([(-420, body.spine_y - 32, 2), (body.dome_z + 45, body.spine_y - 45, 18)], 8.0, contrast.hu["muscle"])


def clear_bed(
    hu: F32, lattice: Lattice, cavity: F32 | None, rng: np.random.Generator, fat_mm: float, renal: Renal
) -> None:
    """Fills the surroundings of kidneys and masses with perirenal fat, in place.

    Args:
        hu: attenuation, float32 [z, y, x], painted in place.
        lattice: its grid, in patient mm.
        cavity: signed distance to the wall of the abdominal cavity, which bounds the fat; None for no bound.
        rng: source of randomness.
        fat_mm: thickness of the fat; about 1 where organs touch the kidneys.
        renal: the kidneys.
    """
    reach = 1.5 * fat_mm + 4
    first, last = renal.lattice.origin, [float(renal.lattice.axis(i)[-1]) for i in range(3)]
    low, high = [a - reach for a in first], [b + reach for b in last]
    window = lattice.window((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    target = hu[window]
    if target.size == 0:
        return
    part = part_of(lattice, window)
    near = resample(renal.occupied, renal.lattice, part)
    for i, shape in enumerate(((-1, 1, 1), (1, -1, 1), (1, 1, -1))):  # beyond the kidneys' lattice the distance goes on
        axis = part.axis(i)
        near = near + np.maximum(np.maximum(np.float32(first[i]) - axis, axis - np.float32(last[i])), 0).reshape(shape)
    bed = near - np.float32(fat_mm) - Noise.draw(rng, part, 25.0).on(part) * np.float32(0.35 * fat_mm)
    if cavity is not None:
        bed = np.maximum(bed, cavity[window])
    bed = np.minimum(bed, near - np.float32(min(fat_mm, 1.5)))
    share = np.clip(np.float32(0.5) - bed / np.float32(2.0), 0, 1)
    target += share * (np.float32(rng.uniform(-115, -82)) + _stranding(rng, part, near) - target)


def _stranding(rng: np.random.Generator, lattice: Lattice, near: F32) -> F32:
    """HU by which strands in the perirenal fat exceed it: few in most, many and close to the kidney in some."""
    strong = rng.uniform() < 0.25
    density, height = (rng.uniform(0.0, 0.9), rng.uniform(30, 110)) if strong else (1.6, 30.0)
    sheets = np.float32(1.2) - np.abs(Noise.draw(rng, lattice, 9.0).on(lattice)) * np.float32(6)
    grains = Noise.draw(rng, lattice, 7.0).on(lattice) - np.float32(density)
    strands = np.clip(grains + (np.maximum(sheets, 0) if strong else np.float32(0)), 0, 1) * np.float32(height)
    return np.asarray(strands * np.exp(-np.maximum(near, 0) / np.float32(12)), dtype=np.float32)


def _paint_back(canvas: Canvas, rng: np.random.Generator, body: Physique, contrast: Contrast) -> None:
    """Paints psoas, quadratus lumborum and the erectors of the spine."""
    low, high = canvas.lattice.origin[0], float(canvas.lattice.axis(0)[-1])
    window = canvas.window(((low + high) / 2, body.spine_y + 20, 0), ((high - low) / 2, 60, 100))
    z, y, x = canvas.at(window)
    muscle = np.float32(contrast.hu["muscle"]) + canvas.noise(rng, (20, 5, 5), window) * np.float32(rng.uniform(1, 18))
    y, side = y - np.float32(body.spine_y), np.abs(x)
    down = np.clip((z + np.float32(55)) / np.float32(170), 0, 1)
    size = np.float32(rng.uniform(0.7, 1.35))
    psoas = np.hypot((y - 2 + 14 * down) / np.float32(1.1), side - (24 + 16 * down)) - (3 + 20 * down) * size
    psoas = np.where(z > -60, psoas, np.float32(20))
    base, big = body.spine_y, float(size)
    erector = canvas.evaluate(
        window, lambda p: ellipsoid_local(p[0] * 0, p[1] - (base + 43), np.abs(p[2]) - 32, (99, 21 * big, 30))
    )
    quadratus = canvas.evaluate(
        window, lambda p: ellipsoid_local(p[0] * 0, p[1] - (base + 27), np.abs(p[2]) - 58, (99, 9 * big, 22))
    )
    quadratus = np.maximum(quadratus, -z - np.float32(30))
    for distance in (erector, quadratus, psoas):
        canvas.paint(distance, muscle, window)
