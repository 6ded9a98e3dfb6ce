"""A loss or gradient that is not finite: its step is left out, told and counted, and no weight is ever harmed."""

import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_post_hook

from renalseg.core.errors import RenalsegError
from renalseg.io.kits import list_cases
from renalseg.model.resunet import build
from renalseg.model.runtime import Runtime
from renalseg.train import loop
from renalseg.train.cache import GRIDS, prepare
from renalseg.train.index import write_index
from renalseg.train.loop import train
from renalseg.train.parallel import GradientSum, World

CPU = torch.device("cpu")
FP32, BF16, FP16 = (Runtime(CPU, precision) for precision in ("fp32", "bf16", "fp16"))


def poison(monkeypatch, kind, *calls):
    """Spoils the loss of some samples, counted from 0 over the run."""
    count, real = iter(range(10**6)), loop.dice_ce

    def spoilt(logits, target, settings):
        loss = real(logits, target, settings)
        if next(count) not in calls:
            return loss
        if kind == "loss":
            return loss + float("inf")  # its gradient stays finite
        steep = logits.float().mean() * 1e30
        return loss + (steep - steep.detach()) * 1e30  # the value of ``loss``, with an infinite gradient

    monkeypatch.setattr(loop, "dice_ce", spoilt)


def skipped(progress):
    return [record["skipped_steps"] for record in progress["history"]]


def finite(path):
    return all(torch.isfinite(v).all() for v in load_file(path).values() if v.is_floating_point())


@pytest.mark.parametrize("kind", ["loss", "gradient"])
@pytest.mark.parametrize("runtime", [FP32, BF16], ids=["fp32", "bf16"])
def test_such_a_step_changes_nothing(kind, runtime, dataset, make_config, make_run, tmp_path, monkeypatch):
    """Here the second of two: weights, moments and averages end as they were after the first."""
    poison(monkeypatch, kind, 1)
    config = make_config(epochs=1, batch=1, ema=0.9, mixup_probability=0.0, hard_cases=0.0)
    after: list[dict[str, torch.Tensor]] = []

    def note(optimiser, *_):
        parameters = optimiser.param_groups[0]["params"]
        moments = {f"{i}.{k}": v for i, p in enumerate(parameters) for k, v in optimiser.state[p].items()}
        after.append({k: v.detach().clone() for k, v in (moments | dict(enumerate(parameters))).items()})

    hook = register_optimizer_step_post_hook(note)
    try:
        progress = train(make_run("kidney", dataset, tmp_path, config, cases=2, runtime=runtime))
    finally:
        hook.remove()
    assert skipped(progress) == [1]
    (first,) = after
    found = load_file(tmp_path / "kidney" / "last.safetensors")
    network = build(config.network("kidney"), config.training["kidney"].seed)
    for index, (name, initial) in enumerate(network.named_parameters()):
        assert torch.equal(found[f"network.{name}"], first[index])
        torch.testing.assert_close(found[f"average.{name}"], initial.detach().lerp(first[index], 0.1))
        assert found[f"optimiser.{index}.step"] == 1
        for moment in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(found[f"optimiser.{index}.{moment}"], first[f"{index}.{moment}"])


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_one_bad_sample_does_not_end_a_run(kind, dataset, make_config, make_run, tmp_path, monkeypatch, caplog):
    poison(monkeypatch, kind, 2, 8)  # the last step of the first and of the last epoch
    config = make_config(epochs=3, batch=2, ema=0.9, mixup_probability=0.0, hard_cases=0.0)
    with caplog.at_level(logging.WARNING):
        progress = train(make_run("coarse", dataset, tmp_path, config, cases=3))
    assert skipped(progress) == [1, 0, 1]
    assert progress["skips_in_a_row"] == 1
    assert all(np.isfinite(record["loss"]) for record in progress["history"])
    assert finite(tmp_path / "coarse.safetensors")
    assert finite(tmp_path / "coarse" / "last.safetensors")
    messages = [record.getMessage() for record in caplog.records if record.name == "renalseg.train.skips"]
    assert len(messages) == 2
    assert (
        "coarse: the loss or gradient of a step in epoch 3 is not finite; it was left out, with case_0" in messages[1]
    )
    seen = progress["case_losses"]
    assert all(loss is not None and loss > 0 for loss in seen)


