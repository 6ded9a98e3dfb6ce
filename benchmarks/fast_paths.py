"""Whether what makes prediction fast changes its labels: every fast path against the fp32 reference path on the CPU.

    python benchmarks/fast_paths.py --dataset DIR [--cases 20] [--weights default] [--device cpu] [--out FILE.json]

DIR holds cases in KiTS23 layout with their labels, phantoms for instance. The reference is the training code's network
in fp32, over all windows. Each path is told by the smallest share of kidney voxels (those that either calls kidney,
tumor or cyst) with the same label, and by the largest change of Dice and surface Dice against the truth. The budget of
a default is 99.99 %, 0.0005 and 0.001. Prints Markdown; finished cases in ``--out`` are not done
again with the same code.
"""

import argparse
import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np

import renalseg
from renalseg.config import STAGES
from renalseg.core.labels import HECS
from renalseg.core.volume import Volume
from renalseg.evaluate import case_metrics
from renalseg.io.files import write_json
from renalseg.io.kits import KitsCase, list_cases, read_labels
from renalseg.io.read import read_volume
from renalseg.model.checkpoint import open_weights
from renalseg.model.runtime import choose, choose_for_prediction
from renalseg.predict import pipeline
from renalseg.predict.fine import fine_probability
from renalseg.predict.pipeline import Models
from renalseg.predict.segmenter import Segmenter

BUDGET = (0.9999, 0.0005, 0.001)


def code() -> str:
    """Content hash of the code that predicts: what was measured with other code is measured anew."""
    folder, digest = Path(renalseg.__file__).parent, hashlib.sha256()
    for part in ("image", "model", "predict"):
        for file in sorted((folder / part).glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def every_window(*arguments: Any, inside: Any, **more: Any) -> Any:
    """``fine_probability`` without leaving windows out."""
    return fine_probability(*arguments, **more)


def reference(weights: str) -> Callable[[Volume], Volume]:
    """The slow path: the training code's networks in fp32, over all windows."""
    segmenter = Segmenter(weights, "cpu", "fp32")
    opened = segmenter.weights[0]
    segmenter.models = Models(**{stage: [segmenter.runtime.place(opened.network(stage))] for stage in STAGES})

    def run(ct: Volume) -> Volume:
        with patch.object(pipeline, "fine_probability", every_window):
            return segmenter.segment(ct).labels

    return run


def paths(weights: str, device: str) -> dict[str, Callable[[Volume], Volume]]:
    """The fast paths of a device by name; bf16 on a CPU where it multiplies in it."""
    if not choose_for_prediction(device).is_host:
        others = {precision: Segmenter(weights, device, precision) for precision in ("fp32", "bf16", "fp16")}
        return {
            f"{device}, {precision}": lambda ct, fast=segmenter: fast.segment(ct).labels
            for precision, segmenter in others.items()
        }
    whole, fp32 = Segmenter(weights, "cpu", "fp32"), Segmenter(weights, "cpu", "fp32")
    whole.models = Models(**{stage: [whole.runtime.place(whole.weights[0].network(stage))] for stage in STAGES})
    fast = {
        "windows without kidney left out": lambda ct: whole.segment(ct).labels,
        "that and slab by slab: the default": lambda ct: fp32.segment(ct).labels,
    }
    if choose("cpu").precision == "bf16":
        bf16 = Segmenter(weights, "cpu", "bf16")
        fast["that in bf16"] = lambda ct: bf16.segment(ct).labels
    return fast


def compare(case: KitsCase, slow: Callable[[Volume], Volume], fast: dict[str, Callable[[Volume], Volume]]) -> Any:
    """For each path: share of kidney voxels with the same label, changes of Dice and of surface Dice."""
    assert case.imaging is not None
    assert case.segmentation is not None
    ct, truth = read_volume(case.imaging), read_labels(case.segmentation)
    expected = slow(ct)
    known = case_metrics(truth, replace(expected, name=case.case_id))
    row = {}
    for name, run in fast.items():
        labels = run(ct)
        kidney = (labels.array > 0) | (expected.array > 0)
        same = float((labels.array == expected.array)[kidney].mean()) if kidney.any() else 1.0
        scores = case_metrics(truth, replace(labels, name=case.case_id))
        changes = [
            max(abs(a[hec.name] - b[hec.name]) for hec in HECS)
            for a, b in ((scores.dice, known.dice), (scores.surface_dice, known.surface_dice))
        ]
        differing = int(np.count_nonzero(labels.array != expected.array))
        row[name] = {"same": same, "dice": changes[0], "surface_dice": changes[1], "voxels": differing}
    return row


def table(rows: dict[str, Any]) -> str:
    """Markdown: the worst case of each path, and whether it keeps the budget."""
    lines = ["| path | cases | same label, worst | median | change of Dice, most | of surface Dice, most | budget |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name in next(iter(rows.values())):
        each = [row[name] for row in rows.values()]
        same = [r["same"] for r in each]
        dice, surface = (max(r[key] for r in each) for key in ("dice", "surface_dice"))
        kept = min(same) >= BUDGET[0] and dice <= BUDGET[1] and surface <= BUDGET[2]
        shares = f"{min(same):.4%} | {median(same):.4%}"
        lines.append(
            f"| {name} | {len(each)} | {shares} | {dice:.5f} | {surface:.5f} | {'kept' if kept else 'missed'} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--device", default="cpu", help="whose fast paths: cpu, cuda or mps")
    parser.add_argument("--out", type=Path, default=Path("fast_paths.json"))
    a = parser.parse_args()
    known = json.loads(a.out.read_text()) if a.out.exists() else {}
    key = f"{open_weights(a.weights).sha256} {a.device} {a.dataset.resolve()} {code()}"
    rows = known.setdefault(key, {})
    slow, fast = reference(a.weights), paths(a.weights, a.device)
    cases = list_cases(a.dataset)[: a.cases]
    for case in cases:
        if case.case_id not in rows:
            rows[case.case_id] = compare(case, slow, fast)
            write_json(known, a.out)
            print(case.case_id, rows[case.case_id], flush=True)
    asked = {case.case_id: rows[case.case_id] for case in cases}
    print(f"{platform.machine()}, weights {a.weights}\n\n{table(asked)}")


if __name__ == "__main__":
    main()
