"""The work of a cross validation, piece by piece; what is finished is left alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from renalseg.config import STAGES, Stage
from renalseg.core.errors import ConfigError, RenalsegError
from renalseg.crossval.held_out import predict, records_of, score, scores_in, unpredicted
from renalseg.crossval.plan import ALL_FOLDS, SILENT, Data, Plan, Reports, begin, is_finished, open_data
from renalseg.evaluate.tables import CohortResult, write_tables
from renalseg.io.files import atomic_path
from renalseg.io.kits import read_case, read_labels
from renalseg.report.crossval_tables import FoldResult, picture, together, write_report
from renalseg.report.example import example_png
from renalseg.report.run_report import RunReport
from renalseg.report.suffixes import LABELS
from renalseg.train.cache import GRIDS, prepare
from renalseg.train.index import is_cache, write_index
from renalseg.train.parallel import World, join
from renalseg.train.run import Hooks, Request, run_training


@dataclass(frozen=True)
class CrossValidation:
    """What came of it: the folds that have scores, and the cases that could not be segmented, with the reason."""

    folds: list[FoldResult]
    failed: dict[str, str]


def cross_validate(plan: Plan, reports: Reports = SILENT) -> CrossValidation:
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
        return _work(replace(plan, device=device), world, reports if world.first else SILENT)


def _work(plan: Plan, world: World, reports: Reports) -> CrossValidation:
    """What one of the processes does."""
    data = open_data(plan)
    held_out = {fold: data.held_out(fold) for fold in sorted({*ALL_FOLDS, *plan.folds})}
    if world.size > (batch := min(plan.config.training[stage].batch for stage in STAGES)):
        raise ConfigError(f"{world.size} processes cannot share a batch of {batch}; start at most {batch}")
    left = world.from_first(lambda: _begin(plan, data, reports))
    _note_left_out(data, reports)
    source = world.from_first(lambda: _source(plan, data, reports)) if any(left.values()) else plan.data
    failed, missing, done = dict[str, str](), dict[int, str](), dict[int, FoldResult]()
    for fold in plan.folds:
        for stage in left[fold]:
            _train(plan, fold, stage, source, reports, world)
        cases = held_out[fold]
        problems = predict(plan, data, fold, cases, reports, world)
        failed |= problems
        if problems:
            missing[fold] = f"{len(problems)} of {len(cases)} cases could not be segmented: {', '.join(problems)}"
        elif world.first:
            score(plan, data, fold, cases, reports)
        done = world.from_first(lambda: _tell(plan, data, held_out, missing))
    return CrossValidation([done[fold] for fold in sorted(done)], failed)


def _note_left_out(data: Data, reports: Reports) -> None:
    if data.left_out:
        listed = ", ".join(data.left_out[:10]) + (", ..." if len(data.left_out) > 10 else "")
        reports.say(f"{len(data.left_out)} cases with labels have no image and are left out: {listed}")


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
        if trained and not unpredicted(plan, data, fold, cases):
            records, key = records_of(plan, data, cases)
            if (known := scores_in(plan.scores(fold), key)) is not None:
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
    folds, scores = [done[fold] for fold in sorted(done)], plan.evaluation
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
        predicted = read_labels(plan.predictions / f"{case_id}{LABELS}")
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
