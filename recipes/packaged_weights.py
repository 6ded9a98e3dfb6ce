"""Makes the weights that ship with renalseg: renders CT phantoms, resamples them, trains the three networks.

    python recipes/packaged_weights.py render --labels KITS23_LABELS --out RUN
    python recipes/packaged_weights.py train coarse --out RUN
    python recipes/packaged_weights.py train kidney --out RUN
    python recipes/packaged_weights.py train lesion --out RUN

RUN is then a weights folder. The kidneys, tumors and cysts of part of the phantoms have the shapes of KiTS23 label
maps; those of fold 0, drawn over the maps given, are never used, so they stay unseen. Only the small arrays that
training reads are kept, not the CT. Everything goes on where it was interrupted.
"""

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from renalseg.config import STAGES, Config, Stage, load_config
from renalseg.io.files import write_json
from renalseg.io.kits import fold_split, list_cases, read_labels
from renalseg.model.runtime import choose
from renalseg.phantom.case import render_case
from renalseg.train.cache import GRIDS, GridName, Prepared, cached, grid_of
from renalseg.train.loop import Run, train
from renalseg.train.prepare import coarse_arrays, fine_arrays

SEED = 20261124
DRAWN, COARSE_ONLY = 130, 300
NO_KIDNEYS = 0.08
CONFIG = Path(__file__).parents[1] / "src" / "renalseg" / "weights" / "default" / "config.yaml"


@dataclass(frozen=True)
class Job:
    """One phantom: its name, its seed, the label map if its kidneys are given, and what it is for."""

    name: str
    seed: tuple[int, int]
    labels: Path | None
    grids: tuple[GridName, ...]


def jobs(labels: Path) -> list[Job]:
    """All phantoms: drawn ones, one for each label map outside fold 0, and small drawn ones for the coarse stage."""
    maps = {c.case_id: c.segmentation for c in list_cases(labels)}
    train_ids, _ = fold_split(list(maps), 0)
    given = [Job(f"kits_{i}", (SEED, 10_000 + n), maps[i], GRIDS) for n, i in enumerate(train_ids)]
    drawn = [Job(f"drawn_{n:03d}", (SEED, n), None, GRIDS) for n in range(DRAWN)]
    small = [Job(f"small_{n:03d}", (SEED, 20_000 + n), None, ("coarse",)) for n in range(COARSE_ONLY)]
    order = np.random.default_rng(SEED).permutation(len(given) + len(drawn))
    return [(given + drawn)[i] for i in order] + small


def render(job: Job, cache: Path, config: Config) -> str:
    """Renders one phantom and keeps its arrays; a finished one is not done again."""
    todo = {grid: prepared for grid in job.grids if not (prepared := cached(cache, grid, job.name)).exists()}
    if not todo:
        return job.name
    torch.set_num_threads(1)
    make: Callable[..., tuple] = partial(render_case, job.seed)
    if job.labels is not None:
        ct, truth, _ = make(labels=read_labels(job.labels))
    else:
        kidneys = "none" if np.random.default_rng([*job.seed, 1]).random() < NO_KIDNEYS else "both"
        small = {"in_plane": 192, "max_slices": 90} if job.grids == ("coarse",) else {}
        ct, truth, _ = make(kidneys=kidneys, **small)
    ct = replace(ct, name=job.name)  # the jitter of the training box is drawn from the name
    for grid, prepared in todo.items():
        arrays = coarse_arrays if grid == "coarse" else fine_arrays
        prepared.write(*arrays(ct, truth, config))
    return job.name


def render_all(labels: Path, out: Path, config: Config, workers: int) -> None:
    """Renders the training cohort."""
    todo = jobs(labels)
    with ProcessPoolExecutor(workers) as pool:
        for count, name in enumerate(pool.map(partial(render, cache=out / "cache", config=config), todo), 1):
            print(f"{count}/{len(todo)} {name}", flush=True)


def train_stage(stage: Stage, out: Path, config: Config, resume: bool) -> None:
    """Trains one stage on all that was rendered for it."""
    names = sorted(p.name.removesuffix("-image.npy") for p in (out / "cache" / grid_of(stage)).glob("*-image.npy"))
    cases: list[Prepared] = [cached(out / "cache", grid_of(stage), name) for name in names]
    kinds = {k: sum(n.startswith(k) for n in names) for k in ("kits", "drawn", "small")}
    given = f"{kinds['kits']} from KiTS23 label maps (fold 0 of 122 held out)"
    data = f"{len(names)} rendered CT phantoms: {given}, {kinds['drawn'] + kinds['small']} drawn"
    started, last = time.time(), [0.0]

    def on_step(step: int, steps: int, loss: float) -> None:
        last[0] = 0.98 * last[0] + 0.02 * loss if step > 1 else loss
        if step % 25 == 0:
            print(f"{stage} {step}/{steps} loss {last[0]:.4f} {time.time() - started:.0f} s", flush=True)

    trained_on = {"data": data, "seed": config.training[stage].seed}
    result = train(Run(stage, config, cases, out, choose("auto"), trained_on, resume=resume, on_step=on_step))
    write_json({k: v for k, v in result.items() if k != "history"}, out / stage / "result.json")
    print(json.dumps(result["history"][-1]))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    rendering = commands.add_parser("render")
    rendering.add_argument("--labels", type=Path, required=True)
    rendering.add_argument("--workers", type=int, default=2)
    training = commands.add_parser("train")
    training.add_argument("stage", choices=STAGES)
    training.add_argument("--resume", action="store_true")
    for command in (rendering, training):
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--config", type=Path, default=CONFIG)
    a = parser.parse_args()
    config = load_config(a.config)
    if a.command == "render":
        render_all(a.labels, a.out, config, a.workers)
    else:
        train_stage(a.stage, a.out, config, a.resume)


if __name__ == "__main__":
    main()
