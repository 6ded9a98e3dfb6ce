"""The held-out cases of a fold: segmented by its weights and scored, unless that was done before."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from renalseg.batch import MADE_FROM, segment_all
from renalseg.config import sha256_today
from renalseg.crossval.plan import Data, Plan, Reports
from renalseg.evaluate.cohort import evaluate
from renalseg.evaluate.metrics import CaseMetrics
from renalseg.evaluate.tables import CohortResult
from renalseg.io.files import write_json
from renalseg.model.checkpoint import open_weights
from renalseg.model.runtime import choose_for_prediction
from renalseg.predict.segmenter import Segmenter
from renalseg.report.suffixes import LABELS, PICTURE
from renalseg.train.parallel import World


def predict(plan: Plan, data: Data, fold: int, cases: Sequence[str], reports: Reports, world: World) -> dict[str, str]:
    """Segments the held-out cases that these weights have not segmented yet; returns those that failed, and why."""
    precision = choose_for_prediction(plan.device, plan.precision).precision
    todo = world.from_first(lambda: unpredicted(plan, data, fold, cases, precision))
    if len(todo) < len(cases):
        reports.say(f"fold {fold}: {len(cases) - len(todo)} of {len(cases)} held-out cases are segmented already")
    files = {case: imaging for case in todo[world.rank :: world.size] if (imaging := data.cases[case].imaging)}
    failed = {}
    if files:
        segmenter = Segmenter(plan.weights(fold), plan.device, plan.precision)
        for done, outcome in enumerate(segment_all(files, plan.predictions, segmenter), 1):
            if outcome.error is not None:
                failed[outcome.name] = outcome.error
            reports.on_progress(f"fold {fold}: segmenting", done, len(files))
    every = {case: reason for part in world.gather(failed) for case, reason in part.items()}
    return {case: every[case] for case in cases if case in every}


def unpredicted(plan: Plan, data: Data, fold: int, cases: Sequence[str], precision: str | None = None) -> list[str]:
    """The cases whose files are not there, or came from other weights than the fold's or another image.

    An image is told by its size, so that a dataset that was moved, or lies elsewhere on another machine, is the same.

    Args:
        precision: that the cases must have been segmented in; None where any will do.
    """
    weights, out, today = open_weights(plan.weights(fold)), plan.predictions, plan.config.sha256()

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


def score(plan: Plan, data: Data, fold: int, cases: Sequence[str], reports: Reports) -> None:
    """Scores a fold, unless these very predictions were scored before."""
    predictions, out = plan.predictions, plan.scores(fold)
    _, key = records_of(plan, data, cases)
    if scores_in(out, key) is not None:
        reports.say(f"fold {fold}: scored already")
        return

    def on_case(_: str, done: int, total: int) -> None:
        reports.on_progress(f"fold {fold}: evaluating", done, total)

    workers = max(1, plan.workers)
    evaluate(predictions, data.dataset, out, cases=cases, workers=workers, on_case=on_case)
    write_json({"scored_sha256": key}, out / "scored.json")


def records_of(plan: Plan, data: Data, cases: Sequence[str]) -> tuple[dict[str, Mapping[str, Any]], str]:
    """The records of the cases' predictions, and one hash of them and of the true label maps."""
    texts = {case: (plan.predictions / f"{case}.json").read_text() for case in cases}
    key = hashlib.sha256(json.dumps([texts, _stats(data, cases)]).encode()).hexdigest()
    return {case: json.loads(text) for case, text in texts.items()}, key


def _stats(data: Data, cases: Sequence[str]) -> list[tuple[int, int]]:
    """Size and time of the true label maps, which tell when one was replaced."""
    stats = [path.stat() for case in cases if (path := data.cases[case].segmentation) is not None]
    return [(s.st_size, s.st_mtime_ns) for s in stats]


def scores_in(out: Path, key: str) -> CohortResult | None:
    """The scores in ``out``, where they are those of ``key``."""
    try:
        if json.loads((out / "scored.json").read_text())["scored_sha256"] != key:
            return None
        cases = json.loads((out / "metrics.json").read_text())["cases"]
        return CohortResult(tuple(CaseMetrics(c["case_id"], c["dice"], c["surface_dice"]) for c in cases))
    except (OSError, ValueError, KeyError, TypeError):
        return None
