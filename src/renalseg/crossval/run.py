"""The work of a cross validation, piece by piece; what is finished is left alone."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from renalseg.batch import MADE_FROM, segment_all
from renalseg.config import STAGES, Stage, sha256_today
from renalseg.core.errors import ConfigError, RenalsegError
from renalseg.crossval.plan import ALL_FOLDS, Data, Plan, begin, is_finished, open_data
from renalseg.evaluate.cohort import evaluate
from renalseg.evaluate.metrics import CaseMetrics
from renalseg.evaluate.tables import CohortResult, write_tables
from renalseg.io.files import atomic_path, write_json
from renalseg.io.kits import read_case, read_labels
from renalseg.model.checkpoint import open_weights
from renalseg.model.runtime import choose_for_prediction
from renalseg.predict.segmenter import Segmenter
from renalseg.report.crossval_tables import FoldResult, picture, together, write_report
from renalseg.report.example import example_png
from renalseg.report.run_report import RunReport
from renalseg.report.suffixes import LABELS, PICTURE
from renalseg.train.cache import GRIDS, prepare
from renalseg.train.index import is_cache, write_index
from renalseg.train.parallel import World, join
from renalseg.train.run import Hooks, Request, run_training

T = TypeVar("T")


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

    A fold's weights are those of the last epoch, chosen by none of the cases that they are scored on; validation only
    shows how a training goes. The table is written anew after each fold, with every fold in ``plan.out`` that is
    finished, asked for now or earlier. A case that cannot be segmented leaves its fold without scores; the other folds
    go on. Started by torchrun, the processes train each stage together and share the held-out cases; the first one
    prepares, scores and reports.

    Raises:
        ConfigError: ``plan.out`` was begun otherwise, a fold does not exist, or there are more processes than a batch
            has cases. InputError: the dataset or the cache cannot be used. WeightsError: a fold's weights are damaged.
        OutputError: something could not be written.
    """
    with join(plan.device) as (world, device):
        return _work(replace(plan, device=device), world, reports if world.first else Reports())


def _work(plan: Plan, world: World, reports: Reports) -> CrossValidation:
    """What one of the processes does."""
    data = open_data(plan)
    held_out = {fold: data.held_out(fold) for fold in sorted({*ALL_FOLDS, *plan.folds})}
    if world.size > (batch := min(plan.config.training[stage].batch for stage in STAGES)):
        raise ConfigError(f"{world.size} processes cannot share a batch of {batch}; start at most {batch}")
    left = _first(world, lambda: _begin(plan, data, reports))
    _note_left_out(data, reports)
    source = _first(world, lambda: _source(plan, data, reports)) if any(left.values()) else plan.data
    failed, missing, done = dict[str, str](), dict[int, str](), dict[int, FoldResult]()
    for fold in plan.folds:
        for stage in left[fold]:
            _train(plan, fold, stage, source, reports, world)
        cases = held_out[fold]
        problems = _predict(plan, data, fold, cases, reports, world)
        failed |= problems
        if problems:
            missing[fold] = f"{len(problems)} of {len(cases)} cases could not be segmented: {', '.join(problems)}"
        elif world.first:
            _evaluate(plan, data, fold, cases, reports)
        done = _first(world, lambda: _tell(plan, data, held_out, missing))
    return CrossValidation([done[fold] for fold in sorted(done)], failed)


def _note_left_out(data: Data, reports: Reports) -> None:
    if data.left_out:
        listed = ", ".join(data.left_out[:10]) + (", ..." if len(data.left_out) > 10 else "")
        reports.say(f"{len(data.left_out)} cases with labels have no image and are left out: {listed}")


def _first(world: World, make: Callable[[], T]) -> T:
    """What ``make`` returns in the first process, in all of them."""
    found: T = world.gather(make() if world.first else None)[0]
    return found