def test_cases_that_are_mixed_in_are_named(dataset, make_config, make_run, tmp_path, monkeypatch, caplog):
    poison(monkeypatch, "gradient", 0)
    config = make_config(epochs=1, batch=1, mixup_probability=1.0, hard_cases=0.6)
    with caplog.at_level(logging.WARNING):
        train(make_run("coarse", dataset, tmp_path, config, cases=3))
    assert "with case_" in caplog.text
    assert caplog.text.count("case_0") == 2


@pytest.mark.parametrize(
    ("runtime", "way"),
    [
        (BF16, "look at the images of these cases, and go on with --resume --precision fp32"),
        (FP32, "mend what is broken and go on with --resume, or, if nothing is, train with a lower learning rate to"),
    ],
    ids=["bf16", "fp32"],
)
def test_five_in_a_row_end_the_run_and_it_can_go_on(
    runtime, way, dataset, make_config, make_run, tmp_path, monkeypatch
):
    config = make_config(epochs=4, batch=1, mixup_probability=0.0, hard_cases=0.0)
    with monkeypatch.context() as patch:
        poison(patch, "gradient", 1, 2, *range(4, 9))  # 3 steps an epoch
        with pytest.raises(RenalsegError, match=r"of 5 steps in a row .* in epoch 3 with case_0000\d; ") as caught:
            train(make_run("coarse", dataset, tmp_path, config, cases=3, runtime=runtime))
    assert way in str(caught.value)
    assert len((tmp_path / "coarse" / "metrics.jsonl").read_text().splitlines()) == 2
    assert finite(tmp_path / "coarse" / "last.safetensors")
    progress = train(make_run("coarse", dataset, tmp_path, config, cases=3, resume=True))  # in fp32
    assert skipped(progress) == [2, 2, 0, 0]
    assert progress["skips_in_a_row"] == 0
    assert finite(tmp_path / "coarse.safetensors")


def test_the_count_goes_on_over_a_resume(dataset, make_config, make_run, tmp_path, monkeypatch):
    config = make_config(epochs=9, batch=1)

    def stop(history):
        if len(history) == 3:
            raise KeyboardInterrupt

    poison(monkeypatch, "gradient", *range(9))
    with pytest.raises(KeyboardInterrupt):
        train(make_run("coarse", dataset, tmp_path, config, on_epoch=stop))
    with pytest.raises(RenalsegError, match=r"5 steps in a row .* in epoch 5 with case_00000"):
        train(make_run("coarse", dataset, tmp_path, config, resume=True))


@pytest.mark.parametrize(("runtime", "way"), [(BF16, "start again with --precision fp32"), (FP32, "and start again,")])
def test_an_epoch_without_any_loss_ends_the_run(runtime, way, dataset, make_config, make_run, tmp_path, monkeypatch):
    poison(monkeypatch, "loss", 0)
    with pytest.raises(RenalsegError, match=r"kidney: no loss of epoch 1 is finite; .* case_00000; look at") as caught:
        train(make_run("kidney", dataset, tmp_path, make_config(), runtime=runtime))
    assert way in str(caught.value)
    assert not (tmp_path / "kidney.safetensors").exists()
    assert not (tmp_path / "kidney").exists()


def scale_of(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["state"])["scaler"]["scale"]


