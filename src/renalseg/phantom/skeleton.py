"""Bones: vertebrae with discs, ribs in the wall of the trunk, and the pelvis."""

import numpy as np

from renalseg.phantom.canvas import Canvas
from renalseg.phantom.fields import F32, ellipsoid, superellipse
from renalseg.phantom.physique import Physique


def paint_skeleton(canvas: Canvas, rng: np.random.Generator, body: Physique) -> None:
    """Paints spine, ribs and pelvis."""
    marrow = float(rng.uniform(70, 260))
    _paint_ribs(canvas, rng, body, marrow)
    _paint_spine(canvas, rng, body, marrow)
    if canvas.lattice.axis(0)[-1] > body.crest_z:
        _paint_pelvis(canvas, rng, body, marrow)


def bone(
    canvas: Canvas, distance: F32, window: tuple[slice, slice, slice], marrow: float, shell_mm: float = 2.0
) -> None:
    """Paints a bone: a cortical shell round cancellous bone."""
    canvas.paint(distance, 560.0, window)
    canvas.paint(distance + np.float32(shell_mm), marrow, window)


def _paint_spine(canvas: Canvas, rng: np.random.Generator, body: Physique, marrow: float) -> None:
    low, high = canvas.lattice.origin[0], float(canvas.lattice.axis(0)[-1])
    window = canvas.window(((low + high) / 2, body.spine_y + 25, 0), ((high - low) / 2, 62, 62))
    z, ahead, x = canvas.at(window)
    period, disc = float(rng.uniform(33, 38)), float(rng.uniform(7, 10))
    phase = np.mod(z - np.float32(rng.uniform(0, period)), np.float32(period)) - np.float32(period / 2)
    base = np.float32(body.spine_y)
    y = np.asarray(ahead - base, dtype=np.float32)
    waist = np.float32(2.0) * (1 - (phase / np.float32(period / 2)) ** 2)
    column = canvas.evaluate(window, lambda p: superellipse(p[1] - base, p[2], (17.0, 23.0), 2.4)) + waist
    canvas.paint(column + np.float32(1), float(rng.uniform(60, 95)), window)
    bone(canvas, np.maximum(column, np.abs(phase) - np.float32((period - disc) / 2)), window, marrow, 1.6)
    arch = np.maximum(
        canvas.evaluate(window, lambda p: superellipse(p[1] - base - 27, p[2], (13.0, 16.0), 2.2)),
        np.abs(phase) - np.float32(11),
    )
    bone(canvas, arch, window, marrow + 120, 2.0)
    spinous = ellipsoid((phase - 3, y, x), (0, 48, 0), (10, 17, 4))
    bone(canvas, spinous, window, marrow + 60, 1.8)
    transverse = ellipsoid(
        (phase + 3, np.asarray(y - np.abs(x) * np.float32(0.06), dtype=np.float32), x), (0, 24, 0), (5, 5, 42)
    )
    bone(canvas, transverse, window, marrow + 60, 1.6)
    canal = canvas.evaluate(window, lambda p: superellipse(p[1] - base - 26, p[2], (8.0, 10.5), 2.0))
    canvas.paint(canal, float(rng.uniform(5, 30)), window)
    canvas.paint(canal + np.float32(4), float(rng.uniform(25, 45)), window)


def _paint_ribs(canvas: Canvas, rng: np.random.Generator, body: Physique, marrow: float) -> None:
    """Ribs slope downwards on their way forward, so an axial slice cuts each into a short piece."""
    spacing, slope, last = float(rng.uniform(25, 31)), float(rng.uniform(120, 185)), float(rng.uniform(-80, -50))
    half = (body.wall_half[0] - 0.45 * body.wall_mm, body.wall_half[1] - 0.45 * body.wall_mm)
    window = canvas.lattice.window((-600, -400, -400), (last + slope, 400, 400))
    if canvas.hu[window].size == 0:
        return
    middle = body.centre_y
    across = canvas.evaluate(window, lambda p: superellipse(p[1] - np.float32(middle), p[2], half, 2.2))
    _, y, x = canvas.at(window)
    shell = np.abs(across) < 8
    depth = across[shell]
    angle = np.arctan2(np.abs(x[shell]) / np.float32(half[1]), (y[shell] - np.float32(middle)) / np.float32(half[0]))
    angle /= np.float32(np.pi)
    height = canvas.at(window)[0][shell] - np.float32(slope) * angle
    distance = np.full(depth.shape, 20.0, np.float32)
    for k in range(14):
        length = np.float32(min(0.24 + 0.16 * k, 0.93))  # the lowest ribs end early
        rib = np.hypot(depth / np.float32(0.62), height - np.float32(last - spacing * k)) - np.float32(6.0)
        distance = np.minimum(distance, np.maximum(rib, (angle - length) * np.float32(300)))
    full = np.full(across.shape, 20.0, np.float32)
    full[shell] = distance
    canvas.paint(full, 420.0, window)
    canvas.paint(full + np.float32(2.6), marrow, window)


def _paint_pelvis(canvas: Canvas, rng: np.random.Generator, body: Physique, marrow: float) -> None:
    """The wings are a basin, open upwards and to the front, that narrows towards the sacrum."""
    crest, base = body.crest_z, body.spine_y
    window = canvas.lattice.window((crest - 20, -400, -400), (1000, 400, 400))
    if canvas.hu[window].size == 0:
        return
    basin = (190.0, 105.0, float(min(0.74 * body.half[1], 132)))
    shell = canvas.evaluate(window, lambda p: ellipsoid(p, (crest - 25, base - 62, 0), basin))
    z, y, x = canvas.at(window)
    wing = np.abs(shell) - np.float32(6 + rng.uniform(-1, 1))
    arch = np.float32(crest) + np.float32(0.012) * (y - np.float32(base - 15)) ** 2  # the crest's outline from the side
    wing = np.maximum(np.maximum(wing, arch - z), np.float32(36) - np.abs(x))
    bone(canvas, wing, window, marrow, 2.2)
    sacrum = canvas.evaluate(window, lambda p: ellipsoid(p, (crest + 95, base + 18, 0), (75, 24, 50)))
    bone(canvas, sacrum, window, marrow, 1.8)
    canvas.blob((crest + 165, base - 95, rng.uniform(-8, 8)), (32, 28, 40), float(rng.uniform(0, 20)))  # bladder
    for side in (-1, 1):
        hip = (crest + 175, base - 55, side * 88.0)
        for radius, hu in ((31.0, 420.0), (27.0, marrow), (25.0, 500.0), (22.0, marrow + 60)):
            canvas.blob(hip, (radius, radius, radius), hu, inside=False)
        shaft = [hip, (crest + 215, base - 50, side * 125.0), (crest + 500, base - 60, side * 105.0)]
        for width, hu in ((15.0, 700.0), (8.0, marrow - 80)):
            canvas.pipe(shaft, width, hu)
