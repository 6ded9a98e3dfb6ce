"""Whether training learns: from scratch on phantoms rendered from real label maps, scored on unseen ones.

    python benchmarks/learning.py --labels KITS23_LABELS --work DIR [--minutes 40]

Renders 24 phantoms of the nephrographic phase to train on and 6 to test on, each from another label map; the test maps
are of fold 0. Then trains the three stages of the preset ``tiny`` with ``renalseg train``, one after the other, each by
two processes of torchrun with a core each. A stage gets as many epochs as fit its share of ``--minutes`` by the time of
a trial epoch. The test phantoms are scored through the cascade. What is finished in DIR is not done again.
DIR/learning.md is the table ("minutes" of all epochs, "wall_minutes" of all programs, the trial epochs too),
DIR/learning.png shows the curves, and DIR/weights/<stage>/metrics.jsonl is the log. What each trick brings is measured
by ablations.py, on the same training phantoms.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
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
PHASES = ("nephrographic",)
"""The phase in which radiologists look for renal masses: cortex and medulla have the same attenuation."""
SHARES: dict[Stage, float] = {"coarse": 0.07, "kidney": 0.31, "lesion": 0.62}
"""Of the minutes, for each stage."""
TRIAL_EPOCHS = 3
WALL = "wall_seconds.json"
"""In the folder of a stage: the seconds of all programs that trained it, start and end included."""


def render(labels: Path, work: Path, name: str, cases: int, seed: int) -> list[KitsCase]:
    """Phantoms in ``work / name``, each from another label map: of the training maps for "train", else of fold 0."""
    maps = {c.case_id: c.segmentation for c in list_cases(labels)}
    train, test = fold_split(list(maps), 0)
    ids = train if name == "train" else test
    if cases > len(ids):
        raise SystemExit(f"{labels}: {cases} phantoms asked for {name}, but it has only {len(ids)} label maps to use")
    for case_id in ids[:: len(ids) // cases][:cases]:
        link = work / "maps" / name / case_id / "segmentation.nii.gz"
        if not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(maps[case_id].resolve())
    write_cohort(work / name, cases, seed, work / "maps" / name, phases=PHASES)
    return list_cases(work / name)


def render_training(labels: Path, work: Path, config: Config) -> Path:
    """The training phantoms, rendered and resampled for ``config``; the cache, which other settings may share."""
    render(labels, work, "train", TRAIN, SEED)
    dataset, cache = work / "train", work / "cache"
    cases = [c.case_id for c in trainable_cases(dataset)]
    write_index(dataset, cache, config, prepare(dataset, cache, GRIDS, config, cases, workers=2))
    return cache


def with_training(config: Config, stage: Stage, epochs: int, **changes: float) -> Config:
    """``config`` whose ``stage`` trains for ``epochs``, with other values of its settings or of its augmentation."""
    settings: Training = config.training[stage]
    inner = {k: v for k, v in changes.items() if k in type(settings.augmentation).model_fields}
    outer = {k: v for k, v in changes.items() if k not in inner} | {"epochs": epochs}
    augmentation = settings.augmentation.model_copy(update=inner)
    changed = settings.model_copy(update=outer | {"augmentation": augmentation})
    return config.model_copy(update={"training": {**config.training, stage: changed}})


def train_stage(stage: Stage, config: Config, cache: Path, out: Path, cascade: Path | None = None) -> list[float]:
    """Trains ``stage`` into ``out`` with two processes, or goes on with it; the seconds of its epochs.

    ``cascade`` has the kidney network that a lesion stage starts from, where ``out`` has none.
    """
    log, settings = out / stage / "metrics.jsonl", out.with_name(f"{out.name}-{stage}.yaml")
    if not log.exists() or len(log.read_text().splitlines()) < config.training[stage].epochs:
        write_text(config.to_yaml(), settings)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += ["-m", "renalseg", "train", stage, "--data", str(cache), "--out", str(out)]
        command += ["--config", str(settings), *(["--resume"] if (out / stage / "last.safetensors").exists() else [])]
        command += ["--cascade", str(cascade)] if cascade is not None else []
        started = time.perf_counter()
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        note = out / stage / WALL
        write_json(time.perf_counter() - started + (json.loads(note.read_text()) if note.exists() else 0.0), note)
    return [json.loads(line)["seconds"] for line in log.read_text().splitlines()]


def scheduled(config: Config, cache: Path, work: Path, minutes: Mapping[Stage, float]) -> Config:
    """``config`` with the epochs of each stage that fit its minutes, by the time of a trial epoch.

    They are noted, so that a second run keeps them.
    """
    note, asked = work / "epochs.json", {"minutes": dict(minutes), "config": config.sha256()}
    if not note.exists() or json.loads(note.read_text())["asked"] != asked:
        trial, short = work / "trial", config
        shutil.rmtree(trial, ignore_errors=True)
        trial.mkdir(parents=True)
        for stage in minutes:
            short = with_training(short, stage, TRIAL_EPOCHS)
        seconds = {s: float(np.median(train_stage(s, short, cache, trial / "weights")[1:])) for s in minutes}
        write_json({"epochs": {s: max(2, int(60 * minutes[s] / seconds[s])) for s in minutes}, "asked": asked}, note)
    epochs = json.loads(note.read_text())["epochs"]
    for stage in minutes:
        config = with_training(config, stage, int(epochs[stage]))
    return config


def planned(labels: Path, work: Path, minutes: float) -> tuple[Config, Path]:
    """The preset ``tiny`` with the epochs of each stage that ``minutes`` allow, and the cache of its training cases."""
    config = preset("tiny")
    cache = render_training(labels, work, config)
    return scheduled(config, cache, work, {stage: minutes * SHARES[stage] for stage in STAGES}), cache


def train(config: Config, cache: Path, work: Path) -> float:
    """Trains what is not trained yet; the minutes of all epochs."""
    seconds = [sum(train_stage(stage, config, cache, work / "weights")) for stage in STAGES]
    return sum(seconds) / 60


def score(test: list[KitsCase], weights_folder: Path) -> dict[str, float]:
    """Scores of the test phantoms through the cascade.

    ``in_true_kidneys`` is the Dice of masses where coarse and kidney stage are answered perfectly.
    """
    runtime, weights = choose_for_prediction(), open_weights(weights_folder)
    models = Models(**{stage: [runtime.predictor(weights.network(stage))] for stage in STAGES[:-1]})
    network = weights.network("lesion")
    row = make_validator("lesion", test, weights.config, runtime, models)(network)
    row["in_true_kidneys"] = make_validator("lesion", test, weights.config, runtime, Models())(network)["dice_masses"]
    return row


def draw(logs: Mapping[str, Path], stages: tuple[Stage, ...], out: Path) -> None:
    """The loss of each stage over its epochs; ``logs`` are folders of weights by name, a line each."""
    figure, axes = plt.subplots(1, len(stages), figsize=(4 * len(stages), 3.6), layout="constrained", squeeze=False)
    for axis, stage in zip(axes[0], stages, strict=True):
        for name, weights in logs.items():
            records = [json.loads(line) for line in (weights / stage / "metrics.jsonl").read_text().splitlines()]
            axis.plot([r["epoch"] for r in records], [r["loss"] for r in records], label=name)
        axis.set(title=stage, xlabel="epoch", ylabel="training loss")
    if len(logs) > 1:
        axes[0, -1].legend()
    figure.savefig(out, dpi=110)


def machine() -> str:
    """Processor, device and precision of training, for the heading of a table."""
    return f"{platform.machine()}, {choose().device}, {choose().precision}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=40, help="of training, for the three stages together")
    a = parser.parse_args()
    config, cache = planned(a.labels, a.work, a.minutes)
    test = render(a.labels, a.work, "test", TEST, SEED + 1)
    minutes = train(config, cache, a.work)
    notes = [note for folder in (a.work, a.work / "trial") for note in folder.glob(f"weights/*/{WALL}")]
    programs = sum(json.loads(note.read_text()) for note in notes)
    row = score(test, a.work / "weights") | {"minutes": minutes, "wall_minutes": programs / 60}
    epochs = {stage: config.training[stage].epochs for stage in STAGES}
    write_json(row | {f"epochs_{stage}": n for stage, n in epochs.items()}, a.work / "result.json")
    columns = [f"{kind}_{hec.name}" for kind in ("dice", "sd") for hec in HECS]
    columns += ["in_true_kidneys", "box_coverage", "minutes", "wall_minutes"]
    lines = [f"{TRAIN} training and {TEST} test phantoms from label maps, {machine()}", ""]
    lines += ["| " + " | ".join([*columns, "epochs"]) + " |", "|---" * (len(columns) + 1) + "|"]
    counts = " / ".join(str(n) for n in epochs.values())
    lines.append("| " + " | ".join([*(f"{row[c]:.3f}" for c in columns), counts]) + " |")
    write_text("\n".join(lines) + "\n", a.work / "learning.md")
    draw({"": a.work / "weights"}, STAGES, a.work / "learning.png")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
