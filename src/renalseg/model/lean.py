"""The networks for prediction on a CPU: the same weights and sums as ``resunet``, slab by slab in little memory.

Results differ from those of ``resunet`` by rounding only; how the blocks run is told in ``slabs``.
"""

from collections.abc import Sequence

import torch
from torch import nn

from renalseg.model.layers import Conv, Up, padded, slices_first
from renalseg.model.resunet import ResidualBlock, ResUnet
from renalseg.model.slabs import Block, Slabs, spans, whole


def lean(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """``network`` for prediction on a CPU in ``dtype``; itself where it has parts that are not known here."""
    if not isinstance(network, ResUnet) or network.config.dilations != (1,) or network.config.psp_bins:
        return network
    return LeanResUnet(network, dtype)


class LeanResUnet(nn.Module):
    """A ``ResUnet`` whose blocks run slab by slab; the samples of a batch go one by one.

    Args:
        network: without atrous branches and PSP pooling; its weights are copied.
        dtype: of weights and activations, float32 or bfloat16; statistics are float32 and wider.
    """

    def __init__(self, network: ResUnet, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.stem, self.unfold = network.stem, network.unfold
        levels: Sequence[Sequence[ResidualBlock]] = network.encoder  # type: ignore[assignment]
        decoder: Sequence[ResidualBlock] = network.decoder  # type: ignore[assignment]
        ups: Sequence[nn.ConvTranspose3d] = network.up  # type: ignore[assignment]
        self._encoder = [[Block.of(block, dtype) for block in level] for level in levels]
        self._decoder = [(Up.of(up, dtype), Block.of(block, dtype)) for up, block in zip(ups, decoder, strict=True)]
        self._head = Conv.of(network.head, dtype)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits float32 [n, classes, z, y, x] of ``image`` float [n, 1, z, y, x]."""
        logits = torch.empty(0)
        with torch.autocast("cpu", enabled=False):
            for i, sample in enumerate(image):
                x = self._features(sample[None])
                if i == 0:
                    z, _, *in_plane = x.size
                    logits = torch.empty(len(image), len(self._head.weight), z, *in_plane)
                for (a, b), part in zip(spans(x.size[0], x.step), x.parts, strict=True):
                    logits[i, :, a:b] = self._head.flat(part).transpose(0, 1)
                del x, part
            unfolded: torch.Tensor = self.unfold(logits)
        return unfolded

    def _features(self, image: torch.Tensor) -> "Slabs":
        """What the head sees of ``image`` [1, 1, z, y, x]."""
        x = whole(padded(slices_first(self.stem(image.to(self.dtype)))))
        skips = []
        for level in self._encoder:
            for block in level:
                x = block(x.size, x.cut)
            skips.append(x)
        x = skips.pop()
        for up, block in self._decoder:
            x = block.merge(x, skips.pop(), up)
        return x
