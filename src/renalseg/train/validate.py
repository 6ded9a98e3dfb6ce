"""Scores a network in training through the real cascade and the official metrics, on the original grid."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from renalseg.config import Config, Stage
from renalseg.core.volume import Volume
from renalseg.evaluate.metrics import case_metrics
from renalseg.io.kits import KitsCase, read_case
from renalseg.model.runtime import Runtime
from renalseg.predict.pipeline import Models, segment_volume
from renalseg.train.parallel import ALONE, World


def make_validator(
    stage: Stage,
    cases: Sequence[KitsCase],
    config: Config,
    runtime: Runtime,
    models: Models,
    world: World = ALONE,
    on_example: Callable[[Volume, Volume, Volume], None] | None = None,
) -> Callable[[torch.nn.Module], dict[str, float]]:
    """A function that scores a network of ``stage`` on ``cases``; ``score`` decides which weights are kept.

    The other stages are ``models``; a stage that is empty there answers as a perfect one would, so that the score is
    this network's own. Scores are means over the cases: Dice and surface Dice by evaluation class, the share of the
    true voxels inside the box, and the time of a case. The processes of ``world`` share the cases; ``on_example`` gets
    CT, predicted and true labels of this process's alone, since whole volumes are too much to send for a picture. The
    first process always has the first case. ``runtime`` is that of prediction: the network is scored as it will run for
    users, in their precision and, on a CPU, slab by slab.
    """

    def validate(network: torch.nn.Module) -> dict[str, float]:
        with_this = replace(models, **{stage: [runtime.predictor(network)]})
        mine = [_score_case(case, with_this, config, runtime, on_example) for case in cases[world.rank :: world.size]]
        rows = [row for part in world.gather(mine) for row in part]
        means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        chosen = {"coarse": "box_coverage", "kidney": "dice_kidney", "lesion": "dice_masses"}[stage]
        second = {"coarse": "dice_kidney", "kidney": "sd_kidney", "lesion": "dice_tumor"}[stage]
        return {**means, "score": means[chosen] + means[second]}

    return validate


def box_coverage(truth: Volume, box: dict[str, list[int]] | None) -> float:
    """Share of the voxels of kidneys and masses that lie inside a record's ``box_zyx``; 1 where there are none."""
    foreground = truth.array > 0
    total = int(foreground.sum())
    if total == 0:
        return 1.0
    if box is None:
        return 0.0
    z, y, x = (slice(a, b) for a, b in zip(box["start"], box["stop"], strict=True))
    return float(foreground[z, y, x].sum() / total)


def _score_case(
    case: KitsCase,
    models: Models,
    config: Config,
    runtime: Runtime,
    on_example: Callable[[Volume, Volume, Volume], None] | None,
) -> dict[str, float]:
    ct, truth = read_case(case)
    result = segment_volume(ct, models, config, runtime, mirror=True, truth=truth)
    if on_example:
        on_example(ct, result.labels, truth)
    metrics = case_metrics(truth, result.labels)
    row = {f"dice_{name}": value for name, value in metrics.dice.items()}
    row |= {f"sd_{name}": value for name, value in metrics.surface_dice.items()}
    row["box_coverage"] = box_coverage(truth, result.record["box_zyx"])
    return row | {"case_seconds": result.record["timings_s"]["total"]}
