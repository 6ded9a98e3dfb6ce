"""The machine: device, precision, threads, memory layout, and what was used at most."""

import ctypes
import math
import os
import resource
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from renalseg.core.errors import ConfigError
from renalseg.model.lean import lean

TRIM_BYTES = 1.4e9
"""Below this much resident memory, freed memory stays for the next layer. Ours: a median case at the preset ``paper``
then stays under 2 GB, and its windows are 5 % slower at most."""

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Runtime:
    """Where and in which arithmetic the networks run."""

    device: torch.device
    precision: str

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision for the body of a ``with``; nothing for fp32."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, PRECISIONS[self.precision])

    @property
    def memory_format(self) -> torch.memory_format:
        """Channels last on CPUs with AVX-512, and on CUDA, whose convolutions in half precision want it.

        Without AVX-512 a step of training in fp32 was measured to take 1.8 times as long with channels last. On CUDA
        neither was measured here.
        """
        last = self.device.type == "cuda" or (self.device.type == "cpu" and torch.cpu._is_avx512_supported())
        return torch.channels_last_3d if last else torch.contiguous_format

    def place(self, network: torch.nn.Module) -> torch.nn.Module:
        """Moves a network to the device, in the memory layout that is fastest there."""
        return network.to(self.device).to(memory_format=self.memory_format)  # type: ignore[call-overload, no-any-return]

    def predictor(self, network: torch.nn.Module) -> torch.nn.Module:
        """``network`` as it predicts fastest here; on a CPU a copy (``lean``), which does not learn."""
        if self.device.type == "cpu" and self.precision in ("fp32", "bf16"):
            return lean(network, PRECISIONS[self.precision])
        return self.place(network)

    @property
    def is_host(self) -> bool:
        """Whether the networks run on the CPU."""
        return self.device.type == "cpu"

    def trim_host_memory(self) -> None:
        """Hands back what the C library keeps of freed memory, once there is much of it: pieces no longer fit."""
        if self.is_host and resident_bytes() > TRIM_BYTES:
            with suppress(OSError, AttributeError):
                ctypes.CDLL(None).malloc_trim(0)

    def free_device_memory(self) -> None:
        """Hands back what PyTorch keeps of the device's memory for itself; after an OutOfMemoryError."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()

    def reset_device_peak(self) -> None:
        """Starts a new measurement of peak device memory."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_device_mb(self) -> float | None:
        """Peak device memory in MB (1e6 bytes) that torch allocated since ``reset_device_peak``; None on the CPU."""
        if self.device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self.device) / 1e6

    def synchronise(self) -> None:
        """Waits for the device, so that a clock read next counts its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def use_real_cores() -> int:
    """Limits PyTorch to the cores that this process may use, and returns how many threads it has.

    PyTorch counts those of its affinity; a container's quota of CPU time, where there is one, is less and makes more
    threads slower. Fewer threads, set before or by ``OMP_NUM_THREADS``, are kept.
    """
    cores = usable_cores()
    if torch.get_num_threads() > cores:
        torch.set_num_threads(cores)
    return torch.get_num_threads()


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")) -> int:
    """Cores by affinity, and by the quota of the control groups (version 2 or 1) where that is less, rounded up.

    Groups are nested (systemd, Slurm), and any of them may have a quota; in a container the outer ones are not seen.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for group in _groups(cgroup, process) if (quota := _quota(group)))]))


def _groups(cgroup: Path, process: Path) -> list[Path]:
    """Folders of the control groups of this process, those around it too, of both versions."""
    groups = [cgroup, cgroup / "cpu"]
    with suppress(OSError, ValueError):
        for line in process.read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if controllers == "" or "cpu" in controllers.split(","):
                inner = (cgroup if controllers == "" else cgroup / "cpu") / place.lstrip("/")
                groups += [inner, *(outer for outer in inner.parents if cgroup in outer.parents)]
    return groups


def _quota(group: Path) -> float | None:
    """The cores' worth of time that a control group may use; None where it says nothing."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{n}_us").read_text() for n in ("quota", "period"))
        if float(quota) > 0:  # "max" and -1 say that there is none
            return float(quota) / float(period)
    return None


def keep_freed_memory() -> None:
    """Lets the C library keep freed memory for the next layer instead of handing it back; Linux with glibc only.

    Each page that comes back from the system is faulted in and zeroed again: measured, a tenth of a network's time.
    """
    trim_threshold, mmap_threshold, enough = -1, -3, 2**30
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        if library.mallopt(mmap_threshold, enough):  # older ones refuse; the other alone would make things slower
            library.mallopt(trim_threshold, enough)


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return 0


def reset_host_peak() -> None:
    """Starts a new measurement of peak host memory, as far as the system allows."""
    with suppress(OSError):  # not Linux, or not allowed: the peak is then that of the whole process
        Path("/proc/self/clear_refs").write_text("5")


def peak_host_mb() -> float:
    """Peak resident memory of this process in MB (1e6 bytes), since ``reset_host_peak`` where Linux allows."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6


def choose(device: str = "auto", precision: str = "auto") -> Runtime:
    """Resolves the user's wishes against the machine.

    ``auto`` takes CUDA, else Apple's MPS, else the CPU; and bf16 where the hardware multiplies in it, fp16 on older
    CUDA cards, else fp32. Emulated bf16 on a CPU is many times slower than fp32, so it is never chosen there.

    Raises:
        ConfigError: the device or precision is unknown or not on this machine.
    """
    if precision not in ("auto", *PRECISIONS):
        raise ConfigError(f"there is no precision {precision!r}; choose auto, fp32, bf16 or fp16")
    found = _device(device)
    runtime = Runtime(found, _precision(found) if precision == "auto" else precision)
    if found.type == "cuda" and runtime.precision == "fp32":
        torch.backends.cudnn.allow_tf32 = False  # on by default, and TF32 has 10 bits of fp32's 23
    return runtime


def choose_for_prediction(device: str = "auto", precision: str = "auto") -> Runtime:
    """As ``choose``, but ``auto`` is fp32: bf16 is faster, and on a CPU it changed 1 voxel of a kidney in 1000.

    No other precision was held against fp32 on a GPU yet, so none is a default there either.

    Raises:
        ConfigError: as ``choose``.
    """
    return choose(device, "fp32" if precision == "auto" else precision)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"there is no device {name!r}; choose auto, cpu, cuda, cuda:N or mps") from error
    if device.type not in ("cpu", "cuda", "mps") or (device.type == "cpu" and device.index):
        raise ConfigError(f"the device {name!r} is not supported; choose auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"the device {name!r} is not on this machine ({torch.cuda.device_count()} CUDA devices); use cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("the device 'mps' is not on this machine; use cpu")
    return device


def _precision(device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return "bf16"
    return "fp32"
