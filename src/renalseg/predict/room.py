"""What to do when the device runs out of memory: a smaller window, then the CPU, and a sentence that says so."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch

from renalseg.config import Fine, Stage
from renalseg.model.runtime import Runtime, choose_for_prediction

T = TypeVar("T")

SMALLEST_WINDOW = 12
"""Slices: fewer tell the fine networks too little about what is above and below. Settled."""

KEPT_BYTES = 256 * 10**6
"""Image and probabilities of the fine grid stay on the device up to this size; larger ones gather on the host."""


def place_for(shape: tuple[int, ...], channels: int, runtime: Runtime) -> torch.device:
    """Where ``channels`` float32 arrays of ``shape`` are kept, so that the device's share has an upper bound."""
    needed = 4 * channels * torch.Size(shape).numel()
    return runtime.device if needed <= KEPT_BYTES else torch.device("cpu")


def lacks_memory(error: BaseException) -> bool:
    """Whether ``error`` means that memory ran out, which MPS, the CPU and CUDA's libraries only tell in words."""
    words = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED")
    told = isinstance(error, RuntimeError) and any(each in str(error) for each in words)
    return told or isinstance(error, MemoryError | torch.OutOfMemoryError)


def _attempt(run: Callable[[], T]) -> tuple[T] | None:
    """What ``run`` gives, or None where memory ran out.

    The error ends here, since it holds on to what the failed attempt had allocated.
    """
    try:
        return (run(),)
    except (RuntimeError, MemoryError) as problem:
        if not lacks_memory(problem):
            raise
    return None


def with_room(
    stage: Stage,
    networks: Sequence[torch.nn.Module],
    runtime: Runtime,
    run: Callable[[Sequence[torch.nn.Module], Runtime], T],
    warnings: list[str],
) -> T:
    """``run(networks, runtime)``, or on the CPU where the device's memory runs out; see ``fine_with_room``."""
    done = _attempt(lambda: run(networks, runtime))
    return done[0] if done is not None else on_cpu(stage, networks, runtime, run, warnings)


def fine_with_room(
    stage: Stage,
    networks: Sequence[torch.nn.Module],
    fine: Fine,
    runtime: Runtime,
    run: Callable[[Sequence[torch.nn.Module], Fine, Runtime], T],
    warnings: list[str],
) -> T:
    """``run(networks, fine, runtime)``, where need be with ever smaller windows, at last on the CPU.

    Args:
        warnings: gets a sentence for each thing that was given up.

    Raises:
        torch.OutOfMemoryError: on the CPU, there is no room for the smallest window either.
    """
    small, given_up = fine, list[str]()
    while (done := _attempt(partial(run, networks, small, runtime))) is None and small.window // 2 >= SMALLEST_WINDOW:
        runtime.free_device_memory()
        small = small.model_copy(update={"window": small.window // 2})
        given_up.append(f"The device's memory ran out; the stage {stage} took windows of {small.window} slices.")
    if done is not None:
        warnings += given_up
        return done[0]

    def anew(moved: Sequence[torch.nn.Module], host: Runtime) -> T:
        return fine_with_room(stage, moved, fine, host, run, warnings)

    return on_cpu(stage, networks, runtime, anew, warnings)


def or_on_cpu(what: str, device: torch.device, run: Callable[[torch.device], T], warnings: list[str]) -> T:
    """``run(device)``, or ``run`` on the CPU where the device's memory runs out; ``what`` is named in the warning.

    Raises:
        torch.OutOfMemoryError: ``device`` is the CPU already.
    """
    done = _attempt(lambda: run(device))
    if done is not None:
        return done[0]
    if device.type == "cpu":
        raise torch.OutOfMemoryError(f"no memory on the CPU, where {what} to be computed")
    Runtime(device, "fp32").free_device_memory()
    warnings.append(f"The device's memory ran out; {what} computed on the CPU.")
    return run(torch.device("cpu"))


def on_cpu(
    stage: Stage,
    networks: Sequence[torch.nn.Module],
    runtime: Runtime,
    run: Callable[[Sequence[torch.nn.Module], Runtime], T],
    warnings: list[str],
) -> T:
    """``run`` with copies of ``networks`` on the CPU, after the device ran out of memory.

    Raises:
        torch.OutOfMemoryError: ``runtime`` is the CPU already.
    """
    if runtime.is_host:
        raise torch.OutOfMemoryError(f"no memory for the stage {stage} on the CPU")
    runtime.free_device_memory()
    host = choose_for_prediction("cpu")
    moved = [host.predictor(_copy_on_cpu(network)) for network in networks]
    warnings.append(f"The device's memory ran out; the stage {stage} was computed on the CPU.")
    return run(moved, host)


def _copy_on_cpu(network: torch.nn.Module) -> torch.nn.Module:
    """A copy of ``network`` on the CPU, made without another one on its device, which is full."""
    known: dict[int, torch.Tensor] = {id(p): torch.nn.Parameter(p.detach().cpu(), False) for p in network.parameters()}
    known |= {id(b): b.detach().cpu() for b in network.buffers()}
    return copy.deepcopy(network, known)
