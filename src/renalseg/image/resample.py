"""Separable linear resampling of a box of an array to a new shape, as three matrix products.

Voxels are areas, not points: output voxel ``i`` of ``n`` covers the i-th n-th of the box, and its value is a weighted
mean of the input under a triangle as wide as the larger of the two voxels. Enlarging, this is ordinary linear
interpolation (``align_corners=False``); reducing, it is anti-aliased. Edges are clamped. The same code serves the way
to the network and the way back, on any device.
"""

import numpy as np
import torch

from renalseg.image.boxes import Box

SLAB_BYTES = 256 * 2**20
"""Input is turned to float32 in slabs along z of at most this size."""


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


def resize(array: torch.Tensor, shape: tuple[int, int, int], box: Box | None = None) -> torch.Tensor:
    """Resamples ``box`` (default: all) of ``array`` [..., z, y, x] to ``shape`` (z, y, x); float32 on its device."""
    whole = (int(array.shape[-3]), int(array.shape[-2]), int(array.shape[-1]))
    box = box or Box((0, 0, 0), whole)
    weights = [
        axis_weights(whole[axis], box.start[axis], box.stop[axis], shape[axis]).to(array.device) for axis in range(3)
    ]
    slabs = []
    per_slice = array[..., 0, :, :].numel() * 4
    for slab in torch.split(array, max(1, SLAB_BYTES // per_slice), dim=-3):
        plane = _along(slab.float(), weights[2], -1)
        slabs.append(_along(plane, weights[1], -2))
    return _along(torch.cat(slabs, dim=-3), weights[0], -3)


def _along(array: torch.Tensor, weights: torch.Tensor, axis: int) -> torch.Tensor:
    """Applies ``weights`` [n_out, n_in] along one of the last three axes."""
    if torch.equal(weights, torch.eye(*weights.shape, device=weights.device)):
        return array
    if axis == -1:
        return array @ weights.T
    if axis == -2:
        return torch.matmul(weights, array)
    lead = array.shape[:-3]
    flat = array.reshape(*lead, array.shape[-3], -1)
    return torch.matmul(weights, flat).reshape(*lead, weights.shape[0], *array.shape[-2:])
