"""Abdominal organs: liver, spleen, stomach, pancreas, gallbladder and bowel."""

import numpy as np

from renalseg.phantom.canvas import Canvas
from renalseg.phantom.draws import Contrast
from renalseg.phantom.fields import F32, Points, Vector, Window, ellipsoid, smooth_min, tube
from renalseg.phantom.physique import Physique
from renalseg.phantom.vessels import paint_mesentery


def paint_organs(canvas: Canvas, rng: np.random.Generator, body: Physique, contrast: Contrast, dome: F32) -> None:
    """Paints the intraperitoneal organs; ``dome`` is the signed distance to the space under the diaphragm."""
    if rng.uniform() < 0.9:
        paint_mesentery(canvas, rng, body, contrast)
    room = body.cavity_half[0] * body.cavity_half[1] / (80 * 130)
    for _ in range(int(rng.integers(30, 110) * room)):
        _paint_loop(canvas, rng, body, contrast, (-25, 230), (-0.85, 0.15), (-0.75, 0.75))
    for side in (-1, 1):  # bowel that may lie against the kidneys, as far as their fat lets it
        for _ in range(int(rng.poisson(3))):
            across = (0.25 * side, 0.85 * side) if side > 0 else (0.85 * side, 0.25 * side)
            _paint_loop(canvas, rng, body, contrast, (-60, 80), (-0.2, 0.55), across)
    _paint_colon(canvas, rng, body, contrast)
    _paint_pancreas(canvas, rng, body, contrast)
    _paint_stomach(canvas, rng, body, contrast, dome)
    _paint_spleen(canvas, rng, body, contrast, dome)
    _paint_liver(canvas, rng, body, contrast, dome)


def _paint_liver(canvas: Canvas, rng: np.random.Generator, body: Physique, contrast: Contrast, dome: F32) -> None:
    ry, rx = body.cavity_half
    window = canvas.lattice.window((-400, -400, -400), (130, 400, 0.6 * rx))
    if canvas.hu[window].size == 0:
        return
    tip = float(rng.uniform(10, 70))
    centre = (body.dome_z + 70, body.cavity_y - 0.05 * ry, -0.62 * rx)
    right = (centre, (tip - centre[0], 1.05 * ry, 0.68 * rx))
    left = ((body.dome_z + 50, body.cavity_y - 0.45 * ry, -0.05 * rx), (60, 0.5 * ry, 0.55 * rx))
    distance = canvas.evaluate(window, lambda p: smooth_min(ellipsoid(p, *right), ellipsoid(p, *left), 20))
    distance = distance + canvas.noise(rng, 40, window) * np.float32(4)
    distance = np.maximum(np.maximum(distance, canvas.cavity[window] + 2), dome[window] + 2)
    mean = contrast.hu["liver"] if rng.uniform() > 0.12 else contrast.hu["liver"] - rng.uniform(15, 55)  # steatosis
    hu = np.float32(mean) + texture(canvas, rng, window)
    for scale, name, width in ((32.0, "portal", 0.1), (38.0, "ivc", 0.1)):
        winding = np.abs(canvas.noise(rng, scale, window)) + np.abs(canvas.noise(rng, scale, window))
        hu = hu + np.clip((width * 2 - winding) / 0.12, 0, 1) * np.float32(contrast.hu[name] - mean)
    canvas.paint(distance, hu, window)
    _paint_nodules(canvas, rng, distance, window, mean, float(rng.poisson(0.8)))
    if rng.uniform() < 0.75:
        r = float(rng.uniform(10, 19))
        at = (rng.uniform(-20, 25), body.cavity_y - 0.35 * ry, -0.38 * rx + rng.uniform(-10, 10))
        canvas.blob(at, (1.7 * r + 1.5, r + 1.5, r + 1.5), 50.0)
        canvas.blob(at, (1.7 * r, r, r), float(rng.uniform(0, 22)))


def _paint_spleen(canvas: Canvas, rng: np.random.Generator, body: Physique, contrast: Contrast, dome: F32) -> None:
    ry, rx = body.cavity_half
    centre = (
        float(body.dome_z + rng.uniform(50, 95)),
        float(body.cavity_y + rng.uniform(0.25, 0.6) * ry),
        float(rng.uniform(0.65, 0.85) * rx),
    )
    half = (float(rng.uniform(40, 75)), float(rng.uniform(0.45, 0.75)) * ry, float(rng.uniform(24, 42)))
    window = canvas.window(centre, half)
    if canvas.hu[window].size == 0:
        return
    distance = ellipsoid(canvas.at(window), centre, half) + canvas.noise(rng, 25, window) * np.float32(2.5)
    distance = np.maximum(np.maximum(distance, canvas.cavity[window] + 2), dome[window] + 2)
    mean = contrast.hu["spleen"]
    hu = np.float32(mean) + texture(canvas, rng, window)
    if contrast.phase == "arterial" and rng.uniform() < 0.5:  # the moiré of early enhancement
        hu = hu + canvas.noise(rng, float(rng.uniform(8, 18)), window) * np.float32(rng.uniform(5, 0.2 * mean + 6))
    canvas.paint(distance, hu, window)
    _paint_nodules(canvas, rng, distance, window, mean, float(rng.poisson(0.35)))


