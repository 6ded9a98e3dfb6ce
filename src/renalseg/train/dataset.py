"""Training samples: which case, which slices, which augmentation, all decided by (seed, epoch, position) alone.

So nothing has to be remembered to resume, and the number of loader processes changes nothing.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from renalseg.config import Stage, Training
from renalseg.train.augment import augment
from renalseg.train.prepare import Prepared


@dataclass(frozen=True)
class Sample:
    """One augmented patch: image float32 [1, z, y, x], target int64 [z, y, x] with ``IGNORE`` where nothing counts."""

    image: torch.Tensor
    target: torch.Tensor


class Patches(Dataset[Sample]):
    """All patches of one epoch; ``set_epoch`` draws the next ones."""

    def __init__(self, cases: list[Prepared], stage: Stage, config: Training) -> None:
        self.cases, self.stage, self.config = cases, stage, config
        self.order: list[int] = []
        self.epoch = -1

    def set_epoch(self, epoch: int) -> None:
        """Shuffles the cases for ``epoch``."""
        self.epoch = epoch
        self.order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.cases)).tolist()

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, position: int) -> Sample:
        generator = np.random.default_rng([self.config.seed, self.epoch, position, 1])
        image, target = self.cases[self.order[position]].load()
        start, stop = choose_slices(target, self.config.patch[0], self.stage, generator)
        patch = torch.from_numpy(image[start:stop].astype(np.float32))
        truth = torch.from_numpy(target[start:stop].copy())
        patch, truth = augment(patch, truth, self.config, generator)
        return Sample(patch[None], truth.long())


def choose_slices(target: np.ndarray, depth: int, stage: Stage, generator: np.random.Generator) -> tuple[int, int]:
    """A random run of ``depth`` slices, all of them where there are fewer: nothing is ever padded.

    For the lesion stage half of the runs hold a slice with a mass, chosen at random, since many runs hold none.
    """
    n = target.shape[0]
    if n <= depth:
        return 0, n
    low, high = 0, n - depth
    if stage == "lesion" and generator.random() < 0.5:
        hits = np.flatnonzero(((target == 1) | (target == 2)).any(axis=(1, 2)))
        if hits.size:
            z = int(generator.choice(hits))
            low, high = max(low, z - depth + 1), min(high, z)
    start = int(generator.integers(low, high + 1))
    return start, start + depth


def group_by_shape(samples: list[Sample]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Stacks samples of equal shape: images [n, 1, z, y, x] and targets [n, z, y, x] for each group.

    Regions shorter than the patch stay as short as they are. Their gradients are summed with the others', which equals
    one padded batch whose padding counts nowhere.
    """
    groups: dict[torch.Size, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.image.shape, []).append(sample)
    return [(torch.stack([s.image for s in g]), torch.stack([s.target for s in g])) for g in groups.values()]
