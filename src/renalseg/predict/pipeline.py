"""The cascade: chains the steps of this folder, times them, and writes down what happened."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from renalseg import __version__
from renalseg.config import Config, Stage
from renalseg.core.labels import LABELS
from renalseg.core.notice import NOTICE
from renalseg.core.volume import Segmentation, Volume
from renalseg.image.boxes import Box
from renalseg.image.components import Component
from renalseg.image.resample import resize
from renalseg.model.runtime import Runtime, peak_host_mb, reset_host_peak
from renalseg.predict.clean import clean
from renalseg.predict.coarse import clean_coarse, coarse_input, coarse_probability, perfect_mask
from renalseg.predict.compose import compose
from renalseg.predict.confidence import Doubt, confidence, confidence_in_nothing, doubt
from renalseg.predict.fine import fine_probability
from renalseg.predict.plausibility import plausibility
from renalseg.predict.roi import find_box, fine_input
from renalseg.predict.room import fine_with_room, or_on_cpu, place_for, with_room

log = logging.getLogger(__name__)

WARN_DROPPED_ML = 5.0
"""A dropped component of this volume could be a part of a kidney: it is worth a warning. Settled."""


@dataclass(frozen=True)
class Models:
    """The networks of each stage; several of one stage are averaged. A stage may be empty in validation only."""

    coarse: Sequence[torch.nn.Module] = ()
    kidney: Sequence[torch.nn.Module] = ()
    lesion: Sequence[torch.nn.Module] = ()


@dataclass
class _Record:
    """What a case's JSON is made of, gathered on the way."""

    timings_s: dict[str, float] = field(default_factory=dict)
    device_mb: dict[str, float] = field(default_factory=dict)
    host_mb: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    dropped: list[dict[str, Any]] = field(default_factory=list)
    confidence: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str, runtime: Runtime) -> Iterator[None]:
        """Times the body of a ``with`` under ``name``, and notes its peak memory."""
        runtime.reset_device_peak()
        reset_host_peak()
        started = time.perf_counter()
        yield
        runtime.synchronise()
        self.timings_s[name] = round(time.perf_counter() - started, 4)
        self.host_mb[name] = round(peak_host_mb(), 1)
        peak = runtime.peak_device_mb()
        if peak is not None:
            self.device_mb[name] = round(peak, 1)

    def drop(self, stage: str, components: list[Component]) -> None:
        """Notes dropped components."""
        for c in components:
            self.dropped.append(
                {"stage": stage, "voxels": c.voxels, "ml": round(c.volume_mm3 / 1000, 3), "centre_zyx": c.centre}
            )


@dataclass(frozen=True)
class _Fine:
    """What the fine stages tell of a box: kidney [2, d, y, x], lesion [3, d, y, x], and ``fine``'s counts by stage."""

    kidney: torch.Tensor
    lesion: torch.Tensor
    mirrors: dict[Stage, torch.Tensor]


def segment_volume(
    volume: Volume, models: Models, config: Config, runtime: Runtime, mirror: bool = True, truth: Volume | None = None
) -> Segmentation:
    """Runs the whole cascade on one CT.

    Args:
        volume: CT in HU.
        models: the networks.
        config: the settings they were trained with.
        runtime: device and precision.
        mirror: average with the mirror image along z, where the configuration says so.
        truth: the true labels; a stage without networks then answers as a perfect one would (validation only).
    """
    record = _Record(warnings=list(volume.warnings))
    started = time.perf_counter()
    with record.step("coarse", runtime):
        mask, coarse_peak = _coarse_mask(volume, models, config, runtime, record, truth)
        box = find_box(mask, volume, config)
    labels: NDArray[np.uint8] = np.zeros(volume.shape, dtype=np.uint8)
    kept: list[Component] = []
    fine: _Fine | None = None
    if box is not None:
        fine = _fine(volume, box, models, config, runtime, mirror, record, truth)
        with record.step("compose", runtime):
            put_together = partial(compose, fine.kidney, fine.lesion, volume, box)
            labels = or_on_cpu("the labels were", runtime.device, put_together, record.warnings)
        with record.step("clean", runtime):
            inside, kept, dropped = clean(labels[box.slices], volume.voxel_mm3, config.clean)
            labels[box.slices] = inside
            kept, dropped = _shifted(kept, box), _shifted(dropped, box)
            record.drop("clean", dropped)
    with record.step("confidence", runtime):
        record.confidence = _confidence(volume, labels, fine if kept else None, coarse_peak, record.warnings)
    _warn(record, kept)
    record.timings_s["total"] = round(time.perf_counter() - started, 4)
    return Segmentation(
        replace(volume, array=labels), _summary(volume, labels, box, kept, record, config, runtime, mirror)
    )


def _coarse_mask(
    volume: Volume, models: Models, config: Config, runtime: Runtime, record: _Record, truth: Volume | None
) -> tuple[NDArray[np.bool_], float]:
    """The cleaned coarse mask [z, y, x], and the highest probability before cleaning."""
    if not models.coarse and truth is not None:
        perfect = perfect_mask(truth, config).numpy()
        return perfect, float(perfect.any())

    def run(networks: Sequence[torch.nn.Module], where: Runtime) -> torch.Tensor:
        return coarse_probability(coarse_input(volume, config, where), networks, where)

    probability = with_room("coarse", models.coarse, runtime, run, record.warnings)
    mask, dropped = clean_coarse(probability, volume, config)
    record.drop("coarse", dropped)
    return mask, float(probability.max())


