"""Versions of one sample to look at: each operation alone, then all together as in training."""

from collections.abc import Iterator
from itertools import count, islice

import numpy as np
import torch
from numpy.typing import NDArray

from renalseg.config import Augmentation
from renalseg.core.labels import KIDNEY, MASSES
from renalseg.train.augment import OPERATIONS, augment, is_on, only
from renalseg.train.paste import cut_lesion, paste_lesion

Version = tuple[str, NDArray[np.float32], NDArray[np.uint8]]

TRIES = 16
"""Draws after which an operation that changed nothing is left out: it has no range, or there is no lesion."""


def versions(
    image: NDArray[np.floating],
    labels: NDArray[np.uint8],
    config: Augmentation,
    seed: int = 0,
    alone: int = 2,
    together: int = 6,
) -> Iterator[Version]:
    """The sample itself, each operation alone, and all together: (title, image float32, labels uint8), one at a time.

    Args:
        image: [z, y, x] in [-1, 1].
        labels: uint8 [z, y, x], as ``augment`` takes them.
        config: the settings; operations that they turn off are left out.
        seed: of all draws.
        alone: draws of each operation; a mirror has nothing to draw and comes once.
        together: draws with the settings as they are.
    """
    given, truth = torch.from_numpy(image.astype(np.float32)), torch.from_numpy(labels.astype(np.uint8))
    yield "original", given.numpy(), truth.numpy()
    for place, name in enumerate(OPERATIONS):
        if not is_on(name, config):
            continue
        drawn = (augment(given, truth, only(name, config), np.random.default_rng([seed, place, i])) for i in count())
        tried = islice(drawn, TRIES)
        changed = (pair for pair in tried if not (torch.equal(pair[0], given) and torch.equal(pair[1], truth)))
        for moved, moved_labels in islice(changed, 1 if name.startswith("mirror") else alone):
            yield name, moved.numpy(), moved_labels.numpy()
    for i in range(together):
        moved, moved_labels = augment(given, truth, config, np.random.default_rng([seed, len(OPERATIONS), i]))
        yield "all together", moved.numpy(), moved_labels.numpy()


def pasted(
    image: NDArray[np.float16],
    labels: NDArray[np.uint8],
    donor: tuple[NDArray[np.float16], NDArray[np.uint8]],
    seed: int = 0,
    count: int = 2,
) -> Iterator[Version]:
    """The sample with a lesion of ``donor`` (image and labels of another case) at random places."""
    generator = np.random.default_rng([seed, len(OPERATIONS) + 1])
    for _ in range(TRIES):
        lesion = cut_lesion(*donor, generator)
        if lesion is None or count == 0:
            return
        moved, moved_labels = paste_lesion(image, labels, lesion, generator)
        if moved is not image:
            count -= 1
            yield "lesion of another case", moved.astype(np.float32), moved_labels


def most_shown(labels: NDArray[np.uint8], depth: int) -> tuple[int, int]:
    """The run of ``depth`` slices, or all where there are fewer, about the slice with most lesion, else most kidney."""
    areas = MASSES.mask(labels).sum(axis=(1, 2))
    if not areas.any():
        areas = (labels == KIDNEY).sum(axis=(1, 2))
    middle = int(areas.argmax()) if areas.any() else len(labels) // 2
    start = min(max(middle - depth // 2, 0), max(len(labels) - depth, 0))
    return start, min(start + depth, len(labels))
