"""Nephrometry of a cohort: what could not be told and why, seconds a case, and the agreement with other software.

    python benchmarks/nephrometry.py --labels KITS23_LABELS [--cases N ...] [--peer peer.json] [--out nephrometry.json]

KITS23_LABELS holds label maps in the official layout. Every map is measured and scored in this one process.
``peer.json`` is {case: {"result": {"renal": {...}, "padua": {...}, "cindex": {...}}} or {"error": sentence}}, the
dictionaries as neheller/seg-to-nephrometry writes them; it scores one tumor a map, which is compared with our largest
tumor. Prints Markdown.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from renalseg.io.files import write_json
from renalseg.io.kits import list_cases, read_labels
from renalseg.report.measure import measure
from renalseg.report.nephrometry import nephrometry

Rows = dict[str, dict[str, Any]]

PADUA = {
    "a": "Polar location",
    "b": "Renal rim",
    "c": "Renal sinus",
    "d": "Collecting system",
    "e": "Exophytic rate",
    "f": "Tumor size",
}
"""The peer's letters of PADUA to our names."""

CONTINUOUS = (("R", "R_cont", "mm"), ("E", "E_cont", "share"), ("N", "N_cont", "mm"))


def score_all(dataset: Path, wanted: set[str], out: Path | None) -> Rows:
    """Measurements and scores of each case, or its error, with the seconds for both; kept in ``out`` as they come."""
    rows: Rows = json.loads(out.read_text()) if out and out.exists() else {}
    for case in list_cases(dataset):
        if case.segmentation is None or case.case_id in rows or (wanted and case.case_id not in wanted):
            continue
        row: dict[str, Any] = {"error": None, "lesions": []}
        labels = read_labels(case.segmentation)
        start = time.process_time()
        try:
            measurements = measure(labels)
            middle = time.process_time()
            scores = nephrometry(labels, measurements)
            row |= {"measure_s": middle - start, "nephrometry_s": time.process_time() - middle}
            row["lesions"] = [
                {"kind": lesion.kind, "ml": lesion.volume_ml, "face": lesion.face, **score.as_dict()}
                for lesion, score in zip(measurements.lesions, scores, strict=True)
            ]
        except Exception as error:  # the benchmark counts crashes instead of ending at the first
            row["error"] = f"{type(error).__name__}: {error}"
        rows[case.case_id] = row
        if out:
            write_json(rows, out)
    return rows


def summary(rows: Rows) -> list[str]:
    """Counts and seconds, as lines of Markdown tables."""
    lesions = [lesion for row in rows.values() for lesion in row["lesions"]]
    seconds = np.array([row["nephrometry_s"] for row in rows.values() if not row["error"]])
    whole = np.array([row["nephrometry_s"] + row["measure_s"] for row in rows.values() if not row["error"]])
    lines = ["| | |", "|---|---|", f"| maps | {len(rows)} |"]
    lines.append(f"| crashes | {sum(row['error'] is not None for row in rows.values())} |")
    for kind in ("tumor", "cyst"):
        own = [lesion for lesion in lesions if lesion["kind"] == kind]
        told = sum(lesion["renal"]["total"] is not None for lesion in own)
        lines.append(f"| {kind}s with a total R.E.N.A.L. | {told} of {len(own)} |")
    lines.append(
        f"| CPU seconds for the scores alone, median (most) | {np.median(seconds):.2f} ({seconds.max():.2f}) |"
    )
    lines.append(f"| with the measurements | {np.median(whole):.2f} ({whole.max():.2f}) |")
    lines += ["", "| not told, reason | lesions |", "|---|---|"]
    reasons = Counter(sentence.split(": ", 1)[1].rstrip(".") for lesion in lesions for sentence in lesion["abstained"])
    lines += [f"| {reason} | {n} |" for reason, n in reasons.most_common()]
    return lines


