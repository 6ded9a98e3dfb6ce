"""The result for a cohort, and its three files: the official CSV, JSON for programs, Markdown for readers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from renalseg import __version__
from renalseg.core.labels import HECS
from renalseg.evaluate.bootstrap import CONFIDENCE, RESAMPLES, SEED, mean_interval
from renalseg.evaluate.metrics import CaseMetrics
from renalseg.io.files import write_json, write_text

COLUMNS = tuple(f"Dice_{hec.name}" for hec in HECS) + tuple(f"SD_{hec.name}" for hec in HECS)
"""The score columns of the official CSV."""

PAPER = {
    "fold 0": CaseMetrics.from_row("fold 0", (0.9661, 0.8580, 0.8591, 0.9408, 0.7365, 0.7329)),
    "test": CaseMetrics.from_row("test", (0.954, 0.792, 0.691, 0.897, 0.591, 0.541)),
}
"""The paper's table 4: its fold 0 and KiTS23's test set. Its "cyst" column is KiTS23's masses."""

N_WORST = 5


@dataclass(frozen=True)
class CohortResult:
    """The scores of a cohort.

    Attributes:
        cases: one entry a case, in the order of the dataset; at least one.
        zeroed: case id to the reason why it scored zero without being compared.
        without_truth: names of predictions that no truth case belongs to; they are not scored.
    """

    cases: tuple[CaseMetrics, ...]
    zeroed: Mapping[str, str] = field(default_factory=dict)
    without_truth: tuple[str, ...] = ()

    @property
    def rows(self) -> NDArray[np.float64]:
        """All scores, float64 [case, column], in the order of ``COLUMNS``."""
        return np.array([case.row for case in self.cases], dtype=np.float64)

    @property
    def mean(self) -> CaseMetrics:
        """Mean over the cases, as the official tool's last row."""
        return CaseMetrics.from_row("average", tuple(self.rows.mean(axis=0).tolist()))

    @property
    def std(self) -> CaseMetrics:
        """Standard deviation over the cases (divided by their number)."""
        return CaseMetrics.from_row("std", tuple(self.rows.std(axis=0).tolist()))

    @property
    def median(self) -> CaseMetrics:
        """Median over the cases."""
        return CaseMetrics.from_row("median", tuple(np.median(self.rows, axis=0).tolist()))

    @cached_property
    def interval(self) -> tuple[CaseMetrics, CaseMetrics]:
        """Ends of the 95 % bootstrap interval of the mean (``evaluate.bootstrap``): lower, upper."""
        low, high = mean_interval(self.rows).tolist()
        return CaseMetrics.from_row("lower", tuple(low)), CaseMetrics.from_row("upper", tuple(high))

    def worst(self, n: int = N_WORST) -> list[CaseMetrics]:
        """The ``n`` cases with the lowest mean Dice over the classes, the lowest first."""
        return sorted(self.cases, key=lambda case: (sum(case.dice.values()), case.case_id))[:n]


def write_tables(result: CohortResult, folder: Path) -> None:
    """Writes ``metrics.csv``, ``metrics.json`` and ``metrics.md``, each atomically.

    Raises:
        OutputError: a file could not be written.
    """
    csv, markdown, data = to_csv(result), to_markdown(result), to_json(result)
    write_text(csv, folder / "metrics.csv")
    write_json(data, folder / "metrics.json")
    write_text(markdown, folder / "metrics.md")


def to_csv(result: CohortResult) -> str:
    """The official table, byte for byte: eight decimals, last row ``average`` without a line end."""
    lines = [",".join(("caseID", *COLUMNS))]
    for case in (*result.cases, result.mean):
        lines.append(",".join((case.case_id, *(f"{value:0.8f}" for value in case.row))))
    return "\n".join(lines)


def to_json(result: CohortResult) -> dict[str, Any]:
    """Everything in the result, and what is needed to read it, JSON-ready."""
    return {
        "renalseg_version": __version__,
        "n_cases": len(result.cases),
        "tolerance_mm": {hec.name: hec.tolerance_mm for hec in HECS},
        "mean": _scores(result.mean),
        "mean_interval": {
            "confidence": CONFIDENCE,
            "method": "percentile bootstrap over cases",
            "resamples": RESAMPLES,
            "seed": SEED,
            "lower": _scores(result.interval[0]),
            "upper": _scores(result.interval[1]),
        },
        "std": _scores(result.std),
        "median": _scores(result.median),
        "cases": [
            {"case_id": case.case_id, **_scores(case), "zeroed_because": result.zeroed.get(case.case_id)}
            for case in result.cases
        ],
        "predictions_without_truth": list(result.without_truth),
    }


def to_markdown(result: CohortResult) -> str:
    """The cohort's means beside the paper's table 4, and the worst cases."""
    mean, std, (fold, test) = result.mean, result.std, PAPER.values()
    n = len(result.cases)
    lines = [
        f"# Evaluation of {n} case{'s' if n != 1 else ''}",
        "",
        "Mean ± standard deviation over the cases, by the KiTS23 rules, and "
        f"the {100 * CONFIDENCE:g} % interval of the mean ({RESAMPLES} bootstrap samples). Paper: its table 4.",
        "",
        "| Class | Dice | Interval | Surface Dice | Interval "
        "| Paper, fold 0: Dice / surface Dice | Paper, test: Dice / surface Dice |",
        "|---|---|---|---|---|---|---|",
    ]
    for hec in HECS:
        title = 'Masses (the paper\'s "cyst")' if hec.name == "masses" else hec.title
        (dice, surface), (dice_std, surface_std), low, high, in_fold, in_test = (
            (scores.dice[hec.name], scores.surface_dice[hec.name])
            for scores in (mean, std, *result.interval, fold, test)
        )
        lines.append(
            f"| {title} | {dice:.4f} ± {dice_std:.4f} | {low[0]:.4f} to {high[0]:.4f} "
            f"| {surface:.4f} ± {surface_std:.4f} | {low[1]:.4f} to {high[1]:.4f} "
            f"| {in_fold[0]:.4f} / {in_fold[1]:.4f} | {in_test[0]:.3f} / {in_test[1]:.3f} |"
        )
    lines += [
        "",
        "The comparison with the paper's columns only means something on the same KiTS23 cases.",
        "",
        f"## Worst cases, by mean Dice over the classes (up to {N_WORST})",
        "",
        "| Case | " + " | ".join(COLUMNS) + " |",
        "|---|" + "---|" * len(COLUMNS),
        *(f"| {case.case_id} | " + " | ".join(f"{v:.4f}" for v in case.row) + " |" for case in result.worst()),
    ]
    if result.zeroed:
        lines += ["", "## Scored zero", "", *(f"- {case}: {reason}" for case, reason in result.zeroed.items())]
    if result.without_truth:
        lines += ["", "## Predictions without truth, not scored", "", *(f"- {name}" for name in result.without_truth)]
    return "\n".join(lines) + "\n"


def _scores(case: CaseMetrics) -> dict[str, dict[str, float]]:
    return {"dice": dict(case.dice), "surface_dice": dict(case.surface_dice)}
