"""The training loop of one stage, whole: epochs, steps, loss, AdamW, cosine annealing, mixed precision, checkpoints."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from renalseg.config import Config, Stage
from renalseg.core.errors import WeightsError
from renalseg.io.files import write_text
from renalseg.model.checkpoint import save_stage
from renalseg.model.resunet import build
from renalseg.model.runtime import Runtime
from renalseg.train.cache import Prepared
from renalseg.train.dataset import Batches, Draw, Key, Patches, Sample, epoch_keys, finish
from renalseg.train.loss import dice_ce, mixed_target
from renalseg.train.mining import RunningLoss, draw_order
from renalseg.train.parallel import ALONE, GradientSum, World
from renalseg.train.skips import count_skip, not_finite
from renalseg.train.state import State, load_state, save_state
from renalseg.train.timing import Stopwatch

_ORDER = 0
"""Stream of random numbers that the order of the cases is drawn from."""


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
    world: World = ALONE
    initial: dict[str, torch.Tensor] | None = None
    """Weights to begin with, by name, instead of random ones; those that it lacks stay random."""
    validate: Callable[[torch.nn.Module], dict[str, float]] | None = None
    """Scores the network through the real cascade; higher ``score`` is better."""
    on_step: Callable[[int, int, float], None] | None = None
    """Called with (step, steps of the whole run, loss)."""
    on_samples: Callable[[list[Sample], float], None] | None = None
    """Called with this process's samples of a step, before they go through the network, and the seconds that it waited
    for the loader; for measurements."""
    on_epoch: Callable[[list[dict[str, Any]]], None] | None = None
    """Called in the first process after each epoch, and when a run goes on, with the records of all epochs so far."""


def train(run: Run) -> dict[str, Any]:
    """Trains one stage and returns its progress record.

    Writes under ``run.out``: ``<stage>/last.safetensors`` after each epoch (to resume), ``<stage>/metrics.jsonl``, and
    ``<stage>.safetensors`` with the best weights by validation (the last ones where there is none).

    A step whose loss or gradient is not finite changes nothing: it is left out, with a warning and a count in the
    epoch's record. So a single bad sample neither ends a run nor gets into its weights.

    Raises:
        RenalsegError: several steps in a row, or all losses of an epoch, are not finite.
        WeightsError: there is nothing to resume.
    """
    settings = run.config.training[run.stage]
    state = _start(run)
    forward = torch.compile(state.network, dynamic=True) if settings.compile else state.network
    patches = Patches(run.cases, run.stage, settings, augmented=run.runtime.device.type == "cpu")
    batches = Batches(settings.batch, run.world.rank, run.world.size)
    loader = DataLoader(
        patches,
        batch_sampler=batches,
        collate_fn=list,
        num_workers=run.workers,
        generator=torch.Generator(),  # the global one stays out of it, so that resuming finds it as it was
        persistent_workers=run.workers > 0,
        pin_memory=run.runtime.device.type == "cuda",
        multiprocessing_context="forkserver" if run.workers else None,  # a fork beside running threads can deadlock
    )
    running = RunningLoss(len(run.cases), state.progress["case_losses"])
    if state.progress["history"]:  # the session before may have ended between its last state and these
        _write_records(run, state)
    for epoch in range(state.progress["epoch"], settings.epochs):
        order = draw_order(running, settings.hard_cases, np.random.default_rng([settings.seed, epoch, _ORDER]))
        batches.keys = epoch_keys(order, epoch, settings)
        record, losses = _epoch(run, state, forward, loader, batches, epoch)
        running.update(losses)
        record |= _validated(run, state, epoch)
        state.progress |= {"epoch": epoch + 1, "case_losses": running.as_list()}
        state.progress["history"].append(record)
        if run.world.first:
            save_state(run.out / run.stage / "last.safetensors", state)
        _write_records(run, state)
        run.world.wait()
    return state.progress


def _write_records(run: Run, state: State) -> None:
    """Writes ``metrics.jsonl`` and tells ``on_epoch``, in the first process."""
    if not run.world.first:
        return
    lines = "".join(json.dumps(line) + "\n" for line in state.progress["history"])
    write_text(lines, run.out / run.stage / "metrics.jsonl")
    if run.on_epoch:
        run.on_epoch(state.progress["history"])


def _start(run: Run) -> State:
    """A run's state at its beginning, or where it stopped."""
    settings = run.config.training[run.stage]
    torch.manual_seed(settings.seed)
    fresh = build(run.config.network(run.stage), settings.seed)
    if run.initial is not None:
        fresh.load_state_dict(run.initial, strict=False)
    network = run.runtime.place(fresh).train()
    state = State(
        network,
        torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay),
        torch.amp.GradScaler(run.runtime.device.type, enabled=run.runtime.precision == "fp16"),
    )
    if settings.ema:
        state.average = {k: v.detach().float().clone() for k, v in network.state_dict().items()}
    state.progress = {"epoch": 0, "best": None, "history": [], "case_losses": None, "trained_on": run.trained_on}
    state.progress["config_sha256"] = run.config.sha256()
    if run.resume:
        path = run.out / run.stage / "last.safetensors"
        load_state(path, state, run.config.sha256())
        known = state.progress["trained_on"]
        noted = {key: run.trained_on[key] for key in run.trained_on if key in known or key != "arrays_sha256"}
        if known != noted:  # versions before did not note the arrays
            raise WeightsError(
                f"{path.parent}: this run has other cases or another beginning; resume with its own --data, --fold "
                "and --initial"
            )
    return state


