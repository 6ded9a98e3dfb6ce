"""The kidney network under OpenVINO, beside ours slab by slab and the training code's: seconds, memory, agreement.

    python -m pip install openvino==2026.4.1 --target DIR    # beside the environment, not into it
    PYTHONPATH=DIR python benchmarks/openvino_peer.py [--preset paper] [--slices 48] [--repeats 5] [--bf16]

All run by turns on one window of noise, with random weights, on all cores; medians. OpenVINO is held to fp32 (of itself
it takes bf16 where the CPU multiplies in it); ``--bf16`` lets it and ours have bf16. Each runs in a process of its own,
which tells its peak memory. Agreement is the share of voxels with the label of the training code's network in fp32.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
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

ROUTES = ("training code, fp32", "renalseg, slab by slab", "OpenVINO")
Window = NDArray[np.float32]


def runner(route: str, name: str, window: Window, bf16: bool) -> Callable[[], Window]:
    """What runs the window once and gives the logits."""
    network, image = build(preset(name).fine.kidney).eval(), torch.from_numpy(window)
    if route == "OpenVINO":
        import openvino

        exported = torch.export.export(network, (image,))
        options = {"INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32", "PERFORMANCE_HINT": "LATENCY"}
        compiled = openvino.compile_model(openvino.convert_model(exported), "CPU", options)
        return lambda: np.asarray(compiled([window])[0])
    if route == "renalseg, slab by slab":
        network = lean(network, torch.bfloat16 if bf16 else torch.float32)
    return lambda: network(image).float().numpy()


def serve(pipe: Connection, route: str, name: str, window: Window, bf16: bool) -> None:
    """In a process of its own: sends seconds and logits each time it is asked; peak MB when it is told to end."""
    use_real_cores()
    with torch.inference_mode():
        run = runner(route, name, window, bf16)
        run()
        pipe.send(None)
        while pipe.recv():
            started = time.perf_counter()
            logits = run()
            pipe.send((time.perf_counter() - started, logits.argmax(1).astype(np.uint8)))
    pipe.send(peak_host_mb())


def measure(name: str, slices: int, repeats: int, bf16: bool) -> list[tuple[str, float, float, float]]:
    """Route, median seconds, peak MB and agreement of each, which take turns."""
    window = np.random.default_rng(0).normal(0, 0.3, (1, 1, slices, *preset(name).fine.in_plane)).astype(np.float32)
    spawn, pipes, processes = multiprocessing.get_context("spawn"), [], []
    for route in ROUTES:
        ours, theirs = spawn.Pipe()
        processes.append(spawn.Process(target=serve, args=(theirs, route, name, window, bf16)))
        processes[-1].start()
        ours.recv()
        pipes.append(ours)
    seconds: list[list[float]] = [[] for _ in ROUTES]
    labels: list[Any] = [None] * len(ROUTES)
    for _ in range(repeats):
        for i, pipe in enumerate(pipes):
            pipe.send(True)
            took, labels[i] = pipe.recv()
            seconds[i].append(took)
    rows = []
    for i, (route, pipe) in enumerate(zip(ROUTES, pipes, strict=True)):
        pipe.send(False)
        rows.append((route, median(seconds[i]), float(pipe.recv()), float(np.mean(labels[i] == labels[0]))))
        processes[i].join()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--slices", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bf16", action="store_true")
    a = parser.parse_args()
    rows = measure(a.preset, a.slices, a.repeats, a.bf16)
    ours = rows[1][1]
    print("| route | s a window | times ours | peak memory, MB | same label |\n|---|---|---|---|---|")
    for route, seconds, megabytes, same in rows:
        print(f"| {route} | {seconds:.2f} | {seconds / ours:.2f} | {megabytes:.0f} | {100 * same:.4f} % |")


if __name__ == "__main__":
    main()
