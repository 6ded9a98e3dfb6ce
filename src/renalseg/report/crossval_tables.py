"""A cross validation in the shape of the paper's table 4: scores with intervals, time and memory, the worst cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from renalseg import __version__
from renalseg.config import Config
from renalseg.core.labels import HECS
from renalseg.evaluate.bootstrap import CONFIDENCE, RESAMPLES
from renalseg.evaluate.tables import COLUMNS, N_WORST, PAPER, CohortResult, to_json
from renalseg.io.files import write_json, write_text

PAPER_SECONDS = {"fold 0": 19.22, "test": 20.65}
"""Mean time of a case in the paper (3.3), whose machine is not said."""

PAPER_PEAK_MB = 3525
"""The most GPU memory of a case in the paper (3.3)."""


@dataclass(frozen=True)
class FoldResult:
    """One fold's held-out cases: their scores, and the records of their predictions by case."""

    fold: int
    scores: CohortResult
    records: Mapping[str, Mapping[str, Any]]


def together(folds: Sequence[FoldResult]) -> CohortResult:
    """The cases of all folds as one cohort, sorted by id."""
    return CohortResult(tuple(sorted((c for f in folds for c in f.scores.cases), key=lambda c: c.case_id)))


def write_report(
    folds: Sequence[FoldResult],
    missing: Mapping[int, str],
    config: Config,
    out: Path,
    left_out: Sequence[str] = (),
) -> None:
    """Writes ``crossval.json`` and ``crossval.md`` beside ``predictions`` and ``picture``'s folder, each atomically.

    Args:
        folds: those that are done; without any, both files say that there are no scores.
        missing: folds that were begun and have no scores, with the reason.
        config: what was trained.
        out: the folder.
        left_out: ids of cases with labels and without an image.

    Raises:
        OutputError: a file could not be written.
    """
    write_json(_to_json(folds, missing, config) | {"left_out": list(left_out)}, out / "crossval.json")
    write_text(_to_markdown(folds, missing, config, left_out), out / "crossval.md")


def seconds(record: Mapping[str, Any]) -> float:
    """From the file of the CT to the files of the results, the picture included."""
    return float(sum(record["timings_s"].get(step, 0.0) for step in ("read", "total", "write")))


def peak_mb(records: Sequence[Mapping[str, Any]]) -> tuple[float, str]:
    """The most memory that any case took, and whose: the device's where every case ran on one, else the host's."""
    device = [r["peak_memory_mb"]["device"] for r in records]
    if all(d is not None for d in device):
        return max(device), "device"
    return max(r["peak_memory_mb"]["host"] for r in records), "host"


def _to_json(folds: Sequence[FoldResult], missing: Mapping[int, str], config: Config) -> dict[str, Any]:
    whole = together(folds)
    fold_of = {case.case_id: f.fold for f in folds for case in f.scores.cases}
    everyone = [r for f in folds for r in f.records.values()]
    return {
        "renalseg_version": __version__,
        "preset": config.name,
        "config_sha256": config.sha256(),
        "folds": {str(f.fold): _summary(f.scores, list(f.records.values())) for f in folds},
        "folds_without_scores": {str(fold): reason for fold, reason in missing.items()},
        "all": _summary(whole, everyone) if folds else None,
        "paper": {
            name: {
                "dice": dict(scores.dice),
                "surface_dice": dict(scores.surface_dice),
                "seconds_mean": PAPER_SECONDS[name],
                "peak_device_mb": PAPER_PEAK_MB,
            }
            for name, scores in PAPER.items()
        },
        "worst": [
            {"case_id": c.case_id, "fold": fold_of[c.case_id], "picture": picture(c.case_id)} for c in whole.worst()
        ]
        if folds
        else [],
    }


