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

from renalseg.config import Size3
from renalseg.model.resunet import ResidualBlock

SLAB_BYTES = 8 * 2**20
"""Of a slab in float32, for each thread: what stays in the caches until the next step reads it. Measured."""

_WIDE = 256
"""Columns that the statistics of few channels are gathered in: a vector unit's worth. Measured."""

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


Size4 = tuple[int, int, int, int]
Source = Callable[[int, int], torch.Tensor]
"""Slices [start, stop) of something [z, c, y, x]."""


@dataclass(frozen=True)
class Conv:
    """A convolution; ``weight`` [out, in, kz, ky, kx], padded by half its size."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    stride: Size3

    @classmethod
    def of(cls, conv: nn.Conv3d, dtype: torch.dtype) -> "Conv":
        """A copy of ``conv`` in ``dtype``."""
        weight = padded(conv.weight.detach()).to(dtype).contiguous(memory_format=torch.channels_last_3d)
        z, y, x = conv.stride
        return cls(weight, None if conv.bias is None else conv.bias.detach().to(dtype), (z, y, x))

    def size(self, size: Size4) -> Size4:
        """Of the output for an input of ``size``."""
        z, y, x = (-(-n // s) for n, s in zip((size[0], *size[2:]), self.stride, strict=True))
        return z, self.weight.shape[0], y, x

    @property
    def reach(self) -> int:
        """Slices that it looks at to each side."""
        return self.weight.shape[2] // 2

    @property
    def is_flat(self) -> bool:
        """Whether each slice follows from one slice."""
        return self.reach == 0

    def __call__(self, source: Source, depth: int, start: int, stop: int) -> torch.Tensor:
        """Slices [start, stop) of the output for ``source`` of ``depth`` slices."""
        reach, stride = self.reach, self.stride[0]
        first, last = start * stride - reach, (stop - 1) * stride + reach + 1
        cut = source(max(first, 0), min(last, depth))
        if self.is_flat:
            return self.flat(cut[::stride])
        if first < 0 or last > depth:
            cut = functional.pad(cut, (0, 0, 0, 0, 0, 0, max(-first, 0), max(last - depth, 0)))
        padding = [0, *(k // 2 for k in self.weight.shape[3:])]
        return slices_first(_convolve(cut.transpose(0, 1)[None], self.weight, self.bias, padding, list(self.stride)))

    def flat(self, x: torch.Tensor) -> torch.Tensor:
        """The output of each slice of ``x`` [z, c, y, x] by itself."""
        weight = self.weight[:, :, 0]
        return _convolve(x, weight, self.bias, [k // 2 for k in weight.shape[2:]], list(self.stride[1:]))


@dataclass(frozen=True)
class Up:
    """A transposed convolution whose kernel is its stride: every voxel becomes a block."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    stride: Size3

    @classmethod
    def of(cls, conv: nn.ConvTranspose3d, dtype: torch.dtype) -> "Up":
        """A copy of ``conv`` in ``dtype``."""
        z, y, x = conv.stride
        bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        return cls(conv.weight.detach().to(dtype), bias, (z, y, x))

    def __call__(self, source: Source, start: int, stop: int) -> torch.Tensor:
        """Slices [start, stop) of the output for ``source``."""
        factor, in_plane = self.stride[0], self.stride[1:]
        first = start // factor
        cut = source(first, -(-stop // factor))
        planes = [functional.conv_transpose2d(cut, self.weight[:, :, k], self.bias, in_plane) for k in range(factor)]
        if factor == 1:
            return planes[0]
        z, c, y, x = planes[0].shape
        out = torch.empty((z * factor, c, y, x), dtype=cut.dtype, memory_format=torch.channels_last)
        for k, plane in enumerate(planes):
            out[k::factor] = plane
        return out[start - first * factor :][: stop - start]


@dataclass(frozen=True)
class _Norm:
    """Scale and shift of an instance norm, float32 [c]."""

    weight: torch.Tensor
    bias: torch.Tensor
    eps: float

    @classmethod
    def of(cls, norm: nn.GroupNorm) -> "_Norm":
        return cls(norm.weight.detach().float(), norm.bias.detach().float(), norm.eps)

    def __call__(self, x: torch.Tensor, statistics: "_Statistics") -> torch.Tensor:
        """``x`` [z, c, y, x] normalised by ``statistics``, as a new tensor."""
        mean, variance = statistics.mean.float(), statistics.variance.float()
        return functional.batch_norm(x, mean, variance, self.weight, self.bias, False, 0.0, self.eps)


class _Statistics:
    """Mean and variance of each channel, gathered slab by slab (Chan et al. 1983, doi:10.2307/2683386)."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean = torch.zeros(channels, dtype=torch.float64)
        self._squares = torch.zeros(channels, dtype=torch.float64)

    @property
    def variance(self) -> torch.Tensor:
        """Float64 [c], of the whole population."""
        return self._squares / self.count

    def add(self, x: torch.Tensor) -> None:
        """Counts a slab [z, c, y, x] in."""
        channels, rows, fold = x.shape[1], x.numel() // x.shape[1], 1
        while 2 * fold * channels <= _WIDE and rows % (2 * fold) == 0:
            fold *= 2
        wide = x.permute(0, 2, 3, 1).reshape(rows // fold, fold * channels)
        unused = torch.zeros(fold * channels)
        found = torch.batch_norm_update_stats(wide, unused, unused.clone(), 0.0)
        means, variances = (each.double().view(fold, channels) for each in found)
        mean = means.mean(0)
        squares = rows * (variances + (means - mean).square()).mean(0)
        away, total = mean - self.mean, self.count + rows
        self._squares += squares + away.square() * (self.count * rows / total)
        self.mean += away * (rows / total)
        self.count = total


@dataclass(frozen=True)
class Block:
    """A residual block, in the three steps above."""

    first: Conv
    norm: _Norm
    second: Conv
    last: _Norm
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
        return cls(Conv.of(first, dtype), _Norm.of(norm), Conv.of(second, dtype), _Norm.of(last), beside)

    def __call__(self, size: Size4, source: Source, let_go: Callable[[int], None] | None = None) -> Slabs:
        """The output for a ``source`` of ``size``.

        A source that nothing else needs is used up: ``let_go`` is told up to which slice, and the shortcut, which then
        takes its place, is made at once. Without it the shortcut is made at the end, and never held as a whole.
        """
        made, statistics = self.first.size(size), _Statistics(self.first.weight.shape[0])
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

    def _finish(self, x: Slabs, statistics: _Statistics, beside: Source) -> Slabs:
        """Steps 2 and 3; ``x`` is used up."""
        depth, channels = x.size[:2]
        parts, seen = x.parts, _Statistics(channels)
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


def padded(x: torch.Tensor) -> torch.Tensor:
    """A second channel, empty, beside a single one: alone, it has no memory order, and oneDNN no fast kernel."""
    return torch.cat((x, torch.zeros_like(x)), 1) if x.shape[1] == 1 else x


def slices_first(x: torch.Tensor) -> torch.Tensor:
    """[1, c, z, y, x] as [z, c, y, x] with the channels last in memory."""
    return x[0].transpose(0, 1).contiguous(memory_format=torch.channels_last)


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


def _convolve(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, padding: list[int], stride: list[int]
) -> torch.Tensor:
    """oneDNN's convolution, where PyTorch would take a slower one of its own for small kernels or single samples."""
    ones = [1] * len(stride)
    if _onednn_takes(x.dtype):
        return torch.mkldnn_convolution(x, weight, bias, padding, stride, ones, 1)
    return torch.convolution(x, weight, bias, stride, padding, ones, False, [0] * len(stride), 1)


def _onednn_takes(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there and takes ``dtype``: it refuses bf16 on a CPU without AVX-512."""
    if not torch._C._has_mkldnn:
        return False
    return dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
