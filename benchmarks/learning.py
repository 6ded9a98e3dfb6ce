"""Whether training learns: from scratch on phantoms rendered from real label maps, scored on unseen ones.

    python benchmarks/learning.py --labels KITS23_LABELS --work DIR [--variants full "no mixup" ...] [--minutes 24]

Renders 24 phantoms of the nephrographic phase to train on and 6 to test on, each from another label map; the test maps
are of fold 0. Then trains the three stages of the preset ``tiny`` with ``renalseg train``, one after the other, each by
two processes of torchrun with a core each. A stage gets as many epochs as fit its share of ``--minutes`` by the time of
a trial epoch. The test phantoms are scored through the cascade. The other variants train the lesion stage anew, for
as many epochs, and share coarse and kidney network with ``full``: ``all tricks`` has mixup and the mining of hard
voxels too, which the preset leaves out, and each of the others lacks one of all these tricks. What is finished in DIR
is not done again. DIR/learning.md is the table, DIR/learning.png shows the curves, and
DIR/<variant>/weights/<stage>/metrics.jsonl is the log.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from renalseg.config import STAGES, Config, Stage, Training, preset
from renalseg.core.labels import HECS
from renalseg.io.files import write_json, write_text
from renalseg.io.kits import KitsCase, fold_split, list_cases, trainable_cases
from renalseg.model.checkpoint import open_weights
from renalseg.model.runtime import choose, choose_for_prediction
from renalseg.phantom.cohort import write_cohort
from renalseg.predict.pipeline import Models
from renalseg.train.cache import GRIDS, prepare
from renalseg.train.index import write_index
from renalseg.train.validate import make_validator

TRAIN, TEST, SEED = 24, 6, 20261125
TRIAL = "trial"
PHASES = ("nephrographic",)
"""The phase in which radiologists look for renal masses: cortex and medulla have the same attenuation."""
SHARES: dict[Stage, float] = {"coarse": 0.1, "kidney": 0.24, "lesion": 0.66}
"""Of the minutes, for each stage."""

TRICKS = {"mixup_probability": 0.2, "hard_voxels": 0.5}
"""Those that the preset leaves out."""
VARIANTS: dict[str, dict[str, float]] = {
    "full": {},
    "all tricks": TRICKS,
    "no mixup": {**TRICKS, "mixup_probability": 0.0},
    "no mining": {**TRICKS, "hard_voxels": 1.0, "hard_cases": 0.0},
    "no lesion intensity": {**TRICKS, "lesion_intensity_probability": 0.0},
    "no elastic": {**TRICKS, "elastic_probability": 0.0},
    "no pasted lesions": {**TRICKS, "paste_probability": 0.0},
}


def link_maps(labels: Path, out: Path) -> tuple[Path, Path]:
    """Folders with the label maps to train and to test on, as links."""
    maps = {c.case_id: c.segmentation for c in list_cases(labels)}
    train, test = fold_split(list(maps), 0)
    folders = []
    for name, ids in (("train", train[:: len(train) // TRAIN][:TRAIN]), ("test", test[:: len(test) // TEST][:TEST])):
        for case_id in ids:
            link = out / name / case_id / "segmentation.nii.gz"
            if not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(maps[case_id].resolve())
        folders.append(out / name)
    return folders[0], folders[1]


def configure(changes: dict[str, float], epochs: dict[Stage, int]) -> Config:
    """The preset ``tiny`` with a variant's changes."""
    config, training = preset("tiny"), dict[Stage, Training]()
    for stage in STAGES:
        settings = config.training[stage]
        inner = {k: v for k, v in changes.items() if k in type(settings.augmentation).model_fields}
        outer = {k: v for k, v in changes.items() if k not in inner}
        augmentation = settings.augmentation.model_copy(update=inner)
        outer |= {"epochs": epochs[stage]}
        training[stage] = settings.model_copy(update=outer | {"augmentation": augmentation})
    return config.model_copy(update={"training": training})


def prepare_once(dataset: Path, cache: Path) -> None:
    """Resamples the training phantoms, for all variants."""
    config, cases = preset("tiny"), [c.case_id for c in trainable_cases(dataset)]
    write_index(dataset, cache, config, prepare(dataset, cache, GRIDS, config, cases, workers=2))


def train_stage(stage: Stage, config: Config, work: Path, name: str) -> list[float]:
    """Trains ``stage`` with two processes, or goes on with it; the seconds of its epochs."""
    out = _weights(work, name)
    log, settings = out / stage / "metrics.jsonl", out.parent / "config.yaml"
    if not log.exists() or len(log.read_text().splitlines()) < config.training[stage].epochs:
        write_text(config.to_yaml(), settings)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += ["-m", "renalseg", "train", stage, "--data", str(work / "cache"), "--out", str(out)]
        command += ["--config", str(settings), *(["--resume"] if (out / stage / "last.safetensors").exists() else [])]
        if (shared := _weights(work, "full")) != out and name != TRIAL:
            command += ["--cascade", str(shared)]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return [json.loads(line)["seconds"] for line in log.read_text().splitlines()]


