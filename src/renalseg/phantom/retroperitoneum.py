"""What lies beside the kidneys behind the peritoneum: adrenal glands, ureters, lymph nodes, stray masses.

None of it is labelled. It is here so that networks learn what is neither kidney nor tumor.
"""

import numpy as np

from renalseg.phantom.canvas import Canvas
from renalseg.phantom.draws import Contrast
from renalseg.phantom.fields import Vector
from renalseg.phantom.physique import Physique
from renalseg.phantom.scene import Renal

ADENOMA_SHARE, NODES_SHARE, STRAY_SHARE = 0.12, 0.25, 0.3


def paint_retroperitoneum(
    canvas: Canvas, rng: np.random.Generator, body: Physique, contrast: Contrast, renal: Renal
) -> None:
    """Paints what surrounds the kidneys; they are painted over it."""
    dilated = renal.findings.dilated or (0.0,) * len(renal.hila)
    for hilum, share in zip(renal.hila, dilated, strict=True):
        _paint_ureter(canvas, rng, body, contrast, hilum, share)
        _paint_adrenal(canvas, rng, contrast, hilum)
    if rng.uniform() < NODES_SHARE:
        _paint_nodes(canvas, rng, body, contrast)
    if rng.uniform() < STRAY_SHARE:
        _paint_stray(canvas, rng, body, contrast)


def _soft_hu(rng: np.random.Generator, contrast: Contrast) -> float:
    """Some soft tissue: between muscle and the spleen, at times beyond both."""
    low, high = sorted((contrast.hu["muscle"], contrast.hu["spleen"]))
    return float(rng.uniform(low - 25, high + 25))


def _paint_ureter(
    canvas: Canvas, rng: np.random.Generator, body: Physique, contrast: Contrast, hilum: Vector, dilated: float
) -> None:
    """Paints the renal pelvis outside of the sinus and the ureter, wide where the system is dilated."""
    z, y, x = hilum
    side = 1.0 if x > 0 else -1.0
    hu = contrast.hu["pelvis"]
    path: list[Vector] = [(z, y, x), (z + 14, y - 3, x - side * 8), (z + 80, body.spine_y - 38, side * 34)]
    path.append((body.crest_z + 90, body.spine_y - 62, side * 42))
    r = float(rng.uniform(1.2, 2.5)) + 6 * dilated * float(rng.uniform(0.2, 1.0))
    canvas.pipe(path, [r + 1.0, r + 0.5, r, r], contrast.hu["muscle"] - 5)
    canvas.pipe(path, [r, r, r - 0.7, r - 0.7], hu)
    size = float(rng.uniform(3, 8)) + 14 * dilated
    canvas.blob((z + 4, y - 2, x - side * 2), (1.3 * size, 0.8 * size, size), hu)


def _paint_adrenal(canvas: Canvas, rng: np.random.Generator, contrast: Contrast, hilum: Vector) -> None:
    """Paints an adrenal gland as two thin limbs above the kidney, at times with a nodule."""
    z, y, x = hilum
    side = 1.0 if x > 0 else -1.0
    top = (z - float(rng.uniform(42, 60)), y - float(rng.uniform(2, 14)), x + side * float(rng.uniform(-6, 6)))
    hu, r = _soft_hu(rng, contrast), float(rng.uniform(1.8, 3.5))
    for dy, dx in ((14, -4), (15, 9)):
        canvas.pipe([top, (top[0] + 10, top[1] + dy, top[2] + side * dx)], [r, 0.8 * r], hu)
    if rng.uniform() < ADENOMA_SHARE:
        size = float(rng.uniform(5, 18))
        nodule = float(rng.uniform(-15, 35)) if rng.uniform() < 0.5 else _soft_hu(rng, contrast)
        canvas.blob((top[0], top[1] + 5, top[2]), (size, size * 0.8, size * 0.9), nodule)


def _paint_nodes(canvas: Canvas, rng: np.random.Generator, body: Physique, contrast: Contrast) -> None:
    """Paints lymph nodes along the large vessels."""
    hu = _soft_hu(rng, contrast)
    for _ in range(int(rng.integers(1, 9))):
        r = float(rng.uniform(2.5, 14))
        at = (float(rng.uniform(-60, 110)), body.spine_y - float(rng.uniform(15, 50)), float(rng.uniform(-42, 42)))
        canvas.blob(at, (1.3 * r, r, r), hu + float(rng.uniform(-12, 12)))


def _paint_stray(canvas: Canvas, rng: np.random.Generator, body: Physique, contrast: Contrast) -> None:
    """Paints masses of other organs, cystic or solid and uneven, anywhere in the cavity."""
    ry, rx = body.cavity_half
    for _ in range(int(rng.integers(1, 4))):
        r = float(np.exp(rng.uniform(np.log(5), np.log(38))))
        at = (float(rng.uniform(-90, 150)), body.cavity_y + ry * float(rng.uniform(-0.7, 0.7)), 0.0)
        at = (at[0], at[1], rx * float(rng.uniform(-0.8, 0.8)))
        half = (r * float(rng.uniform(0.7, 1.4)), r * float(rng.uniform(0.7, 1.2)), r)
        window = canvas.window(at, half)
        if canvas.hu[window].size == 0:
            continue
        mean = float(rng.uniform(-5, 30)) if rng.uniform() < 0.35 else _soft_hu(rng, contrast)
        uneven = float(rng.uniform(0, 0.25)) * max(mean, 0.0)
        canvas.blob(at, half, np.float32(mean) + canvas.noise(rng, max(r * 0.4, 4), window) * np.float32(uneven))
