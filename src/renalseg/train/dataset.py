"""Training samples: case, slices, pasted lesion, augmentation and mixture, decided by (seed, epoch, position) alone.

So nothing has to be remembered to resume, and neither the number of loader processes nor that of GPUs changes a sample.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from renalseg.config import Stage, Training
from renalseg.core.labels import MASSES
from renalseg.train.augment import augment
from renalseg.train.cache import Prepared
from renalseg.train.paste import cut_lesion, paste_lesion
from renalseg.train.prepare import targets

_SAMPLE, _MIXUP, _PASTE = 1, 2, 3
"""Streams of random numbers."""

MASS_RUNS: dict[Stage, float] = {"coarse": 0.0, "kidney": 0.0, "lesion": 0.5}
"""The share of the runs of slices that are made to hold a mass, since many would hold none."""


@dataclass(frozen=True)
class Sample:
    """One augmented patch.

    Attributes:
        image: float32 [1, z, y, x] in [-1, 1].
        target: uint8 [z, y, x], classes of the stage, ``IGNORE`` where nothing counts.
        other: a second target that was mixed in, or None.
        weight: the share of ``target``; ``other`` has the rest (mixup).
        case: index of the case that ``target`` is of.
    """

    image: torch.Tensor
    target: torch.Tensor
    other: torch.Tensor | None = None
    weight: float = 1.0
    case: int = 0


@dataclass(frozen=True)
class Patch:
    """A patch before augmentation, as cached or with a pasted lesion: image float16 and labels uint8 [z, y, x]."""

    image: torch.Tensor
    labels: torch.Tensor
    seed: tuple[int, ...]

    def pin_memory(self) -> "Patch":
        """The same in page-locked memory, which a GPU copies from without holding up the program."""
        return replace(self, image=self.image.pin_memory(), labels=self.labels.pin_memory())


@dataclass(frozen=True)
class Draw:
    """What makes a sample: one patch, or two that are mixed with ``weight`` and 1 - ``weight``."""

    patches: tuple[Patch, ...]
    weight: float
    case: int

    def pin_memory(self) -> "Draw":
        """The same in page-locked memory; the loader calls it where it is told to pin."""
        return replace(self, patches=tuple(patch.pin_memory() for patch in self.patches))


@dataclass(frozen=True)
class Key:
    """What decides a sample: whose case, in which epoch and place, what is mixed in, and whose lesion is pasted.

    Attributes:
        epoch, position: place of the sample in the run.
        case: index of its case.
        partner: index of the case that is mixed in, or None.
        weight: the share of ``case``, at least one half; the partner has the rest.
        donor: index of the case whose lesion is pasted into ``case``, or None.
    """

    epoch: int
    position: int
    case: int
    partner: int | None = None
    weight: float = 1.0
    donor: int | None = None


def epoch_keys(order: list[int], epoch: int, config: Training) -> list[Key]:
    """The samples of one epoch: the cases in ``order``.

    With ``mixup_probability`` another one of them is mixed in; with ``paste_probability`` one gives a lesion.
    """
    keys = []
    for position, case in enumerate(order):
        others = order[position + 1 :] + order[:position]
        key = Key(epoch, position, case)
        generator = np.random.default_rng([config.seed, epoch, position, _MIXUP])
        if others and generator.random() < config.mixup_probability:
            partner = others[int(generator.integers(len(others)))]
            weight = float(generator.beta(config.mixup_alpha, config.mixup_alpha))
            key = replace(key, partner=partner, weight=max(weight, 1.0 - weight))
        generator = np.random.default_rng([config.seed, epoch, position, _PASTE])
        if others and generator.random() < config.paste_probability:
            key = replace(key, donor=others[int(generator.integers(len(others)))])
        keys.append(key)
    return keys


class Patches(Dataset["Draw | Sample"]):
    """Samples by their key; nothing changes from epoch to epoch, so loader processes live as long as the run.

    Args:
        cases: the training cases.
        stage: which stage they are for.
        config: its settings.
        augmented: whether items are finished samples, or draws that the training process finishes on its device.
    """

    def __init__(self, cases: list[Prepared], stage: Stage, config: Training, augmented: bool = True) -> None:
        self.cases, self.stage, self.config, self.augmented = cases, stage, config, augmented

    def __getitem__(self, key: Key) -> "Draw | Sample":
        patches = [self._patch(key, key.case, 0, key.donor)]
        if key.partner is not None:
            patches.append(self._patch(key, key.partner, 1))
        drawn = Draw(tuple(patches), key.weight, key.case)
        return finish(drawn, self.stage, self.config, torch.device("cpu")) if self.augmented else drawn

    def _patch(self, key: Key, case: int, place: int, donor: int | None = None) -> Patch:
        seed = (self.config.seed, key.epoch, key.position, _SAMPLE, place)
        image, labels = self.cases[case].load()
        draws = np.random.default_rng([*seed, 0])
        start, stop = choose_slices(labels, self.config.patch[0], draws, MASS_RUNS[self.stage])
        image, labels = image[start:stop].copy(), labels[start:stop].copy()
        if donor is not None:
            draws = np.random.default_rng([*seed, 3])
            lesion = cut_lesion(*self.cases[donor].load(), draws)
            image, labels = (image, labels) if lesion is None else paste_lesion(image, labels, lesion, draws)
        return Patch(torch.from_numpy(image), torch.from_numpy(labels), seed)


class Batches(Sampler[list[Key]]):
    """One epoch in global batches, of each the part of one process: every ``size``-th sample from ``rank``.

    A part may be empty in the last batch of an epoch; all processes make the same number of steps.
    """

    def __init__(self, batch: int, rank: int = 0, size: int = 1) -> None:
        self.batch, self.rank, self.size = batch, rank, size
        self.keys: list[Key] = []
        """The samples of the coming epoch, of all processes."""

    def __len__(self) -> int:
        return -(-len(self.keys) // self.batch)

    def __iter__(self) -> Iterator[list[Key]]:
        for start in range(0, len(self.keys), self.batch):
            yield self.keys[start : start + self.batch][self.rank :: self.size]


def finish(drawn: Draw, stage: Stage, config: Training, device: torch.device) -> Sample:
    """Augments the patches on ``device``, makes targets of their labels, and mixes them (Zhang et al. 2017).

    Two patches of different depth are cut to the smaller one, at random along z: nothing is ever padded.
    """
    made = []
    for patch in drawn.patches:
        image = patch.image.to(device, non_blocking=True).float()
        labels = patch.labels.to(device, non_blocking=True)
        image, labels = augment(image, labels, config.augmentation, np.random.default_rng([*patch.seed, 1]))
        made.append((image, targets(labels, stage)))
    if len(made) == 1:
        image, target = made[0]
        return Sample(image[None], target, case=drawn.case)
    depth = min(image.shape[0] for image, _ in made)
    generator = np.random.default_rng([*drawn.patches[1].seed, 2])
    starts = [int(generator.integers(0, image.shape[0] - depth + 1)) for image, _ in made]
    (first, target), (second, other) = (
        (image[s : s + depth], truth[s : s + depth]) for s, (image, truth) in zip(starts, made, strict=True)
    )
    image = drawn.weight * first + (1.0 - drawn.weight) * second
    return Sample(image[None], target, other, drawn.weight, drawn.case)


def choose_slices(
    labels: NDArray[np.uint8], depth: int, generator: np.random.Generator, mass: float = 0.0
) -> tuple[int, int]:
    """A random run of ``depth`` slices, all of them where there are fewer: nothing is ever padded.

    A share ``mass`` of the runs holds a slice with a mass, chosen at random, where there is one.
    """
    n = labels.shape[0]
    if n <= depth:
        return 0, n
    low, high = 0, n - depth
    if mass > 0 and generator.random() < mass:
        hits = np.flatnonzero(MASSES.mask(labels).any(axis=(1, 2)))
        if hits.size:
            z = int(generator.choice(hits))
            low, high = max(low, z - depth + 1), min(high, z)
    start = int(generator.integers(low, high + 1))
    return start, start + depth
