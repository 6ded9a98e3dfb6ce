"""Step 8: how far a result can be trusted, told without a truth: doubt, agreement of the mirrors, plausibility.

The value ranks results, so that the least certain are looked at first; it is no probability:

    value = mean over classes (expected Dice * Dice of the mirrored predictions * (1 - mean entropy)) * factors

The classes are KiTS23's evaluation classes, as in a mean Dice; the entropy, inside the kidney, is that of the network
that tells the class; each implausibility has a factor. Every part is 1 where nothing is in doubt and lowers the value
where something is. No constant was fitted to cases. Without a kidney, the value is 1 - the highest coarse probability.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from renalseg.config import Stage
from renalseg.core.labels import HECS, KIDNEY
from renalseg.predict.plausibility import Finding

LOW = 0.5
"""A value below this is a warning. One contradiction to anatomy is enough to get there. Settled."""

EDGE_VOXELS = 2
"""Voxels of the fine grid, in plane, that are no interior: there, doubt is blur rather than error. Settled."""

_CLASSES: Mapping[str, tuple[Stage, tuple[int, ...]]] = {
    hec.name: ("kidney", (1,)) if KIDNEY in hec.ids else ("lesion", tuple(i - KIDNEY for i in hec.ids)) for hec in HECS
}
"""Evaluation class to the network that tells it, and the channels of this network that belong to it."""


@dataclass(frozen=True)
class Doubt:
    """What the networks themselves tell; each a dict, or None where it is not to be had.

    Attributes:
        entropy: see ``mean_entropy``.
        expected: see ``expected_dice``.
        agreement: see ``mirror_agreement``.
    """

    entropy: Mapping[str, float] | None = None
    expected: Mapping[str, float] | None = None
    agreement: Mapping[str, float] | None = None


def doubt(kidney: torch.Tensor, lesion: torch.Tensor, mirrors: Mapping[Stage, torch.Tensor]) -> Doubt:
    """All that the probabilities of the fine grid tell; arguments as in the functions below."""
    return Doubt(mean_entropy(kidney, lesion), expected_dice(kidney, lesion), mirror_agreement(mirrors))


def entropy(probability: torch.Tensor) -> torch.Tensor:
    """Shannon entropy of probabilities [classes, ...], divided by that of all classes alike: [...] in [0, 1]."""
    smallest = torch.finfo(probability.dtype).tiny
    nats = -(probability * probability.clamp_min(smallest).log()).sum(0)
    return (nats / math.log(len(probability))).clamp(0, 1)


def interior(region: torch.Tensor) -> torch.Tensor:
    """A region bool [z, y, x] without ``EDGE_VOXELS`` at its border in plane; the border of the array is none."""
    for _ in range(EDGE_VOXELS):
        inner = region.clone()
        inner[:, 1:] &= region[:, :-1]
        inner[:, :-1] &= region[:, 1:]
        inner[:, :, 1:] &= region[:, :, :-1]
        inner[:, :, :-1] &= region[:, :, 1:]
        region = inner
    return region


def mean_entropy(kidney: torch.Tensor, lesion: torch.Tensor) -> dict[str, float] | None:
    """Mean normalised entropy of both networks over the predicted kidney (with its masses), and over its interior.

    Args:
        kidney: probabilities [2, d, y, x].
        lesion: probabilities [3, d, y, x].

    Returns:
        ``kidney``, ``lesion``, ``kidney_interior``, ``lesion_interior``; a kidney too thin for an interior counts as
        one. None without a predicted kidney.
    """
    region = kidney[1] >= 0.5
    voxels = region.flatten().nonzero()[:, 0]
    if not len(voxels):
        return None
    inside = interior(region).flatten()[voxels]
    inside = inside if inside.any() else ~inside
    values = {name: entropy(p.flatten(1)[:, voxels]) for name, p in (("kidney", kidney), ("lesion", lesion))}
    everywhere = {name: _rounded(v.mean()) for name, v in values.items()}
    return everywhere | {f"{name}_interior": _rounded(v[inside].mean()) for name, v in values.items()}


def expected_dice(kidney: torch.Tensor, lesion: torch.Tensor) -> dict[str, float]:
    """The Dice of each evaluation class that the probabilities expect of their own labels; arguments as above.

    Soft Dice confidence (Borges et al. 2024, arXiv:2402.10665): twice the probability inside the label over the
    label's size plus all probability. A class without a voxel is right if there is none: 1 - its highest probability.
    """
    inside = kidney[1] >= 0.5
    other, tumor, cyst = lesion
    masses = inside & (torch.maximum(tumor, cyst) > other)
    labelled = {"kidney": inside, "masses": masses, "tumor": masses & (tumor >= cyst)}
    return {name: _soft_dice(_probability(name, kidney, lesion), mask) for name, mask in labelled.items()}


def mirror_agreement(mirrors: Mapping[Stage, torch.Tensor]) -> dict[str, float] | None:
    """Dice between the predictions of the image and of its mirror, by evaluation class; 1 where both are empty.

    Args:
        mirrors: by stage, [classes, classes] voxels by the two predictions, as ``fine`` counts them.

    Returns:
        None without any mirrored prediction.
    """
    result: dict[str, float] = {}
    for name, (stage, channels) in _CLASSES.items():
        if stage in mirrors:
            table, rows = mirrors[stage].double(), list(channels)
            both, sizes = table[rows][:, rows].sum(), table[rows].sum() + table[:, rows].sum()
            result[name] = _rounded(2 * both / sizes) if sizes > 0 else 1.0
    return result or None


def confidence(doubts: Doubt, facts: dict[str, Any], findings: Sequence[Finding]) -> dict[str, Any]:
    """The JSON of a result with a kidney in it; ``warnings`` holds all findings, and a sentence for a low value.

    Without mirrored predictions their factor is 1: such values compare with each other only.
    """
    expected, agreed, doubted = ({} if d is None else d for d in (doubts.expected, doubts.agreement, doubts.entropy))
    by_class = [
        expected.get(name, 1.0) * agreed.get(name, 1.0) * (1 - doubted.get(f"{stage}_interior", 0.0))
        for name, (stage, _) in _CLASSES.items()
    ]
    value = sum(by_class) / len(by_class) * math.prod(f.factor for f in findings)
    warnings = [f.sentence for f in findings]
    if value < LOW:
        warnings.append(f"Low confidence {value:.2f} (limit {LOW}): {_reasons(doubts)}; look at the labels.")
    return _record(value, doubts, facts, None, warnings)


def confidence_in_nothing(coarse_peak: float) -> dict[str, Any]:
    """The JSON of a result without a kidney, judged from the highest probability of the coarse network."""
    value = 1 - coarse_peak
    reason = f"the coarse network's highest probability is {coarse_peak:.2f}"
    low = f"Low confidence {value:.2f} (limit {LOW}) that there is no kidney: {reason}; look at the scan."
    warnings = [low] if value < LOW else []
    return _record(value, Doubt(), None, coarse_peak, warnings)


def _record(
    value: float, doubts: Doubt, facts: dict[str, Any] | None, coarse_peak: float | None, warnings: list[str]
) -> dict[str, Any]:
    return {
        "value": round(value, 4),
        "expected_dice": doubts.expected,
        "agreement": doubts.agreement,
        "entropy": doubts.entropy,
        "plausibility": facts,
        "coarse_peak": None if coarse_peak is None else round(coarse_peak, 4),
        "warnings": warnings,
    }


def _reasons(doubts: Doubt) -> str:
    """The parts of the value in words."""
    parts = []
    for title, scores in (("expected Dice", doubts.expected), ("Dice of the mirrored predictions", doubts.agreement)):
        if scores:
            parts.append(f"{title} " + ", ".join(f"{name} {score:.2f}" for name, score in scores.items()))
    if doubts.entropy:
        parts.append(
            "mean entropy " + ", ".join(f"{name.replace('_', ' ')} {h:.2f}" for name, h in doubts.entropy.items())
        )
    return "; ".join(parts) or "implausible"


def _probability(name: str, kidney: torch.Tensor, lesion: torch.Tensor) -> torch.Tensor:
    """Of an evaluation class, [d, y, x]: lesions exist within the kidney only."""
    if name == "kidney":
        return kidney[1]
    return kidney[1] * (1 - lesion[0] if name == "masses" else lesion[1])


def _soft_dice(probability: torch.Tensor, mask: torch.Tensor) -> float:
    size = mask.sum()
    if size == 0:
        return _rounded(1 - probability.max())
    return _rounded(2 * (probability * mask).sum() / (size + probability.sum()))


def _rounded(number: torch.Tensor) -> float:
    return round(float(number), 4)