def _begin(plan: Plan, data: Data, reports: Reports) -> dict[int, list[Stage]]:
    """Notes or compares what is begun here; the stages of each fold that are left to train."""
    begin(plan, data)
    left: dict[int, list[Stage]] = {f: [s for s in STAGES if not is_finished(plan, f, s)] for f in plan.folds}
    for fold, stages in left.items():
        if trained := [s for s in STAGES if s not in stages]:
            reports.say(f"fold {fold}: trained already: {', '.join(trained)}")
    return left


def _finished(
    plan: Plan, data: Data, held_out: Mapping[int, Sequence[str]]
) -> tuple[dict[int, FoldResult], dict[int, str]]:
    """What earlier runs left: the folds that have scores, and why others that were begun have none."""
    done, missing = dict[int, FoldResult](), dict[int, str]()
    for fold, cases in held_out.items():
        if not plan.weights(fold).is_dir():
            continue
        missing[fold] = f"it is not finished; go on with --folds {fold}"
        try:
            trained = all(is_finished(plan, fold, stage) for stage in STAGES)
        except RenalsegError as error:
            missing[fold] = str(error)
            continue
        if trained and not _unpredicted(plan, data, fold, cases):
            records, key = _records(plan, data, cases)
            if (known := _scored(plan.out / "evaluation" / f"fold_{fold}", key)) is not None:
                done[fold] = FoldResult(fold, known, records)
                del missing[fold]
    return done, missing


def _tell(
    plan: Plan, data: Data, held_out: Mapping[int, Sequence[str]], failed: Mapping[int, str]
) -> dict[int, FoldResult]:
    """Writes the table of every fold in ``plan.out`` that has scores by now, whoever made them; returns these folds.

    Another machine may finish a fold meanwhile: then it is written again.

    Args:
        failed: folds of this run without scores, and why.
    """
    told: dict[int, FoldResult] | None = None
    while True:
        found, missing = _finished(plan, data, held_out)
        done = {fold: result for fold, result in found.items() if fold not in failed}
        if told is not None and told.keys() == done.keys():
            return done
        _write(plan, data, done, {**missing, **failed})
        told = done


def _write(plan: Plan, data: Data, done: Mapping[int, FoldResult], missing: Mapping[int, str]) -> None:
    """Writes the table, its pictures, and the scores of all cases together; where no fold has any, none stay."""
    folds, scores = [done[fold] for fold in sorted(done)], plan.out / "evaluation"
    if folds:
        write_tables(together(folds), scores)
        _draw_worst(plan, data, together(folds))
    else:
        for suffix in (".csv", ".json", ".md"):
            (scores / f"metrics{suffix}").unlink(missing_ok=True)
    without = {fold: missing[fold] for fold in sorted(missing)}
    write_report(folds, without, plan.config, plan.out, data.left_out)


def _draw_worst(plan: Plan, data: Data, cases: CohortResult) -> None:
    """Draws truth and prediction of the worst cases side by side, and deletes the pictures of others."""
    wanted = {plan.out / picture(case.case_id): case.case_id for case in cases.worst()}
    for path, case_id in wanted.items():
        ct, truth = read_case(data.cases[case_id])
        predicted = read_labels(plan.out / "predictions" / f"{case_id}{LABELS}")
        with atomic_path(path) as temporary:
            temporary.write_bytes(example_png(ct, predicted, truth))
    for path in {path for shown in wanted for path in shown.parent.glob("*.png")} - wanted.keys():
        path.unlink()


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


def _train(plan: Plan, fold: int, stage: Stage, source: Path, reports: Reports, world: World) -> None:
    """Trains one stage, from where it stopped, and keeps the weights of the last epoch."""
    out = plan.weights(fold)
    resume = (out / stage / "last.safetensors").exists()
    reports.say(f"fold {fold}: {stage} {'goes on' if resume else 'begins'}")
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
        cascade=out if stage != "coarse" else None,  # validation and, where configured, regions: by those that are done
        deterministic=plan.deterministic,
        keep="last",
    )

    def on_step(step: int, steps: int, _: float) -> None:
        reports.on_progress(f"fold {fold}: training {stage}", step, steps)

    def on_case(_: str, done: int, total: int) -> None:
        reports.on_progress(f"fold {fold}: preparing {stage}", done, total)

    with RunReport(out, stage, plan.config, fold) as report:
        run_training(request, Hooks(on_case, on_step, report.update, report.add_example), world)


