"""Whether training learns: from scratch on phantoms rendered from real label maps, scored on unseen ones.

    python benchmarks/learning.py --labels KITS23_LABELS --work DIR [--variants full "no mixup" ...] [--minutes 12]

Renders 24 phantoms to train on and 6 to test on, each from another label map; the test maps are of fold 0. Then trains
the three stages of the preset ``tiny`` from scratch and scores the test phantoms through the cascade. A stage gets as
many epochs as fit its share of ``--minutes`` by the time of a trial epoch. The other variants train the lesion stage
anew, for the same number of epochs without one of its tricks, and share coarse and kidney network with ``full``. What
is finished in DIR is not done again. DIR/learning.md is the table, DIR/learning.png shows the curves, and
DIR/<variant>/weights/<stage>/metrics.jsonl is the log.
"""

import argparse
import json
import platform
import shutil
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

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
SHARES: dict[Stage, float] = {"coarse": 0.15, "kidney": 0.25, "lesion": 0.6}
"""Of the minutes, for each stage."""

VARIANTS: dict[str, dict[str, float]] = {
    "full": {},
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


def configure(changes: dict[str, float], epochs: dict[str, int]) -> Config:
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


def epochs_that_fit(cache: Path, work: Path, minutes: float) -> dict[str, int]:
    """Epochs of each stage within its share, from the time of a trial epoch; noted, so that all variants keep them."""
    note = work / "epochs.json"
    if not note.exists():
        found, config = {}, configure({}, dict.fromkeys(STAGES, 3))
        for stage in STAGES:
            shutil.rmtree(work / "trial" / stage, ignore_errors=True)
            trial = run_training(Request(stage, cache, work / "trial", config))
            found[stage] = max(2, int(60 * minutes * SHARES[stage] / trial["history"][-1]["seconds"]))
        write_json(found, note)
    return {str(k): int(v) for k, v in json.loads(note.read_text()).items()}


def run_variant(name: str, cache: Path, test: list[KitsCase], work: Path, epochs: dict[str, int]) -> dict[str, float]:
    """Trains and scores one variant; returns its row."""
    out, stages = _weights(work, name), STAGES if name == "full" else STAGES[-1:]
    done = out.parent / "result.json"
    if done.exists():
        return json.loads(done.read_text())
    config, seconds, runtime = configure(VARIANTS[name], epochs), 0.0, choose()
    for stage in stages:
        resume = (out / stage / "last.safetensors").exists()
        hooks = Hooks(on_step=lambda step, steps, loss, s=stage: _tell(name, s, step, steps, loss))
        result = run_training(Request(stage, cache, out, config, resume=resume), hooks)
        seconds += sum(epoch["seconds"] for epoch in result["history"])
    shared = open_weights(_weights(work, "full"))
    models = Models(**{stage: [runtime.place(shared.network(stage))] for stage in STAGES[:-1]})
    score = make_validator("lesion", test, config, runtime, models)
    row = score(runtime.place(open_weights(out).network("lesion")))
    row |= {"minutes": seconds / 60} | {f"epochs_{s}": epochs[s] for s in stages}
    write_json(row, done)
    return row


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
    parser.add_argument("--minutes", type=float, default=12)
    a = parser.parse_args()
    train_maps, test_maps = link_maps(a.labels, a.work / "maps")
    write_cohort(a.work / "train", TRAIN, SEED, train_maps)
    write_cohort(a.work / "test", TEST, SEED + 1, test_maps)
    cache = a.work / "cache"
    prepare_once(a.work / "train", cache)
    test = list_cases(a.work / "test")
    epochs = epochs_that_fit(cache, a.work, a.minutes)
    columns = [f"{kind}_{hec.name}" for kind in ("dice", "sd") for hec in HECS] + ["box_coverage", "minutes"]
    lines = ["| variant | " + " | ".join(columns) + " | epochs |", "|---|" + "---|" * (len(columns) + 1)]
    for name in a.variants:
        row = run_variant(name, cache, test, a.work, epochs)
        counts = " / ".join(str(row.get(f"epochs_{s}", "shared")) for s in STAGES)
        lines.append(f"| {name} | " + " | ".join(f"{row[c]:.3f}" for c in columns) + f" | {counts} |")
    machine = f"{platform.machine()}, {choose().device}, {choose().precision}"
    text = f"{TRAIN} training and {TEST} test phantoms from label maps, {machine}\n\n" + "\n".join(lines) + "\n"
    write_text(text, a.work / "learning.md")
    draw(a.work, a.variants)
    print(text)


if __name__ == "__main__":
    main()
