"""The work of a cross validation, piece by piece; what is finished is left alone."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renalseg.batch import segment_all
from renalseg.config import STAGES, Stage
from renalseg.core.errors import ConfigError
from renalseg.crossval.plan import Data, Plan, begin, is_finished, open_data
from renalseg.evaluate.cohort import evaluate
from renalseg.evaluate.metrics import CaseMetrics
from renalseg.evaluate.tables import CohortResult, write_tables
from renalseg.io.files import write_json
from renalseg.model.checkpoint import open_weights
from renalseg.predict.segmenter import Segmenter
from renalseg.report.crossval_tables import FoldResult, together, write_report
from renalseg.report.run_report import RunReport
from renalseg.train.cache import GRIDS, is_cache, prepare, write_index
from renalseg.train.run import Hooks, Request, run_training


@dataclass(frozen=True)
class Reports:
    """Where a cross validation tells how far it is."""

    say: Callable[[str], None] = lambda sentence: None
    """Sentences: what begins, and what is skipped because it is done."""
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None
    """Progress within one piece of work: its name, done, total."""


@dataclass(frozen=True)
class CrossValidation:
    """What came of it: the folds that have scores, and the cases that could not be segmented, with the reason."""

    folds: list[FoldResult]
    failed: dict[str, str]


def cross_validate(plan: Plan, reports: Reports = Reports()) -> CrossValidation:
    """Does whatever is left to do of ``plan``.

    The table is written anew after each fold, so the first figures are there early. A case that cannot be segmented
    leaves its fold without scores; the other folds go on.

    Raises:
        ConfigError: ``plan.out`` was begun otherwise, a fold does not exist, or torchrun started this.
        InputError: the dataset or the cache cannot be used. WeightsError: a fold's weights are damaged.
        OutputError: something could not be written.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "a cross validation runs in one process; for several GPUs train each stage with torchrun into "
            f"{plan.weights(0)} and so on, then start this without torchrun: it goes on from there"
        )
    data = open_data(plan)
    held_out = {fold: data.held_out(fold) for fold in plan.folds}
    begin(plan, data)
    left = {fold: [s for s in STAGES if not is_finished(plan, fold, s)] for fold in plan.folds}
    for fold, stages in left.items():
        if trained := [s for s in STAGES if s not in stages]:
            reports.say(f"fold {fold}: trained already: {', '.join(trained)}")
    source = _source(plan, data, reports) if any(left.values()) else plan.data
    done, failed, missing = list[FoldResult](), dict[str, str](), dict[int, str]()
    for fold, cases in held_out.items():
        for stage in left[fold]:
            _train(plan, fold, stage, source, reports)
        problems = _predict(plan, data, fold, cases, reports)
        failed |= problems
        if problems:
            missing[fold] = f"{len(problems)} of {len(cases)} cases could not be segmented: {', '.join(problems)}"
        else:
            done.append(_evaluate(plan, data, fold, cases, reports))
        if done:
            write_tables(together(done), plan.out / "evaluation")
            write_report(done, missing, plan.config, plan.out)
    return CrossValidation(done, failed)


def _source(plan: Plan, data: Data, reports: Reports) -> Path:
    """What training reads: one cache for all folds, unless the regions come from each fold's own coarse network."""
    if is_cache(plan.data) or plan.config.preparation.roi == "coarse":
        return plan.data
    cache, cases = plan.out / "cache", sorted(data.cases)

    def on_case(_: str, done: int, total: int) -> None:
        reports.on_progress("preparing", done, total)

    prepared = prepare(data.dataset, cache, GRIDS, plan.config, cases, max(1, plan.workers), on_case)
    write_index(data.dataset, cache, plan.config, prepared)
    return cache


