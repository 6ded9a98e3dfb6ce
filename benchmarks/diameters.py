"""Measured diameters against those that radiologists reported, and what measuring a cohort takes and leaves open.

    python benchmarks/diameters.py --labels KITS23_LABELS [--plot docs/images/diameters.png] [--out diameters.json]
    python benchmarks/diameters.py --shapes

KITS23_LABELS holds the label maps in the official layout and ``kits23.json``, whose ``radiographic_size`` is the
tumor's size in cm as the radiology report had it. It is compared with the largest axial diameter of the tumor of the
largest volume, case by case. Every map is measured with ``renalseg.report.measure.measure`` in this one process.
Prints Markdown: the agreement, the cases furthest apart, seconds a case, and which values could not be had and why.
``--shapes`` instead prints the errors on voxelised balls and ellipsoids of known size.
"""

import argparse
import json
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from renalseg.io.files import atomic_path, write_json
from renalseg.io.kits import list_cases, read_labels
from renalseg.report.measure import measure
from renalseg.report.measure.diameters import axial_diameter, diameter_3d

Rows = list[dict[str, Any]]

VALUES = ("polar", "face", "exophytic_share", "contact_area_mm2", "sinus_distance_mm")
SMALL_MM, LARGE_MM = 40.0, 70.0
"""The R part of R.E.N.A.L.: 1 point up to 4 cm, 2 between, 3 from 7 cm (doi:10.1016/j.juro.2009.05.035)."""


SPACINGS_MM = ((1.0, 1.0, 1.0), (0.5, 0.9, 0.7), (3.0, 0.8, 0.8), (5.0, 0.9, 0.9))
SHAPES_MM = ((15.0, 15.0, 15.0), (30.0, 30.0, 30.0), (45.0, 30.0, 24.0))
"""Three diameters of each ellipsoid."""


def shapes(n: int = 20) -> str:
    """Mean error and its standard deviation over ``n`` placements and turns of each shape on each grid."""
    lines = ["| spacing z, y, x, mm | diameters, mm | axial diameter | 3D diameter |", "|---|---|---|---|"]
    for spacing in SPACINGS_MM:
        for size in SHAPES_MM:
            rng = np.random.default_rng(1)
            turns = Rotation.random(n, random_state=rng).as_matrix()
            errors = np.array([shape_errors(spacing, np.array(size), turn, rng) for turn in turns])
            cells = (f"{m:+.2f} ({s:.2f})" for m, s in zip(errors.mean(axis=0), errors.std(axis=0), strict=True))
            named = (", ".join(f"{v:g}" for v in values) for values in (spacing, size))
            lines.append(f"| {' | '.join((*named, *cells))} |")
    return "\n".join(lines)


