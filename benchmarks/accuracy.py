"""How good weights are on CT rendered from label maps that they were not trained on: scores, where they fail, pictures.

    python benchmarks/accuracy.py --labels KITS23_LABELS --out DIR [--bodies DIR] [--weights NAME] [--cases N]
                                  [--workers K] [--seed 888]

The kidneys, tumors and cysts are those of fold 0, drawn over the maps in KITS23_LABELS, which packaged weights are
never trained on; each is set into a new random body, or into a real one with ``--bodies``. ``--deform`` deforms the
maps first. N beyond the number of maps uses them again with other bodies. Writes ``accuracy.md``, ``accuracy.json``
and ``worst_1.png`` and so on. Everything is kept in DIR; what is there already is not done again.
"""

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from real_ct import segment_missing
from unseen_phantoms import held_out

from renalseg import __version__
from renalseg.core.labels import HECS, KIDNEY
from renalseg.core.volume import Volume
from renalseg.evaluate.bootstrap import CONFIDENCE, RESAMPLES, mean_interval
from renalseg.evaluate.cohort import evaluate
from renalseg.evaluate.metrics import CaseMetrics
from renalseg.evaluate.tables import COLUMNS, CohortResult
from renalseg.io.files import atomic_path, write_json, write_text
from renalseg.io.kits import IMAGING, SEGMENTATION, KitsCase, list_cases, read_case, read_labels
from renalseg.phantom.cohort import RECORD, write_cohort
from renalseg.predict.segmenter import DEFAULT_WEIGHTS, Segmenter
from renalseg.report.example import example_png
from renalseg.report.measure.lesions import KINDS, pieces
from renalseg.train.validate import box_coverage

THIN_MM, THICK_MM = 1.5, 3.5
SMALL_ML, LARGE_ML = 5.0, 50.0


FOUND = 0.5
"""A lesion is found where so much of it is called a mass."""


@dataclass(frozen=True)
class Finding:
    """One connected piece of a label: its kind, its ml, and the shares of it that the other label map calls a mass, and
    calls by the same kind.
    """

    kind: str
    ml: float
    mass: float
    same: float


def findings(labels: Volume, other: Volume) -> list[Finding]:
    """The lesions of ``labels`` as ``other`` sees them, on one grid."""
    out, number = [], {kind: label for label, kind in KINDS}
    for piece in pieces(labels.array, labels.voxel_mm3)[0]:
        seen = other.array[piece.box.slices][piece.mask]
        mass, same = float((seen > KIDNEY).mean()), float((seen == number[piece.kind]).mean())
        out.append(Finding(piece.kind, piece.voxels * labels.voxel_mm3 / 1000, mass, same))
    return out


@dataclass(frozen=True)
class Case:
    """One phantom: what it is, and how it was segmented.

    Attributes:
        scores: Dice and surface Dice.
        phantom: the record of its rendering.
        lesions: the true ones, as they were segmented.
        false: pieces that were called a mass without touching one.
        coverage: share of the true voxels inside the coarse stage's box.
        seconds: of the segmentation.
    """

    scores: CaseMetrics
    phantom: dict[str, Any]
    lesions: list[Finding]
    false: list[Finding]
    coverage: float
    seconds: float

    @property
    def slice_mm(self) -> float:
        """Distance of the slices."""
        return float(self.phantom["spacing_mm"][0])

    @property
    def masses_ml(self) -> float:
        """Volume of all tumors and cysts."""
        return float(self.phantom["volumes_ml"]["tumor"] + self.phantom["volumes_ml"]["cyst"])


def groups(cases: Sequence[Case]) -> dict[str, dict[str, list[Case]]]:
    """The cases by slice spacing, by volume of the masses, by contrast phase; groups without a case are left out."""

    def split(choices: dict[str, Callable[[Case], bool]]) -> dict[str, list[Case]]:
        found = {name: [case for case in cases if belongs(case)] for name, belongs in choices.items()}
        return {name: members for name, members in found.items() if members}

    phases = sorted({str(case.phantom["phase"]) for case in cases})
    return {
        "Slices": split(
            {
                f"< {THIN_MM} mm": lambda c: c.slice_mm < THIN_MM,
                f"{THIN_MM} to {THICK_MM} mm": lambda c: THIN_MM <= c.slice_mm <= THICK_MM,
                f"> {THICK_MM} mm": lambda c: c.slice_mm > THICK_MM,
            }
        ),
        "Masses of the case": split(
            {
                f"< {SMALL_ML:g} ml": lambda c: c.masses_ml < SMALL_ML,
                f"{SMALL_ML:g} to {LARGE_ML:g} ml": lambda c: SMALL_ML <= c.masses_ml <= LARGE_ML,
                f"> {LARGE_ML:g} ml": lambda c: c.masses_ml > LARGE_ML,
            }
        ),
        "Contrast phase": {phase: [c for c in cases if c.phantom["phase"] == phase] for phase in phases},
    }


