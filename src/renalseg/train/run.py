"""One training run from a dataset folder: split, preparation, networks for validation, loop."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file

from renalseg.config import STAGES, Config, Stage, load_config
from renalseg.core.errors import ConfigError, InputError, WeightsError
from renalseg.core.volume import Volume
from renalseg.io.files import check_writable
from renalseg.io.kits import KitsCase, fold_split, list_cases, trainable_cases
from renalseg.model.checkpoint import keep_config, open_weights, save_stage
from renalseg.model.resunet import build
from renalseg.model.runtime import Runtime, choose, choose_for_prediction
from renalseg.predict.pipeline import Models
from renalseg.train.cache import Prepared, grid_of, prepare
from renalseg.train.index import is_cache, open_cache
from renalseg.train.initial import initial_weights
from renalseg.train.loop import Run, train
from renalseg.train.parallel import World, join
from renalseg.train.state import read_progress
from renalseg.train.validate import make_validator

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What a user asks for; see ``renalseg train --help``."""

    stage: Stage
    data: Path
    out: Path
    config: Config
    fold: int | None = None
    resume: bool = False
    device: str = "auto"
    precision: str = "auto"
    workers: int = 0
    validation_cases: int = 4
    cascade: Path | None = None
    initial: str | Path | None = None
    deterministic: bool = False
    keep: Literal["best", "last"] = "best"
    """The weights in ``out``: those with the best validation, or those of the last epoch, chosen by no case."""


@dataclass(frozen=True)
class Hooks:
    """Where a run tells how far it is; each is called in the first process alone."""

    on_case: Callable[[str, int, int], None] | None = None
    """Cases prepared: (case, done, total)."""
    on_step: Callable[[int, int, float], None] | None = None
    """Steps done: (step, steps of the whole run, loss)."""
    on_epoch: Callable[[list[dict[str, Any]]], None] | None = None
    """Epochs done: the records of all so far."""
    on_example: Callable[[Volume, Volume, Volume], None] | None = None
    """A validated case: CT, predicted labels, true labels."""


def run_training(request: Request, hooks: Hooks = Hooks(), world: World | None = None) -> dict[str, Any]:
    """Prepares the data, trains the stage, and leaves a weights folder in ``request.out``.

    ``request.data`` is a dataset, which is prepared into ``request.out/cache``, or a cache from ``renalseg prepare``.
    Without a fold every case trains and nothing is validated. With one, the fold's first ``validation_cases`` cases are
    scored through the cascade, whose other stages come from ``request.cascade`` or answer perfectly. The network begins
    as ``train.initial`` has it. Started by
    torchrun, the processes share the work; where they were joined before, ``world`` is this one's place, and
    ``request.device`` its own device.

    Raises:
        InputError: the dataset cannot be used. ConfigError: the fold does not exist, or the stage was begun already.
        WeightsError: ``request.out`` holds weights of another configuration, or nothing to resume; or as
            ``initial_weights``.
    """
    joined = join(request.device) if world is None else nullcontext((world, request.device))
    with joined as (place, device), _determinism(request.deterministic):
        progress = train(_plan(request, place, device, hooks if place.first else Hooks()))
        if request.keep == "last":
            if place.first:
                _save_last(request)
            place.wait()
        return progress


