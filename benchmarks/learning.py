"""Whether training learns: from scratch on phantoms rendered from real label maps, scored on unseen ones.

    python benchmarks/learning.py --labels KITS23_LABELS --work DIR [--variants full "no mixup" ...] [--minutes 40]

Renders 24 enhanced phantoms to train on and 6 to test on, each from another label map; the test maps are of fold 0.
Then trains the three stages of the preset ``tiny`` from scratch, on two cores side by side: coarse and kidney stage on
one, lesion stage on the other. A stage gets as many epochs as fit its share of ``--minutes`` by the time of a trial
epoch. The test phantoms are scored through the cascade. The other variants train the lesion stage anew, two at a time,
for ``--variant-epochs`` epochs (default: those of ``full``) without one of its tricks, and share coarse and kidney
network with ``full``; ``all tricks`` is what they are compared with where their epochs are fewer. What is finished in
DIR is not done again. DIR/learning.md is the table, DIR/learning.png shows the curves, and
DIR/<variant>/weights/<stage>/metrics.jsonl is the log.
"""

import argparse
import json
import multiprocessing
import platform
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from renalseg.config import STAGES, Config, Stage, Training, preset
from renalseg.core.labels import HECS
from renalseg.io.files import write_json, write_text
from renalseg.io.kits import KitsCase, fold_split, list_cases, trainable_cases
from renalseg.model.checkpoint import open_weights
from renalseg.model.runtime import choose
from renalseg.phantom.cohort import write_cohort
from renalseg.predict.pipeline import Models
from renalseg.train.cache import GRIDS, prepare, write_index
from renalseg.train.run import Hooks, Request, run_training
from renalseg.train.validate import make_validator

TRAIN, TEST, SEED = 24, 6, 20261125
PHASES = ("arterial", "nephrographic")
"""As in KiTS23, whose scans are of the late arterial phase; a tumor of 3 ml is not to be seen without contrast."""
CORES: tuple[tuple[Stage, ...], ...] = (("coarse", "kidney"), ("lesion",))
"""Which stages train one after the other, on a core each."""
SHARES: dict[Stage, float] = {"coarse": 0.3, "kidney": 0.7, "lesion": 1.0}
"""Of the minutes, for each stage."""

VARIANTS: dict[str, dict[str, float]] = {
    "full": {},
    "all tricks": {},
    "no mixup": {"mixup_probability": 0.0},
    "no mining": {"hard_voxels": 1.0, "hard_cases": 0.0},
    "no lesion intensity": {"lesion_intensity_probability": 0.0},
    "no elastic": {"elastic_probability": 0.0},
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


def _train(name: str, stages: tuple[Stage, ...], work: Path, epochs: dict[Stage, int]) -> dict[Stage, list[float]]:
    """Trains ``stages`` one after the other on one core; the seconds of their epochs."""
    torch.set_num_threads(1)
    config, seconds = configure(VARIANTS.get(name, {}), epochs), dict[Stage, list[float]]()
    for stage in stages:
        out = _weights(work, name)
        resume = (out / stage / "last.safetensors").exists()
        hooks = Hooks(on_step=lambda step, steps, loss, s=stage: _tell(name, s, step, steps, loss))
        result = run_training(Request(stage, work / "cache", out, config, resume=resume), hooks)
        seconds[stage] = [epoch["seconds"] for epoch in result["history"]]
    return seconds


def _side_by_side(
    jobs: list[tuple[str, tuple[Stage, ...], dict[Stage, int]]], work: Path
) -> dict[str, dict[Stage, list[float]]]:
    """Trains on two cores, a job each at a time; the seconds of each epoch by name and stage."""
    found: dict[str, dict[Stage, list[float]]] = {}
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [(name, pool.submit(_train, name, stages, work, epochs)) for name, stages, epochs in jobs]
        for name, future in futures:
            found.setdefault(name, {}).update(future.result())
    return found


def epochs_that_fit(work: Path, minutes: float) -> dict[Stage, int]:
    """Epochs of each stage within its share, from the time of a trial epoch; noted, so that all variants keep them."""
    note = work / "epochs.json"
    if not note.exists():
        shutil.rmtree(work / "trial", ignore_errors=True)
        trial = _side_by_side([("trial", stages, dict.fromkeys(STAGES, 3)) for stages in CORES], work)["trial"]
        write_json({s: max(2, int(60 * minutes * SHARES[s] / np.median(trial[s][1:]))) for s in STAGES}, note)
    return {s: int(v) for s, v in json.loads(note.read_text()).items()}


def train_all(names: list[str], work: Path, epochs: dict[Stage, int], variant_epochs: int) -> None:
    """Trains what is not trained yet, and notes epochs and minutes beside the weights."""
    jobs = [("full", stages, epochs) for stages in CORES]
    few = epochs | {"lesion": variant_epochs}
    for batch in (jobs, [(name, STAGES[-1:], few) for name in names if name != "full"]):
        todo = [job for job in batch if not _note(work, job[0]).exists()]
        started = time.perf_counter()
        for name, seconds in _side_by_side(todo, work).items():
            minutes = {stage: sum(each) / 60 for stage, each in seconds.items()}
            counts = {stage: len(each) for stage, each in seconds.items()}
            wall = (time.perf_counter() - started) / 60
            write_json({"minutes": minutes, "epochs": counts, "wall_minutes": wall}, _note(work, name))


def score(name: str, test: list[KitsCase], work: Path) -> dict[str, float]:
    """The row of one variant: scores of the test phantoms through the cascade, minutes and epochs."""
    runtime, shared = choose(), open_weights(_weights(work, "full"))
    models = Models(**{stage: [runtime.place(shared.network(stage))] for stage in STAGES[:-1]})
    weights = open_weights(_weights(work, name))
    row = make_validator("lesion", test, weights.config, runtime, models)(runtime.place(weights.network("lesion")))
    note = json.loads(_note(work, name).read_text())
    row |= {"minutes": sum(note["minutes"].values())} | {f"epochs_{s}": n for s, n in note["epochs"].items()}
    write_json(row, _note(work, name).with_name("result.json"))
    return row


def _note(work: Path, name: str) -> Path:
    return _weights(work, name).parent / "trained.json"


def _weights(work: Path, name: str) -> Path:
    return work / name.replace(" ", "-") / "weights"


def _tell(name: str, stage: str, step: int, steps: int, loss: float) -> None:
    if step % 20 == 0:
        print(f"{name}: {stage} {step}/{steps} loss {loss:.3f}", flush=True)


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
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--variant-epochs", type=int)
    a = parser.parse_args()
    train_maps, test_maps = link_maps(a.labels, a.work / "maps")
    write_cohort(a.work / "train", TRAIN, SEED, train_maps, phases=PHASES)
    write_cohort(a.work / "test", TEST, SEED + 1, test_maps, phases=PHASES)
    prepare_once(a.work / "train", a.work / "cache")
    test = list_cases(a.work / "test")
    epochs = epochs_that_fit(a.work, a.minutes)
    train_all(a.variants, a.work, epochs, a.variant_epochs or epochs["lesion"])
    columns = [f"{kind}_{hec.name}" for kind in ("dice", "sd") for hec in HECS] + ["box_coverage", "minutes"]
    lines = ["| variant | " + " | ".join(columns) + " | epochs |", "|---|" + "---|" * (len(columns) + 1)]
    for name in a.variants:
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
