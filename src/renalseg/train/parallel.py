"""Several processes, one GPU each, started by torchrun: who is who, gradients summed, objects gathered.

Gradients are gathered sample by sample and summed in the order of the batch, so that a step gives the same numbers, bit
for bit on a CPU, however many processes share it. ``DistributedDataParallel`` cannot promise that: it sums in its own
order, and the rounding grows, since AdamW divides by the size of gradients that are nearly 0. It would also wait for
every process in each backward pass, and in the last batch of an epoch some have none. The networks are small: a step
sends a few dozen MB.
"""

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

T = TypeVar("T")

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

    def gather(self, value: Any) -> list[Any]:
        """``value`` of every process, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        """What ``make`` returns in the first process, where alone it is called."""
        found: T = self.gather(make() if self.first else None)[0]
        return found

    def wait(self) -> None:
        """Returns once every process has come here."""
        if self.size > 1:
            distributed.barrier()


ALONE = World()
"""The only process of a run."""


class GradientSum:
    """The gradient of a batch that several processes share: a sample's backward pass, ``add``, and ``finish`` at last.

    Alone, the gradients simply accumulate, which is the same sum in the same order. The samples' losses are summed with
    them, so that every process sees a loss that is not finite, whichever of them met it.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], world: World) -> None:
        self.parameters, self.world = parameters, world
        self.parts: list[torch.Tensor] = []
        self.loss = torch.zeros(1, device=parameters[0].device)
        self._clear()

    def add(self, loss: torch.Tensor) -> None:
        """Takes the gradient of one sample out of the parameters; ``loss`` is the sample's, float32 of one element."""
        loss = loss.detach().reshape(1)
        if self.world.size > 1:
            self.parts.append(torch.cat([*(_gradient(p).reshape(-1) for p in self.parameters), loss]))
            self._clear()
        else:
            self.loss += loss

    def finish(self, batch: int) -> torch.Tensor:
        """Leaves in the parameters the sum over the ``batch`` samples, of which process r had r, r + size and so on.

        Returns:
            The sum of the losses, float32 scalar, the same in every process.
        """
        if self.world.size == 1:
            return self.loss[0]
        length = sum(p.numel() for p in self.parameters) + 1
        mine = torch.zeros(-(-batch // self.world.size), length, device=self.parameters[0].device)
        for place, part in enumerate(self.parts):
            mine[place] = part
        every = [torch.empty_like(mine) for _ in range(self.world.size)]
        distributed.all_gather(every, mine)
        total = every[0][0].clone()
        for position in range(1, batch):
            total += every[position % self.world.size][position // self.world.size]
        pieces = torch.split(total[:-1], [p.numel() for p in self.parameters])
        for parameter, piece in zip(self.parameters, pieces, strict=True):
            parameter.grad = torch.empty_like(parameter).copy_(piece.view(parameter.shape))
        return total[-1]

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


@contextmanager
def join(device: str) -> Iterator[tuple[World, str]]:
    """Joins the processes that torchrun started; alone, where it did not.

    Yields:
        This process's place, and its device: with CUDA its own GPU, ``cuda:<local rank>`` for ``auto`` and ``cuda``.

    The first optimiser imports ``torch._dynamo``, and with it functions whose default argument is the group of that
    moment. Such a group outlives ``destroy_process_group``; its threads may then hold the last of a tensor while the
    interpreter ends, which aborts the process. So that module is imported while there is no group yet.
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
    importlib.import_module("torch._dynamo")  # see above
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=TIMEOUT)
    try:
        yield World(distributed.get_rank(), size), device
    finally:
        distributed.destroy_process_group()