def _fine(
    volume: Volume,
    box: Box,
    models: Models,
    config: Config,
    runtime: Runtime,
    mirror: bool,
    record: _Record,
    truth: Volume | None,
) -> _Fine:
    with record.step("roi", runtime):
        shape = (box.shape[0], *config.fine.in_plane)
        classes = len(config.fine.kidney.classes) + len(config.fine.lesion.classes)
        place = place_for(shape, 1 + classes, runtime)
        image = or_on_cpu("the region was", place, partial(fine_input, volume, box, config), record.warnings)
    probabilities: dict[Stage, torch.Tensor] = {}
    mirrors: dict[Stage, torch.Tensor] = {}
    stages: tuple[tuple[Stage, Sequence[torch.nn.Module]], ...] = (("kidney", models.kidney), ("lesion", models.lesion))
    for stage, networks in stages:
        with record.step(stage, runtime):
            if networks or truth is None:
                inside = _predicted(probabilities["kidney"], record) if stage == "lesion" else None
                predict = partial(fine_probability, image, mirror=mirror and config.fine.mirror_z, inside=inside)
                probabilities[stage], table = fine_with_room(
                    stage, networks, config.fine, runtime, predict, record.warnings
                )
                if table is not None:
                    mirrors[stage] = table
            else:
                probabilities[stage] = _perfect(stage, truth, box, config).to(image.device)
    kidney, lesion = probabilities["kidney"], probabilities["lesion"]
    if kidney.device != lesion.device:  # one of them was computed on the CPU for lack of memory
        kidney, lesion = kidney.cpu(), lesion.cpu()
    return _Fine(kidney, lesion, mirrors)


def _predicted(kidney: torch.Tensor, record: _Record) -> torch.Tensor:
    """Where the kidney network calls kidney, bool [d, y, x]."""
    return or_on_cpu("the kidney's mask was", kidney.device, lambda place: kidney[1].to(place) >= 0.5, record.warnings)


def _perfect(stage: Stage, truth: Volume, box: Box, config: Config) -> torch.Tensor:
    """What a perfect network would answer, on the fine grid of ``box``."""
    shape = (box.shape[0], *config.fine.in_plane)
    cut = truth.array[box.slices]
    masks = [cut == 0, cut > 0] if stage == "kidney" else [cut <= 1, cut == 2, cut == 3]
    return torch.stack([resize(torch.from_numpy(np.ascontiguousarray(m)), shape) for m in masks])


def _shifted(components: list[Component], box: Box) -> list[Component]:
    """Components of a box, with their centres in voxels of the whole volume."""
    z, y, x = box.start
    return [replace(c, centre=(c.centre[0] + z, c.centre[1] + y, c.centre[2] + x)) for c in components]


def _confidence(
    ct: Volume, labels: NDArray[np.uint8], fine: _Fine | None, coarse_peak: float, warnings: list[str]
) -> dict[str, Any]:
    """How far ``labels`` can be trusted; ``fine`` is None for a result without a kidney."""
    if fine is None:
        return confidence_in_nothing(coarse_peak)

    kidney, lesion, mirrors = fine.kidney, fine.lesion, fine.mirrors

    def doubts(place: torch.device) -> Doubt:
        return doubt(kidney.to(place), lesion.to(place), mirrors)

    told = or_on_cpu("the confidence was", kidney.device, doubts, warnings)
    return confidence(told, *plausibility(ct, labels))


def _warn(record: _Record, kept: list[Component]) -> None:
    """Adds warnings about the result itself."""
    large = [d for d in record.dropped if d["ml"] >= WARN_DROPPED_ML]
    if not kept:
        lost = sum(d["ml"] for d in record.dropped)
        why = f"; {len(record.dropped)} components of {lost:.1f} ml in all were too small" if record.dropped else ""
        record.warnings.append(f"No kidney found{why}.")
    elif large:
        listed = ", ".join(f"{d['ml']:.1f} ml" for d in large)
        record.warnings.append(f"Dropped as too small for a kidney: {listed}; see dropped_components.")
    record.warnings += record.confidence["warnings"]


def _summary(
    volume: Volume,
    labels: NDArray[np.uint8],
    box: Box | None,
    kept: list[Component],
    record: _Record,
    config: Config,
    runtime: Runtime,
    mirror: bool,
) -> dict[str, Any]:
    ml = volume.voxel_mm3 / 1000
    cut = labels[:0] if box is None else labels[box.slices]  # nothing is labelled outside
    return {
        "case": volume.name,
        "kidney_found": bool(kept),
        "volumes_ml": {label.name: round(float(np.count_nonzero(cut == label.id) * ml), 3) for label in LABELS},
        "components": [{"voxels": c.voxels, "ml": round(c.volume_mm3 / 1000, 3), "centre_zyx": c.centre} for c in kept],
        "dropped_components": record.dropped,
        "warnings": record.warnings,
        "confidence": record.confidence,
        "shape_zyx": list(volume.shape),
        "spacing_mm_zyx": [round(s, 6) for s in volume.spacing_mm],
        "box_zyx": None if box is None else {"start": list(box.start), "stop": list(box.stop)},
        "timings_s": record.timings_s,
        "peak_memory_mb": {
            "host": max(record.host_mb.values()),
            "host_by_step": record.host_mb,
            "device": max(record.device_mb.values(), default=None),
            "device_by_step": record.device_mb,
        },
        "device": str(runtime.device),
        "precision": runtime.precision,
        "mirror_z": mirror and config.fine.mirror_z,
        "threads": torch.get_num_threads(),
        "renalseg": __version__,
        "torch": torch.__version__,
        "preset": config.name,
        "config_sha256": config.sha256(),
        "notice": NOTICE,
    }
