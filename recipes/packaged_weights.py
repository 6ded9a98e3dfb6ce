"""Renders the CT phantoms that the weights of renalseg are trained on, as a cache for ``renalseg train``.

    python recipes/packaged_weights.py --labels KITS23_LABELS --bodies REAL_BODIES --out CACHE
    renalseg train coarse --data CACHE --out WEIGHTS --config CONFIG
    renalseg train kidney --data CACHE --out WEIGHTS --config CONFIG
    renalseg train lesion --data CACHE --out WEIGHTS --config CONFIG

The packaged weights were made in two rounds, and these commands make the like of them, not their very bytes: the first
round stopped early (``--first``) and gave the fine stages no scan without kidneys; then the kidney network alone went
on (``--initial``) on a cohort that was rendered anew, and the mean of its weights before and after was packaged. The
model card has the numbers. REAL_BODIES of the second round were made by ``real_bodies.py``.

CONFIG is that of the packaged weights, or the one that was given to the first command. What is rendered already is not
done again. Training on two CPU cores is fastest with a process each: ``OMP_NUM_THREADS=1 torchrun --standalone
--nproc-per-node 2 -m renalseg train ...``.

Most kidneys, tumors and cysts have the shapes of KiTS23 label maps, deformed at random and cut along z to another range
and slice spacing; the maps of fold 0, drawn over those given, are never used and stay unseen. Bodies are painted or,
from REAL_BODIES (see ``renalseg phantom --help``), real CT with its kidneys taken out. Only the small arrays that
training reads are kept, not the CT.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from renalseg.config import Config, load_config
from renalseg.core.processes import spread
from renalseg.core.volume import Volume
from renalseg.image.boxes import bounding_box
from renalseg.io.kits import fold_split, list_cases, read_labels
from renalseg.phantom.bodies import list_bodies
from renalseg.phantom.case import render_case
from renalseg.train.cache import GRIDS, GridName, Prepared, cached, settings_key
from renalseg.train.index import write_index
from renalseg.train.prepare import coarse_arrays, fine_arrays

SEED = 20261125
VERSIONS, DRAWN, NONE, COARSE_ONLY = 3, 60, 80, 150
NO_KIDNEYS, REAL_BODY, WHOLE = 0.12, 0.55, 0.3
CUT, CUT_PART = 0.07, (0.1, 0.6)
"""The share of ranges that begin or end within the kidneys, and how much of their height is then missing."""
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

    In an order that has some of everything first, so that rendering can be stopped early: what is there is noted.
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
    """A label map in thicker slices, cut along z to a random range that has the kidneys, or most of them, or all."""
    step, box = _step(rng, labels.spacing_mm[0]), bounding_box(labels.array > 0)
    first, last = 0, labels.shape[0]
    if box is not None and rng.uniform() > WHOLE:
        beyond = rng.uniform(0, 180, 2) / labels.spacing_mm[0]
        if rng.uniform() < CUT:
            beyond[int(rng.integers(2))] = -float(rng.uniform(*CUT_PART)) * box.shape[0]
        above, below = beyond
        first, last = max(int(box.start[0] - above), 0), min(int(box.stop[0] + below) + 1, last)
    z, y, x = labels.spacing_mm
    return Volume.from_array(np.ascontiguousarray(labels.array[first:last:step]), (z * step, y, x), labels.name)


def _step(rng: np.random.Generator, spacing_mm: float) -> int:
    """Every how many-th slice is kept."""
    wanted = float(rng.choice(SPACINGS_MM))
    return max(1, round(wanted / spacing_mm))


def render(job: Job, cache: Path, bodies: Sequence[Path], config: Config) -> str:
    """Renders one phantom and keeps its arrays; a finished one is not done again."""
    todo = {grid: prepared for grid in job.grids if not (prepared := _prepared(cache, grid, job, config)).exists()}
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


def _prepared(cache: Path, grid: GridName, job: Job, config: Config) -> Prepared:
    return cached(cache, grid, job.name, settings_key(grid, config))


def render_all(labels: Path, bodies: Path | None, cache: Path, config: Config, first: int | None, workers: int) -> None:
    """Renders the training cohort, or the ``first`` phantoms of it, and notes all that are there."""
    everything, folders = jobs(labels), list_bodies(bodies) if bodies else []
    todo = everything[:first]
    make = partial(render, cache=cache, bodies=folders, config=config)
    try:
        for count, name in enumerate(spread(make, todo, workers), 1):
            print(f"{count}/{len(todo)} {name}", flush=True)
    finally:
        there = {
            grid: [_prepared(cache, grid, job, config) for job in everything if grid in job.grids] for grid in GRIDS
        }
        there = {grid: [one for one in found if one.exists()] for grid, found in there.items()}
        write_index(cache / "phantoms", cache, config, there, labelled=[job.name for job in everything])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--bodies", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--first", type=int, help="render only so many")
    parser.add_argument("--workers", type=int, default=2)
    a = parser.parse_args()
    render_all(a.labels, a.bodies, a.out, load_config(a.config), a.first, a.workers)


if __name__ == "__main__":
    main()
