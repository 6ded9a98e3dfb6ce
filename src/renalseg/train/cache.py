"""The cache that training reads: every case of a dataset on both grids, as memory-mapped arrays, made once.

A cached file is named by the hash of the settings that decide it and of the content of its source files, so a changed
source or setting is done anew and nothing else is. Files are written atomically, a case's image last.

    CACHE/coarse/<case>-<key>-image.npy, -labels.npy     whole volumes at the coarse shape
    CACHE/fine/<case>-<key>-image.npy, -labels.npy       regions of interest at the fine grid
    CACHE/sources/<case>.json                            size, time and content hash of the source files

Which of them are there ``CACHE/index.json`` tells (``train.index``).
"""

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from renalseg.config import Config, Stage
from renalseg.core.errors import ConfigError, InputError, WeightsError
from renalseg.core.processes import spread
from renalseg.core.volume import Volume
from renalseg.image.boxes import Box
from renalseg.io.files import atomic_path, file_sha256, write_json
from renalseg.io.kits import KitsCase, list_cases, read_case
from renalseg.train.prepare import coarse_arrays, fine_arrays

if TYPE_CHECKING:
    import torch

    from renalseg.model.runtime import Runtime

GridName = Literal["coarse", "fine"]
GRIDS: tuple[GridName, ...] = ("coarse", "fine")


VERSION = 2
"""Raised when the meaning of a cached array changes."""


@dataclass(frozen=True)
class Prepared:
    """One case on one grid: image float16 [z, y, x] in [-1, 1] and labels uint8 (``train.prepare``), as files."""

    case_id: str
    image: Path
    labels: Path

    def exists(self) -> bool:
        """Whether both files are there."""
        return self.image.exists() and self.labels.exists()

    def load(self) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
        """Both arrays as read-only memory maps."""
        return np.load(self.image, mmap_mode="r"), np.load(self.labels, mmap_mode="r")

    def write(self, image: NDArray[np.float16], labels: NDArray[np.uint8]) -> None:
        """Writes both arrays; the image comes last, so that a case with an image is complete."""
        for path, array in ((self.labels, labels), (self.image, image)):
            with atomic_path(path) as temporary:
                np.save(temporary, array)


def grid_of(stage: Stage) -> GridName:
    """The grid that a stage works on."""
    return "coarse" if stage == "coarse" else "fine"


def cached(cache: Path, grid: GridName, case_id: str, key: str) -> Prepared:
    """Where the arrays of a case are kept."""
    return at(cache, grid, case_id, f"{case_id}-{key}")


def at(cache: Path, grid: GridName, case_id: str, stem: str) -> Prepared:
    """The arrays of a case whose file names begin with ``stem``."""
    folder = cache / grid
    return Prepared(case_id, folder / f"{stem}-image.npy", folder / f"{stem}-labels.npy")


def prepare(
    dataset: Path,
    cache: Path,
    grids: Sequence[GridName],
    config: Config,
    case_ids: Sequence[str],
    workers: int = 1,
    on_case: Callable[[str, int, int], None] | None = None,
    coarse_weights: str | Path | None = None,
    device: str = "auto",
) -> dict[GridName, list[Prepared]]:
    """Prepares ``case_ids`` of a dataset, reusing what is in ``cache`` already.

    Args:
        dataset: in KiTS23 layout.
        cache: folder of the cache; created.
        grids: which of the two.
        config: the settings.
        case_ids: the cases, each with image and labels.
        workers: processes; more than one starts fresh interpreters.
        on_case: called with (case, done, total).
        coarse_weights: packaged weights by name, or a folder, whose coarse network's boxes are the regions, where
            ``preparation.roi`` is "coarse".
        device: where that network runs.

    Raises:
        InputError: a case has no image or no labels, or cannot be read.
        ConfigError: ``preparation.roi`` and ``coarse_weights`` do not go together, or the weights were trained with
            other settings of the coarse stage. WeightsError: there are no such weights.
    """
    if (config.preparation.roi == "coarse" and "fine" in grids) != (coarse_weights is not None):
        raise ConfigError(
            "regions come from a coarse network where preparation.roi is 'coarse' and weights with a coarse stage are "
            "named, from the true labels otherwise; set both or neither"
        )
    by_id = {case.case_id: case for case in list_cases(dataset)}
    unknown = [i for i in case_ids if i not in by_id]
    if unknown:
        raise InputError(f"{dataset} holds no case {unknown[0]}; check the ids or the dataset folder.")
    found_by = _coarse_weights(coarse_weights, config, device) if coarse_weights is not None else None
    jobs = [_Job(by_id[i], cache, tuple(grids), config, found_by) for i in case_ids]
    done: dict[GridName, list[Prepared]] = {grid: [] for grid in grids}
    for index, found in enumerate(spread(_prepare_case, jobs, workers)):
        for grid, prepared in found.items():
            done[grid].append(prepared)
        if on_case:
            on_case(case_ids[index], index + 1, len(jobs))
    return done


