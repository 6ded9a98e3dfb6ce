"""Makes the weights that ship with renalseg: renders CT phantoms, resamples them, trains the three networks.

    python recipes/packaged_weights.py render --labels KITS23_LABELS --bodies REAL_BODIES --out RUN
    python recipes/packaged_weights.py train coarse --out RUN
    python recipes/packaged_weights.py train kidney --out RUN
    python recipes/packaged_weights.py train lesion --out RUN

RUN is then a weights folder. The same command again goes on where it was interrupted. Training on two CPU cores is
fastest with a process each: ``OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2`` in place of ``python``.
``--initial FOLDER`` begins with the weights of the stage in another weights folder.

Most kidneys, tumors and cysts have the shapes of KiTS23 label maps, deformed at random and cut along z to another range
and slice spacing; the maps of fold 0, drawn over those given, are never used and stay unseen. Bodies are painted or,
from REAL_BODIES (see ``renalseg phantom --help``), real CT with its kidneys taken out. Only the small arrays that
training reads are kept, not the CT.
"""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from renalseg.config import STAGES, Config, Stage, load_config
from renalseg.core.volume import Volume
from renalseg.image.boxes import bounding_box
from renalseg.io.files import write_json
from renalseg.io.kits import fold_split, list_cases, read_labels
from renalseg.model.checkpoint import open_weights
from renalseg.model.runtime import choose
from renalseg.phantom.bodies import list_bodies
from renalseg.phantom.case import render_case
from renalseg.train.cache import GRIDS, GridName, Prepared, cached, grid_of
from renalseg.train.loop import Run, train
from renalseg.train.parallel import join
from renalseg.train.prepare import coarse_arrays, fine_arrays
from renalseg.train.run import without_head

SEED = 20261125
VERSIONS, DRAWN, NONE, COARSE_ONLY = 3, 60, 80, 150
NO_KIDNEYS, REAL_BODY, WHOLE = 0.12, 0.55, 0.3
SPACINGS_MM = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
CONFIG = Path(__file__).parents[1] / "src" / "renalseg" / "weights" / "default" / "config.yaml"


@dataclass(frozen=True)
class Job:
    """One phantom: its name, its seed, the label map if its kidneys are given, and what it is for."""

    name: str
    seed: tuple[int, int]
    labels: Path | None
    grids: tuple[GridName, ...]


def jobs(labels: Path) -> list[Job]:
    """All phantoms: several of each label map outside fold 0, drawn ones, scans without kidneys, and small ones.

    In an order that has some of everything first, so that rendering can be stopped early.
    """
    maps = {c.case_id: c.segmentation for c in list_cases(labels)}
    train_ids, _ = fold_split(list(maps), 0)
    given = [
        Job(f"kits_{i}_{v}", (SEED, 100_000 * (v + 1) + n), maps[i], GRIDS)
        for v in range(VERSIONS)
        for n, i in enumerate(train_ids)
    ]
    drawn = [Job(f"drawn_{n:03d}", (SEED, n), None, GRIDS) for n in range(DRAWN)]
    none = [Job(f"none_{n:03d}", (SEED, 30_000 + n), None, GRIDS) for n in range(NONE)]
    small = [Job(f"small_{n:03d}", (SEED, 20_000 + n), None, ("coarse",)) for n in range(COARSE_ONLY)]
    everything = given + drawn + none + small
    places = [k / len(group) for group in (given, drawn, none, small) for k in range(len(group))]
    return [everything[i] for i in np.argsort(places, kind="stable")]


def another_range(rng: np.random.Generator, labels: Volume) -> Volume:
    """A label map in thicker slices, cut along z to a random range round the kidneys, or the map as it is."""
    step, box = _step(rng, labels.spacing_mm[0]), bounding_box(labels.array > 0)
    first, last = 0, labels.shape[0]
    if box is not None and rng.uniform() > WHOLE:
        above, below = (float(rng.uniform(0, 180)) / labels.spacing_mm[0] for _ in range(2))
        first, last = max(int(box.start[0] - above), 0), min(int(box.stop[0] + below) + 1, last)
    z, y, x = labels.spacing_mm
    return Volume.from_array(np.ascontiguousarray(labels.array[first:last:step]), (z * step, y, x), labels.name)


