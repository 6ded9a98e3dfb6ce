"""One training run from a dataset folder: split, preparation, networks for validation, loop."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renalseg.config import STAGES, Config, Stage
from renalseg.core.errors import ConfigError, InputError, WeightsError
from renalseg.io.files import check_writable
from renalseg.io.kits import KitsCase, fold_split, list_cases
from renalseg.model.checkpoint import open_weights
from renalseg.model.runtime import Runtime, choose
from renalseg.predict.pipeline import Models
from renalseg.train.loop import Run, train
from renalseg.train.prepare import prepare
from renalseg.train.validate import make_validator


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


@dataclass(frozen=True)
class Progress:
    """Where a run tells how far it is: cases prepared, then steps done with the loss."""

    on_case: Callable[[str, int, int], None]
    on_step: Callable[[int, int, float], None]


def run_training(request: Request, progress: Progress) -> dict[str, Any]:
    """Prepares the data, trains the stage, and leaves a weights folder in ``request.out``.

    Without a fold every case trains and nothing is validated. With one, the fold's first ``validation_cases`` cases are
    scored through the cascade, whose other stages come from ``request.cascade`` or answer perfectly.

    Raises:
        InputError: the dataset cannot be used. ConfigError: the fold does not exist, or the stage was begun already.
        WeightsError: ``request.out`` holds weights of another configuration, or nothing to resume.
    """
    runtime = choose(request.device, request.precision)
    cases, train_ids, validation_ids = _split(request)
    _check_out(request)
    prepared = prepare(
        request.data,
        request.out / "cache",
        request.stage,
        request.config,
        train_ids,
        max(1, request.workers),
        progress.on_case,
    )
    chosen = [cases[i] for i in validation_ids[: request.validation_cases]]
    run = Run(
        stage=request.stage,
        config=request.config,
        cases=prepared,
        out=request.out,
        runtime=runtime,
        trained_on=_trained_on(request, train_ids),
        resume=request.resume,
        workers=request.workers,
        validate=make_validator(request.stage, chosen, request.config, runtime, _others(request, runtime))
        if chosen
        else None,
        on_step=progress.on_step,
    )
    return train(run)


def _split(request: Request) -> tuple[dict[str, KitsCase], list[str], list[str]]:
    """The usable cases, and the ids of those that train and those that validate.

    Folds are drawn over all cases with labels, as ``renalseg evaluate --fold`` does; one without its image is left out.
    """
    labelled = {c.case_id: c for c in list_cases(request.data) if c.segmentation}
    cases = {case_id: c for case_id, c in labelled.items() if c.imaging}
    if not cases:
        raise InputError(f"{request.data} has no case with imaging.nii.gz and segmentation.nii.gz; check the folder")
    train_ids, validation_ids = sorted(cases), list[str]()
    if request.fold is not None:
        train_ids, validation_ids = fold_split(labelled, request.fold)
    return cases, [i for i in train_ids if i in cases], [i for i in validation_ids if i in cases]


def _trained_on(request: Request, train_ids: list[str]) -> dict[str, Any]:
    """What the manifest says about the data; its hash also guards against resuming on other cases."""
    ids = hashlib.sha256("\n".join(train_ids).encode()).hexdigest()[:16]
    seed = request.config.training[request.stage].seed
    name = request.data.resolve().name
    return {"dataset": name, "cases": len(train_ids), "fold": request.fold, "cases_sha256": ids, "seed": seed}


def _check_out(request: Request) -> None:
    """Before any work: what stands in ``request.out`` has to go with what is about to be written there."""
    out = request.out
    check_writable(out)
    if not request.resume and (out / request.stage / "last.safetensors").exists():
        raise ConfigError(f"{out}: a run of {request.stage} is there already; add --resume or give another --out")
    if (out / "manifest.json").exists() and open_weights(out).config.sha256() != request.config.sha256():
        raise WeightsError(
            f"{out}: holds weights of another configuration; train with its config.yaml or to another --out"
        )


def _others(request: Request, runtime: Runtime) -> Models:
    """The other stages' networks for validation, if weights for the cascade were named."""
    if request.cascade is None:
        return Models()
    weights = open_weights(request.cascade)
    loaded = {s: [runtime.place(weights.network(s))] for s in STAGES if s != request.stage and s in weights.files}
    return Models(**loaded)