def settings_key(grid: GridName, config: Config) -> str:
    """Hash of the settings that decide a grid's arrays."""
    settings: list[Any] = [VERSION, grid, config.intensity.model_dump()]
    if grid == "coarse":
        settings.append(config.coarse.shape)
    else:
        ignore = config.training["lesion"].ignore_beyond_mm
        settings += [config.coarse.margin_mm, config.fine.in_plane, config.preparation.model_dump(), ignore]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Job:
    case: KitsCase
    cache: Path
    grids: tuple[GridName, ...]
    config: Config
    coarse: "_CoarseWeights | None"


@dataclass(frozen=True)
class _CoarseWeights:
    """The weights folder whose coarse network finds the regions, the hash of that network's file, and its device."""

    path: Path
    sha256: str
    device: str


def _coarse_weights(name_or_dir: str | Path, config: Config, device: str) -> _CoarseWeights:
    """Makes sure that a coarse network sees the images that it was trained on, and that its mask means the same."""
    from renalseg.model.checkpoint import open_weights  # here, since preparing without a network needs no torch

    weights = open_weights(name_or_dir)
    if "coarse" not in weights.files:
        raise WeightsError(f"{weights.path}: there are no weights of the stage coarse; train it, or name other weights")
    for part, theirs, ours in (
        ("intensity", weights.config.intensity, config.intensity),
        ("coarse", weights.config.coarse, config.coarse),
    ):
        before, now = (settings.model_dump(exclude={"network"}) for settings in (theirs, ours))
        if unlike := [key for key in now if now[key] != before[key]]:
            key = unlike[0]
            raise ConfigError(
                f"{weights.path}: these weights were trained with {part}.{key} {before[key]}, the configuration says "
                f"{now[key]}; set it to theirs, or name other weights"
            )
    return _CoarseWeights(weights.path, file_sha256(weights.files["coarse"]), device)


def _prepare_case(job: _Job) -> dict[GridName, Prepared]:
    source = _source_sha256(job.case, job.cache)
    found = {grid: cached(job.cache, grid, job.case.case_id, _key(job, grid, source)) for grid in job.grids}
    todo = {grid: prepared for grid, prepared in found.items() if not prepared.exists()}
    if todo:
        ct, labels = read_case(job.case)
        for grid, prepared in todo.items():
            if grid == "coarse":
                prepared.write(*coarse_arrays(ct, labels, job.config))
            else:
                prepared.write(*fine_arrays(ct, labels, job.config, _predicted_box(ct, job)))
    return found


def _predicted_box(ct: Volume, job: _Job) -> Box | None:
    """The region that the coarse networks find; None, for the true one, where no network is asked or nothing found."""
    if job.coarse is None:
        return None
    from renalseg.predict.coarse import clean_coarse, coarse_input, coarse_probability
    from renalseg.predict.roi import find_box

    network, runtime = _coarse_network(job.coarse)
    probability = coarse_probability(coarse_input(ct, job.config, runtime), [network], runtime)
    mask, _ = clean_coarse(probability, ct, job.config)
    return find_box(mask, ct, job.config)


@functools.lru_cache(maxsize=1)
def _coarse_network(coarse: _CoarseWeights) -> "tuple[torch.nn.Module, Runtime]":
    """The network, as users run it; loaded once in a process, since it is asked about every case."""
    from renalseg.model.checkpoint import open_weights
    from renalseg.model.runtime import choose_for_prediction

    runtime = choose_for_prediction(coarse.device)
    return runtime.predictor(open_weights(coarse.path).network("coarse")), runtime


def _key(job: _Job, grid: GridName, source: str) -> str:
    """Hash of all that decides the arrays of one case."""
    weights = job.coarse.sha256 if job.coarse and grid == "fine" else ""
    text = json.dumps([settings_key(grid, job.config), source, weights])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _source_sha256(case: KitsCase, cache: Path) -> str:
    """Content hash of image and labels together; read anew only where a file's size or time changed."""
    files = [f for f in (case.imaging, case.segmentation) if f is not None]
    if len(files) < 2:
        raise InputError(f"{case.case_id}: training needs imaging.nii.gz and segmentation.nii.gz; one is missing")
    stats = [[f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    note = cache / "sources" / f"{case.case_id}.json"
    try:
        known = json.loads(note.read_text())
        if known["stats"] == stats:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not noted yet, or damaged: read the files
    sha256 = hashlib.sha256("".join(file_sha256(f) for f in files).encode()).hexdigest()
    write_json({"stats": stats, "sha256": sha256}, note)
    return sha256