def lesion_table(cases: Sequence[Case]) -> list[str]:
    """How many lesions of each kind and size are found, how much of them, and what is called one without being one."""
    head = (
        f"| lesions | number | found ({FOUND:.0%} of it called a mass) | share called a mass | called by its own kind |"
    )
    lines = [head, "|---" * 5 + "|"]
    sizes = ((0.0, SMALL_ML), (SMALL_ML, LARGE_ML), (LARGE_ML, np.inf))
    for kind in ("tumor", "cyst"):
        for low, high in sizes:
            group = [x for case in cases for x in case.lesions if x.kind == kind and low <= x.ml < high]
            if group:
                size = (
                    f"< {high:g} ml" if low == 0 else f"> {low:g} ml" if high == np.inf else f"{low:g} to {high:g} ml"
                )
                shares = [f"{np.mean([getattr(x, name) for x in group]):.2f}" for name in ("mass", "same")]
                found = f"{np.mean([x.mass >= FOUND for x in group]):.2f}"
                lines.append(f"| {kind}, {size} | {len(group)} | {found} | {' | '.join(shares)} |")
    false = [x for case in cases for x in case.false]
    at = sum(bool(case.false) for case in cases)
    what = f"{len(false)} pieces of {sum(x.ml for x in false):.1f} ml in all, in {at} of {len(cases)} cases"
    return [*lines, "", f"Called a mass where there is none: {what}."]


def score_row(name: str, cases: Sequence[Case]) -> str:
    """A group's means, each with its interval."""
    rows = np.array([case.scores.row for case in cases], dtype=np.float64)
    cells = [f"{mean:.3f}" for mean in rows.mean(axis=0)]
    if len(cases) > 1:
        low, high = mean_interval(rows)
        cells = [f"{cell} ({a:.3f} to {b:.3f})" for cell, a, b in zip(cells, low, high, strict=True)]
    return f"| {name} | {len(cases)} | " + " | ".join(cells) + " |"


def markdown(cases: Sequence[Case], worst: Sequence[CaseMetrics], about: str) -> str:
    """All tables."""
    titles = [f"Dice, {hec.title.lower()}" for hec in HECS] + [f"surface Dice, {hec.title.lower()}" for hec in HECS]
    head = ["| | cases | " + " | ".join(titles) + " |", "|---|---|" + "---|" * len(titles)]
    lines = [
        f"# Accuracy on {len(cases)} rendered CTs",
        "",
        f"{about} Means with the {100 * CONFIDENCE:g} % interval of the mean ({RESAMPLES} bootstrap samples). Rendered "
        "CT is easier or harder than real CT in unknown ways: these numbers compare weights, not methods.",
        "",
        *head,
        score_row("all", cases),
    ]
    for title, members in groups(cases).items():
        lines += ["", f"## {title}", "", *head, *(score_row(name, group) for name, group in members.items())]
    lines += ["", "## Lesions, each for itself", "", *lesion_table(cases)]
    coverage = np.array([case.coverage for case in cases])
    seconds = np.array([case.seconds for case in cases])
    lines += [
        "",
        "## Coarse box",
        "",
        f"True voxels in the box: mean {coverage.mean():.5f}, worst {coverage.min():.5f}; all of them in "
        f"{int((coverage == 1).sum())} of {len(cases)} cases. Seconds a case: mean {seconds.mean():.1f}, "
        f"most {seconds.max():.1f}.",
        "",
        "| case | label map | phase | slices, mm | masses, ml | in the box | " + " | ".join(COLUMNS) + " |",
        "|---|---|---|---|---|---|" + "---|" * len(COLUMNS),
    ]
    for case in cases:
        facts = f"{case.phantom['source']} | {case.phantom['phase']} | {case.slice_mm:g} | {case.masses_ml:.1f}"
        scores = " | ".join(f"{v:.3f}" for v in case.scores.row)
        lines.append(f"| {case.scores.case_id} | {facts} | {case.coverage:.5f} | {scores} |")
    lines += ["", "## Worst cases, by mean Dice over the classes: truth at the left, prediction at the right", ""]
    lines += [f"![{m.case_id}](worst_{place}.png)" for place, m in enumerate(worst, 1)]
    return "\n".join(lines) + "\n"


