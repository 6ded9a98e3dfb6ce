"""Separable linear resampling of a box of an array to a new shape, as three matrix products.

Voxels are areas, not points: output voxel ``i`` of ``n`` covers the i-th n-th of the box, and its value is a weighted
mean of the input under a triangle as wide as the larger of the two voxels. Enlarging, this is ordinary linear
interpolation (``align_corners=False``); reducing, it is anti-aliased. Edges are clamped. The same code serves the way
to the network and the way back, on any device.
"""

import numpy as np
import torch

from renalseg.image.boxes import Box

SLAB_BYTES = 32 * 2**20
"""Input is moved to the device and turned to float32 in slabs along z of at most this size."""


def axis_weights(n_in: int, start: float, stop: float, n_out: int) -> torch.Tensor:
    """Weights float32 [n_out, n_in] that resample the interval [start, stop) of an axis of ``n_in`` voxels.

    Rows sum to 1. Coordinates are voxel edges: voxel ``i`` covers [i, i + 1).
    """
    step = (stop - start) / n_out
    centre = start + (torch.arange(n_out, dtype=torch.float64) + 0.5) * step - 0.5
    radius = max(1.0, abs(step))
    reach = int(np.ceil(radius)) + 1
    taps = torch.floor(centre).long()[:, None] + torch.arange(-reach, reach + 1)[None]
    weight = (1.0 - (taps - centre[:, None]).abs() / radius).clamp_min(0.0)
    weights = torch.zeros(n_out, n_in, dtype=torch.float64)
    weights.scatter_add_(1, taps.clamp(0, n_in - 1), weight)
    return (weights / weights.sum(1, keepdim=True)).float()


def resize(
    array: torch.Tensor,
    shape: tuple[int, int, int],
    box: Box | None = None,
    device: torch.device | None = None,
) -> torch.Tensor:
    """Resamples ``box`` (default: all) of ``array`` [..., z, y, x] to ``shape`` (z, y, x); float32 on ``device``.

    ``device`` is the array's own by default. However many slices the array has, no more than a slab of it is on the
    device, beside the result.
    """
    device = device or array.device
    whole = (int(array.shape[-3]), int(array.shape[-2]), int(array.shape[-1]))
    box = box or Box((0, 0, 0), whole)
    weights = [axis_weights(whole[axis], box.start[axis], box.stop[axis], shape[axis]).to(device) for axis in range(3)]
    if _is_identity(weights[0]):
        return torch.cat([_in_plane(slab.to(device), weights) for slab in _slabs(array)], dim=-3)
    result = torch.zeros(*array.shape[:-3], *shape, device=device)
    start = 0
    for slab in _slabs(array):
        along_z = weights[0][:, start : start + slab.shape[-3]]
        start += slab.shape[-3]
        rows = along_z.any(1).nonzero()[:, 0]
        if len(rows):
            low, high = int(rows[0]), int(rows[-1]) + 1
            result[..., low:high, :, :] += _along_z(_in_plane(slab.to(device), weights), along_z[low:high])
    return result


def _slabs(array: torch.Tensor) -> tuple[torch.Tensor, ...]:
    per_slice = array[..., 0, :, :].numel() * 4
    return torch.split(array, max(1, SLAB_BYTES // per_slice), dim=-3)


def _in_plane(slab: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    """A slab [..., z, y, x] in float32, resampled along x and y."""
    plane = slab.float()
    if not _is_identity(weights[2]):
        plane = plane @ weights[2].T
    return plane if _is_identity(weights[1]) else torch.matmul(weights[1], plane)


def _along_z(array: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Applies ``weights`` [n_out, n_in] along z of ``array`` [..., z, y, x]."""
    lead, plane = array.shape[:-3], array.shape[-2:]
    return torch.matmul(weights, array.flatten(-2)).reshape(*lead, len(weights), *plane)


def _is_identity(weights: torch.Tensor) -> bool:
    return torch.equal(weights, torch.eye(*weights.shape, device=weights.device))