def _epoch(
    run: Run,
    state: State,
    forward: Callable[..., torch.Tensor],
    loader: "DataLoader[Any]",
    batches: Batches,
    epoch: int,
) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """One pass; returns its record and the loss of each case, NaN for those that were left out."""
    settings, started, waits = run.config.training[run.stage], time.perf_counter(), list[float]()
    making, skipped = Stopwatch(run.runtime.device), 0
    losses = np.full(len(run.cases), np.nan)
    each = len(batches)
    steps = settings.epochs * each
    for index, (drawn, wait_s) in enumerate(_timed(loader)):
        step = epoch * each + index
        rate = cosine(settings.learning_rate, step, steps)
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        keys = batches.keys[index * settings.batch : (index + 1) * settings.batch]
        with making:
            samples = [finish(d, run.stage, settings, run.runtime.device) if isinstance(d, Draw) else d for d in drawn]
        if run.on_samples:
            run.on_samples(samples, wait_s)
        found, finite = _step(run, state, forward, samples, len(keys))
        for case, loss in found.items():
            losses[case] = loss if math.isfinite(loss) else np.nan
        if not finite:
            skipped += 1
            count_skip(run.stage, run.runtime.precision, state.progress, _names(run, keys), warn=run.world.first)
        waits.append(wait_s)
        if run.on_step:
            run.on_step(step + 1, steps, sum(found.values()) / max(1, len(found)))
    run.runtime.synchronise()
    every = np.stack(run.world.gather(losses))
    losses = np.where(np.isnan(every).all(0), np.nan, np.nansum(every, 0))
    if np.isnan(losses).all():
        what = f"no loss of epoch {epoch + 1} is finite; its last step had the cases {_names(run, keys)}"
        raise not_finite(run.stage, run.runtime.precision, state.progress, what)
    record = {
        "epoch": epoch + 1,
        "loss": float(np.nanmean(losses)),
        "lr": rate,
        "seconds": time.perf_counter() - started,
        "wait_seconds": sum(waits),
        "first_wait_seconds": waits[0],
        "sample_seconds": making.seconds(),
        "skipped_steps": skipped,
    }
    return record, losses


