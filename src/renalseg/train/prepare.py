"""From a KiTS23-layout dataset to small arrays that training reads: each case resampled once, for its stage.

Cached files are named by the hash of the settings and of the source files, written atomically, and read as memory maps.
"""

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from renalseg.config import Config, Stage
from renalseg.core.errors import InputError
from renalseg.core.volume import Volume
from renalseg.image.boxes import Box, bounding_box, grow
from renalseg.image.intensity import normalise
from renalseg.image.resample import resize
from renalseg.io.files import atomic_path
from renalseg.io.kits import KitsCase, list_cases, read_case

IGNORE = 255
"""Target value of voxels that do not enter the loss."""

VERSION = 1
"""Raised when the meaning of a cached array changes."""


@dataclass(frozen=True)
class Prepared:
    """One case ready for one stage: image float16 [z, y, x] in [-1, 1] and target uint8, as files."""

    case_id: str
    image: Path
    target: Path

    def load(self) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
        """Both arrays as read-only memory maps."""
        return np.load(self.image, mmap_mode="r"), np.load(self.target, mmap_mode="r")


def prepare(
    dataset: Path,
    cache: Path,
    stage: Stage,
    config: Config,
    case_ids: list[str],
    workers: int = 1,
    on_case: Callable[[str, int, int], None] | None = None,
) -> list[Prepared]:
    """Prepares ``case_ids`` of a dataset for a stage, reusing what is in ``cache`` already.

    Raises:
        InputError: a case has no image or no labels, or cannot be read.
    """
    by_id = {case.case_id: case for case in list_cases(dataset)}
    jobs = [(by_id[i], cache, stage, config) for i in case_ids]
    done = []
    for index, prepared in enumerate(_run(jobs, workers)):
        done.append(prepared)
        if on_case:
            on_case(prepared.case_id, index + 1, len(jobs))
    return done


def _run(jobs: list[tuple[KitsCase, Path, Stage, Config]], workers: int) -> Iterator[Prepared]:
    if workers <= 1:
        yield from map(_prepare_case, jobs)
        return
    # Fresh interpreters: forking a process that runs threads (torch's, the progress bar's) may deadlock.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_prepare_case, jobs)


def _prepare_case(job: tuple[KitsCase, Path, Stage, Config]) -> Prepared:
    case, cache, stage, config = job
    key = _key(case, stage, config)
    image_path = cache / stage / f"{case.case_id}-{key}-image.npy"
    target_path = cache / stage / f"{case.case_id}-{key}-target.npy"
    if not (image_path.exists() and target_path.exists()):
        ct, labels = read_case(case)
        if stage == "coarse":
            image, target = coarse_arrays(ct, labels, config)
        else:
            image, target = fine_arrays(ct, labels, stage, config)
        for path, array in ((target_path, target), (image_path, image)):
            with atomic_path(path) as temporary:
                np.save(temporary, array)
    return Prepared(case.case_id, image_path, target_path)


def coarse_arrays(ct: Volume, labels: Volume, config: Config) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """The whole volume at the coarse shape, and its target (1: kidney or mass), both [z, y, x]."""
    image = _resized(ct.array, config.coarse.shape)
    share = resize(torch.from_numpy(np.ascontiguousarray(labels.array > 0)), config.coarse.shape)
    target = (share >= 0.5).to(torch.uint8).numpy()
    return normalise(image, config.intensity).half().numpy(), target


def fine_arrays(
    ct: Volume, labels: Volume, stage: Stage, config: Config
) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """The region of interest round the true kidneys, resampled in plane only, and its target, both [z, y, x].

    The kidney target is 0 or 1. The lesion target is 0 other kidney, 1 tumor, 2 cyst, and ``IGNORE`` farther than
    ``ignore_beyond_mm`` from the true kidney.
    """
    box = training_box(labels, config, seed=ct.name)
    shape = (box.shape[0], *config.fine.in_plane)
    image = normalise(_resized(ct.array[box.slices], shape), config.intensity).half().numpy()
    cut = labels.array[box.slices]
    target = _majority(cut, shape)
    if stage == "kidney":
        return image, (target > 0).astype(np.uint8)
    pixel = [s * n / m for s, n, m in zip(ct.spacing_mm, box.shape, shape, strict=True)]
    near = _within(target > 0, config.training["lesion"].ignore_beyond_mm, pixel)
    lesion = np.where(target > 0, target - 1, 0).astype(np.uint8)
    return image, np.where(near, lesion, IGNORE).astype(np.uint8)


def training_box(labels: Volume, config: Config, seed: str) -> Box:
    """The box round the true kidneys with the margin of testing, each side moved by up to half of it.

    A case without kidneys gives a box in the middle of the volume, of a kidney pair's usual size: it teaches the
    fine stages what a false alarm of the coarse stage looks like.
    """
    generator = np.random.default_rng(list(hashlib.sha256(seed.encode()).digest()[:8]))
    exact = bounding_box(labels.array > 0)
    if exact is None:
        sizes = zip(labels.shape, (60, 50, 110), labels.spacing_mm, strict=True)
        half = [min(n // 2, round(mm / s)) for n, mm, s in sizes]
        z, y, x = (n // 2 for n in labels.shape)
        exact = Box((z - half[0], y - half[1], x - half[2]), (z + half[0], y + half[1], x + half[2]))
    low, high = (tuple(float(m * generator.uniform(0.5, 1.5)) for m in config.coarse.margin_mm) for _ in range(2))
    first = grow(exact, (low[0], low[1], low[2]), labels.spacing_mm, labels.shape)
    second = grow(exact, (high[0], high[1], high[2]), labels.spacing_mm, labels.shape)
    return Box(first.start, second.stop)


def _resized(hu: NDArray[np.generic], shape: tuple[int, int, int]) -> torch.Tensor:
    return resize(torch.from_numpy(np.ascontiguousarray(hu)), shape)


def _majority(labels: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Labels resampled by area: the label with the largest share of each new voxel."""
    shares = [resize(torch.from_numpy(np.ascontiguousarray(labels == i)), shape) for i in range(4)]
    return torch.stack(shares).argmax(0).to(torch.uint8).numpy()


def _within(mask: NDArray[np.bool_], distance_mm: float, spacing_mm: list[float]) -> NDArray[np.bool_]:
    """Voxels within ``distance_mm`` of ``mask``."""
    from scipy.ndimage import distance_transform_edt

    if not mask.any():
        return mask
    result: NDArray[np.bool_] = distance_transform_edt(~mask, sampling=spacing_mm) <= distance_mm
    return result


def _key(case: KitsCase, stage: Stage, config: Config) -> str:
    """Hash of all that decides the arrays: settings, and size and time of the source files."""
    files = [case.imaging, case.segmentation]
    if None in files:
        raise InputError(f"{case.case_id}: training needs imaging.nii.gz and segmentation.nii.gz; one is missing")
    stats = [(f.stat().st_size, f.stat().st_mtime_ns) for f in files if f is not None]
    settings = config.intensity.model_dump(), config.coarse.shape, config.coarse.margin_mm, config.fine.in_plane
    ignore = config.training["lesion"].ignore_beyond_mm
    text = json.dumps([VERSION, stage, settings, ignore, stats], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
