"""Segments phantoms that the weights have never seen and scores them: box coverage, Dice, surface Dice, time, memory.

    python benchmarks/unseen_phantoms.py --work DIR [--cases 20] [--seed 777] [--labels KITS23_LABELS] [--weights NAME]

With ``--labels`` the kidneys, tumors and cysts come from the label maps of fold 0, drawn over the maps in that folder,
which packaged weights are never trained on. Everything is kept in DIR; what is there already is not done again. The
table goes to standard output as Markdown.
"""

import argparse
import json
import platform
from pathlib import Path

import numpy as np
import psutil

from renalseg import __version__
from renalseg.batch import list_inputs, segment_all
from renalseg.core.labels import HECS
from renalseg.evaluate.cohort import evaluate
from renalseg.io.kits import fold_split, list_cases, read_labels
from renalseg.phantom.cohort import write_cohort
from renalseg.predict.segmenter import Segmenter
from renalseg.train.validate import box_coverage


def held_out(labels: Path, out: Path) -> Path:
    """A folder of links to the label maps of fold 0."""
    cases = {c.case_id: c.segmentation for c in list_cases(labels)}
    for case_id in fold_split(cases, 0)[1]:
        link = out / case_id / "segmentation.nii.gz"
        if not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(cases[case_id].resolve())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--seed", type=int, default=777)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--max-slices", type=int)
    parser.add_argument("--workers", type=int, default=2)
    a = parser.parse_args()
    phantoms, results = a.work / "phantoms", a.work / "segmentation"
    labels = held_out(a.labels, a.work / "labels") if a.labels else None
    write_cohort(phantoms, a.cases, a.seed, labels, a.workers, max_slices=a.max_slices)
    segmenter = Segmenter(a.weights)
    todo = {n: p for n, p in list_inputs([phantoms])[0].items() if not (results / f"{n}.json").exists()}
    for outcome in segment_all(todo, results, segmenter):
        print(outcome.name, outcome.error or outcome.record["timings_s"]["total"], flush=True)
    names = [f"case_{i:05d}" for i in range(a.cases)]
    scores = evaluate(results, phantoms, a.work / "evaluation", cases=names, workers=a.workers)
    records = [json.loads((results / f"{n}.json").read_text()) for n in names]
    truths = [read_labels(phantoms / n / "segmentation.nii.gz") for n in names]
    coverage = [box_coverage(t, r["box_zyx"]) for t, r in zip(truths, records, strict=True)]
    seconds = [r["timings_s"]["total"] for r in records]
    machine = f"{platform.machine()}, {psutil.cpu_count()} cores, {segmenter.runtime.device}"
    print(f"\nrenalseg {__version__}, weights {segmenter.weights_sha256[:16]}, {machine}, ", end="")
    print(f"{segmenter.runtime.precision}, {len(names)} cases\n")
    print("| figure | mean | median | worst |\n|---|---|---|---|")
    for kind, column in (("Dice", "dice"), ("surface Dice", "surface_dice")):
        for hec in HECS:
            values = np.array([getattr(case, column)[hec.name] for case in scores.cases])
            row = f"{values.mean():.4f} | {np.median(values):.4f} | {values.min():.4f}"
            print(f"| {kind}, {hec.title.lower()} | {row} |")
    print(f"| true voxels in the box | {np.mean(coverage):.5f} | {np.median(coverage):.5f} | {min(coverage):.5f} |")
    print(f"| seconds a case | {np.mean(seconds):.1f} | {np.median(seconds):.1f} | {max(seconds):.1f} |")
    memory = [r["peak_memory_mb"]["host"] for r in records]
    print(f"| peak host memory, MB | {np.mean(memory):.0f} | {np.median(memory):.0f} | {max(memory):.0f} |")


if __name__ == "__main__":
    main()