def _step(
    run: Run, state: State, forward: Callable[..., torch.Tensor], samples: list[Sample], whole: int
) -> tuple[dict[int, float], bool]:
    """One optimiser step on the mean loss of the ``whole`` batch, of which ``samples`` are this process's part.

    Samples go through the network one by one: regions differ in depth and nothing is padded, a single one keeps a GPU
    busy, and their gradients can be summed in the batch's order, however many processes share it.

    The step is left out where a loss or the gradient's norm is not finite. Both are of the whole batch, so all
    processes decide alike. With fp16, gradients too large for the scale of the loss are no fault of the batch: the
    scaler lowers it, and only a scale that is as low as 1 already leaves no such excuse.

    Returns:
        The loss of each case here, and whether loss and gradient are finite, by that rule.
    """
    settings, losses = run.config.training[run.stage], dict[int, torch.Tensor]()
    gradients = GradientSum(list(state.network.parameters()), run.world)
    for sample in samples:
        image = sample.image[None].to(run.runtime.device, memory_format=run.runtime.memory_format)
        with run.runtime.autocast():
            logits = forward(image)
        loss = dice_ce(logits, _target(sample, logits), settings)[0]
        state.scaler.scale(loss / whole).backward()  # type: ignore[no-untyped-call]
        gradients.add(loss)
        losses[sample.case] = loss.detach()
    total = gradients.finish(whole)
    state.scaler.unscale_(state.optimiser)
    norm = torch.nn.utils.clip_grad_norm_(state.network.parameters(), settings.clip_norm)
    norm_, total_, *each = torch.stack([norm, total, *losses.values()]).tolist()  # one copy from the device
    finite = math.isfinite(norm_) and math.isfinite(total_)
    overflow = not finite and math.isfinite(total_) and state.scaler.is_enabled() and state.scaler.get_scale() > 1
    if finite:
        state.scaler.step(state.optimiser)
        state.update_average(settings.ema)
        state.progress["skips_in_a_row"] = 0
    state.scaler.update()
    return dict(zip(losses, each, strict=True)), finite or overflow


def _names(run: Run, keys: list[Key]) -> str:
    """The ids of a batch's cases, those that are mixed in or give a lesion too."""
    cases = (case for key in keys for case in (key.case, key.partner, key.donor) if case is not None)
    return ", ".join(dict.fromkeys(run.cases[case].case_id for case in cases))


def _target(sample: Sample, logits: torch.Tensor) -> torch.Tensor:
    """What ``dice_ce`` compares with: classes, or shares of classes where the sample is mixed."""
    target = sample.target[None].to(logits.device)
    if sample.other is None:
        return target
    return mixed_target(target, sample.other[None].to(logits.device), [sample.weight], logits.shape[1])


def _validated(run: Run, state: State, epoch: int) -> dict[str, float]:
    """Scores the network where it is due, and keeps it where it is the best so far, or where nothing is scored."""
    settings, scores = run.config.training[run.stage], dict[str, float]()
    last = epoch + 1 == settings.epochs
    if run.validate is not None and not last and (epoch + 1) % settings.validate_every:
        return scores
    network = state.network
    if state.average is not None:
        network = run.runtime.place(build(run.config.network(run.stage)))
        network.load_state_dict(state.average)
    network.eval()
    if run.validate is not None:
        scores = run.validate(network)
    state.network.train()
    best, score = state.progress["best"], scores.get("score")
    if best is None or score is None or score > best:
        state.progress["best"] = score
        if run.world.first:
            save_stage(run.out, run.config, run.stage, network, run.trained_on | {"epoch": epoch + 1})
    return scores


def cosine(initial: float, step: int, steps: int) -> float:
    """Learning rate of ``step`` of ``steps`` under cosine annealing to 0 (Loshchilov & Hutter, arXiv:1608.03983)."""
    return initial * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def _timed(loader: "DataLoader[Any]") -> Iterator[tuple[list[Draw | Sample], float]]:
    """The loader's batches, each with the seconds that were spent waiting for it."""
    iterator = iter(loader)
    while True:
        started = time.perf_counter()
        try:
            batch = next(iterator)
        except StopIteration:
            return
        yield list(batch), time.perf_counter() - started
