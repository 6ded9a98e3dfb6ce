"""The kidney network as torch.compile and OpenVINO run it, beside ours slab by slab and the training code's own.

    python -m pip install openvino==2026.4.1 --target DIR    # beside the environment, not into it
    PYTHONPATH=DIR python benchmarks/compilers.py [--preset paper] [--slices 48] [--repeats 5] [--bf16]

All run by turns on one window of noise, with random weights, on all cores; medians. OpenVINO is held to fp32 (of itself
it takes bf16 where the CPU multiplies in it); ``--bf16`` lets all but the training code's network have bf16.
``--without OpenVINO`` does without it; torch.compile needs a C++ compiler. Each runs in a process of its own, which
tells its peak memory and the seconds until its first window is done, building and compiling included. Agreement is the
share of voxels with the label of the training code's network in fp32.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from renalseg.config import preset
from renalseg.model.lean import lean
from renalseg.model.resunet import build
from renalseg.model.runtime import peak_host_mb, use_real_cores

REFERENCE, OURS, COMPILE, OPENVINO = "training code, fp32", "renalseg, slab by slab", "torch.compile", "OpenVINO"
Window = NDArray[np.float32]


def runner(route: str, name: str, window: Window, bf16: bool) -> Callable[[], Window]:
    """What runs the window once and gives the logits."""
    network, image = build(preset(name).fine.kidney).eval(), torch.from_numpy(window)
    if route == OPENVINO:
        import openvino

        exported = torch.export.export(network, (image,))
        options = {"INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32", "PERFORMANCE_HINT": "LATENCY"}
        compiled = openvino.compile_model(openvino.convert_model(exported), "CPU", options)
        return lambda: np.asarray(compiled([window])[0])
    if route == COMPILE:
        network.compile()
    elif route == OURS:
        network = lean(network, torch.bfloat16 if bf16 else torch.float32)

    def run() -> Window:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16 and route == COMPILE):
            return network(image).float().numpy()

    return run


def serve(pipe: Connection, route: str, name: str, window: Window, bf16: bool) -> None:
    """In a process of its own: sends the seconds until a first window is done, then seconds and labels each time it is
    asked; peak MB when it is told to end."""
    use_real_cores()
    with torch.inference_mode():
        started = time.perf_counter()
        run = runner(route, name, window, bf16)
        run()
        pipe.send(time.perf_counter() - started)
        while pipe.recv():
            started = time.perf_counter()
            logits = run()
            pipe.send((time.perf_counter() - started, logits.argmax(1).astype(np.uint8)))
    pipe.send(peak_host_mb())


@dataclass(frozen=True)
class Row:
    """What a route took; ``same`` is the share of voxels with the reference's label."""

    route: str
    first: float
    seconds: float
    megabytes: float
    same: float


def measure(routes: list[str], name: str, slices: int, repeats: int, bf16: bool) -> list[Row]:
    """A row for each route, which take turns; the first is the reference."""
    window = np.random.default_rng(0).normal(0, 0.3, (1, 1, slices, *preset(name).fine.in_plane)).astype(np.float32)
    spawn, pipes, processes, first = multiprocessing.get_context("spawn"), [], [], []
    for route in routes:
        ours, theirs = spawn.Pipe()
        processes.append(spawn.Process(target=serve, args=(theirs, route, name, window, bf16)))
        processes[-1].start()
        theirs.close()  # so that a process that fails ends the wait
        first.append(float(ours.recv()))
        pipes.append(ours)
    seconds: list[list[float]] = [[] for _ in routes]
    labels: list[Any] = [None] * len(routes)
    for _ in range(repeats):
        for i, pipe in enumerate(pipes):
            pipe.send(True)
            took, labels[i] = pipe.recv()
            seconds[i].append(took)
    rows = []
    for i, (route, pipe) in enumerate(zip(routes, pipes, strict=True)):
        pipe.send(False)
        same = float(np.mean(labels[i] == labels[0]))
        rows.append(Row(route, first[i], median(seconds[i]), float(pipe.recv()), same))
        processes[i].join()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--slices", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--without", nargs="+", choices=(COMPILE, OPENVINO), default=[])
    a = parser.parse_args()
    routes = [route for route in (REFERENCE, OURS, COMPILE, OPENVINO) if route not in a.without]
    rows = measure(routes, a.preset, a.slices, a.repeats, a.bf16)
    print("| route | s a window | times ours | peak memory, MB | s until the first window | same label |")
    print("|---" * 6 + "|")
    for row in rows:
        cells = [row.route, f"{row.seconds:.2f}", f"{row.seconds / rows[1].seconds:.2f}", f"{row.megabytes:.0f}"]
        print(f"| {' | '.join([*cells, f'{row.first:.2f}', f'{100 * row.same:.4f} %'])} |")


if __name__ == "__main__":
    main()