def epochs_that_fit(work: Path, minutes: float) -> dict[Stage, int]:
    """Epochs of each stage within its share, from the time of a trial epoch; noted, so that all variants keep them."""
    note, asked = work / "epochs.json", {"minutes": minutes, "shares": SHARES, "config": preset("tiny").sha256()}
    if not note.exists() or json.loads(note.read_text())["asked"] != asked:
        shutil.rmtree(work / TRIAL, ignore_errors=True)
        config = configure({}, dict.fromkeys(STAGES, 3))
        seconds = {stage: np.median(train_stage(stage, config, work, TRIAL)[1:]) for stage in STAGES}
        epochs = {s: max(2, int(60 * minutes * SHARES[s] / seconds[s])) for s in STAGES}
        write_json({"epochs": epochs, "asked": asked}, note)
    return {s: int(v) for s, v in json.loads(note.read_text())["epochs"].items()}


def train_variant(name: str, work: Path, epochs: dict[Stage, int]) -> None:
    """Trains what is not trained yet, and notes epochs and minutes beside the weights."""
    config, started = configure(VARIANTS[name], epochs), time.perf_counter()
    if _note(work, name).exists():
        if json.loads(_note(work, name).read_text())["config_sha256"] != config.sha256():
            raise SystemExit(f"{_note(work, name).parent}: trained with other settings; move it away")
        return
    stages = STAGES if name == "full" else STAGES[-1:]
    seconds = {stage: train_stage(stage, config, work, name) for stage in stages}
    note = {"minutes": sum(map(sum, seconds.values())) / 60, "wall_minutes": (time.perf_counter() - started) / 60}
    counts = {stage: len(each) for stage, each in seconds.items()}
    write_json(note | {"epochs": counts, "config_sha256": config.sha256()}, _note(work, name))


def score(name: str, test: list[KitsCase], work: Path) -> dict[str, float]:
    """The row of one variant: scores of the test phantoms through the cascade, minutes and epochs.

    ``in_true_kidneys`` is the Dice of masses where coarse and kidney stage are answered perfectly.
    """
    runtime, shared = choose_for_prediction(), open_weights(_weights(work, "full"))
    models = Models(**{stage: [runtime.predictor(shared.network(stage))] for stage in STAGES[:-1]})
    weights = open_weights(_weights(work, name))
    network = weights.network("lesion")
    row = make_validator("lesion", test, weights.config, runtime, models)(network)
    row["in_true_kidneys"] = make_validator("lesion", test, weights.config, runtime, Models())(network)["dice_masses"]
    note = json.loads(_note(work, name).read_text())
    row |= {"minutes": note["wall_minutes"]} | {f"epochs_{s}": n for s, n in note["epochs"].items()}
    write_json(row, _note(work, name).with_name("result.json"))
    return row


def _note(work: Path, name: str) -> Path:
    return _weights(work, name).parent / "trained.json"


def _weights(work: Path, name: str) -> Path:
    return work / name.replace(" ", "-") / "weights"


def draw(work: Path, names: list[str]) -> None:
    """The loss of each stage over its epochs, a line a variant."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for axis, stage in zip(axes, STAGES, strict=True):
        for name in names:
            log = _weights(work, name) / stage / "metrics.jsonl"
            if not log.exists():
                continue
            records = [json.loads(line) for line in log.read_text().splitlines()]
            axis.plot([r["epoch"] for r in records], [r["loss"] for r in records], label=name)
        axis.set(title=stage, xlabel="epoch", ylabel="training loss")
    axes[-1].legend()
    figure.savefig(work / "learning.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=["full"])
    parser.add_argument("--minutes", type=float, default=24)
    a = parser.parse_args()
    train_maps, test_maps = link_maps(a.labels, a.work / "maps")
    write_cohort(a.work / "train", TRAIN, SEED, train_maps, phases=PHASES)
    write_cohort(a.work / "test", TEST, SEED + 1, test_maps, phases=PHASES)
    prepare_once(a.work / "train", a.work / "cache")
    test = list_cases(a.work / "test")
    epochs = epochs_that_fit(a.work, a.minutes)
    columns = [f"{kind}_{hec.name}" for kind in ("dice", "sd") for hec in HECS]
    columns += ["in_true_kidneys", "box_coverage", "minutes"]
    lines = ["| variant | " + " | ".join(columns) + " | epochs |", "|---|" + "---|" * (len(columns) + 1)]
    for name in a.variants:
        train_variant(name, a.work, epochs)
        row = score(name, test, a.work)
        counts = " / ".join(str(row.get(f"epochs_{s}", "shared")) for s in STAGES)
        lines.append(f"| {name} | " + " | ".join(f"{row[c]:.3f}" for c in columns) + f" | {counts} |")
    machine = f"{platform.machine()}, {choose().device}, {choose().precision}"
    text = f"{TRAIN} training and {TEST} test phantoms from label maps, {machine}\n\n" + "\n".join(lines) + "\n"
    write_text(text, a.work / "learning.md")
    draw(a.work, a.variants)
    print(text)


if __name__ == "__main__":
    main()
