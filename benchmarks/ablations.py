"""What each trick of training does for the lesion stage: all of them, and one left out at a time, on the same budget.

    python benchmarks/ablations.py --labels KITS23_LABELS --work DIR [--minutes 30] [--tests 24]

Trains on the 24 phantoms of learning.py (DIR may be the same) with the preset ``tiny``, by default for as long as the
lesion stage takes there. One kidney network is trained first, which the lesion stage of every variant starts from. A
variant gets as many epochs as fit ``--minutes`` by the time of trial epochs of the variant with all tricks, so all get
the same number. The lesion networks are scored on phantoms from label maps of fold 0, coarse and kidney stage answered
perfectly, so that nothing but the lesion stage differs, each beside ``all tricks`` on the same phantoms. What is
finished is not done again. DIR/ablations/ablations.md is the table; beside it lie the curves and the weights with
their logs.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from learning import (
    SEED,
    SHARES,
    TRAIN,
    draw,
    epochs_that_fit,
    machine,
    render,
    render_training,
    train_stage,
    with_training,
)

from renalseg.config import preset
from renalseg.evaluate.bootstrap import mean_interval
from renalseg.io.files import write_json, write_text
from renalseg.io.kits import KitsCase
from renalseg.model.checkpoint import open_weights
from renalseg.model.runtime import choose_for_prediction
from renalseg.predict.pipeline import Models
from renalseg.train.validate import make_validator

KIDNEY_SHARE = SHARES["kidney"] / SHARES["lesion"]
"""Minutes of the kidney network for a minute of the lesion stage, as in learning.py."""
SCORES = ("dice_masses", "dice_tumor", "sd_masses")

BASE = "all tricks"
TRICKS = {"mixup_probability": 0.2, "hard_voxels": 0.5, "lesion_intensity_probability": 0.3}
"""Those that the preset leaves out."""
VARIANTS: dict[str, dict[str, float]] = {
    BASE: TRICKS,
    "no mixup": {**TRICKS, "mixup_probability": 0.0},
    "no mining": {**TRICKS, "hard_voxels": 1.0, "hard_cases": 0.0},
    "no lesion-wise intensity": {**TRICKS, "lesion_intensity_probability": 0.0},
    "no elastic": {**TRICKS, "elastic_probability": 0.0},
    "no pasted lesions": {**TRICKS, "paste_probability": 0.0},
    "as the preset": {},
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
    parser.add_argument("--minutes", type=float, default=30, help="of training, for each variant")
    parser.add_argument("--tests", type=int, default=24)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    a = parser.parse_args()
    variants = [BASE, *(name for name in a.variants if name != BASE)]
    config = preset("tiny")
    cache = render_training(a.labels, a.work, config)
    test = render(a.labels, a.work, f"test-{a.tests}", a.tests, SEED + 2)
    work = a.work / "ablations"
    base = with_training(config, "lesion", config.training["lesion"].epochs, **VARIANTS[BASE])
    epochs = epochs_that_fit(base, cache, work, {"kidney": KIDNEY_SHARE * a.minutes, "lesion": a.minutes})
    shared = work / "kidney"
    train_stage("kidney", with_training(config, "kidney", epochs["kidney"]), cache, shared)
    folders, scores = {}, {}
    for name in variants:
        folders[name] = work / name.replace(" ", "-")
        changed = with_training(config, "lesion", epochs["lesion"], **VARIANTS[name])
        minutes = sum(train_stage("lesion", changed, cache, folders[name], cascade=shared)) / 60
        scores[name] = score(folders[name], test)
        print(f"{name}: {minutes:.1f} minutes, masses {scores[name]['dice_masses'].mean():.3f}", flush=True)
    heading = f"{TRAIN} training and {a.tests} test phantoms from label maps"
    counts = f"{epochs['kidney']} epochs of the kidney and {epochs['lesion']} of the lesion stage"
    text = "\n".join([f"{heading}, {counts}, {machine()}", "", *table(scores)]) + "\n"
    write_text(text, work / "ablations.md")
    draw(folders, ("lesion",), work / "ablations.png")
    print(text)


if __name__ == "__main__":
    main()
