"""What the machine can do, what the networks ask of it, and which machine it is."""

import platform
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from renalseg import __version__
from renalseg.config import Config, Stage
from renalseg.model.resunet import build
from renalseg.model.runtime import PRECISIONS, Runtime
from renalseg.predict.segmenter import Segmenter


def matrix_rate(runtime: Runtime) -> float:
    """Rate of matrix products on the device in the precision, TFLOP/s: the best of several sizes and repeats.

    They are multiplied as such and as a convolution of 1 x 1, since PyTorch has other libraries for these, and on some
    processors the one for matrices is far from the limit.
    """
    sizes = (4096, 8192) if runtime.device.type == "cuda" else (1024, 2048, 3072)
    return max(_product_rate(size, as_convolution, runtime) for size in sizes for as_convolution in (False, True))


@torch.inference_mode()
def _product_rate(size: int, as_convolution: bool, runtime: Runtime) -> float:
    """Best rate of products of two matrices of ``size`` squared, TFLOP/s."""
    a, b = (torch.randn(size, size, device=runtime.device, dtype=PRECISIONS[runtime.precision]) for _ in range(2))
    image, kernel = a.view(1, size, size // 32, 32), b.view(size, size, 1, 1)
    best = 0.0
    for _ in range(5):
        runtime.synchronise()
        started = time.perf_counter()
        torch.nn.functional.conv2d(image, kernel) if as_convolution else a @ b
        runtime.synchronise()
        best = max(best, 2 * size**3 / (time.perf_counter() - started) / 1e12)
    return best


def network_tflop(config: Config, stage: Stage, shapes: list[tuple[int, ...]]) -> float:
    """TFLOP of forward passes of the network of ``stage`` over inputs of ``shapes``, counted, not computed."""
    network, total = build(config.network(stage)).to("meta").eval(), 0.0
    for shape in set(shapes):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.empty(shape, device="meta"))
        total += shapes.count(shape) * counter.get_total_flops() / 1e12
    return total


def describe_machine(segmenter: Segmenter) -> dict[str, Any]:
    """What a figure depends on: device, threads, precision, preset, weights and versions."""
    device, runtime = segmenter.runtime.device, segmenter.runtime
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "processor": _processor(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "precision": runtime.precision,
        "preset": segmenter.config.name,
        "mirror_z": segmenter.tta and segmenter.config.fine.mirror_z,
        "weights": ", ".join(w.path.name for w in segmenter.weights),
        "renalseg": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    """The processor's name as Linux tells it, else what Python knows."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