def _plan(request: Request, world: World, device: str, hooks: Hooks) -> Run:
    """Checks what was asked for, prepares the data, and puts the run together."""
    runtime, batch = choose(device, request.precision), request.config.training[request.stage].batch
    if world.size > batch:
        raise ConfigError(f"{world.size} processes cannot share a batch of {batch}; start at most {batch}")
    data = _data(request)
    train_ids, validation_ids = _split(request, data)
    chosen = _validation_cases(request, data, validation_ids)
    initial, began = initial_weights(request.stage, request.config, request.initial, request.out, request.cascade)
    _check_beginning(request)
    resume = request.resume and not _killed_early(request)
    if resume != request.resume and world.first:
        log.warning("%s: no epoch of the stage %s was finished; it begins anew", request.out, request.stage)
    if world.first:
        _check_out(request)
        _prepare(request, data, train_ids, hooks)
    world.wait()
    validate = None
    if chosen:
        as_users = choose_for_prediction(str(runtime.device), request.precision)
        others = _others(request, as_users)
        validate = make_validator(request.stage, chosen, request.config, as_users, others, world, hooks.on_example)
    cases = _prepare(request, data, train_ids, Hooks())  # made by the first process: only looked up here
    return Run(
        stage=request.stage,
        config=request.config,
        cases=cases,
        out=request.out,
        runtime=runtime,
        trained_on=_trained_on(request, data, cases) | began,
        resume=resume,
        workers=request.workers,
        world=world,
        initial=initial,
        validate=validate,
        on_step=hooks.on_step,
        on_epoch=hooks.on_epoch,
    )


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    """Has torch choose deterministic algorithms for the body of a ``with``, where wanted."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@dataclass(frozen=True)
class _Data:
    """The source of a run: a dataset, or a cache and the dataset that it came from.

    Attributes:
        dataset: its folder.
        labelled: ids of all cases with labels.
        usable: those that can be trained on.
        prepared: their arrays, from a cache; None for a dataset.
    """

    dataset: Path
    labelled: list[str]
    usable: set[str]
    prepared: dict[str, Prepared] | None = None


def _data(request: Request) -> _Data:
    if is_cache(request.data):
        cache = open_cache(request.data)
        prepared = cache.cases(request.stage, request.config)
        return _Data(cache.dataset, cache.labelled, set(prepared), prepared)
    usable = {c.case_id for c in trainable_cases(request.data)}
    return _Data(request.data, [c.case_id for c in list_cases(request.data) if c.segmentation], usable)


def _prepare(request: Request, data: _Data, ids: list[str], hooks: Hooks) -> list[Prepared]:
    if data.prepared is not None:
        return [data.prepared[i] for i in ids]
    grid, workers = grid_of(request.stage), max(1, request.workers)
    coarse = request.cascade if request.config.preparation.roi == "coarse" and grid == "fine" else None
    cache, config = request.out / "cache", request.config
    return prepare(data.dataset, cache, [grid], config, ids, workers, hooks.on_case, coarse, request.device)[grid]


def _split(request: Request, data: _Data) -> tuple[list[str], list[str]]:
    """The ids that train and those that validate.

    Folds are drawn over all cases with labels, as ``renalseg evaluate --fold`` does; an unusable one is left out.
    """
    train_ids, validation_ids = sorted(data.usable), list[str]()
    if request.fold is not None:
        train_ids, validation_ids = fold_split(data.labelled, request.fold)
    return [i for i in train_ids if i in data.usable], [i for i in validation_ids if i in data.usable]


def _validation_cases(request: Request, data: _Data, ids: list[str]) -> list[KitsCase]:
    ids = ids[: request.validation_cases]
    if not ids:
        return []
    if not data.dataset.is_dir():
        raise InputError(
            f"{data.dataset}: validation needs the CT scans that {request.data} was prepared from; bring them back, "
            "or train without validation (--validation-cases 0)"
        )
    by_id = {c.case_id: c for c in list_cases(data.dataset)}
    return [by_id[i] for i in ids]


def _trained_on(request: Request, data: _Data, cases: list[Prepared]) -> dict[str, Any]:
    """What the manifest says about the data; its hashes also guard against resuming on other cases or arrays.

    The name of an array's file holds the hash of the files that it was made from.
    """
    ids, arrays = (
        hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
        for names in ([c.case_id for c in cases], [c.image.name for c in cases])
    )
    return {
        "dataset": data.dataset.resolve().name,
        "cases": len(cases),
        "fold": request.fold,
        "cases_sha256": ids,
        "arrays_sha256": arrays,
        "seed": request.config.training[request.stage].seed,
    }


def _check_beginning(request: Request) -> None:
    """Before anything is written: there is a run to resume where one is wanted, and no weights are written over.

    The folder of a stage is there from the beginning of its run: weights beside it are that run's own.
    """
    out, state = request.out, request.out / request.stage / "last.safetensors"
    if request.resume and not state.exists() and not (out / "config.yaml").exists():
        raise WeightsError(f"{state}: there is no run to resume; start it without --resume")
    stands = open_weights(out).files if (out / "manifest.json").exists() else {}
    if not request.resume and not state.parent.is_dir() and request.stage in stands:
        raise ConfigError(f"{out}: holds weights of the stage {request.stage} already; give another --out")


def _check_out(request: Request) -> None:
    """Before any work: what stands in ``request.out`` has to go with what is about to be written there."""
    out = request.out
    check_writable(out)
    if not request.resume and (out / request.stage / "last.safetensors").exists():
        raise ConfigError(f"{out}: a run of {request.stage} is there already; add --resume or give another --out")
    weights = open_weights(out) if (out / "manifest.json").exists() else None
    begun = weights is not None or any((out / stage / "last.safetensors").exists() for stage in STAGES)
    if begun and (weights.config if weights else _config_of(out, request.config)) != request.config:
        raise WeightsError(
            f"{out}: holds weights of another configuration; train with its config.yaml or to another --out"
        )
    check_writable(out / request.stage)
    keep_config(out, request.config)  # before the first state, whose hash it explains to later versions
    if request.resume and weights and request.stage in weights.files and not weights.is_whole(request.stage):
        _save_last(request)  # killed between writing the weights and their manifest


def _killed_early(request: Request) -> bool:
    """Whether a run was begun in ``request.out`` and left no state of the stage: killed in its first epoch."""
    state = request.out / request.stage / "last.safetensors"
    return (request.out / "config.yaml").exists() and not state.exists()


def _config_of(out: Path, otherwise: Config) -> Config:
    """The configuration that a folder without a manifest was begun with; ``otherwise`` where it does not say."""
    with suppress(ConfigError):
        return load_config(out / "config.yaml")
    return otherwise


def _save_last(request: Request) -> None:
    """Puts the weights of the last finished epoch, averaged where they are, into ``request.out``."""
    path = request.out / request.stage / "last.safetensors"
    progress, tensors = read_progress(path), load_file(path)
    prefix = "average." if request.config.training[request.stage].ema else "network."
    network = build(request.config.network(request.stage))
    network.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    trained_on = progress["trained_on"] | {"epoch": progress["epoch"]}
    save_stage(request.out, request.config, request.stage, network, trained_on)


def _others(request: Request, runtime: Runtime) -> Models:
    """The other stages' networks for validation, if weights for the cascade were named."""
    if request.cascade is None:
        return Models()
    weights = open_weights(request.cascade)
    loaded = {s: [runtime.predictor(weights.network(s))] for s in STAGES if s != request.stage and s in weights.files}
    return Models(**loaded)