def scores_of(results: Path, phantoms: Path, out: Path, names: Sequence[str], workers: int) -> CohortResult:
    """Scores all cases; those of an earlier run where no prediction is newer and the cases are the same."""
    table = out / "metrics.json"
    newest = max((results / f"{name}.json").stat().st_mtime for name in names)
    if table.exists() and table.stat().st_mtime > newest:
        found = json.loads(table.read_text())["cases"]
        if [entry["case_id"] for entry in found] == sorted(names):
            return CohortResult(tuple(CaseMetrics(e["case_id"], e["dice"], e["surface_dice"]) for e in found))
    return evaluate(results, phantoms, out, cases=names, workers=workers)


def draw_worst(worst: Sequence[CaseMetrics], phantoms: Path, results: Path, out: Path) -> None:
    """One picture a case, truth beside prediction."""
    for old in out.glob("worst_*.png"):
        old.unlink()
    for place, scores in enumerate(worst, 1):
        folder = phantoms / scores.case_id
        ct, truth = read_case(KitsCase(scores.case_id, folder / IMAGING, folder / SEGMENTATION))
        with atomic_path(out / f"worst_{place}.png") as temporary:
            temporary.write_bytes(example_png(ct, read_labels(results / f"{scores.case_id}.nii.gz"), truth))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bodies", type=Path)
    parser.add_argument("--deform", action="store_true")
    parser.add_argument("--weights", default=DEFAULT_WEIGHTS)
    parser.add_argument("--cases", type=int, help="number of phantoms; one for each map of fold 0 where omitted")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=888)
    a = parser.parse_args()
    phantoms, results = a.out / "phantoms", a.out / "segmentation"
    labels = held_out(a.labels, a.out / "labels")
    count = a.cases or len(list_cases(labels))
    options: dict[str, Any] = {"bodies_dir": a.bodies} if a.bodies else {}
    if a.deform:
        options["deform"] = True
    records = write_cohort(
        phantoms, count, a.seed, labels, a.workers, lambda i, _: print(f"case_{i:05d} rendered", flush=True), **options
    )
    names = [str(record["case"]) for record in records]
    segmenter = Segmenter(a.weights)
    segment_missing({name: phantoms / name / IMAGING for name in names}, results, segmenter)
    scored = scores_of(results, phantoms, a.out / "evaluation", names, a.workers)
    by_name = {metrics.case_id: metrics for metrics in scored.cases}
    cases = []
    for name in names:
        phantom = json.loads((phantoms / name / RECORD).read_text())
        record = json.loads((results / f"{name}.json").read_text())
        truth, labels = read_labels(phantoms / name / SEGMENTATION), read_labels(results / f"{name}.nii.gz")
        coverage, seconds = box_coverage(truth, record["box_zyx"]), float(record["timings_s"]["total"])
        false = [piece for piece in findings(labels, truth) if piece.mass == 0]
        cases.append(Case(by_name[name], phantom, findings(truth, labels), false, coverage, seconds))
    worst = scored.worst()
    draw_worst(worst, phantoms, results, a.out)
    machine = f"{platform.machine()}, {psutil.cpu_count()} cores, {segmenter.runtime.device}"
    bodies = "real bodies" if a.bodies else "drawn bodies"
    about = f"renalseg {__version__}, weights {segmenter.weights_sha256[:16]}, {machine}, seed {a.seed}, {bodies}."
    table = markdown(cases, worst, about)
    write_text(table, a.out / "accuracy.md")
    rows = [
        {"case": c.scores.case_id, "coverage": c.coverage, "scores": dict(zip(COLUMNS, c.scores.row, strict=True))}
        for c in cases
    ]
    write_json({"weights_sha256": segmenter.weights_sha256, "seed": a.seed, "cases": rows}, a.out / "accuracy.json")
    print("\n" + table)


if __name__ == "__main__":
    main()