def _step(rng: np.random.Generator, spacing_mm: float) -> int:
    """Every how many-th slice is kept."""
    wanted = float(rng.choice(SPACINGS_MM))
    return max(1, round(wanted / spacing_mm))


def render(job: Job, cache: Path, bodies: Sequence[Path], config: Config) -> str:
    """Renders one phantom and keeps its arrays; a finished one is not done again."""
    todo = {grid: prepared for grid in job.grids if not (prepared := cached(cache, grid, job.name)).exists()}
    if not todo:
        return job.name
    torch.set_num_threads(1)
    rng = np.random.default_rng([*job.seed, 1])
    into = list(bodies) if rng.uniform() < REAL_BODY else []
    if job.labels is not None:
        ct, truth, _ = render_case(job.seed, another_range(rng, read_labels(job.labels)), bodies=into, deform=True)
    else:
        kidneys = "none" if job.name.startswith("none") or rng.uniform() < NO_KIDNEYS else "both"
        small: dict[str, int] = {"in_plane": 192, "max_slices": 90} if job.grids == ("coarse",) else {"max_slices": 250}
        ct, truth, _ = render_case(job.seed, kidneys=kidneys, bodies=into, **small)
    ct = replace(ct, name=job.name)  # the jitter of the training box is drawn from the name
    for grid, prepared in todo.items():
        arrays = coarse_arrays if grid == "coarse" else fine_arrays
        prepared.write(*arrays(ct, truth, config))
    return job.name


def render_all(labels: Path, bodies: Path | None, out: Path, config: Config, workers: int) -> None:
    """Renders the training cohort."""
    todo, folders = jobs(labels), list_bodies(bodies) if bodies else []
    make = partial(render, cache=out / "cache", bodies=folders, config=config)
    with ProcessPoolExecutor(workers) as pool:
        for count, name in enumerate(pool.map(make, todo), 1):
            print(f"{count}/{len(todo)} {name}", flush=True)


def train_stage(stage: Stage, out: Path, config: Config, initial: Path | None) -> None:
    """Trains one stage on all that was rendered for it, or goes on; the processes of torchrun share the work."""
    names = sorted(p.name.removesuffix("-image.npy") for p in (out / "cache" / grid_of(stage)).glob("*-image.npy"))
    cases: list[Prepared] = [cached(out / "cache", grid_of(stage), name) for name in names]
    kinds = {k: sum(n.startswith(k) for n in names) for k in ("kits", "drawn", "none", "small")}
    given = f"{kinds['kits']} from KiTS23 label maps (fold 0 held out)"
    others = f"{kinds['drawn'] + kinds['small']} drawn, {kinds['none']} without kidneys"
    data = f"{len(names)} rendered CT phantoms: {given}, {others}"
    trained_on = {"data": data, "seed": config.training[stage].seed}
    before = None
    if initial is not None or config.training[stage].start_from == "kidney":
        weights, of = open_weights(initial or out), stage if initial else "kidney"
        trained_on["start_from"] = f"{of} {weights.hashes[of][:16]}"
        before = weights.network(of).state_dict() if initial else without_head(weights.network(of))
    started = time.time()

    def on_epoch(history: list[dict[str, Any]]) -> None:
        last, epochs = history[-1], config.training[stage].epochs
        print(f"{stage} {last['epoch']}/{epochs} loss {last['loss']:.4f} {time.time() - started:.0f} s", flush=True)

    with join("auto") as (world, device):
        resume = (out / stage / "last.safetensors").exists()
        world.wait()
        settings = {"world": world, "initial": before, "on_epoch": on_epoch}
        result = train(Run(stage, config, cases, out, choose(device), trained_on, resume, **settings))
        if world.first:
            write_json({k: v for k, v in result.items() if k != "history"}, out / stage / "result.json")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    rendering = commands.add_parser("render")
    rendering.add_argument("--labels", type=Path, required=True)
    rendering.add_argument("--bodies", type=Path)
    rendering.add_argument("--workers", type=int, default=2)
    training = commands.add_parser("train")
    training.add_argument("stage", choices=STAGES)
    training.add_argument("--initial", type=Path)
    for command in (rendering, training):
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--config", type=Path, default=CONFIG)
    a = parser.parse_args()
    config = load_config(a.config)
    if a.command == "render":
        render_all(a.labels, a.bodies, a.out, config, a.workers)
    else:
        train_stage(a.stage, a.out, config, a.initial)


if __name__ == "__main__":
    main()