def test_an_overflow_of_fp16_lowers_the_scale_and_does_not_count(dataset, make_config, make_run, tmp_path, monkeypatch):
    """Forced by a scale that is far too high; then interrupted while it is still falling."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *a, **k: scaler(*a, init_scale=2.0**40, **k))
    config = make_config(epochs=12, batch=1, mixup_probability=0.0, hard_cases=0.0)

    def run(out, **changes):
        return make_run("coarse", dataset, tmp_path / out, config, cases=3, runtime=FP16, **changes)

    def stop(history):
        if len(history) == 2:
            raise KeyboardInterrupt

    straight = train(run("straight"))
    with pytest.raises(KeyboardInterrupt):
        train(run("resumed", on_epoch=stop))
    last = tmp_path / "resumed" / "coarse" / "last.safetensors"
    assert scale_of(last) == 2.0**34  # six overflows, more than what would have ended the run
    fresh = build(config.network("coarse"), config.training["coarse"].seed).state_dict()
    assert all(torch.equal(load_file(last)[f"network.{key}"], value) for key, value in fresh.items())
    resumed = train(run("resumed", resume=True))
    assert skipped(straight) == skipped(resumed) == [0] * 12
    assert scale_of(last) == scale_of(tmp_path / "straight" / "coarse" / "last.safetensors") < 2.0**34
    expected, found = load_file(tmp_path / "straight" / "coarse" / "last.safetensors"), load_file(last)
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert not all(torch.equal(found[f"network.{key}"], value) for key, value in fresh.items())
    assert finite(last)


def test_an_overflow_at_the_lowest_scale_of_fp16_counts(dataset, make_config, make_run, tmp_path, monkeypatch):
    """Else a case whose gradient is never finite would be met in silence."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *a, **k: scaler(*a, init_scale=4.0, **k))
    poison(monkeypatch, "gradient", *range(20))
    with pytest.raises(RenalsegError, match=r"5 steps in a row .* epoch 7 .*--precision fp32"):
        train(make_run("coarse", dataset, tmp_path, make_config(epochs=20, batch=1), runtime=FP16))


def test_every_process_gets_the_losses_of_all(monkeypatch):
    def gather(every, mine):  # the other process had a sample with the gradient [1, 2] and an infinite loss
        every[0].copy_(mine)
        every[1].copy_(torch.tensor([[1.0, 2.0, float("inf")]]))

    monkeypatch.setattr("renalseg.train.parallel.distributed.all_gather", gather)
    for size, count, loss in ((1, 2, 5.0), (2, 2, float("inf")), (2, 1, 2.0)):
        weight = torch.nn.Parameter(torch.ones(2))
        total = GradientSum([weight], World(0, size))
        for value in (2.0, 3.0)[: count if size == 1 else 1]:
            (weight.sum() * 4).backward()
            total.add(torch.tensor(value))
        assert total.finish(count) == loss
        assert weight.grad.tolist() == {1: [8.0, 8.0], 2: [5.0, 6.0] if count == 2 else [4.0, 4.0]}[size]


def test_two_processes_leave_out_the_same_steps_as_one(write_dataset, make_config, tmp_path):
    """A voxel that is not a number makes one case's loss so in one of the two processes alone."""
    data, config, cache = write_dataset(tmp_path / "data", 6), tmp_path / "c.yaml", tmp_path / "cache"
    settings = make_config(epochs=4, batch=2, mixup_probability=0.3, hard_cases=0.0, ema=0.9)
    config.write_text(settings.to_yaml())
    prepared = prepare(data, cache, GRIDS, settings, [c.case_id for c in list_cases(data)])
    write_index(data, cache, settings, prepared)
    bad = next(p for p in prepared["coarse"] if p.case_id == "case_00003")
    image, labels = (np.array(a) for a in bad.load())
    image[8] = np.nan
    bad.write(image, labels)
    records = {}
    for name, start in (("one", []), ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"])):
        options = ["--data", cache, "--out", tmp_path / name, "--config", config, "--device", "cpu"]
        command = [sys.executable, *start, "-m", "renalseg", "train", "coarse", *map(str, options)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run([*command, "--precision", "fp32"], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "coarse: the loss or gradient of a step in epoch 1 is not finite" in done.stderr
        lines = (tmp_path / name / "coarse" / "metrics.jsonl").read_text().splitlines()
        records[name] = [[json.loads(line)[k] for k in ("epoch", "lr", "loss", "skipped_steps")] for line in lines]
        assert done.stderr.count("was left out") == sum(record[-1] for record in records[name])
    assert records["one"] == records["two"]
    assert all(record[-1] >= 1 for record in records["one"])
    expected, found = (load_file(tmp_path / name / "coarse" / "last.safetensors") for name in ("one", "two"))
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert all(torch.isfinite(value).all() for value in expected.values() if value.is_floating_point())
