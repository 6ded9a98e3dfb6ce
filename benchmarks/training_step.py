"""What a training step costs: seconds and their shares, memory, share of the machine's matrix rate, whole schedule.

    python benchmarks/training_step.py [--preset light] [--stages coarse kidney lesion] [--steps N] [--workers 1]
                                       [--device auto] [--precision auto] [--cases 391] [--compile]

Runs the real loop on made-up arrays whose depths follow the slices of KiTS23's regions, and projects the paper's
schedule for ``--cases`` training cases: its steps (mining leaves a share of the cases out of each epoch), without
checkpoints and without validation (``--validation-cases 0`` of ``train`` and ``crossval``). One row a stage, as
Markdown, and the sum of the schedules. The first step warms up, and the loader makes two batches a process ahead
while it does: so many steps are dropped, and at least twice as many are measured.

The shares of a step are: waiting for the loader; making samples (copying, augmenting and mixing them; on a CPU the
loader does this, so it is in the waiting, or beside the training); and the network, forward, backward and optimiser.
The device is waited for at each border. On a GPU the loop runs a second time under torch's profiler, which tells for
how much of it any kernel or copy was running: "GPU busy", with the profiler's own time as idle, so a lower bound.
Host memory is the most of this process and its loaders together; what they share counts in each.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import torch

from renalseg.benchmark import matrix_rate, network_tflop
from renalseg.config import STAGES, Config, Stage, preset
from renalseg.model.runtime import Runtime, choose, peak_host_mb, reset_host_peak
from renalseg.train.cache import Prepared
from renalseg.train.dataset import Sample
from renalseg.train.loop import Run, train

PERCENTILES, SLICES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1), (20, 22, 27, 37, 64, 241, 335)
"""Slices of the box of kidneys and masses in KiTS23 (METHOD, section 1); the margin adds 40 mm, about 13 slices."""
MARGIN_SLICES = 13
AHEAD = 2
"""Batches that each loading process makes ahead (PyTorch's default)."""


def made_up(folder: Path, stage: str, config: Config, cases: int) -> list[Prepared]:
    """Prepared arrays with noise for an image and an ellipsoid kidney, tumor and cyst."""
    generator, made = np.random.default_rng(0), []
    for i in range(cases):
        shape = config.coarse.shape
        if stage != "coarse":
            depth = int(np.interp(generator.uniform(), PERCENTILES, SLICES)) + MARGIN_SLICES
            shape = (depth, *config.fine.in_plane)
        z, y, x = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij")
        labels = (z**2 + y**2 + x**2 < 0.6).astype(np.uint8)
        labels[(z - 0.2) ** 2 + y**2 + x**2 < 0.1] = 2
        labels[(z + 0.3) ** 2 + y**2 + x**2 < 0.05] = 3
        prepared = Prepared(f"case_{i:05d}", folder / f"{stage}-{i}-image.npy", folder / f"{stage}-{i}-labels.npy")
        prepared.write(generator.uniform(-1, 1, shape).astype(np.float16), labels)
        made.append(prepared)
    return made


def step_tflop(config: Config, stage: Stage, depths: list[int]) -> float:
    """Arithmetic of a step over patches of ``depths`` slices: forward, and twice that backward."""
    patches = [(1, 1, depth, *config.training[stage].patch[1:]) for depth in depths]
    return 3 * network_tflop(config, stage, patches)


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of spans (start, end)."""
    length, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        length += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return length


def busy_share(
    stage: Stage, config: Config, runtime: Runtime, a: argparse.Namespace, cases: list[Prepared], out: Path
) -> float | None:
    """The share of the measured steps in which a kernel or a copy runs on the GPU; None without one."""
    if runtime.device.type != "cuda":
        return None
    profiler, times = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]), list[float]()

    def on_step(step: int, *_: object) -> None:
        if step == warming_up(a.workers):
            _now(runtime)
            profiler.start()
            times.append(time.perf_counter())
        elif step == a.steps + warming_up(a.workers):
            times.append(_now(runtime))
            profiler.stop()

    train(Run(stage, config, cases, out, runtime, {}, workers=a.workers, on_step=on_step))
    on_gpu = (e.time_range for e in profiler.events() if e.device_type == torch.autograd.DeviceType.CUDA)
    return covered((span.start, span.end) for span in on_gpu) / 1e6 / (times[1] - times[0])


def warming_up(workers: int) -> int:
    """The steps that are dropped: the first, and those whose batches were made meanwhile."""
    return 1 + AHEAD * workers


def host_mb() -> float:
    """Peak memory of this process, and what its loaders hold now, in MB (1e6 bytes)."""
    loaders = 0.0
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            loaders += child.memory_info().rss / 1e6
    return peak_host_mb() + loaders


def one_epoch(stage: Stage, config: Config, compiled: bool) -> Config:
    """``config`` whose ``stage`` sees each case once."""
    settings = config.training[stage].model_copy(update={"epochs": 1, "hard_cases": 0.0, "compile": compiled})
    return config.model_copy(update={"training": config.training | {stage: settings}})


def measure(
    stage: Stage, config: Config, runtime: Runtime, a: argparse.Namespace, folder: Path
) -> tuple[list[str], float]:
    """The cells of one row of the table, and the hours of the stage's whole schedule."""
    batch = config.training[stage].batch
    short = one_epoch(stage, config, a.compile)
    dropped = warming_up(a.workers)
    cases = made_up(folder, stage, config, batch * (a.steps + dropped))
    borders, depths, waits, memory = list[tuple[float, float]](), list[list[int]](), list[float](), list[float]()

    def on_samples(samples: list[Sample], wait_s: float) -> None:
        depths.append([sample.image.shape[1] for sample in samples])
        waits.append(wait_s)
        borders.append((_now(runtime), 0.0))

    def on_step(*_: object) -> None:
        borders[-1] = (borders[-1][0], _now(runtime))
        memory.append(host_mb())

    runtime.reset_device_peak()
    reset_host_peak()
    out = folder / f"run-{stage}"
    run = Run(stage, short, cases, out, runtime, {}, workers=a.workers, on_step=on_step, on_samples=on_samples)
    train(run)
    whole = borders[-1][1] - borders[dropped - 1][1]
    seconds, network = whole / a.steps, sum(end - made for made, end in borders[dropped:]) / whole
    waiting = sum(waits[dropped:]) / whole
    rate = step_tflop(config, stage, [depth for step in depths[dropped:] for depth in step]) / whole
    shares = [f"{100 * share:.2f}" for share in (waiting, 1.0 - network - waiting, network)]
    kept = a.cases - int(config.training[stage].hard_cases * a.cases)
    epochs, steps = config.training[stage].epochs, -(-kept // batch)
    hours = epochs * steps * seconds / 3600
    peak = runtime.peak_device_mb()
    on_device = "-" if peak is None else f"{peak:.0f}"
    busy = busy_share(stage, short, runtime, a, cases, folder / f"profiled-{stage}")
    on_gpu = "-" if busy is None else f"{100 * busy:.1f}"
    memories = [on_device, f"{max(memory):.0f}"]
    cells = [stage, f"{seconds:.2f}", *shares, on_gpu, f"{rate:.3f}", *memories, f"{epochs} x {steps}", f"{hours:.1f}"]
    return cells, hours


def _now(runtime: Runtime) -> float:
    runtime.synchronise()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="light")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--steps", type=int, help="to measure; by default 5, or four for each worker")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--cases", type=int, default=391)
    parser.add_argument("--compile", action="store_true")
    a = parser.parse_args()
    least = 2 * AHEAD * a.workers
    a.steps = max(5, least) if a.steps is None else a.steps
    if a.steps < least:
        parser.error(f"{a.workers} workers make {AHEAD * a.workers} batches ahead; measure at least {least} steps")
    runtime, config = choose(a.device, a.precision), preset(a.preset)
    card = torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else platform.machine()
    print(f"{card}, {torch.get_num_threads()} threads, {runtime.precision}, preset {a.preset}, ", end="")
    print(f"{a.workers} workers; matrix products reach {matrix_rate(runtime):.3f} TFLOP/s\n")
    print("| stage | s a step | waiting for data, % | making samples, % | network, % | GPU busy, % | TFLOP/s ", end="")
    print("| peak device MB | peak host MB | epochs x steps | whole schedule, h |")
    print("|---" * 11 + "|")
    total = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for stage in a.stages:
            cells, hours = measure(stage, config, runtime, a, Path(folder))
            total += hours
            print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\nThe schedules of {', '.join(a.stages)}: {total:.1f} h, without validation.")


if __name__ == "__main__":
    main()
