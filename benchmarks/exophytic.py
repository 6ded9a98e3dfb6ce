"""How well the exophytic share is told: balls cut out of healthy kidneys, whose contour is known.

    python benchmarks/exophytic.py KITS23_LABELS [--kidneys 20] [--balls 12]

Kidneys without tumor and cyst that are not cut off are taken from label maps. Balls of 8, 12, 18 and 26 mm radius take
the place of their parenchyma, with centres from one radius below to 0.6 radii above the surface, not on the hilum's
side. True is the share of a ball beyond the hull of the whole kidney. Tumors that push parenchyma aside are not
imitated. The table goes to standard output.
"""

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from renalseg.core.labels import KIDNEY, TUMOR
from renalseg.io.kits import list_cases, read_labels
from renalseg.report.measure.contour import parenchyma_contour
from renalseg.report.measure.diameters import shifted
from renalseg.report.measure.grid import GRID_MM, WorldGrid, world_grid
from renalseg.report.measure.restore import restored
from renalseg.report.sides import kidney_sides

RADII_MM = (8, 12, 18, 26)
N_POINTS = 20000


def healthy(dataset: Path) -> Iterator[tuple[WorldGrid, float]]:
    """Kidneys on the isotropic grid, and the direction of their medial side along R of RAS."""
    for case in list_cases(dataset):
        if case.segmentation is None:
            continue
        labels = read_labels(case.segmentation)
        for kidney in kidney_sides(labels):
            cut = any(b.start == 0 or b.stop == n for b, n in zip(kidney.box, labels.shape, strict=True))
            if not kidney.note and not cut and not (kidney.labels > KIDNEY).any():
                affine = shifted(labels.affine, kidney.start)
                yield world_grid(kidney.labels, affine), -1.0 if kidney.side == "right" else 1.0


def trial(grid: WorldGrid, medial: float, radius: float, rng: np.random.Generator) -> tuple[float, float, float]:
    """True share of a ball, that by the hull of what is left, and that by the restored contour."""
    affine = np.eye(4)
    affine[:3, :3] *= GRID_MM
    affine[:3, 3] = grid.origin
    kidney = grid.labels == KIDNEY
    whole = parenchyma_contour(kidney, affine)
    centre = grid.points(kidney).mean(axis=0)
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    if direction[0] * medial > 0.3:
        direction = -direction
    middle = centre + direction * (whole.radii(centre, direction[None])[0] + rng.uniform(-1.0, 0.6) * radius)
    points = middle + rng.uniform(-radius, radius, (N_POINTS, 3))
    points = points[np.linalg.norm(points - middle, axis=1) <= radius]
    voxels = np.moveaxis(np.indices(kidney.shape), 0, -1) * GRID_MM + grid.origin
    lesion = np.linalg.norm(voxels - middle, axis=-1) <= radius
    left = np.where(lesion, TUMOR, grid.labels)
    hull = parenchyma_contour(left == KIDNEY, affine)
    filled = restored(hull, grid.points(left == KIDNEY), grid.points(lesion))
    true, flat, found = (1 - float(c.contains(points).mean()) for c in (whole, hull, filled))
    return true, flat, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--kidneys", type=int, default=20)
    parser.add_argument("--balls", type=int, default=12)
    a = parser.parse_args()
    rng = np.random.default_rng(0)
    radii, shares = [], []
    for grid, medial in islice(healthy(a.labels), a.kidneys):
        for k in range(a.balls):
            radii.append(RADII_MM[k % len(RADII_MM)])
            shares.append(trial(grid, medial, radii[-1], rng))
    table, radius = np.array(shares), np.array(radii)
    print(f"{len(table)} balls in {a.kidneys} kidneys\n")
    print("| contour | radius | mean error | mean absolute error | 90th percentile | agree on 50 % |")
    print("|---|---|---|---|---|---|")
    for column, name in ((1, "hull of what is left"), (2, "restored")):
        for mm in ("all", *RADII_MM):
            rows = table if mm == "all" else table[radius == mm]
            error = rows[:, column] - rows[:, 0]
            agree = ((rows[:, column] >= 0.5) == (rows[:, 0] >= 0.5)).mean()
            p90 = np.percentile(np.abs(error), 90)
            print(f"| {name} | {mm} | {error.mean():+.3f} | {np.abs(error).mean():.3f} | {p90:.3f} | {agree:.1%} |")


if __name__ == "__main__":
    main()