def agreement(rows: Rows, peer: Rows) -> list[str]:
    """By part, how often both give the same points, for the largest tumor of each case that both told."""
    pairs = [
        (rows[case], peer[case]["result"], case) for case in sorted(peer) if case in rows and peer[case].get("result")
    ]
    both = [(tumor, result, case) for row, result, case in pairs if (tumor := _largest_tumor(row)) is not None]
    lines = ["| part | both told | same points | one apart | ours - theirs, mean |", "|---|---|---|---|---|"]
    for name, ours, theirs in _parts():
        found = [(ours(tumor), theirs(result)) for tumor, result, _ in both if ours(tumor) is not None]
        difference = np.array([a - b for a, b in found])
        n = len(found)
        if n:
            same, near = int((difference == 0).sum()), int((np.abs(difference) == 1).sum())
            lines.append(f"| {name} | {n} | {same} ({same / n:.0%}) | {near} | {difference.mean():+.2f} |")
    suffixes = [
        (tumor["renal"]["suffix"][0], result["renal"]["A"]) for tumor, result, _ in both if tumor["renal"]["suffix"]
    ]
    same = sum(a == b for a, b in suffixes)
    lines.append(f"| R.E.N.A.L. A (a, p, x) | {len(suffixes)} | {same} ({same / max(1, len(suffixes)):.0%}) | | |")
    lines += ["", "| value | cases | Pearson r | median difference |", "|---|---|---|---|"]
    lines += _continuous(both)
    errors = Counter(row["error"] for row in peer.values() if row.get("error"))
    lines += ["", f"Errors of the peer: {dict(errors) or 'none'} in {len(peer)} maps.", "", "R.E.N.A.L. in full:", ""]
    for tumor, result, case in both:
        ours = {name: part["points"] for name, part in tumor["renal"]["parts"].items()}
        theirs = {name: result["renal"][name] for name in "RENAL"}
        lines.append(f"- {case}: ours {ours} {tumor['renal']['suffix']}, theirs {theirs}")
    return lines


def _largest_tumor(row: dict[str, Any]) -> dict[str, Any] | None:
    tumors = [lesion for lesion in row["lesions"] if lesion["kind"] == "tumor"]
    return tumors[0] if tumors else None


def _parts() -> list[tuple[str, Any, Any]]:
    """Name, and how points are read from ours and from theirs."""
    renal = [
        (f"R.E.N.A.L. {key}", lambda t, k=key: t["renal"]["parts"][k]["points"], lambda r, k=key: r["renal"][k])
        for key in "RENL"
    ]
    padua = [
        (f"PADUA {name}", lambda t, k=name: t["padua"]["parts"][k]["points"], lambda r, k=key: r["padua"][k])
        for key, name in PADUA.items()
    ]
    totals = [
        ("R.E.N.A.L. total", lambda t: t["renal"]["total"], lambda r: int(r["renal"]["composite"].rstrip("apx"))),
        ("PADUA total", lambda t: t["padua"]["total"], lambda r: int(r["padua"]["composite"].rstrip("apx"))),
    ]
    return [*renal, totals[0], *padua, totals[1]]


def _continuous(both: list[tuple[dict[str, Any], dict[str, Any], str]]) -> list[str]:
    lines = []
    values = [
        (f"{key} ({unit})", [(t["renal"]["parts"][key]["value"], r["renal"][theirs]) for t, r, _ in both])
        for key, theirs, unit in CONTINUOUS
    ]
    values.append(("C-index", [(t["c_index"]["value"], r["cindex"]["composite"]) for t, r, _ in both]))
    for name, pairs in values:
        found = np.array([pair for pair in pairs if None not in pair and np.isfinite(pair).all()], np.float64)
        if name.startswith("E"):
            found[:, 1] = 1 - found[:, 1]  # the peer counts the share inside
        if len(found) > 2:
            r = np.corrcoef(found.T)[0, 1]
            lines.append(f"| {name} | {len(found)} | {r:.2f} | {np.median(found[:, 0] - found[:, 1]):+.2f} |")
    return lines


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="label maps in the official layout")
    parser.add_argument("--cases", nargs="*", default=[], help="only these")
    parser.add_argument("--peer", type=Path, help="results of the other software, as JSON")
    parser.add_argument("--out", type=Path, help="keeps the scores, and goes on where it was interrupted")
    arguments = parser.parse_args()
    rows = score_all(arguments.labels, set(arguments.cases), arguments.out)
    print("\n".join(summary(rows)))
    if arguments.peer:
        print("\n" + "\n".join(agreement(rows, json.loads(arguments.peer.read_text()))))


if __name__ == "__main__":
    main()
