"""Step 3 and 4: a fine network over windows along z, blended, averaged with the mirror image (paper 2.3)."""

from collections.abc import Sequence

import torch

from renalseg.config import Fine
from renalseg.model.runtime import Runtime


@torch.inference_mode()
def fine_probability(
    image: torch.Tensor, networks: Sequence[torch.nn.Module], fine: Fine, runtime: Runtime, mirror: bool
) -> torch.Tensor:
    """Class probabilities float32 [classes, d, y, x] of ``image`` [1, 1, d, y, x]: mean over networks and mirrors.

    With ``mirror``, an image and its mirror along z go through the network as one batch of two.
    """
    starts = window_starts(image.shape[2], fine.window, fine.overlap)
    length = min(fine.window, image.shape[2])
    weight = blend_weights(length).to(image.device)
    total, norm = None, torch.zeros(image.shape[2], device=image.device)
    for start in starts:
        window = image[:, :, start : start + length]
        batch = torch.cat((window, window.flip(2))) if mirror else window
        batch = batch.contiguous(memory_format=runtime.memory_format)
        mean = _mean_probability(batch, networks, runtime)
        if total is None:
            total = torch.zeros(mean.shape[0], *image.shape[2:], device=image.device)
        total[:, start : start + length] += mean * weight[:, None, None]
        norm[start : start + length] += weight
    assert total is not None
    return total / norm[:, None, None]


def window_starts(depth: int, window: int, overlap: float) -> list[int]:
    """First slices of evenly spread windows that cover ``depth`` slices and overlap by at least ``overlap``."""
    if depth <= window:
        return [0]
    step = max(1, int(window * (1 - overlap)))
    count = -(-(depth - window) // step) + 1
    return [round(i * (depth - window) / (count - 1)) for i in range(count)]


def blend_weights(length: int) -> torch.Tensor:
    """Weight of each slice of a window, float32 [length]: highest in the middle, never 0, symmetric."""
    ramp = torch.arange(1, length + 1, dtype=torch.float32)
    return torch.minimum(ramp, ramp.flip(0))


def _mean_probability(batch: torch.Tensor, networks: Sequence[torch.nn.Module], runtime: Runtime) -> torch.Tensor:
    """Mean over networks and over the batch, whose second item is mirrored along z: [classes, z, y, x]."""
    total = torch.zeros((), device=batch.device)
    for network in networks:
        with runtime.autocast():
            logits = network(batch)
        probability = logits.float().softmax(1)
        total = total + (probability[0] if len(batch) == 1 else (probability[0] + probability[1].flip(1)) / 2)
    return total / len(networks)
