"""Weighted Dice plus weighted cross-entropy (paper 2.2; Ma et al. 2021, doi:10.1016/j.media.2021.102035)."""

import torch
from torch.nn import functional

from renalseg.config import Training
from renalseg.train.prepare import IGNORE


def dice_ce(logits: torch.Tensor, target: torch.Tensor, config: Training) -> torch.Tensor:
    """Loss of each sample, float32 [n].

    Args:
        logits: [n, classes, z, y, x], any float type; computed in float32.
        target: int64 [n, z, y, x]; voxels of value ``IGNORE`` count nowhere.
        config: weights of the two terms and of the classes.

    The Dice term is the weighted mean over the classes that the sample's target holds; a class that it lacks is left to
    the cross-entropy, since its Dice would jump from 0 to 1 with a single voxel.
    """
    logits = logits.float()
    counts = target != IGNORE
    clean = torch.where(counts, target, 0)
    weights = logits.new_tensor(config.class_weights)
    one_hot = functional.one_hot(clean, logits.shape[1]).movedim(-1, 1).to(logits.dtype) * counts[:, None]
    log_probability = logits.log_softmax(1)
    per_class = -(one_hot * log_probability).sum((2, 3, 4))
    voxels = one_hot.sum((2, 3, 4))
    ce = (per_class * weights).sum(1) / (voxels * weights).sum(1).clamp_min(1e-6)
    probability = log_probability.exp() * counts[:, None]
    overlap = (probability * one_hot).sum((2, 3, 4))
    dice = 2 * overlap / (probability.sum((2, 3, 4)) + voxels).clamp_min(1e-6)
    present = (voxels > 0).float() * weights
    dice_loss = 1.0 - (dice * present).sum(1) / present.sum(1).clamp_min(1e-6)
    return config.dice_weight * dice_loss + config.ce_weight * ce
