"""The demonstration: a phantom that the packaged weights have never seen, segmented, measured, drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renalseg.batch import segment_file
from renalseg.evaluate.cohort import evaluate
from renalseg.evaluate.tables import CohortResult
from renalseg.phantom.cohort import write_cohort
from renalseg.predict.segmenter import Segmenter

SEED = 2024
"""Training cohorts use other seeds: the weights have not seen this case."""

MAX_SLICES = 110


@dataclass(frozen=True)
class Demo:
    """What the demonstration made: the case's record, its scores, and where the files lie."""

    record: dict[str, Any]
    scores: CohortResult
    labels: Path
    picture: Path


def run_demo(out: Path, on_step: Callable[[str], None], device: str = "auto") -> Demo:
    """Renders ``out/phantom``, segments it into ``out/segmentation`` and scores it into ``out/evaluation``."""
    on_step("Loading the weights")
    segmenter = Segmenter(device=device)
    on_step("Rendering a CT phantom")
    phantoms, results = out / "phantom", out / "segmentation"
    write_cohort(phantoms, 1, SEED, workers=1, max_slices=MAX_SLICES)
    on_step("Segmenting")
    name = "case_00000"
    record = segment_file(name, phantoms / name / "imaging.nii.gz", results, segmenter)
    on_step("Evaluating by the KiTS23 rules")
    scores = evaluate(results, phantoms, out / "evaluation")
    return Demo(record, scores, results / f"{name}.nii.gz", results / f"{name}.png")