def shape_errors(
    spacing_mm: tuple[float, float, float],
    size_mm: NDArray[np.float64],
    turn: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Errors in mm of the two diameters of one ellipsoid, whose centre lies anywhere within a voxel.

    The longest line in planes of equal z is that of the central ellipse, from its quadratic form.
    """
    z, y, x = spacing_mm
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, -x], [0, -y, 0], [-z, 0, 0]])
    half = np.ceil(size_mm.max() / 2 / np.array(spacing_mm)).astype(int) + 1
    affine[:3, 3] = -affine[:3, :3] @ (half + rng.uniform(-0.5, 0.5, 3))
    index = np.stack(np.meshgrid(*(np.arange(2 * n + 1) for n in half), indexing="ij"), axis=-1)
    points = (index @ affine[:3, :3].T + affine[:3, 3]) @ turn
    mask = ((points / (size_mm / 2)) ** 2).sum(axis=-1) <= 1
    form = turn @ np.diag(4 / size_mm**2) @ turn.T
    axial = 2 / np.sqrt(np.linalg.eigvalsh(form[:2, :2])[0])
    return axial_diameter(mask, affine).mm - axial, diameter_3d(mask, affine).mm - size_mm.max()


def measure_all(dataset: Path, out: Path | None) -> Rows:
    """Of each case: its measurements, or its error, and the CPU seconds for reading and for measuring.

    What ``out`` holds already is not measured again; what is new is added to it after each case.
    """
    rows: Rows = json.loads(out.read_text()) if out is not None and out.exists() else []
    finished = {row["case"] for row in rows}
    for case in list_cases(dataset):
        if case.segmentation is None or case.case_id in finished:
            continue
        rows.append({"case": case.case_id, **measured(case.segmentation)})
        print(f"{len(rows)} {case.case_id} {rows[-1]['measure_s']:.2f} s", file=sys.stderr, flush=True)
        if out is not None:
            write_json(rows, out)
    return sorted(rows, key=lambda row: str(row["case"]))


def measured(path: Path) -> dict[str, Any]:
    """One case. CPU seconds, not seconds of the clock: what else the machine does then does not count."""
    start = time.process_time()
    labels = read_labels(path)
    read = time.process_time()
    measurements, failure = None, None
    try:
        measurements = measure(labels).as_dict()
    except Exception as error:  # the benchmark counts crashes instead of ending at the first
        failure = f"{type(error).__name__}: {error}"
    seconds = {"read_s": read - start, "measure_s": time.process_time() - read}
    return {"shape": list(labels.shape), **seconds, "error": failure, "measurements": measurements}


def sizes(rows: Rows, clinical: Path) -> tuple[list[str], NDArray[np.float64]]:
    """Names and [case, 2] mm: measured and reported size of the cases that have both."""
    reported = {record["case_id"]: record["radiographic_size"] for record in json.loads(clinical.read_text())}
    names, pairs = [], []
    for row in rows:
        tumors = [x for x in (row["measurements"] or {"lesions": []})["lesions"] if x["kind"] == "tumor"]
        if tumors and reported.get(row["case"]) is not None:
            names.append(row["case"])
            pairs.append((tumors[0]["axial_diameter"]["mm"], 10 * reported[row["case"]]))
    return names, np.array(pairs)


def points(mm: NDArray[np.float64]) -> NDArray[np.int64]:
    """1, 2 or 3 points of the R part for diameters in mm."""
    return 1 + (mm > SMALL_MM).astype(int) + (mm >= LARGE_MM)


def agreement(pairs: NDArray[np.float64]) -> str:
    measured, reported = pairs.T
    difference = measured - reported
    same = points(measured) == points(reported)
    lines = {
        "cases with both": f"{len(pairs)}",
        "Pearson r": f"{np.corrcoef(measured, reported)[0, 1]:.3f}",
        "median absolute difference": f"{np.median(np.abs(difference)):.2f} mm",
        "median difference (measured - reported)": f"{np.median(difference):+.2f} mm",
        "90 % of absolute differences below": f"{np.percentile(np.abs(difference), 90):.1f} mm",
        "same R part (up to 4, 4 to 7, from 7 cm)": f"{same.mean():.1%} ({same.sum()} of {len(same)})",
    }
    return "| quantity | value |\n|---|---|\n" + "\n".join(f"| {k} | {v} |" for k, v in lines.items())


def rules(rows: Rows, names: list[str], pairs: NDArray[np.float64]) -> str:
    """Other sizes of the same tumor against the reported one; none has anything to fit."""
    by_case = {row["case"]: row["measurements"]["lesions"] for row in rows if row.get("measurements")}
    tumors = [max((x for x in by_case[c] if x["kind"] == "tumor"), key=lambda x: x["volume_ml"]) for c in names]
    axial = np.array([x["axial_diameter"]["mm"] for x in tumors])
    height = np.array([x["craniocaudal_mm"] for x in tumors])
    found = {
        "largest axial diameter (used)": axial,
        "largest diameter in any direction": np.array([x["diameter_3d"]["mm"] for x in tumors]),
        "craniocaudal extent": height,
        "the larger of axial and craniocaudal": np.maximum(axial, height),
        "diameter of the ball of equal volume": np.cbrt([x["volume_ml"] * 6000 / np.pi for x in tumors]),
    }
    lines = [
        "| size | Pearson r | median absolute difference, mm | median difference, mm | same R part |",
        "|---|---|---|---|---|",
    ]
    for name, mm in found.items():
        r, difference = np.corrcoef(mm, pairs[:, 1])[0, 1], mm - pairs[:, 1]
        same = (points(mm) == points(pairs[:, 1])).mean()
        medians = f"{np.median(np.abs(difference)):.2f} | {np.median(difference):+.2f}"
        lines.append(f"| {name} | {r:.3f} | {medians} | {same:.1%} |")
    return "\n".join(lines)


def furthest(names: list[str], pairs: NDArray[np.float64], n: int = 6) -> str:
    order = np.argsort(-np.abs(pairs[:, 0] - pairs[:, 1]))[:n]
    rows = "\n".join(f"| {names[i]} | {pairs[i, 0]:.1f} | {pairs[i, 1]:.0f} |" for i in order)
    return f"| case | measured, mm | reported, mm |\n|---|---|---|\n{rows}"


def times(rows: Rows) -> str:
    seconds = np.array([row["measure_s"] for row in rows])
    slowest = rows[int(seconds.argmax())]
    shape = " x ".join(map(str, slowest["shape"]))
    broken = [f"{row['case']} ({row['error']})" for row in rows if row["error"]]
    return (
        f"{len(rows)} label maps, {len(broken)} crashes{': ' + '; '.join(broken) if broken else ''}. Measuring took "
        f"{np.median(seconds):.2f} CPU seconds a case (median), {np.percentile(seconds, 95):.2f} s (95 %), "
        f"{seconds.max():.2f} s at most ({slowest['case']}, {shape}); reading took "
        f"{np.median([row['read_s'] for row in rows]):.2f} s more."
    )


def abstentions(rows: Rows) -> str:
    """How often each value is None, and the notes of these lesions with their numbers left out."""
    lesions = [x for row in rows for x in (row["measurements"] or {"lesions": []})["lesions"]]
    counts = "\n".join(f"| {name} | {sum(x[name] is None for x in lesions)} |" for name in VALUES)
    notes = Counter(re.sub(r"\d+(\.\d+)?", "N", note) for x in lesions for note in x["notes"])
    warnings = Counter(
        re.sub(r"\d+(\.\d+)?", "N", w) for row in rows for w in (row["measurements"] or {"warnings": []})["warnings"]
    )
    listed = "\n".join(f"| {n} | {note} |" for note, n in notes.most_common())
    warned = "\n".join(f"| {n} | {warning} |" for warning, n in warnings.most_common())
    return (
        f"{len(lesions)} lesions.\n\n| value | lesions without it |\n|---|---|\n{counts}\n\n"
        f"| lesions | note |\n|---|---|\n{listed}\n\n| cases | warning |\n|---|---|\n{warned}"
    )


def draw(pairs: NDArray[np.float64], path: Path) -> None:
    """Measured over reported size in cm, with the line of equality and the limits of the R part."""
    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    measured, reported = pairs.T / 10
    end = float(pairs.max()) / 10 * 1.05
    axes.plot([0, end], [0, end], color="grey", linewidth=0.8, label="equal")
    for limit in (SMALL_MM / 10, LARGE_MM / 10):
        axes.axvline(limit, color="lightgrey", linewidth=0.8, linestyle="--")
        axes.axhline(limit, color="lightgrey", linewidth=0.8, linestyle="--")
    same = points(pairs[:, 0]) == points(pairs[:, 1])
    for chosen, colour, label in ((same, "tab:blue", "same R part"), (~same, "tab:red", "another R part")):
        axes.scatter(
            reported[chosen], measured[chosen], s=14, color=colour, alpha=0.75, label=f"{label} ({chosen.sum()})"
        )
    r = np.corrcoef(measured, reported)[0, 1]
    axes.set(xlim=(0, end), ylim=(0, end), aspect="equal", title=f"KiTS23 label maps: {len(pairs)} cases, r = {r:.3f}")
    axes.set(xlabel="radiographic size as reported, cm", ylabel="largest axial diameter as measured, cm")
    axes.legend(loc="lower right")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, help="label maps in KiTS23 layout, with kits23.json")
    parser.add_argument("--plot", type=Path, default=Path("docs/images/diameters.png"))
    parser.add_argument("--out", type=Path, help="JSON file for every measurement; a run that was cut off goes on")
    parser.add_argument("--shapes", action="store_true", help="errors on shapes of known size")
    a = parser.parse_args()
    if a.shapes:
        print(shapes())
        return
    if a.labels is None:
        parser.error("give --labels or --shapes")
    rows = measure_all(a.labels, a.out)
    names, pairs = sizes(rows, a.labels / "kits23.json")
    draw(pairs, a.plot)
    parts = (agreement(pairs), rules(rows, names, pairs), furthest(names, pairs), times(rows), abstentions(rows))
    print(*parts, sep="\n\n")


if __name__ == "__main__":
    main()
