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

    With ``mirror``, an image and its mirror along z go through the network as one batch of two on a CPU, and one by one
    on a device, which a single window keeps busy and whose memory two would take twice of. One window at a time is on
    the device; results gather where the image is, or on the CPU where the networks are there.

    Args:
        inside: bool [d, y, x], where the result matters; everywhere by default. The two predictions are compared
            there, and a window without any is left out: slices of such windows alone are all of the first class.

    Returns:
        Probabilities float32 [classes, d, y, x], and float32 [classes, classes] on the CPU: the voxels that the image
        calls the row's class and the mirror the column's, blended like the windows; None without ``mirror``.

    Raises:
        torch.OutOfMemoryError: the device has no room for a window.
    """
    if runtime.is_host:
        image, inside = image.cpu(), None if inside is None else inside.cpu()
    depth = image.shape[2]
    length = min(fine.window, depth)
    spans = [slice(start, start + length) for start in window_starts(depth, fine.window, fine.overlap)]
    needed = [span for span in spans if inside is None or inside[span].any()] or spans[:1]
    weight, norm = blend_weights(length), torch.zeros(depth)
    total, mirrors = torch.empty(0), torch.empty(0)
    for span in needed:
        each = _window(image[:, :, span].to(runtime.device), networks, runtime, mirror)
        runtime.trim_host_memory()
        if span == needed[0]:
            total = torch.zeros(each.shape[1], *image.shape[2:], device=image.device)
            mirrors = torch.zeros(each.shape[1] ** 2, depth)
        if mirror:
            within = None if inside is None else inside[span].to(each.device)
            mirrors[:, span] += _joint_counts(each, within).cpu() * weight
        weighted = each.mean(0).mul_(weight.to(each.device)[:, None, None])
        total[:, span] += weighted.to(total.device)
        norm[span] += weight
    total[0, norm.to(total.device) == 0] = 1.0
    norm[norm == 0] = 1.0
    table = (mirrors / norm).sum(1).view(len(total), len(total)) if mirror else None
    return total.div_(norm.to(total.device)[:, None, None]), table


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


def _window(window: torch.Tensor, networks: Sequence[torch.nn.Module], runtime: Runtime, mirror: bool) -> torch.Tensor:
    """Probabilities [n, classes, z, y, x] of a window, and with ``mirror`` those of its mirror, turned back."""
    if not mirror:
        return _mean_probability(window, networks, runtime)
    both = (window, window.flip(2))
    batches = (torch.cat(both),) if runtime.is_host else both
    straight, mirrored = torch.cat([_mean_probability(batch, networks, runtime) for batch in batches])
    return torch.stack((straight, mirrored.flip(1)))


def _mean_probability(batch: torch.Tensor, networks: Sequence[torch.nn.Module], runtime: Runtime) -> torch.Tensor:
    """Mean over networks, [n, classes, z, y, x]."""
    batch = batch.contiguous(memory_format=runtime.memory_format)
    total: torch.Tensor | None = None
    for network in networks:
        with runtime.autocast():
            probability = network(batch).float().softmax(1)
        total = probability if total is None else total.add_(probability)
    assert total is not None
    return total.div_(len(networks))


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
