"""Step 3 and 4: a fine network over windows along z, blended, averaged with the mirror image (paper 2.3)."""

from collections.abc import Sequence

import torch

from renalseg.config import Fine
from renalseg.model.runtime import Runtime


@torch.inference_mode()
def fine_probability(
    image: torch.Tensor,
    networks: Sequence[torch.nn.Module],
    fine: Fine,
    runtime: Runtime,
    mirror: bool,
    inside: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Class probabilities of ``image`` [1, 1, d, y, x]: mean over networks and mirrors; and how these agree.

    With ``mirror``, an image and its mirror along z go through the network as one batch of two.

    Args:
        inside: bool [d, y, x], where the two predictions are compared; everywhere by default.

    Returns:
        Probabilities float32 [classes, d, y, x], and float32 [classes, classes] on the CPU: the voxels that the image
        calls the row's class and the mirror the column's, blended like the windows; None without ``mirror``.
    """
    starts = window_starts(image.shape[2], fine.window, fine.overlap)
    length = min(fine.window, image.shape[2])
    weight = blend_weights(length).to(image.device)
    total, mirrors, norm = None, None, torch.zeros(image.shape[2], device=image.device)
    for start in starts:
        span = slice(start, start + length)
        window = image[:, :, span]
        batch = torch.cat((window, window.flip(2))) if mirror else window
        batch = batch.contiguous(memory_format=runtime.memory_format)
        each = _mean_probability(batch, networks, runtime)
        if total is None or mirrors is None:
            total = torch.zeros(each.shape[1], *image.shape[2:], device=image.device)
            mirrors = torch.zeros(each.shape[1] ** 2, image.shape[2], device=image.device)
        if mirror:
            mirrors[:, span] += _joint_counts(each, None if inside is None else inside[span]) * weight
        total[:, span] += each.mean(0) * weight[:, None, None]
        norm[span] += weight
    assert total is not None
    assert mirrors is not None
    table = (mirrors / norm).sum(1).view(len(total), len(total)).cpu() if mirror else None
    return total / norm[:, None, None], table


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
    """Mean over networks, [n, classes, z, y, x]; the second item, mirrored along z, is turned back."""
    total = torch.zeros((), device=batch.device)
    for network in networks:
        with runtime.autocast():
            logits = network(batch)
        total = total + logits.float().softmax(1)
    mean = total / len(networks)
    return mean if len(batch) == 1 else torch.stack((mean[0], mean[1].flip(1)))


def _joint_counts(both: torch.Tensor, inside: torch.Tensor | None) -> torch.Tensor:
    """Voxels of each slice by the largest class of two predictions [2, classes, z, y, x]: [classes * classes, z].

    Comparing finds it: ``argmax`` and masked writes were measured to be 10 to 100 times as slow on a CPU.
    """
    classes = both.shape[1]
    best, which = both[:, 0], torch.zeros_like(both[:, 0], dtype=torch.uint8)
    for c in range(1, classes):
        which = torch.maximum(which, (both[:, c] > best).to(torch.uint8) * c)
        best = torch.maximum(best, both[:, c])
    pair = which[0] * classes + which[1]
    if inside is not None:
        pair = pair + (~inside).to(torch.uint8) * classes**2
    return torch.stack([(pair == code).sum((1, 2)) for code in range(classes**2)]).float()
