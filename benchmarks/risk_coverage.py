"""What refusing the least confident results saves: the risk-coverage curve, and the Dice error removed at 20 %.

    python benchmarks/risk_coverage.py PREDICTIONS METRICS_CSV [--out risk_coverage.png] [--refuse 0.2]

PREDICTIONS holds CASE.json of each case, METRICS_CSV is the official CSV of ``renalseg evaluate``. A case's risk is its
Dice error, the sum over the evaluation classes of 1 - Dice. Beside the confidence stand the oracle, which refuses the
truly worst first, and random refusal, whose mean is exact. The table goes to standard output.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from renalseg.core.labels import HECS


def read_errors(metrics: Path) -> dict[str, float]:
    """Dice error of each case, by name; the official CSV ends with the row ``average``."""
    with metrics.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["caseID"] != "average"]
    return {row["caseID"]: sum(1 - float(row[f"Dice_{hec.name}"]) for hec in HECS) for row in rows}


def read_confidences(predictions: Path, names: list[str]) -> NDArray[np.float64]:
    """The value of each case's record, [case]."""
    records = [json.loads((predictions / f"{name}.json").read_text()) for name in names]
    return np.array([record["confidence"]["value"] for record in records])


def risk_by_coverage(errors: NDArray[np.float64], trust: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean error of the k most trusted cases, for k = 1 to all, [case]; equal trust keeps the order of the cases."""
    ordered = errors[np.argsort(-trust, kind="stable")]
    return ordered.cumsum() / np.arange(1, len(errors) + 1)


def share_removed(errors: NDArray[np.float64], trust: NDArray[np.float64], refused: int) -> float:
    """Share of the total error in the ``refused`` least trusted cases; 0 where there is no error."""
    ordered = errors[np.argsort(-trust, kind="stable")]
    return float(ordered[len(errors) - refused :].sum() / errors.sum()) if errors.any() else 0.0


def draw(curves: dict[str, NDArray[np.float64]], mean: float, kept: float, out: Path) -> None:
    """Curves by name, with the mean error of all cases and the share of cases that is kept."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, risks in curves.items():
        coverage = np.arange(1, len(risks) + 1) / len(risks)
        axes.plot(coverage, risks, marker=".", label=name)
    axes.axhline(mean, color="grey", linestyle="--", label="random")
    axes.axvline(kept, color="grey", linewidth=0.5)
    axes.set(xlabel="coverage: share of cases kept", ylabel="risk: mean Dice error of these", xlim=(0, 1.02))
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(out, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("metrics", type=Path)
    parser.add_argument("--out", type=Path, default=Path("risk_coverage.png"))
    parser.add_argument("--refuse", type=float, default=0.2)
    a = parser.parse_args()
    by_name = read_errors(a.metrics)
    errors = np.array(list(by_name.values()))
    trusts = {"confidence": read_confidences(a.predictions, list(by_name)), "oracle": -errors}
    refused = round(a.refuse * len(errors))
    risks = {name: risk_by_coverage(errors, trust) for name, trust in trusts.items()}
    draw(risks, float(errors.mean()), 1 - refused / len(errors), a.out)
    print(f"{len(errors)} cases, {refused} refused, total Dice error {errors.sum():.3f}\n")
    print("| refusal by | Dice error removed | area under the curve |\n|---|---|---|")
    for name, trust in trusts.items():
        print(f"| {name} | {share_removed(errors, trust, refused):.1%} | {risks[name].mean():.4f} |")
    print(f"| random | {refused / len(errors):.1%} | {errors.mean():.4f} |")


if __name__ == "__main__":
    main()
