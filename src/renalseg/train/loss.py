"""Weighted Dice plus weighted cross-entropy (paper 2.2; Ma et al. 2021, doi:10.1016/j.media.2021.102035).

Cross-entropy may count the hardest voxels alone (top-k, Wu et al. 2016, arXiv:1605.06885), and targets may be mixed.
"""

from collections.abc import Sequence

import torch

from renalseg.config import Training


def dice_ce(logits: torch.Tensor, target: torch.Tensor, config: Training) -> torch.Tensor:
    """Loss of each sample, float32 [n].

    Args:
        logits: [n, classes, z, y, x], any float type; computed in float32.
        target: integer classes [n, z, y, x], where voxels of value ``IGNORE`` count nowhere; or, for mixed samples, the
            share of each class float32 [n, classes, z, y, x] from ``mixed_target``.
        config: weights of the two terms and of the classes, and the share of hard voxels.

    The Dice term is the weighted mean over the classes that the sample's target holds; a class that it lacks is left to
    the cross-entropy, since its Dice would jump from 0 to 1 with a single voxel.
    """
    logits = logits.float()
    shares = target if target.is_floating_point() else one_hot(target, logits.shape[1])
    weights = torch.tensor(config.class_weights).to(logits.device, non_blocking=True)
    log_probability = logits.log_softmax(1)
    voxels = shares.sum((2, 3, 4))
    probability = log_probability.exp() * shares.sum(1, keepdim=True)
    overlap = (probability * shares).sum((2, 3, 4))
    dice = 2 * overlap / (probability.sum((2, 3, 4)) + voxels).clamp_min(1e-6)
    present = (voxels > 0).float() * weights
    dice_loss = 1.0 - (dice * present).sum(1) / present.sum(1).clamp_min(1e-6)
    ce = _cross_entropy(log_probability, shares, weights, config.hard_voxels)
    return config.dice_weight * dice_loss + config.ce_weight * ce


def one_hot(target: torch.Tensor, classes: int) -> torch.Tensor:
    """Share of each class float32 [n, classes, z, y, x] of integer classes [n, z, y, x]; 0 everywhere at ``IGNORE``."""
    return torch.stack([target == c for c in range(classes)], 1).float()


def mixed_target(targets: torch.Tensor, others: torch.Tensor, weights: Sequence[float], classes: int) -> torch.Tensor:
    """The share of each class in mixed samples, float32 [n, classes, z, y, x] (Zhang et al. 2017, arXiv:1710.09412).

    A voxel that one of the two ignores counts with the other's weight alone; ``weights`` are those of ``targets``.
    """
    weight = torch.tensor(weights, dtype=torch.float32).to(targets.device, non_blocking=True).view(-1, 1, 1, 1, 1)
    return weight * one_hot(targets, classes) + (1.0 - weight) * one_hot(others, classes)


def _cross_entropy(
    log_probability: torch.Tensor, shares: torch.Tensor, weights: torch.Tensor, hard: float
) -> torch.Tensor:
    """Weighted mean over the voxels that count, or over the share ``hard`` of them whose loss is largest; [n]."""
    scale = weights.view(1, -1, 1, 1, 1)
    if hard >= 1:
        per_class = -(shares * log_probability).sum((2, 3, 4))
        return (per_class * weights).sum(1) / (shares.sum((2, 3, 4)) * weights).sum(1).clamp_min(1e-6)
    loss = -(shares * log_probability * scale).sum(1).flatten(1)
    weight = (shares * scale).sum(1).flatten(1)
    hardest, where = loss.topk(max(1, int(hard * loss.shape[1])), dim=1)
    kept = ((weight > 0).sum(1, keepdim=True) * hard).floor().clamp_min(1)  # not read here: no GPU is awaited
    within = torch.arange(hardest.shape[1], device=loss.device) < kept
    return (hardest * within).sum(1) / (weight.gather(1, where) * within).sum(1).clamp_min(1e-6)
