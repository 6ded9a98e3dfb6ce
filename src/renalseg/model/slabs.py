"""Residual blocks slab by slab: a few slices go through a step while they are in the processor's caches.

``resunet`` runs each layer over the whole window: every layer then reads and writes fresh memory far larger than the
caches, which was measured to cost more than the multiplications (docs/inference.md). Here a block runs over a few
slices at a time, the norms' statistics are gathered on the way, and what a step makes replaces its input:

1. convolve; statistics of the first norm; in the decoder the shortcut, too, and what came in is let go
2. normalise, activate, convolve; statistics of the second norm
3. normalise, add the shortcut, activate
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from renalseg.model.layers import Conv, Norm, Size4, Source, Statistics, Up
from renalseg.model.resunet import ResidualBlock

SLAB_BYTES = 8 * 2**20
"""Of a slab in float32, for each thread: what stays in the caches until the next step reads it. Measured."""

_SLOPE = 0.01
"""Of the leaky ReLU, as in ``resunet``."""


class Slabs:
    """Activations: tensors [z, c, y, x], channels last in memory, of ``step`` slices each but the last.

    Attributes:
        parts: the tensors; empty where they were let go.
        step: slices of each.
        size: (z, c, y, x) of the whole.
    """

    def __init__(self, parts: list[torch.Tensor], step: int) -> None:
        self.parts, self.step = parts, step
        _, c, y, x = parts[0].shape
        self.size: Size4 = sum(len(part) for part in parts), c, y, x

    def cut(self, start: int, stop: int) -> torch.Tensor:
        """Slices [start, stop)."""
        pieces = []
        for i in range(start // self.step, (stop - 1) // self.step + 1):
            pieces.append(self.parts[i][max(start - i * self.step, 0) : stop - i * self.step])
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def let_go(self, stop: int) -> None:
        """Frees the parts without a slice from ``stop`` on."""
        for i in range(len(self.parts) if stop >= self.size[0] else stop // self.step):
            self.parts[i] = torch.empty(0)


@dataclass(frozen=True)
class Block:
    """A residual block, in the three steps above."""

    first: Conv
    norm: Norm
    second: Conv
    last: Norm
    shortcut: Conv | None

    @classmethod
    def of(cls, block: ResidualBlock, dtype: torch.dtype) -> "Block":
        """A copy of ``block``, which has one branch, in ``dtype``."""
        branch: Sequence[nn.Module] = block.branches[0]  # type: ignore[assignment]
        first, norm, _, second, last = branch
        assert isinstance(first, nn.Conv3d)
        assert isinstance(second, nn.Conv3d)
        assert isinstance(norm, nn.GroupNorm)
        assert isinstance(last, nn.GroupNorm)
        beside = Conv.of(block.shortcut, dtype) if isinstance(block.shortcut, nn.Conv3d) else None
        return cls(Conv.of(first, dtype), Norm.of(norm), Conv.of(second, dtype), Norm.of(last), beside)

    def __call__(self, size: Size4, source: Source, let_go: Callable[[int], None] | None = None) -> Slabs:
        """The output for a ``source`` of ``size``.

        A source that nothing else needs is used up: ``let_go`` is told up to which slice, and the shortcut, which then
        takes its place, is made at once. Without it the shortcut is made at the end, and never held as a whole.
        """
        made, statistics = self.first.size(size), Statistics(self.first.weight.shape[0])
        step, parts, shortcuts = _step(made), [], []
        for a, b in spans(made[0], step):
            held = _Held(source)
            parts.append(self.first(held, size[0], a, b))
            statistics.add(parts[-1])
            if let_go is not None and self.shortcut is not None:
                shortcuts.append(self.shortcut(held, size[0], a, b))
                let_go(size[0] if b == made[0] else b * self.first.stride[0] - self.first.reach)

        def beside(a: int, b: int) -> torch.Tensor:
            return source(a, b) if self.shortcut is None else self.shortcut(source, size[0], a, b)

        return self._finish(Slabs(parts, step), statistics, Slabs(shortcuts, step).cut if shortcuts else beside)

    def merge(self, x: Slabs, skip: Slabs, up: Up) -> Slabs:
        """The output for ``up`` of ``x`` and ``skip``, one behind the other; both are used up."""
        z, channels, height, width = skip.size

        def both(a: int, b: int) -> torch.Tensor:
            return torch.cat((up(x.cut, a, b), skip.cut(a, b)), 1)

        def let_go(stop: int) -> None:
            skip.let_go(stop)
            x.let_go(x.size[0] if stop >= z else stop // up.stride[0])

        return self((z, 2 * channels, height, width), both, let_go)

    def _finish(self, x: Slabs, statistics: Statistics, beside: Source) -> Slabs:
        """Steps 2 and 3; ``x`` is used up."""
        depth, channels = x.size[:2]
        parts, seen = x.parts, Statistics(channels)
        for i, part in enumerate(parts):
            parts[i] = functional.leaky_relu_(self.norm(part, statistics), _SLOPE)
            if self.second.is_flat:
                parts[i] = self.second.flat(parts[i])
                seen.add(parts[i])
        if not self.second.is_flat:
            parts = []
            for a, b in spans(depth, x.step):
                parts.append(self.second(x.cut, depth, a, b))
                seen.add(parts[-1])
                x.let_go(depth if b == depth else b - self.second.reach)
        for i, (a, b) in enumerate(spans(depth, x.step)):
            parts[i] = functional.leaky_relu_(self.last(parts[i], seen).add_(beside(a, b)), _SLOPE)
        return Slabs(parts, x.step)


class _Held:
    """A source that keeps what it gave last: the shortcut takes slices that the convolution has asked for."""

    def __init__(self, source: Source) -> None:
        self._source, self._start, self._stop, self._cut = source, 0, 0, torch.empty(0)

    def __call__(self, start: int, stop: int) -> torch.Tensor:
        if not self._start <= start < stop <= self._stop:
            self._start, self._stop, self._cut = start, stop, self._source(start, stop)
        return self._cut[start - self._start : stop - self._start]


def whole(x: torch.Tensor) -> Slabs:
    """``x`` [z, c, y, x] as one slab."""
    return Slabs([x.contiguous(memory_format=torch.channels_last)], len(x))


def _step(size: Size4) -> int:
    """Slices of a slab of something of ``size``: a power of two, so that the slabs of all levels share borders."""
    fit = SLAB_BYTES * torch.get_num_threads() // (4 * size[1] * size[2] * size[3])
    return 1 << max(0, fit.bit_length() - 1)


def spans(depth: int, step: int) -> Iterator[tuple[int, int]]:
    """Start and stop of each slab of ``step`` slices."""
    for start in range(0, depth, step):
        yield start, min(start + step, depth)
