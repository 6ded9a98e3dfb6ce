"""What a case costs on this machine: seconds by step, memory, FLOPs, and the share of the machine's limit.

A CT of a chosen size is drawn, or one is given. On a drawn one the networks run whole, but a threshold answers in their
place, so that both kidneys are found whatever the weights are: the cascade takes the same way, at the same cost, with
weights that were never trained.
"""

import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from renalseg import __version__
from renalseg.batch import segment_file
from renalseg.config import STAGES, Config, Stage
from renalseg.core.volume import Volume
from renalseg.io.nifti import write_nifti
from renalseg.io.read import case_name
from renalseg.model.checkpoint import save_stage
from renalseg.model.resunet import build
from renalseg.model.runtime import PRECISIONS, Runtime
from renalseg.predict.pipeline import Models
from renalseg.predict.segmenter import Segmenter

CASES: dict[str, tuple[int, float]] = {"median": (104, 3.0), "thin": (635, 0.8), "largest": (1059, 0.5)}
"""Slices and their spacing in mm of KiTS23's median case, of a thin one, and of its largest; 512 x 512 each."""

IN_PLANE, PIXEL_MM = 512, 0.78
TISSUE_HU, KIDNEY_HU, NOISE_HU = 20, 180, 15
KIDNEY_FROM = 0.2
"""Normalised intensity from which a voxel of the drawn CT is kidney: 110 HU, half-way from tissue."""


@dataclass(frozen=True)
class Result:
    """The figures of one case; times are medians over the repeats.

    Attributes:
        case: name of the case.
        shape: voxels [z, y, x].
        spacing_mm: (z, y, x).
        box: size of the region of the fine stages, [z, y, x]; None where no kidney was found.
        seconds: by step, from reading to writing.
        host_by_step_mb: peak resident memory of the process in each step, the program and the weights included.
        wall_s: from file to files.
        network_s: of it inside the networks, by stage.
        tflop: by stage, all windows and mirrors; a multiplication and an addition count as two.
        matrix_tflops: the machine's measured rate of matrix products in the same precision, TFLOP/s.
        host_mb: the largest of these.
        device_mb: peak memory on the device as torch allocated it; None on a CPU.
        machine: what it ran on, and with which versions.
    """

    case: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    box: tuple[int, int, int] | None
    seconds: dict[str, float]
    host_by_step_mb: dict[str, float]
    wall_s: float
    network_s: dict[str, float]
    tflop: dict[str, float]
    matrix_tflops: float
    host_mb: float
    device_mb: float | None
    machine: dict[str, Any]

    @property
    def network_share(self) -> float:
        """Share of the wall time inside the networks."""
        return sum(self.network_s.values()) / self.wall_s

    @property
    def network_tflops(self) -> float:
        """Rate of the networks, TFLOP/s."""
        return sum(self.tflop.values()) / sum(self.network_s.values())

    @property
    def limit_share(self) -> float:
        """Share of the machine's rate of matrix products that the networks reach."""
        return self.network_tflops / self.matrix_tflops


@dataclass
class _Meter:
    """Seconds and input shapes of each network call since the last ``reset``, by stage."""

    runtime: Runtime
    seconds: dict[str, float] = field(default_factory=dict)
    shapes: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)

    def reset(self) -> None:
        self.seconds, self.shapes = dict.fromkeys(STAGES, 0.0), {stage: [] for stage in STAGES}


