"""The training loop of one stage, whole: epochs, steps, loss, AdamW, cosine annealing, mixed precision, checkpoints."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, SequentialSampler

from renalseg.config import Config, Stage
from renalseg.core.errors import RenalsegError, WeightsError
from renalseg.io.files import write_text
from renalseg.model.checkpoint import save_stage
from renalseg.model.resunet import build
from renalseg.model.runtime import Runtime
from renalseg.train.dataset import Patches, Sample, group_by_shape
from renalseg.train.loss import dice_ce
from renalseg.train.prepare import Prepared
from renalseg.train.state import load_state, save_state

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One training run: what to train, on what, where to."""

    stage: Stage
    config: Config
    cases: list[Prepared]
    out: Path
    runtime: Runtime
    trained_on: dict[str, Any]
    resume: bool = False
    workers: int = 0
    validate: Callable[[torch.nn.Module], dict[str, float]] | None = None
    """Scores the network through the real cascade; higher ``score`` is better."""
    on_step: Callable[[int, int, float], None] | None = None
    """Called with (step, steps of the whole run, loss)."""


def train(run: Run) -> dict[str, Any]:
    """Trains one stage and returns its progress record.

    Writes under ``run.out``: ``<stage>/last.safetensors`` after each epoch (to resume), ``<stage>/metrics.jsonl``, and
    ``<stage>.safetensors`` with the best weights by validation (the last ones where there is none).

    Raises:
        RenalsegError: the loss is not finite; WeightsError: nothing to resume.
    """
    settings, folder = run.config.training[run.stage], run.out / run.stage
    torch.manual_seed(settings.seed)
    network = build(run.config.network(run.stage), settings.seed)
    run.runtime.place(network).train()
    optimiser = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    scaler = torch.amp.GradScaler(run.runtime.device.type, enabled=run.runtime.precision == "fp16")
    progress: dict[str, Any] = {"epoch": 0, "best": None, "history": [], "config_sha256": run.config.sha256()}
    progress["trained_on"] = run.trained_on
    if run.resume:
        progress = load_state(folder / "last.safetensors", network, optimiser, run.config.sha256(), scaler)
        if progress["trained_on"] != run.trained_on:
            raise WeightsError(f"{folder}: this run trains on other cases; resume with its own --data and --fold")
    patches = Patches(run.cases, run.stage, settings)
    loader = DataLoader(
        patches,
        settings.batch,
        sampler=SequentialSampler(patches),
        collate_fn=list,
        num_workers=run.workers,
        multiprocessing_context="forkserver" if run.workers else None,  # a fork beside running threads can deadlock
    )
    steps = settings.epochs * len(loader)
    for epoch in range(progress["epoch"], settings.epochs):
        patches.set_epoch(epoch)
        record = _epoch(run, network, optimiser, scaler, loader, epoch, steps)
        last = epoch + 1 == settings.epochs
        if run.validate and (last or (epoch + 1) % settings.validate_every == 0):
            network.eval()
            record |= run.validate(network)
            network.train()
        score = record.get("score") if run.validate else float(epoch)
        if score is not None and (progress["best"] is None or score > progress["best"]):
            progress["best"] = score
            save_stage(run.out, run.config, run.stage, network, run.trained_on | {"epoch": epoch + 1})
        progress["epoch"] = epoch + 1
        progress["history"].append(record)
        write_text("".join(json.dumps(line) + "\n" for line in progress["history"]), folder / "metrics.jsonl")
        save_state(folder / "last.safetensors", network, optimiser, progress, scaler)
    return progress


def _epoch(
    run: Run,
    network: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    loader: DataLoader[Sample],
    epoch: int,
    steps: int,
) -> dict[str, Any]:
    """One pass over the cases."""
    settings, started, waited, total = run.config.training[run.stage], time.perf_counter(), 0.0, 0.0
    for index, (samples, wait_s) in enumerate(_timed(loader)):
        step = epoch * len(loader) + index
        rate = cosine(settings.learning_rate, step, steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = _step(run, network, optimiser, scaler, samples)
        if not math.isfinite(loss):
            raise RenalsegError(
                f"{run.stage}: the loss is {loss} at step {step}; lower the learning rate or use bf16/fp32"
            )
        total, waited = total + loss, waited + wait_s
        if run.on_step:
            run.on_step(step + 1, steps, loss)
    seconds = time.perf_counter() - started
    return {"epoch": epoch + 1, "loss": total / len(loader), "lr": rate, "seconds": seconds, "wait_seconds": waited}


def _step(
    run: Run,
    network: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    samples: list[Sample],
) -> float:
    """One optimiser step on the mean loss of ``samples``; returns that loss."""
    settings, loss_sum = run.config.training[run.stage], 0.0
    optimiser.zero_grad(set_to_none=True)
    for images, targets in group_by_shape(samples):
        images = images.to(run.runtime.device, memory_format=run.runtime.memory_format)
        with run.runtime.autocast():
            logits = network(images)
        loss = dice_ce(logits, targets.to(run.runtime.device), settings).sum() / len(samples)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        loss_sum += float(loss.detach())
    scaler.unscale_(optimiser)
    torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
    scaler.step(optimiser)
    scaler.update()
    return loss_sum


def cosine(initial: float, step: int, steps: int) -> float:
    """Learning rate of ``step`` of ``steps`` under cosine annealing to 0 (Loshchilov & Hutter, arXiv:1608.03983)."""
    return initial * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def _timed(loader: DataLoader[Sample]) -> Iterator[tuple[list[Sample], float]]:
    """The loader's batches, each with the seconds that were spent waiting for it."""
    iterator = iter(loader)
    while True:
        started = time.perf_counter()
        try:
            batch = next(iterator)
        except StopIteration:
            return
        yield list(batch), time.perf_counter() - started