def _train(plan: Plan, fold: int, stage: Stage, source: Path, reports: Reports) -> None:
    """Trains one stage, from where it stopped."""
    out = plan.weights(fold)
    resume = (out / stage / "last.safetensors").exists()
    reports.say(f"fold {fold}: {stage} {'goes on' if resume else 'begins'}")
    from_coarse = plan.config.preparation.roi == "coarse" and stage != "coarse" and not is_cache(source)
    request = Request(
        stage=stage,
        data=source,
        out=out,
        config=plan.config,
        fold=fold,
        resume=resume,
        device=plan.device,
        precision=plan.precision,
        workers=plan.workers,
        validation_cases=plan.validation_cases,
        cascade=out if from_coarse else None,
    )

    def on_step(step: int, steps: int, _: float) -> None:
        reports.on_progress(f"fold {fold}: training {stage}", step, steps)

    def on_case(_: str, done: int, total: int) -> None:
        reports.on_progress(f"fold {fold}: preparing {stage}", done, total)

    with RunReport(out, stage, plan.config, fold) as report:
        run_training(request, Hooks(on_case, on_step, report.update, report.add_example))


def _predict(plan: Plan, data: Data, fold: int, cases: Sequence[str], reports: Reports) -> dict[str, str]:
    """Segments the held-out cases that these weights have not segmented yet; returns those that failed, and why."""
    weights, out = open_weights(plan.weights(fold)), plan.out / "predictions"
    todo: dict[str, Path] = {}
    for case in cases:
        imaging = data.cases[case].imaging
        if imaging is not None and not _predicted(out, case, weights.sha256, plan.config.sha256()):
            todo[case] = imaging
    if len(todo) < len(cases):
        reports.say(f"fold {fold}: {len(cases) - len(todo)} of {len(cases)} held-out cases are segmented already")
    if not todo:
        return {}
    segmenter = Segmenter(weights.path, plan.device, plan.precision)
    failed = {}
    for done, outcome in enumerate(segment_all(todo, out, segmenter), 1):
        if outcome.error is not None:
            failed[outcome.name] = outcome.error
        reports.on_progress(f"fold {fold}: segmenting", done, len(todo))
    return failed


def _predicted(out: Path, case: str, weights_sha256: str, config_sha256: str) -> bool:
    """Whether a case's three files are there, and came from these weights."""
    try:
        record = json.loads((out / f"{case}.json").read_text())
    except (OSError, ValueError):
        return False
    same = record.get("weights_sha256") == weights_sha256 and record.get("config_sha256") == config_sha256
    return same and all((out / f"{case}{suffix}").is_file() for suffix in (".nii.gz", ".png"))


def _evaluate(plan: Plan, data: Data, fold: int, cases: Sequence[str], reports: Reports) -> FoldResult:
    """Scores a fold, unless these very predictions were scored before."""
    predictions, out = plan.out / "predictions", plan.out / "evaluation" / f"fold_{fold}"
    texts = {case: (predictions / f"{case}.json").read_text() for case in cases}
    records: dict[str, Mapping[str, Any]] = {case: json.loads(text) for case, text in texts.items()}
    key = hashlib.sha256(json.dumps([texts, _stats(data, cases)]).encode()).hexdigest()
    known = _scored(out, key)
    if known is not None:
        reports.say(f"fold {fold}: scored already")
        return FoldResult(fold, known, records)

    def on_case(_: str, done: int, total: int) -> None:
        reports.on_progress(f"fold {fold}: evaluating", done, total)

    workers = max(1, plan.workers)
    scores = evaluate(predictions, data.dataset, out, cases=cases, workers=workers, on_case=on_case)
    write_json({"scored_sha256": key}, out / "scored.json")
    return FoldResult(fold, scores, records)


def _stats(data: Data, cases: Sequence[str]) -> list[tuple[int, int]]:
    """Size and time of the true label maps, which tell when one was replaced."""
    stats = [path.stat() for case in cases if (path := data.cases[case].segmentation) is not None]
    return [(s.st_size, s.st_mtime_ns) for s in stats]


def _scored(out: Path, key: str) -> CohortResult | None:
    """The scores in ``out``, where they are those of ``key``."""
    try:
        if json.loads((out / "scored.json").read_text())["scored_sha256"] != key:
            return None
        cases = json.loads((out / "metrics.json").read_text())["cases"]
        return CohortResult(tuple(CaseMetrics(c["case_id"], c["dice"], c["surface_dice"]) for c in cases))
    except (OSError, ValueError, KeyError, TypeError):
        return None
