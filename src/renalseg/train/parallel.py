"""Several processes, one GPU each, started by torchrun: who is who, gradients summed, objects gathered.

Data-parallel training without the ``DistributedDataParallel`` wrapper: gradients are summed once a step. A step may
take several backward passes (regions of unlike depth go through the network in groups), and in the last batch of an
epoch a process may have no sample at all; both would leave the hooks of the wrapper waiting for one another. The
networks are small, so the overlap of computing and sending that it brings is not missed.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

TIMEOUT = timedelta(hours=3)
"""A process may wait this long for the others, who prepare data or validate."""


@dataclass(frozen=True)
class World:
    """This process among those of the run."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replaces each gradient by its sum over all processes; one that is missing here counts as 0."""
        if self.size == 1:
            return
        parameters = list(parameters)
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None])
        distributed.all_reduce(flat)
        parts = torch.split(flat, [p.numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def gather(self, value: Any) -> list[Any]:
        """``value`` of every process, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Returns once every process has come here."""
        if self.size > 1:
            distributed.barrier()


ALONE = World()
"""The only process of a run."""


@contextmanager
def join(device: str) -> Iterator[tuple[World, str]]:
    """Joins the processes that torchrun started; alone, where it did not.

    Yields:
        This process's place, and its device: with CUDA its own GPU, ``cuda:<local rank>`` for ``auto`` and ``cuda``.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE, device
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available() and device in ("auto", "cuda")
    if cuda:
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=TIMEOUT)
    try:
        yield World(distributed.get_rank(), size), device
    finally:
        distributed.destroy_process_group()
