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


class InstanceNorm(nn.GroupNorm):
    """Instance normalisation in kernels that keep channels last: one group a channel, or a batch of one.

    Batch statistics of one sample are that sample's. On a CPU the gradient of group normalisation, channels last, was
    measured to be 4 (fp32) to 20 (bf16) times as slow as that of batch normalisation, and on a GPU group normalisation
    copies such a tensor to channels first. Training, and prediction on a device, run one sample at a time.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised ``x`` [n, c, z, y, x], scaled and shifted a channel."""
        if x.shape[0] == 1:
            return functional.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        return super().forward(x)


class Conv3d(nn.Conv3d):
    """A convolution that takes oneDNN's kernels on a CPU in fp32, whatever its size.

    PyTorch leaves one small sample (channels * z * y up to 20480) to a loop that was measured to be 5 to 12 times as
    slow, forwards and backwards; a tensor in oneDNN's own layout is always oneDNN's.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The convolution of ``x`` [n, c, z, y, x]."""
        n, channels, z, y, _ = x.shape
        small = n == 1 and channels > 1 and channels * z * y <= 20480 and max(self.kernel_size) > 1
        if small and _plain_fp32_on_cpu(x):
            like = torch.channels_last_3d if x.is_contiguous(memory_format=torch.channels_last_3d) else None
            out = super().forward(x.to_mkldnn()).to_dense()
            return out if like is None else out.contiguous(memory_format=like)
        return super().forward(x)


def _plain_fp32_on_cpu(x: torch.Tensor) -> bool:
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling()
    return plain and torch._C._has_mkldnn and not torch.is_autocast_enabled("cpu")


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


class SpaceToDepth(nn.Module):
    """Blocks of ``factor`` voxels become channels: [n, c, z, y, x] to [n, c * product, z / fz, y / fy, x / fx].

    Nothing is lost, so that a network can run at the lower resolution from its first convolution on.
    """

    def __init__(self, factor: Size3) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The rearranged tensor."""
        n, c, z, y, w = x.shape
        fz, fy, fx = self.factor
        blocks = x.reshape(n, c, z // fz, fz, y // fy, fy, w // fx, fx).permute(0, 1, 3, 5, 7, 2, 4, 6)
        return blocks.reshape(n, c * fz * fy * fx, z // fz, y // fy, w // fx)


class DepthToSpace(nn.Module):
    """The inverse of ``SpaceToDepth`` (sub-pixel convolution, Shi et al. 2016, arXiv:1609.05158)."""

    def __init__(self, factor: Size3) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The rearranged tensor."""
        n, c, z, y, w = x.shape
        fz, fy, fx = self.factor
        c //= fz * fy * fx
        blocks = x.reshape(n, c, fz, fy, fx, z, y, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
        return blocks.reshape(n, c, z * fz, y * fy, w * fx)


class ResUnet(nn.Module):
    """A residual U-Net; the sizes of its input are divisible by the product of the stem and the strides."""

    def __init__(self, config: Network) -> None:
        super().__init__()
        self.config = config
        widths, kernels = config.widths, config.kernels
        strides: tuple[Size3, ...] = ((1, 1, 1), *config.strides)
        stemmed = max(config.stem) > 1
        self.stem = SpaceToDepth(config.stem) if stemmed else nn.Identity()
        self.encoder = nn.ModuleList()
        c_in = math.prod(config.stem)
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
        self.head = nn.Conv3d(widths[0], len(config.classes) * math.prod(config.stem), 1)
        self.unfold = DepthToSpace(config.stem) if stemmed else nn.Identity()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits [n, classes, z, y, x] of ``image`` float [n, 1, z, y, x]."""
        skips = []
        x = self.stem(image)
        for level in self.encoder:
            x = level(x)
            skips.append(x)
        x = self.bottleneck(skips.pop())
        for up, decoder in zip(self.up, self.decoder, strict=True):
            x = decoder(torch.cat((up(x), skips.pop()), 1))
        logits: torch.Tensor = self.unfold(self.head(x))
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
    """Convolution, norm, activation, convolution, norm. Axes with kernel 1 are not dilated."""
    return nn.Sequential(
        _conv(c_in, c_out, kernel, stride, dilation),
        InstanceNorm(c_out),
        nn.LeakyReLU(0.01, inplace=True),
        _conv(c_out, c_out, kernel, (1, 1, 1), dilation),
        InstanceNorm(c_out),
    )


def _conv(c_in: int, c_out: int, kernel: Size3, stride: Size3, dilation: int) -> Conv3d:
    dz, dy, dx = (dilation if k > 1 else 1 for k in kernel)
    pz, py, px = (d * (k // 2) for k, d in zip(kernel, (dz, dy, dx), strict=True))
    return Conv3d(c_in, c_out, kernel, stride, (pz, py, px), (dz, dy, dx), bias=False)
