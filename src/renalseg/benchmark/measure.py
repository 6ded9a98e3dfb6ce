"""What a case costs on this machine: seconds by step, memory, FLOPs, and the share of the machine's limit.

A CT of a chosen size is drawn, or one is given. On a drawn one the networks run whole, but a threshold answers in their
place, so that both kidneys are found whatever the weights are: the cascade takes the same way, at the same cost, with
weights that were never trained.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from renalseg.batch import segment_file
from renalseg.benchmark.drawn import CASES, draw_ct
from renalseg.benchmark.limits import describe_machine, matrix_rate, network_tflop
from renalseg.benchmark.meter import Meter, Metered
from renalseg.config import STAGES
from renalseg.io.nifti import write_nifti
from renalseg.io.read import case_name
from renalseg.predict.pipeline import Models
from renalseg.predict.segmenter import Segmenter


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
        device_by_step_mb: peak memory on the device in each step, as torch allocated it; empty on a CPU.
        wall_s: from file to files.
        network_s: of it inside the networks, by stage.
        tflop: by stage, all windows and mirrors; a multiplication and an addition count as two.
        matrix_tflops: the machine's measured rate of matrix products in the same precision, TFLOP/s.
        host_mb: the largest of ``host_by_step_mb``.
        device_mb: the largest of ``device_by_step_mb``; None on a CPU.
        machine: what it ran on, and with which versions.
        warnings: of the last repeat, as that memory ran out.
    """

    case: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    box: tuple[int, int, int] | None
    seconds: dict[str, float]
    host_by_step_mb: dict[str, float]
    device_by_step_mb: dict[str, float]
    wall_s: float
    network_s: dict[str, float]
    tflop: dict[str, float]
    matrix_tflops: float
    host_mb: float
    device_mb: float | None
    machine: dict[str, Any]
    warnings: list[str]

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


def measure_case(segmenter: Segmenter, source: Path | str, repeats: int = 3) -> Result:
    """Segments a case ``repeats`` times from file to files, after one run that does not count.

    Args:
        segmenter: weights, device and precision.
        source: a CT file, or a name from ``CASES`` for a drawn one.
        repeats: at least 1.

    Raises:
        InputError: the file cannot be read.
    """
    meter = Meter(segmenter.runtime)
    kept = segmenter.models
    segmenter.models = Models(
        **{s: [Metered(n, s, meter, isinstance(source, str)) for n in getattr(kept, s)] for s in STAGES}
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


def _run(segmenter: Segmenter, path: Path, out: Path, meter: Meter) -> dict[str, Any]:
    meter.reset()
    started = time.perf_counter()
    record = segment_file(case_name(path), path, out, segmenter)
    return record | {"wall_s": time.perf_counter() - started, "network_s": dict(meter.seconds)}


def _summary(segmenter: Segmenter, runs: list[dict[str, Any]], meter: Meter) -> Result:
    last, steps = runs[-1], [step for step in runs[-1]["timings_s"] if step != "total"]
    box = last["box_zyx"]
    device = [run["peak_memory_mb"]["device"] for run in runs]
    return Result(
        case=last["case"],
        shape=tuple(last["shape_zyx"]),
        spacing_mm=tuple(last["spacing_mm_zyx"]),
        box=None if box is None else tuple(b - a for a, b in zip(box["start"], box["stop"], strict=True)),
        seconds={step: median(run["timings_s"][step] for run in runs) for step in steps},
        host_by_step_mb=_peaks(runs, "host_by_step"),
        device_by_step_mb=_peaks(runs, "device_by_step"),
        warnings=last["warnings"],
        wall_s=median(run["wall_s"] for run in runs),
        network_s={stage: median(run["network_s"][stage] for run in runs) for stage in STAGES},
        tflop={stage: network_tflop(segmenter.config, stage, meter.shapes[stage]) for stage in STAGES},
        matrix_tflops=matrix_rate(segmenter.runtime),
        host_mb=max(run["peak_memory_mb"]["host"] for run in runs),
        device_mb=None if device[0] is None else max(device),
        machine=describe_machine(segmenter) | {"repeats": len(runs)},
    )


def _peaks(runs: list[dict[str, Any]], kind: str) -> dict[str, float]:
    """The largest of each step, in the order of the steps."""
    known = [run["peak_memory_mb"][kind] for run in runs]
    return {step: max(each.get(step, 0.0) for each in known) for step in runs[-1]["timings_s"] if step in known[-1]}
