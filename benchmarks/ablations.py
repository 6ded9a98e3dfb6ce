"""What each trick of training does for the lesion stage: all of them, and one left out at a time, on the same budget.

    python benchmarks/ablations.py --labels KITS23_LABELS --work DIR [--minutes 40] [--tests 24]

Goes on from learning.py, whose DIR and ``--minutes`` these are; what that has not trained yet is trained here. The
lesion stage of every variant starts from its kidney network and gets as many epochs as its lesion stage, which is the
variant "as the preset". The lesion networks are scored on phantoms from label maps of fold 0, coarse and kidney stage
answered perfectly, so that nothing but the lesion stage differs, each beside ``all tricks`` on the same phantoms. What
is finished is not done again. DIR/ablations/ablations.md is the table; beside it lie the curves and the weights with
their logs.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from learning import SEED, TRAIN, draw, machine, planned, render, train, train_stage, with_training

from renalseg.evaluate.bootstrap import mean_interval
from renalseg.io.files import write_json, write_text
from renalseg.io.kits import KitsCase
from renalseg.model.checkpoint import open_weights
from renalseg.model.runtime import choose_for_prediction
from renalseg.predict.pipeline import Models
from renalseg.train.validate import make_validator

SCORES = ("dice_masses", "dice_tumor", "sd_masses")

BASE, PRESET = "all tricks", "as the preset"
TRICKS = {"mixup_probability": 0.2, "hard_voxels": 0.5, "lesion_intensity_probability": 0.3}
"""Those that the preset leaves out."""
VARIANTS: dict[str, dict[str, float]] = {
    BASE: TRICKS,
    "no mixup": {**TRICKS, "mixup_probability": 0.0},
    "no mining": {**TRICKS, "hard_voxels": 1.0, "hard_cases": 0.0},
    "no lesion-wise intensity": {**TRICKS, "lesion_intensity_probability": 0.0},
    "no elastic": {**TRICKS, "elastic_probability": 0.0},
    "no pasted lesions": {**TRICKS, "paste_probability": 0.0},
    PRESET: {},
}


def score(weights_folder: Path, test: list[KitsCase]) -> dict[str, np.ndarray]:
    """Scores of the lesion network in the true kidneys, an array over the cases each; noted beside the weights."""
    note = weights_folder.with_name(f"{weights_folder.name}-scores-{len(test)}.json")
    if not note.exists():
        weights, runtime = open_weights(weights_folder), choose_for_prediction()
        network = weights.network("lesion")
        rows = [make_validator("lesion", [case], weights.config, runtime, Models())(network) for case in test]
        write_json({name: [row[name] for row in rows] for name in SCORES}, note)
    return {name: np.array(values) for name, values in json.loads(note.read_text()).items()}


def table(scores: dict[str, dict[str, np.ndarray]]) -> list[str]:
    """Means of each variant, and its Dice of masses less those of ``all tricks``, case by case."""
    lines = [f"| variant | {' | '.join(SCORES)} | dice_masses less those of {BASE} [95 %] |", "|---" * 5 + "|"]
    for name, row in scores.items():
        gain = row["dice_masses"] - scores[BASE]["dice_masses"]
        low, high = mean_interval(gain[:, None])[:, 0]
        apart = "" if name == BASE else f"{gain.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
        lines.append(f"| {name} | {' | '.join(f'{row[s].mean():.3f}' for s in SCORES)} | {apart} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=40, help="of learning.py, for its three stages together")
    parser.add_argument("--tests", type=int, default=24)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    a = parser.parse_args()
    variants = [BASE, *(name for name in a.variants if name != BASE)]
    config, cache = planned(a.labels, a.work, a.minutes)
    train(config, cache, a.work)
    test = render(a.labels, a.work, f"test-{a.tests}", a.tests, SEED + 2)
    work, learnt, epochs = a.work / "ablations", a.work / "weights", config.training["lesion"].epochs
    folders, scores = {}, {}
    for name in variants:
        folders[name] = learnt if name == PRESET else work / name.replace(" ", "-")
        changed = with_training(config, "lesion", epochs, **VARIANTS[name])
        minutes = sum(train_stage("lesion", changed, cache, folders[name], cascade=learnt)) / 60
        scores[name] = score(folders[name], test)
        print(f"{name}: {minutes:.1f} minutes, masses {scores[name]['dice_masses'].mean():.3f}", flush=True)
    heading = f"{TRAIN} training and {a.tests} test phantoms from label maps"
    counts = f"{config.training['kidney'].epochs} epochs of the kidney and {epochs} of the lesion stage"
    text = "\n".join([f"{heading}, {counts}, {machine()}", "", *table(scores)]) + "\n"
    write_text(text, work / "ablations.md")
    draw(folders, ("lesion",), work / "ablations.png")
    print(text)


if __name__ == "__main__":
    main()
