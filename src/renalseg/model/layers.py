"""Layers for prediction on a CPU, over a few slices [z, c, y, x] at a time, channels last in memory."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from renalseg.config import Size3

_WIDE = 256
"""Columns that the statistics of few channels are gathered in: a vector unit's worth. Measured."""

Size4 = tuple[int, int, int, int]
"""(z, c, y, x)."""
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
class Norm:
    """Scale and shift of an instance norm, float32 [c]."""

    weight: torch.Tensor
    bias: torch.Tensor
    eps: float

    @classmethod
    def of(cls, norm: nn.GroupNorm) -> "Norm":
        """A copy of ``norm``, which has a group for each channel."""
        return cls(norm.weight.detach().float(), norm.bias.detach().float(), norm.eps)

    def __call__(self, x: torch.Tensor, statistics: "Statistics") -> torch.Tensor:
        """``x`` [z, c, y, x] normalised by ``statistics``, as a new tensor."""
        mean, variance = statistics.mean.float(), statistics.variance.float()
        return functional.batch_norm(x, mean, variance, self.weight, self.bias, False, 0.0, self.eps)


class Statistics:
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


def padded(x: torch.Tensor) -> torch.Tensor:
    """A second channel, empty, beside a single one: alone, it has no memory order, and oneDNN no fast kernel."""
    return torch.cat((x, torch.zeros_like(x)), 1) if x.shape[1] == 1 else x


def slices_first(x: torch.Tensor) -> torch.Tensor:
    """[1, c, z, y, x] as [z, c, y, x] with the channels last in memory."""
    return x[0].transpose(0, 1).contiguous(memory_format=torch.channels_last)


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