def _summary(scores: CohortResult, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What one row of the table says, and what it runs on."""
    kept = ("n_cases", "mean", "mean_interval", "std", "median")
    times = [seconds(r) for r in records]
    peak, whose = peak_mb(records)
    return {key: value for key, value in to_json(scores).items() if key in kept} | {
        "seconds": {"mean": float(np.mean(times)), "median": float(np.median(times)), "max": max(times)},
        "peak_memory_mb": {whose: peak},
        "devices": sorted({str(r["device"]) for r in records}),
        "precisions": sorted({str(r["precision"]) for r in records}),
        "weights_sha256": sorted({str(r["weights_sha256"]) for r in records}),
    }


def _to_markdown(
    folds: Sequence[FoldResult], missing: Mapping[int, str], config: Config, left_out: Sequence[str]
) -> str:
    reasons = [f"- Fold {fold} has no scores: {reason}" for fold, reason in missing.items()]
    if left_out:
        reasons.append(f"- Left out, since they have labels and no image: {', '.join(left_out)}")
    if not folds:
        return "\n".join([f"# Cross validation of {config.name}: no fold has scores", "", *reasons]) + "\n"
    whole = together(folds)
    names = [hec.name for hec in HECS]
    head = ["Cases", *(f"Dice, {n}" for n in names), *(f"Surface Dice, {n}" for n in names)]
    head += ["Seconds a case: mean / median / max", "Peak memory, MB"]
    lines = [
        f"# Cross validation of {config.name}: {len(whole.cases)} held-out cases of {len(folds)} "
        f"fold{'s' if len(folds) != 1 else ''}",
        "",
        "Each case is predicted by the networks of its fold, which were not trained on it, with the weights of their "
        "last epoch, which no held-out case had a say in, and scored by the KiTS23 "
        f"rules. In brackets: the {100 * CONFIDENCE:g} % interval of the mean ({RESAMPLES} bootstrap samples). "
        'Masses are the paper\'s "cyst". Seconds count reading, the cascade and writing, the picture included. Memory '
        "is the most that any case took: on the device as torch allocates it, or of the process (host).",
        "",
        f"Configuration {config.sha256()}, renalseg {__version__}.",
        "",
        f"| {' | '.join(head)} |",
        "|---|" + "---:|" * (len(head) - 1),
    ]
    lines += [_line(f"fold {f.fold} ({len(f.scores.cases)})", f.scores, list(f.records.values())) for f in folds]
    if len(folds) > 1:
        records = [r for f in folds for r in f.records.values()]
        lines.append(_line(f"**all folds ({len(whole.cases)})**", whole, records))
    for name, scores in PAPER.items():
        digits = 4 if name == "fold 0" else 3
        cells = [f"{value:.{digits}f}" for value in scores.row]
        cells += [f"{PAPER_SECONDS[name]:.2f} / not said / not said", f"{PAPER_PEAK_MB} (device)"]
        lines.append(f"| paper, {name} | {' | '.join(cells)} |")
    lines += ["", "The comparison with the paper's rows only means something on the same KiTS23 cases.", ""]
    lines += reasons
    return "\n".join([*lines, *([""] if missing else []), *_worst(whole, folds)]) + "\n"


def _line(title: str, scores: CohortResult, records: Sequence[Mapping[str, Any]]) -> str:
    low, high = scores.interval
    cells = [f"{m:.4f} ({a:.4f} to {b:.4f})" for m, a, b in zip(scores.mean.row, low.row, high.row, strict=True)]
    times = [seconds(r) for r in records]
    peak, whose = peak_mb(records)
    cells += [f"{np.mean(times):.2f} / {np.median(times):.2f} / {max(times):.2f}", f"{peak:.0f} ({whose})"]
    return f"| {title} | {' | '.join(cells)} |"


def _worst(whole: CohortResult, folds: Sequence[FoldResult]) -> list[str]:
    """The worst cases as a table, and below it their pictures."""
    fold_of = {case.case_id: f.fold for f in folds for case in f.scores.cases}
    worst = whole.worst()
    return [
        f"## Worst cases, by mean Dice over the classes (up to {N_WORST})",
        "",
        "| Case | Fold | " + " | ".join(COLUMNS) + " |",
        "|---|---:|" + "---:|" * len(COLUMNS),
        *(
            f"| [{c.case_id}](predictions/{quote(c.case_id)}.png) | {fold_of[c.case_id]} | "
            + " | ".join(f"{v:.4f}" for v in c.row)
            + " |"
            for c in worst
        ),
        *(f"\n### {c.case_id}\n\n![Truth, left, and prediction, right]({quote(picture(c.case_id))})" for c in worst),
    ]


def picture(case_id: str) -> str:
    """Where the report expects truth and prediction of one of the worst cases side by side, from its own folder."""
    return f"worst/{case_id}.png"