class _Metered(torch.nn.Module):
    """A network that is timed; where it is ``guided``, a threshold of its input gives the answer."""

    def __init__(self, network: torch.nn.Module, stage: Stage, meter: _Meter, guided: bool) -> None:
        super().__init__()
        self.network, self.stage, self.meter, self.guided = network, stage, meter, guided

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits [n, classes, z, y, x] of ``image`` [n, 1, z, y, x]."""
        self.meter.runtime.synchronise()
        started = time.perf_counter()
        logits: torch.Tensor = self.network(image)
        self.meter.runtime.synchronise()
        self.meter.seconds[self.stage] += time.perf_counter() - started
        self.meter.shapes[self.stage].append(tuple(image.shape))
        if not self.guided:
            return logits
        kidney = 8.0 * (image >= KIDNEY_FROM).float() - 4.0
        if self.stage == "lesion":  # everything is kidney
            return torch.cat((kidney, kidney.abs() - 10, kidney.abs() - 10), 1)
        return torch.cat((-kidney, kidney), 1)


def draw_ct(slices: int, spacing_mm: float) -> Volume:
    """A CT of ``slices`` x 512 x 512, int16: two enhanced kidneys of 110 mm in a body of soft tissue, with noise."""
    generator = np.random.default_rng(0)
    y, x = np.ogrid[-1 : 1 : IN_PLANE * 1j, -1 : 1 : IN_PLANE * 1j]
    noise = generator.normal(0, NOISE_HU, (IN_PLANE, IN_PLANE + 97)).astype(np.int16)
    inside = (y / 0.75) ** 2 + (x / 0.9) ** 2 < 1
    plain = np.where(inside, TISSUE_HU, -1000).astype(np.int16)
    array = np.empty((slices, IN_PLANE, IN_PLANE), np.int16)
    for z in range(slices):
        array[z] = plain + noise[:, z % 97 : z % 97 + IN_PLANE]
        height = ((z + 0.5 - slices / 2) * spacing_mm / 55) ** 2
        for side in (-0.35, 0.35):
            kidney = ((y - 0.2) / 0.16) ** 2 + ((x - side) / 0.14) ** 2 + height < 1
            array[z][kidney] += KIDNEY_HU - TISSUE_HU
    return Volume.from_array(array, (spacing_mm, PIXEL_MM, PIXEL_MM), f"{slices}_slices")


def untrained(config: Config, folder: Path) -> Path:
    """A weights folder of ``config`` with networks as they are before training, to measure with."""
    for stage in STAGES:
        save_stage(folder, config, stage, build(config.network(stage)), {"cases": 0})
    return folder


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


def measure_case(segmenter: Segmenter, source: Path | str, repeats: int = 3) -> Result:
    """Segments a case ``repeats`` times from file to files, after one run that does not count.

    Args:
        segmenter: weights, device and precision.
        source: a CT file, or a name from ``CASES`` for a drawn one.
        repeats: at least 1.

    Raises:
        InputError: the file cannot be read.
    """
    meter = _Meter(segmenter.runtime)
    kept = segmenter.models
    segmenter.models = Models(
        **{s: [_Metered(n, s, meter, isinstance(source, str)) for n in getattr(kept, s)] for s in STAGES}
    )
    try:
        with TemporaryDirectory() as folder:
            path = source if isinstance(source, Path) else _drawn(source, Path(folder))
            runs = [_run(segmenter, path, Path(folder) / "out", meter) for _ in range(repeats + 1)][1:]
    finally:
        segmenter.models = kept
    return _summary(segmenter, runs, meter)


def _drawn(case: str, folder: Path) -> Path:
    path = folder / f"{case}.nii.gz"
    write_nifti(draw_ct(*CASES[case]), path)
    return path


def _run(segmenter: Segmenter, path: Path, out: Path, meter: _Meter) -> dict[str, Any]:
    meter.reset()
    started = time.perf_counter()
    record = segment_file(case_name(path), path, out, segmenter)
    return record | {"wall_s": time.perf_counter() - started, "network_s": dict(meter.seconds)}


def _summary(segmenter: Segmenter, runs: list[dict[str, Any]], meter: _Meter) -> Result:
    last, steps = runs[-1], [step for step in runs[-1]["timings_s"] if step != "total"]
    box = last["box_zyx"]
    device = [run["peak_memory_mb"]["device"] for run in runs]
    return Result(
        case=last["case"],
        shape=tuple(last["shape_zyx"]),
        spacing_mm=tuple(last["spacing_mm_zyx"]),
        box=None if box is None else tuple(b - a for a, b in zip(box["start"], box["stop"], strict=True)),
        seconds={step: median(run["timings_s"][step] for run in runs) for step in steps},
        host_by_step_mb={
            step: max(run["peak_memory_mb"]["host_by_step"].get(step, 0.0) for run in runs) for step in steps
        },
        wall_s=median(run["wall_s"] for run in runs),
        network_s={stage: median(run["network_s"][stage] for run in runs) for stage in STAGES},
        tflop={stage: network_tflop(segmenter.config, stage, meter.shapes[stage]) for stage in STAGES},
        matrix_tflops=matrix_rate(segmenter.runtime),
        host_mb=max(run["peak_memory_mb"]["host"] for run in runs),
        device_mb=None if device[0] is None else max(device),
        machine=_machine(segmenter) | {"repeats": len(runs)},
    )


def network_tflop(config: Config, stage: Stage, shapes: list[tuple[int, ...]]) -> float:
    """TFLOP of forward passes of the network of ``stage`` over inputs of ``shapes``, counted, not computed."""
    network, total = build(config.network(stage)).to("meta").eval(), 0.0
    for shape in set(shapes):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.empty(shape, device="meta"))
        total += shapes.count(shape) * counter.get_total_flops() / 1e12
    return total


def _machine(segmenter: Segmenter) -> dict[str, Any]:
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


def as_markdown(results: list[Result]) -> str:
    """One table to paste: a column a case, a row a step, and the machine above it."""
    machine = results[0].machine
    head = f"{machine['device']}, {machine['threads']} threads, {machine['precision']}; preset {machine['preset']}"
    mirror = "mirror averaged" if machine["mirror_z"] else "no mirror"
    head += f", weights {machine['weights']}, {mirror}; median of {machine['repeats']}"
    if machine["device"] != machine["processor"]:
        head += f"; {machine['processor']}"
    head += f", {machine['memory_gb']} GB"
    versions = f"renalseg {machine['renalseg']}, torch {machine['torch']}, Python {machine['python']}"
    steps = list(dict.fromkeys(step for result in results for step in result.seconds))
    rows = [("slices x rows x columns", [" x ".join(map(str, r.shape)) for r in results])]
    rows += [("region of the fine stages", [" x ".join(map(str, r.box)) if r.box else "none" for r in results])]
    rows += [
        (
            f"{step}, s / peak host memory, MB",
            [f"{r.seconds.get(step, 0):.3f} / {r.host_by_step_mb.get(step, 0):.0f}" for r in results],
        )
        for step in steps
    ]
    rows += [
        ("**from file to files, s**", [f"**{r.wall_s:.2f}**" for r in results]),
        ("networks, TFLOP", [f"{sum(r.tflop.values()):.3f}" for r in results]),
        ("inside the networks, % of the time", [f"{100 * r.network_share:.0f}" for r in results]),
        ("networks, TFLOP/s", [f"{r.network_tflops:.3f}" for r in results]),
        ("matrix products here, TFLOP/s", [f"{r.matrix_tflops:.3f}" for r in results]),
        ("networks, % of it", [f"{100 * r.limit_share:.0f}" for r in results]),
        ("peak host memory, MB", [f"{r.host_mb:.0f}" for r in results]),
        ("peak device memory, MB", ["-" if r.device_mb is None else f"{r.device_mb:.0f}" for r in results]),
    ]
    lines = [f"{head}; {versions}, {machine['system']}", ""]
    lines += ["| |" + "".join(f" {r.case} |" for r in results), "|---|" + "---:|" * len(results)]
    lines += [f"| {name} |" + "".join(f" {value} |" for value in values) for name, values in rows]
    return "\n".join(lines) + "\n"
