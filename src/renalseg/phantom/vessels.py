"""Blood vessels: aorta, inferior vena cava, renal and mesenteric branches."""

import numpy as np

from renalseg.phantom.canvas import Canvas
from renalseg.phantom.draws import Contrast
from renalseg.phantom.fields import Vector
from renalseg.phantom.physique import Physique


def paint_mesentery(canvas: Canvas, rng: np.random.Generator, body: Physique, contrast: Contrast) -> None:
    """Paints the small vessels of the mesentery, short and at random."""
    ry, rx = body.cavity_half
    for _ in range(40):
        z, y, x = rng.uniform(-20, 200), body.cavity_y + ry * rng.uniform(-0.6, 0.2), rx * rng.uniform(-0.6, 0.6)
        step = rng.normal(0, 22, 3)
        hu = contrast.hu["aorta"] if rng.uniform() < 0.4 else contrast.hu["portal"]
        canvas.pipe([(z, y, x), (z + step[0], y + step[1], x + step[2])], float(rng.uniform(1.2, 3.0)), hu)


def paint_vessels(
    canvas: Canvas, rng: np.random.Generator, body: Physique, contrast: Contrast, hila: tuple[Vector, ...]
) -> None:
    """Paints aorta, inferior vena cava, their branches to the kidneys, and the upper mesenteric artery."""
    y, r = body.spine_y - 17, float(rng.uniform(8.5, 13))
    wander = rng.uniform(-4, 4, 4)
    aorta: list[Vector] = [
        (-420, y + 4, 14),
        (-60, y - r + 2, 8 + wander[0]),
        (60, y - r - 2, 4 + wander[1]),
        (85, y - r, 2),
    ]
    cava: list[Vector] = [(-420, y - 28, -30), (-90, y - 18, -26), (0, y - 8, -23 + wander[2]), (90, y - 6, -18)]
    artery, vein = contrast.hu["aorta"], contrast.hu["renal_vein"]
    for hilum in hila:
        side = 1.0 if hilum[2] > 0 else -1.0
        start = (min(hilum[0], 0) - 12, y - r, 8 + side * r * 0.5)
        end = (hilum[0] + 8, hilum[1] - 5, hilum[2])
        mid = ((start[0] + end[0]) / 2 - 4, min(start[1], end[1]) - 4, (start[2] + end[2]) / 2)
        lower = (hilum[0] + 5, hilum[1] - 4, hilum[2])
        drain = (start[0] + 6, y - (2.2 * r if side > 0 else 10), -20.0)
        over = ((drain[0] + lower[0]) / 2, min(drain[1], lower[1]) - 3, (drain[2] + lower[2]) / 2)
        canvas.pipe([drain, over, lower], [5.5, 5.0, 4.0], vein)
        canvas.pipe([start, mid, end], 2.8, artery)
    canvas.pipe(cava, [12.0, 11.5, 10.5, 9.0], contrast.hu["ivc"])
    canvas.pipe(aorta, [r + 2, r, r - 1.5, r - 2], artery)
    if rng.uniform() < 0.4:  # calcified plaques of the wall
        for _ in range(int(rng.integers(1, 12))):
            angle = float(rng.uniform(0, 2 * np.pi))
            at = (float(rng.uniform(-90, 85)), y - r + 0.9 * r * np.cos(angle), 6 + 0.9 * r * np.sin(angle))
            size = float(rng.uniform(1.2, 3.5))
            canvas.blob(at, (2 * size, size, size), float(rng.uniform(250, 1000)), inside=False)
    canvas.pipe([(-25, y - 2 * r, 6), (10, y - 2 * r - 10, 4), (70, y - 2 * r - 22, -5)], 3.6, artery)
    for side in (-1, 1):
        canvas.pipe([(84, y - r, 2), (140, y - 8, side * 32), (220, y - 20, side * 55)], r * 0.55, artery)
        canvas.pipe([(90, y - 6, -18), (140, y - 2, side * 32 - 4), (220, y - 8, side * 52)], 6.5, contrast.hu["ivc"])
