"""Accuracy against cost of the presets' networks: trained on the same data, by the same recipe, in the same minutes.

    python benchmarks/presets.py --labels KITS23_LABELS --work DIR [--minutes 24] [--in-plane 64 96] [--tests 24]

Trains kidney and lesion network of each preset on the 24 phantoms of learning.py (DIR may be the same), all on regions
of ``--in-plane`` pixels in patches of 16 slices and by the recipe of ``tiny``, which learns most in little time: so
nothing but the networks differs. Each gets as many epochs as fit its share of ``--minutes`` by the time of its own
trial epochs. Test phantoms, from label maps of fold 0, go through both networks inside the true box, so that the coarse
stage has no part in it. The costs are of both networks over one window of 48 slices at the preset's own size, as users
run them on this machine. What is finished is not done again. The table is
DIR/presets-<y>x<x>-<minutes>-minutes/presets.md.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from learning import SEED, SHARES, TRAIN, machine, render, render_training, scheduled, train_stage

from renalseg.benchmark import network_tflop
from renalseg.config import Config, Stage, preset
from renalseg.core.labels import HECS
from renalseg.io.files import write_json, write_text
from renalseg.io.kits import KitsCase
from renalseg.model.checkpoint import open_weights
from renalseg.model.resunet import build
from renalseg.model.runtime import Runtime, choose_for_prediction
from renalseg.predict.pipeline import Models
from renalseg.train.validate import make_validator

STAGES: tuple[Stage, ...] = ("kidney", "lesion")
RECIPE = "tiny"
COLUMNS = [f"{kind}_{hec.name}" for kind in ("dice", "sd") for hec in HECS]
REPEATS = 5


def coarser(config: Config, in_plane: tuple[int, int]) -> Config:
    """``config`` with fine regions of ``in_plane`` pixels [y, x] instead of its own, all of them in a patch."""
    training = dict(config.training)
    for stage in ("kidney", "lesion"):
        patch = (config.training[stage].patch[0], *in_plane)
        training[stage] = config.training[stage].model_copy(update={"patch": patch})
    fine = config.fine.model_copy(update={"in_plane": in_plane})
    return config.model_copy(update={"fine": fine, "training": training})


def configure(name: str, in_plane: tuple[int, int]) -> Config:
    """The networks of a preset with regions, patches and recipe that are the same for all."""
    same = coarser(preset(RECIPE), in_plane)
    fine = same.fine.model_copy(update={stage: preset(name).network(stage) for stage in STAGES})
    return same.model_copy(update={"name": f"{name} on {in_plane[0]} x {in_plane[1]}", "fine": fine})


def train(config: Config, cache: Path, work: Path, minutes: float) -> dict[str, float]:
    """Trains what is not trained yet; epochs and minutes by stage."""
    lesion = minutes * SHARES["lesion"] / (SHARES["kidney"] + SHARES["lesion"])
    config = scheduled(config, cache, work, {"kidney": minutes - lesion, "lesion": lesion})
    seconds = {stage: sum(train_stage(stage, config, cache, work / "weights")) for stage in STAGES}
    return {**{f"epochs_{s}": config.training[s].epochs for s in STAGES}, "minutes": sum(seconds.values()) / 60}


def score(test: list[KitsCase], weights_folder: Path) -> dict[str, float]:
    """Scores of the test phantoms inside the true box."""
    weights, runtime = open_weights(weights_folder), choose_for_prediction()
    kidney = Models(kidney=[runtime.predictor(weights.network("kidney"))])
    return make_validator("lesion", test, weights.config, runtime, kidney)(weights.network("lesion"))


def cost(name: str, runtime: Runtime) -> dict[str, float]:
    """TFLOP and median seconds of both networks, with random weights, over one window of the preset's own size."""
    config, tflop, seconds = preset(name), 0.0, 0.0
    shape = (1, 1, config.fine.window, *config.fine.in_plane)
    image = torch.zeros(shape, device=runtime.device)
    for stage in STAGES:
        tflop += network_tflop(config, stage, [shape])
        network, times = runtime.predictor(build(config.network(stage)).eval()), list[float]()
        with torch.inference_mode(), runtime.autocast():
            for _ in range(REPEATS + 1):
                runtime.synchronise()
                started = time.perf_counter()
                network(image)
                runtime.synchronise()
                times.append(time.perf_counter() - started)
        seconds += float(np.median(times[1:]))
    return {"tflop": tflop, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=24, help="of training, for each preset")
    parser.add_argument("--in-plane", type=int, nargs=2, default=preset(RECIPE).fine.in_plane)
    parser.add_argument("--tests", type=int, default=24)
    parser.add_argument("--presets", nargs="+", default=["paper", "light", "fast"])
    a = parser.parse_args()
    size, rows = f"{a.in_plane[0]}x{a.in_plane[1]}", list[str]()
    out = a.work / f"presets-{size}-{a.minutes:g}-minutes"
    cache = render_training(a.labels, a.work, configure(a.presets[0], tuple(a.in_plane)))
    test = render(a.labels, a.work, f"test-{a.tests}", a.tests, SEED + 2)
    for name in a.presets:
        work = out / name
        result = work / f"result-{a.tests}.json"
        if not result.exists():
            trained = train(configure(name, tuple(a.in_plane)), cache, work, a.minutes)
            write_json(trained | score(test, work / "weights") | cost(name, choose_for_prediction()), result)
        row = json.loads(result.read_text())
        cells = [name, *(f"{row[column]:.3f}" for column in COLUMNS), f"{row['tflop']:.3f}", f"{row['seconds']:.2f}"]
        cells += [f"{row['epochs_kidney']} / {row['epochs_lesion']}", f"{row['minutes']:.1f}"]
        rows.append(f"| {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    head = ["networks of", *COLUMNS, "TFLOP a window", "s a window", "epochs", "minutes"]
    heading = f"{TRAIN} training and {a.tests} test phantoms, regions of {size}, {machine()}"
    lines = [heading, "", f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows]
    write_text("\n".join(lines) + "\n", out / "presets.md")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
