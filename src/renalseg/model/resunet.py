"""The residual U-Net of all three stages, in the order of the paper's Fig. 2: block, encoder, decoder, head.

The coarse network is 3D: isotropic kernels and strides. The kidney and lesion networks are 2.5D: in-plane (1, 3, 3)
kernels in the two high-resolution levels, (3, 3, 3) deeper, strides (1, 2, 2): no down-sampling along z. Both are the
same class with another ``config.Network``. Atrous branches and PSP pooling follow ResUNet-a (Diakogiannis et al. 2020,
doi:10.1016/j.isprsjprs.2020.01.013) and are off in the presets.

No region is padded to a length, and instance normalisation sees one sample at a time, so any number of slices goes in
and a short region never has its statistics diluted.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from renalseg.config import Network, Size3


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; with several ``dilations``, one such branch each, summed (ResUNet-a).

    Input [n, c_in, z, y, x]; output [n, c_out, z / stride, y / stride, x / stride].
    """

    def __init__(self, c_in: int, c_out: int, kernel: Size3, stride: Size3, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_branch(c_in, c_out, kernel, stride, d) for d in dilations)
        changes = c_in != c_out or max(stride) > 1
        self.shortcut = nn.Conv3d(c_in, c_out, 1, stride, bias=False) if changes else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sum of shortcut and branches, activated."""
        out = self.shortcut(x)
        for branch in self.branches:
            out = out + branch(x)
        return functional.leaky_relu(out, 0.01)


class PspPooling(nn.Module):
    """Pyramid pooling: max pools to a few bins along the down-sampled axes, spread back and merged (ResUNet-a).

    Input and output [n, c, z, y, x]. Axes in ``keep`` are not pooled.
    """

    def __init__(self, channels: int, bins: tuple[int, ...], keep: tuple[bool, bool, bool]) -> None:
        super().__init__()
        self.bins, self.keep = bins, keep
        each = max(1, channels // len(bins))
        self.reduce = nn.ModuleList(nn.Conv3d(channels, each, 1) for _ in bins)
        self.merge = nn.Conv3d(channels + each * len(bins), channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The input with the pooled context mixed in."""
        parts = [x]
        for bins, reduce in zip(self.bins, self.reduce, strict=True):
            size = [n if keep else min(bins, n) for n, keep in zip(x.shape[2:], self.keep, strict=True)]
            pooled = reduce(functional.adaptive_max_pool3d(x, size))
            parts.append(functional.interpolate(pooled, x.shape[2:], mode="nearest"))
        merged: torch.Tensor = self.merge(torch.cat(parts, 1))
        return functional.leaky_relu(merged, 0.01)


class ResUnet(nn.Module):
    """A residual U-Net; the sizes of its input are divisible by the product of the strides."""

    def __init__(self, config: Network) -> None:
        super().__init__()
        self.config = config
        widths, kernels = config.widths, config.kernels
        strides: tuple[Size3, ...] = ((1, 1, 1), *config.strides)
        self.encoder = nn.ModuleList()
        c_in = 1
        for width, kernel, stride in zip(widths, kernels, strides, strict=True):
            first = ResidualBlock(c_in, width, kernel, stride, config.dilations)
            rest = [ResidualBlock(width, width, kernel, (1, 1, 1), config.dilations) for _ in range(config.blocks - 1)]
            self.encoder.append(nn.Sequential(first, *rest))
            c_in = width
        keep = tuple(d == 1 for d in config.divisor)
        self.bottleneck: nn.Module = nn.Identity()
        if config.psp_bins:
            self.bottleneck = PspPooling(widths[-1], config.psp_bins, (keep[0], keep[1], keep[2]))
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for level in reversed(range(len(widths) - 1)):
            stride = strides[level + 1]
            self.up.append(nn.ConvTranspose3d(widths[level + 1], widths[level], stride, stride))
            self.decoder.append(
                ResidualBlock(2 * widths[level], widths[level], kernels[level], (1, 1, 1), config.dilations)
            )
        self.head = nn.Conv3d(widths[0], len(config.classes), 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits [n, classes, z, y, x] of ``image`` float [n, 1, z, y, x]."""
        skips = []
        x = image
        for level in self.encoder:
            x = level(x)
            skips.append(x)
        x = self.bottleneck(skips.pop())
        for up, decoder in zip(self.up, self.decoder, strict=True):
            x = decoder(torch.cat((up(x), skips.pop()), 1))
        logits: torch.Tensor = self.head(x)
        return logits


def build(config: Network, seed: int = 0) -> ResUnet:
    """A network with He-normal weights (He et al. 2015, arXiv:1502.01852; paper table 2), equal for equal seeds."""
    network = ResUnet(config)
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            _he_normal(module, generator)
    return network


def _he_normal(module: nn.Conv3d | nn.ConvTranspose3d, generator: torch.Generator) -> None:
    """Fan-in He initialisation. A transposed convolution whose kernel is its stride sees ``in_channels`` inputs."""
    transposed = isinstance(module, nn.ConvTranspose3d)
    fan_in = module.in_channels * (1 if transposed else math.prod(module.kernel_size))
    with torch.no_grad():
        module.weight.normal_(0.0, math.sqrt(2.0 / fan_in), generator=generator)
        if module.bias is not None:
            module.bias.zero_()


def _branch(c_in: int, c_out: int, kernel: Size3, stride: Size3, dilation: int) -> nn.Sequential:
    """Convolution, norm, activation, convolution, norm. Axes with kernel 1 are not dilated.

    Group normalisation with one group a channel is instance normalisation, in kernels that keep channels last.
    """
    return nn.Sequential(
        _conv(c_in, c_out, kernel, stride, dilation),
        nn.GroupNorm(c_out, c_out),
        nn.LeakyReLU(0.01, inplace=True),
        _conv(c_out, c_out, kernel, (1, 1, 1), dilation),
        nn.GroupNorm(c_out, c_out),
    )


def _conv(c_in: int, c_out: int, kernel: Size3, stride: Size3, dilation: int) -> nn.Conv3d:
    dz, dy, dx = (dilation if k > 1 else 1 for k in kernel)
    pz, py, px = (d * (k // 2) for k, d in zip(kernel, (dz, dy, dx), strict=True))
    return nn.Conv3d(c_in, c_out, kernel, stride, (pz, py, px), (dz, dy, dx), bias=False)