def texture(canvas: Canvas, rng: np.random.Generator, window: Window) -> F32:
    """Texture of an organ in HU, of random scale and amplitude; faint in most."""
    scale, amplitude = np.exp(rng.uniform(np.log((4.0, 0.8)), np.log((25.0, 14.0))))
    return np.asarray(canvas.noise(rng, float(scale), window) * np.float32(amplitude), dtype=np.float32)


def _paint_nodules(
    canvas: Canvas, rng: np.random.Generator, distance: F32, window: Window, mean: float, count: float
) -> None:
    """Paints cysts, metastases and haemangiomas within the organ whose signed distance is ``distance``."""
    inside = np.argwhere(distance[::4, ::4, ::4] < -3) * 4
    if len(inside) == 0:
        return
    z, y, x = canvas.at(window)
    for _ in range(int(count)):
        at = tuple(inside[int(rng.integers(len(inside)))])
        r = float(np.exp(rng.uniform(np.log(3), np.log(28))))
        centre = (float(z[at]), float(y[at]), float(x[at]))
        nodule = ellipsoid((z, y, x), centre, (r, r * float(rng.uniform(0.8, 1.2)), r))
        kinds = (float(rng.uniform(-5, 22)), mean - float(rng.uniform(10, 60)), mean + float(rng.uniform(10, 90)))
        canvas.paint(np.maximum(nodule, distance + 1), kinds[int(rng.integers(3))], window)


def _paint_stomach(canvas: Canvas, rng: np.random.Generator, body: Physique, contrast: Contrast, dome: F32) -> None:
    ry, rx = body.cavity_half
    size = float(rng.uniform(0.6, 1.2))
    path: list[Vector] = [
        (body.dome_z + 45, body.cavity_y + 0.1 * ry, 0.5 * rx),
        (body.dome_z + 90, body.cavity_y - 0.4 * ry, 0.5 * rx),
        (body.dome_z + 125, body.cavity_y - 0.6 * ry, 0.15 * rx),
        (body.dome_z + 115, body.cavity_y - 0.45 * ry, -0.18 * rx),
    ]
    radius = [40 * size, 36 * size, 24 * size, 12 * size]
    window = canvas.window((body.dome_z + 85, body.cavity_y - 20, 0.15 * rx), (80, ry, 0.75 * rx))
    if canvas.hu[window].size == 0:
        return
    points = canvas.at(window)
    distance = tube(points, path, radius) + canvas.noise(rng, 22, window) * np.float32(3.5)
    distance = np.maximum(np.maximum(distance, canvas.cavity[window] + 3), dome[window] + 3)
    _paint_hollow(canvas, rng, points, distance, window, contrast.hu["bowel"], body.cavity_y - 0.45 * ry)


def _paint_hollow(
    canvas: Canvas,
    rng: np.random.Generator,
    points: Points,
    distance: F32,
    window: Window,
    wall_hu: float,
    gas_y: float,
) -> None:
    """Paints a gut section: wall, content, and gas that rises to the front (the patient lies on the back)."""
    canvas.paint(distance, wall_hu, window)
    lumen = distance + np.float32(rng.uniform(2.0, 4.0))
    kind = rng.uniform()
    content = float(rng.uniform(0, 45)) if kind < 0.85 else float(rng.uniform(120, 420))  # the rest: oral contrast
    lumpy = float(rng.choice([0, 8, 35], p=[0.5, 0.3, 0.2]))
    uneven = canvas.noise(rng, 6, window) * np.float32(lumpy) if lumpy else np.zeros(1, np.float32)
    canvas.paint(lumen, uneven + np.float32(content), window)
    canvas.paint(np.maximum(lumen + np.float32(0.5), points[1] - np.float32(gas_y)), -920.0, window)