def _predict(plan: Plan, data: Data, fold: int, cases: Sequence[str], reports: Reports, world: World) -> dict[str, str]:
    """Segments the held-out cases that these weights have not segmented yet; returns those that failed, and why."""
    precision = choose_for_prediction(plan.device, plan.precision).precision
    todo = _first(world, lambda: _unpredicted(plan, data, fold, cases, precision))
    if len(todo) < len(cases):
        reports.say(f"fold {fold}: {len(cases) - len(todo)} of {len(cases)} held-out cases are segmented already")
    files = {case: imaging for case in todo[world.rank :: world.size] if (imaging := data.cases[case].imaging)}
    failed = {}
    if files:
        segmenter = Segmenter(plan.weights(fold), plan.device, plan.precision)
        for done, outcome in enumerate(segment_all(files, plan.out / "predictions", segmenter), 1):
            if outcome.error is not None:
                failed[outcome.name] = outcome.error
            reports.on_progress(f"fold {fold}: segmenting", done, len(files))
    every = {case: reason for part in world.gather(failed) for case, reason in part.items()}
    return {case: every[case] for case in cases if case in every}


def _unpredicted(plan: Plan, data: Data, fold: int, cases: Sequence[str], precision: str | None = None) -> list[str]:
    """The cases whose files are not there, or came from other weights than the fold's or another image.

    An image is told by its size, so that a dataset that was moved, or lies elsewhere on another machine, is the same.

    Args:
        precision: that the cases must have been segmented in; None where any will do.
    """
    weights, out, today = open_weights(plan.weights(fold)), plan.out / "predictions", plan.config.sha256()

    def is_there(case: str) -> bool:
        imaging = data.cases[case].imaging
        try:
            record = json.loads((out / f"{case}.json").read_text())
            noted = record["config_sha256"]
            same = noted == today or sha256_today(noted, weights.path / "config.yaml") == today
            same &= record["weights_sha256"] == weights.sha256 and precision in (None, record[MADE_FROM]["precision"])
            size = None if imaging is None else imaging.stat().st_size
            same &= record[MADE_FROM].get("input_bytes", size) == size  # versions before did not note it
        except (OSError, ValueError, KeyError, TypeError):
            return False
        files = (out / f"{case}{suffix}" for suffix in (LABELS, PICTURE))
        return bool(same and all(f.is_file() for f in files))

    return [case for case in cases if not is_there(case)]


def _evaluate(plan: Plan, data: Data, fold: int, cases: Sequence[str], reports: Reports) -> None:
    """Scores a fold, unless these very predictions were scored before."""
    predictions, out = plan.out / "predictions", plan.out / "evaluation" / f"fold_{fold}"
    _, key = _records(plan, data, cases)
    if _scored(out, key) is not None:
        reports.say(f"fold {fold}: scored already")
        return

    def on_case(_: str, done: int, total: int) -> None:
        reports.on_progress(f"fold {fold}: evaluating", done, total)

    workers = max(1, plan.workers)
    evaluate(predictions, data.dataset, out, cases=cases, workers=workers, on_case=on_case)
    write_json({"scored_sha256": key}, out / "scored.json")


def _records(plan: Plan, data: Data, cases: Sequence[str]) -> tuple[dict[str, Mapping[str, Any]], str]:
    """The records of the cases' predictions, and one hash of them and of the true label maps."""
    texts = {case: (plan.out / "predictions" / f"{case}.json").read_text() for case in cases}
    key = hashlib.sha256(json.dumps([texts, _stats(data, cases)]).encode()).hexdigest()
    return {case: json.loads(text) for case, text in texts.items()}, key


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