def _paint_loop(
    canvas: Canvas,
    rng: np.random.Generator,
    body: Physique,
    contrast: Contrast,
    down: tuple[float, float],
    back: tuple[float, float],
    left: tuple[float, float],
) -> None:
    """Paints a loop of bowel that starts within a range of heights in mm and of shares of the cavity's half depth and
    half width.
    """
    ry, rx = body.cavity_half
    r = float(rng.uniform(8, 15))
    z, y, x = rng.uniform(*down), body.cavity_y + ry * rng.uniform(*back), rx * rng.uniform(*left)
    path: list[Vector] = [(float(z), float(y), float(x))]
    heading = rng.normal(0, 1, 3)
    for _ in range(int(rng.integers(2, 5))):
        heading = heading / np.linalg.norm(heading) + rng.normal(0, 0.6, 3)
        step = heading / np.linalg.norm(heading) * rng.uniform(18, 34)
        path.append((path[-1][0] + step[0], path[-1][1] + step[1] * 0.6, path[-1][2] + step[2]))
    low, high = np.min(path, axis=0) - r, np.max(path, axis=0) + r
    centre, reach = (low + high) / 2, (high - low) / 2
    window = canvas.window((centre[0], centre[1], centre[2]), (reach[0], reach[1], reach[2]))
    if canvas.hu[window].size == 0:
        return
    points = canvas.at(window)
    distance = np.maximum(tube(points, path, r), canvas.cavity[window] + np.float32(3))
    gas = float(min(p[1] for p in path)) - (r * float(rng.uniform(-0.5, 0.6)) if rng.uniform() < 0.3 else 3 * r)
    _paint_hollow(canvas, rng, points, distance, window, contrast.hu["bowel"], gas)


def _paint_colon(canvas: Canvas, rng: np.random.Generator, body: Physique, contrast: Contrast) -> None:
    ry, rx = body.cavity_half
    front = body.cavity_y - 0.7 * ry
    flexure = float(rng.uniform(-10, 40))
    right: list[Vector] = [(190, body.cavity_y, -0.74 * rx), (90, body.cavity_y + 0.25 * ry, -0.8 * rx)]
    right += [(flexure + 30, body.cavity_y + 0.1 * ry, -0.78 * rx), (flexure + 20, front + 25, -0.55 * rx)]
    across: list[Vector] = [right[-1], (flexure + rng.uniform(20, 70), front, -0.2 * rx)]
    across += [(flexure + rng.uniform(20, 60), front, 0.25 * rx), (-35, front + 40, 0.72 * rx)]
    left: list[Vector] = [across[-1], (-10, body.cavity_y + 0.35 * ry, 0.85 * rx)]
    left += [(90, body.cavity_y + 0.45 * ry, 0.84 * rx), (200, body.cavity_y + 0.3 * ry, 0.7 * rx)]
    for path, low, high in ((right, 18, 27), (across, 13, 22), (left, 9, 17)):
        r = float(rng.uniform(low, high))
        edge = np.array(path)
        centre, reach = (edge.min(0) + edge.max(0)) / 2, (edge.max(0) - edge.min(0)) / 2 + r
        window = canvas.window((centre[0], centre[1], centre[2]), (reach[0], reach[1], reach[2]))
        if canvas.hu[window].size == 0:
            continue
        points = canvas.at(window)
        distance = tube(points, path, r) + canvas.noise(rng, 14, window) * np.float32(0.18 * r)
        distance = np.maximum(distance, canvas.cavity[window] + np.float32(3))
        canvas.paint(distance, contrast.hu["bowel"], window)
        grain = canvas.noise(rng, 5.5, window)
        stool = grain * np.float32(50) + np.float32(rng.uniform(-30, 50))
        stool = stool - np.clip(grain - np.float32(rng.uniform(0.6, 2.2)), 0, 1) * np.float32(700)  # bubbles
        canvas.paint(distance + np.float32(2.5), stool, window)
        gas = np.float32(14) * canvas.noise(rng, 20, window) + (
            points[1] - np.float32(edge[:, 1].mean() + rng.uniform(-15, 5))
        )
        canvas.paint(np.maximum(distance + np.float32(3), gas), -920.0, window)


def _paint_pancreas(canvas: Canvas, rng: np.random.Generator, body: Physique, contrast: Contrast) -> None:
    y = body.spine_y - 52
    path: list[Vector] = [(25, y + 8, -38), (-5, y - 6, -25), (-15, y - 14, 10), (-30, y, 55), (-40, y + 25, 90)]
    window = canvas.window((-10, y, 25), (50, 45, 90))
    if canvas.hu[window].size == 0:
        return
    distance = tube(canvas.at(window), path, [14, 12, 9, 9, 8]) + canvas.noise(rng, 7, window) * np.float32(2.5)
    hu = np.float32(contrast.hu["pancreas"]) + canvas.noise(rng, 6, window) * np.float32(rng.uniform(4, 22))
    canvas.paint(np.maximum(distance, canvas.cavity[window] + 3), hu, window)
