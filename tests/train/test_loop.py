import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from renalseg.config import STAGES, Augmentation
from renalseg.core.errors import ConfigError, InputError, RenalsegError, WeightsError
from renalseg.io.kits import list_cases
from renalseg.io.nifti import read_nifti, write_nifti
from renalseg.model.checkpoint import open_weights
from renalseg.model.runtime import Runtime
from renalseg.train import loop
from renalseg.train.cache import GRIDS, prepare
from renalseg.train.index import write_index
from renalseg.train.loop import cosine, train
from renalseg.train.parallel import World
from renalseg.train.run import Hooks, Request, run_training
from renalseg.train.state import State

QUIET = Hooks()
TIMES = ("seconds", "wait_seconds", "first_wait_seconds", "sample_seconds", "case_seconds")


class Stop(Exception):
    """Stands for a power cut."""


def request(stage, dataset, out, config, **changes):
    return Request(stage, dataset, out, config, device="cpu", precision="fp32", **changes)


def metrics(out, stage):
    return [json.loads(line) for line in (out / stage / "metrics.jsonl").read_text().splitlines()]


def test_cosine_goes_from_the_initial_rate_to_0():
    assert cosine(1e-4, 0, 100) == 1e-4
    assert cosine(1e-4, 50, 100) == pytest.approx(5e-5)
    assert cosine(1e-4, 100, 100) == pytest.approx(0.0, abs=1e-20)
    assert all(cosine(1.0, s, 100) > cosine(1.0, s + 1, 100) for s in range(100))


@pytest.mark.parametrize("stage", STAGES)
def test_a_resumed_run_ends_bit_equal_to_one_that_was_never_interrupted(stage, dataset, make_config, tmp_path):
    config = make_config()
    steps = []
    straight = Hooks(on_step=lambda *step: steps.append(step))
    run_training(request(stage, dataset, tmp_path / "straight", config), straight)
    assert [(step, total) for step, total, _ in steps] == [(i, 8) for i in range(1, 9)]

    def cut(step, total, loss):
        if step == 5:  # the first step of the third epoch
            raise Stop

    out = tmp_path / "resumed"
    with pytest.raises(Stop):
        run_training(request(stage, dataset, out, config), Hooks(on_step=cut))
    assert len(metrics(out, stage)) == 2
    torch.manual_seed(99)  # a fresh process has another random state
    resumed = run_training(request(stage, dataset, out, config, resume=True), QUIET)
    assert resumed["epoch"] == 4
    for name in (f"{stage}.safetensors", f"{stage}/last.safetensors"):
        expected, found = (load_file(tmp_path / folder / name) for folder in ("straight", "resumed"))
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value), key
    for key in ("epoch", "lr", "loss"):
        assert [m[key] for m in metrics(out, stage)] == [m[key] for m in metrics(tmp_path / "straight", stage)]
    rates = [m["lr"] for m in metrics(out, stage)]
    assert rates == [cosine(1e-3, 2 * epoch + 1, 8) for epoch in range(4)]
    weights = open_weights(out)
    assert weights.config == config
    trained_on = weights.manifest["stages"][stage]["trained_on"]
    assert len(trained_on.pop("cases_sha256")) == len(trained_on.pop("arrays_sha256")) == 16
    expected_on = {"dataset": dataset.name, "cases": 3, "fold": None, "seed": config.training[stage].seed, "epoch": 4}
    assert trained_on == expected_on
    assert not weights.network(stage).training


def test_resuming_a_finished_run_changes_nothing(dataset, make_config, make_run, tmp_path):
    config = make_config(epochs=1)
    train(make_run("coarse", dataset, tmp_path, config))
    before = (tmp_path / "coarse.safetensors").read_bytes()
    assert train(make_run("coarse", dataset, tmp_path, config, resume=True))["epoch"] == 1
    assert (tmp_path / "coarse.safetensors").read_bytes() == before


@pytest.mark.parametrize("stage", STAGES)
def test_learns_one_case_by_heart(stage, dataset, make_config, make_run, tmp_path):
    quiet = Augmentation(
        mirror_z=0.0,
        scale_probability=0.0,
        elastic_probability=0.0,
        intensity_probability=0.0,
        lesion_intensity_probability=0.0,
    )
    config = make_config(epochs=15, batch=1, learning_rate=2e-2, augmentation=quiet)
    losses = [m["loss"] for m in train(make_run(stage, dataset, tmp_path, config))["history"]]
    assert len(losses) == 15
    assert np.mean(losses[-3:]) < 0.6 * losses[0]


def test_regions_of_different_depth_share_a_step(dataset, make_config, make_run, tmp_path):
    run = make_run("kidney", dataset, tmp_path, make_config(epochs=1, batch=3), cases=3)
    image, labels = (np.array(a) for a in run.cases[0].load())
    run.cases[0].write(image[:5], labels[:5])
    assert np.isfinite(train(run)["history"][0]["loss"])


def test_the_best_weights_by_validation_are_kept(dataset, make_config, make_run, tmp_path):
    scores, seen = iter((0.5, 0.9, 0.1)), []

    def validate(network):
        assert not network.training
        seen.append({k: v.clone() for k, v in network.state_dict().items()})
        return {"score": next(scores)}

    config = make_config(epochs=5, validate_every=2)
    progress = train(make_run("coarse", dataset, tmp_path, config, validate=validate))
    assert progress["best"] == 0.9
    assert [m.get("score") for m in metrics(tmp_path, "coarse")] == [None, 0.5, None, 0.9, 0.1]
    kept = load_file(tmp_path / "coarse.safetensors")
    assert all(torch.equal(kept[k], v) for k, v in seen[1].items())
    assert not all(torch.equal(kept[k], v) for k, v in seen[2].items())
    assert open_weights(tmp_path).manifest["stages"]["coarse"]["trained_on"]["epoch"] == 4


def test_a_fold_is_held_out_and_scored_through_the_cascade(write_dataset, make_config, tmp_path):
    data = write_dataset(tmp_path / "data", 5)
    config = make_config(epochs=1)
    progress = run_training(request("kidney", data, tmp_path / "out", config, fold=0), QUIET)
    assert {"dice_kidney", "sd_tumor", "box_coverage", "score"} <= progress["history"][-1].keys()
    trained_on = open_weights(tmp_path / "out").manifest["stages"]["kidney"]["trained_on"]
    assert (trained_on["cases"], trained_on["fold"]) == (4, 0)
    prepared = {path.name.split("-")[0] for path in (tmp_path / "out" / "cache").rglob("*.npy")}
    assert len(prepared) == 4  # the held-out case is not even prepared
    again = request("lesion", data, tmp_path / "out", config, fold=0, cascade=tmp_path / "out")
    assert run_training(again, QUIET)["history"][-1]["score"] >= 0
    assert open_weights(tmp_path / "out").files.keys() == {"kidney", "lesion"}


def test_a_run_is_not_overwritten_and_not_resumed_from_nothing(dataset, make_config, tmp_path):
    config = make_config(epochs=1)
    for _ in range(2):
        with pytest.raises(WeightsError, match="start it without --resume"):
            run_training(request("coarse", dataset, tmp_path / "out", config, resume=True), QUIET)
        assert not (tmp_path / "out").exists()
    run_training(request("coarse", dataset, tmp_path / "out", config), QUIET)
    with pytest.raises(ConfigError, match="add --resume"):
        run_training(request("coarse", dataset, tmp_path / "out", config), QUIET)
    with pytest.raises(WeightsError, match="another configuration"):
        run_training(request("coarse", dataset, tmp_path / "out", make_config(epochs=2), resume=True), QUIET)


def test_weights_without_their_run_are_not_overwritten(dataset, make_config, tmp_path):
    """A folder of weights that was copied to be used."""
    config, out = make_config(epochs=1), tmp_path / "out"
    run_training(request("coarse", dataset, out, config), QUIET)
    before = (out / "coarse.safetensors").read_bytes()
    shutil.rmtree(out / "coarse")
    with pytest.raises(ConfigError, match="holds weights of the stage coarse already; give another --out"):
        run_training(request("coarse", dataset, out, config), QUIET)
    assert (out / "coarse.safetensors").read_bytes() == before
    run_training(request("kidney", dataset, out, config), QUIET)


def test_a_run_killed_between_its_first_weights_and_its_state_begins_anew(dataset, make_config, tmp_path, monkeypatch):
    config, out, save = make_config(epochs=1), tmp_path / "out", loop.save_state

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_state", killed)
    with pytest.raises(KeyboardInterrupt):
        run_training(request("coarse", dataset, out, config), QUIET)
    assert (out / "coarse.safetensors").exists()
    monkeypatch.setattr(loop, "save_state", save)
    assert run_training(request("coarse", dataset, out, config), QUIET)["epoch"] == 1


def test_a_run_is_not_resumed_on_other_arrays(write_dataset, make_config, tmp_path):
    data, out, config = write_dataset(tmp_path / "data", 2), tmp_path / "out", make_config(epochs=1)
    run_training(request("coarse", data, out, config), QUIET)
    run_training(request("coarse", data, out, config, resume=True), QUIET)
    image = next(data.glob("*/imaging.nii.gz"))
    ct = read_nifti(image)
    write_nifti(ct.with_array(ct.array + np.int16(1)), image)
    with pytest.raises(WeightsError, match="other cases or another beginning"):
        run_training(request("coarse", data, out, config, resume=True), QUIET)


def test_weights_are_chosen_by_validation_that_begins_later(dataset, make_config, make_run, tmp_path):
    """What an epoch without validation left is no score to beat."""
    config, kept = make_config(epochs=3, validate_every=1), []
    for epoch, score in {1: None, 2: 0.4, 3: 0.2}.items():
        run = make_run("coarse", dataset, tmp_path, config)

        def stop(records, epoch=epoch):
            if len(records) == epoch:
                raise KeyboardInterrupt

        validate = None if score is None else lambda _, score=score: {"score": score}
        with pytest.raises(KeyboardInterrupt):
            train(replace(run, validate=validate, resume=epoch > 1, on_epoch=stop))
        kept.append(open_weights(tmp_path).manifest["stages"]["coarse"]["trained_on"]["epoch"])
    assert kept == [1, 2, 2]


def test_a_run_killed_in_its_first_epoch_begins_anew(dataset, make_config, tmp_path, monkeypatch, caplog):
    step, config, out = loop._step, make_config(epochs=2), tmp_path / "out"

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run_training(request("coarse", dataset, out, config), QUIET)
    assert not (out / "coarse" / "last.safetensors").exists()
    monkeypatch.setattr(loop, "_step", step)
    assert run_training(request("coarse", dataset, out, config, resume=True), QUIET)["epoch"] == 2
    assert "no epoch of the stage coarse was finished; it begins anew" in caplog.text
    run_training(request("coarse", dataset, tmp_path / "straight", config), QUIET)
    expected, found = (load_file(folder / "coarse.safetensors") for folder in (tmp_path / "straight", out))
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_weights_of_another_configuration_are_refused_before_any_work(dataset, make_config, make_run, tmp_path):
    train(make_run("coarse", dataset, tmp_path, make_config(epochs=1)))

    def refuse(*_):
        raise AssertionError("work was begun")

    with pytest.raises(RenalsegError, match="another configuration"):
        run_training(request("kidney", dataset, tmp_path, make_config(epochs=2)), Hooks(refuse, refuse))


def test_a_dataset_without_labels_is_refused(dataset, make_config, tmp_path):
    folder = tmp_path / "data" / "case_00000"
    folder.mkdir(parents=True)
    (folder / "imaging.nii.gz").write_bytes((dataset / "case_00000" / "imaging.nii.gz").read_bytes())
    with pytest.raises(InputError, match="no case with"):
        run_training(request("coarse", tmp_path / "data", tmp_path / "out", make_config()), QUIET)


def arguments(stage, dataset, out, config, *more):
    """The arguments of a run's command line."""
    path = out.parent / "config.yaml"
    path.write_text(config.to_yaml())
    options = ["--data", dataset, "--out", out, "--config", path, "--device", "cpu", "--precision", "fp32", *more]
    return ["train", stage, *(str(option) for option in options)]


def command(*run):
    """The command line of a run, without the interpreter."""
    return ["-m", "renalseg", *arguments(*run)]


KILLED_IN_ITS_SECOND_EPOCH = """
import os, signal
from renalseg.__main__ import main
from renalseg.train import loop

whole = loop._step

def step(run, state, *more):
    made = whole(run, state, *more)
    if state.progress["epoch"] == 1 and run.world.first:
        os.killpg(0, signal.SIGKILL)  # the loaders too
    return made

if __name__ == "__main__":
    loop._step = step
    main()
"""
"""A program that does as ``renalseg`` and kills itself after the first step of the second epoch."""


@pytest.fixture
def killed(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED_IN_ITS_SECOND_EPOCH)
    return str(script)


def alone(**changes):
    """The environment of a fresh process that computes on one thread, so that sums have one order."""
    return os.environ | {"OMP_NUM_THREADS": "1"} | changes


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_killed_in_mid_epoch_and_resumed_ends_bit_equal(stage, killed, write_dataset, make_config, tmp_path):
    data = write_dataset(tmp_path / "data", 7)
    config = make_config(
        epochs=4, mixup_probability=0.7, paste_probability=0.5, hard_cases=0.3, hard_voxels=0.3, ema=0.9
    )
    config = config.model_copy(
        update={"training": {k: v.model_copy(update={"batch": 1}) for k, v in config.training.items()}}
    )
    straight, out = tmp_path / "straight", tmp_path / "out"
    subprocess.run([sys.executable, *command(stage, data, straight, config, "--workers", 1)], check=True, env=alone())
    run = arguments(stage, data, out, config, "--workers", 1)
    died = subprocess.run([sys.executable, killed, *run], env=alone(), start_new_session=True, check=False)
    assert died.returncode == -signal.SIGKILL
    assert [m["epoch"] for m in metrics(out, stage)] == [1]
    subprocess.run([sys.executable, "-m", "renalseg", *run, "--resume"], check=True, env=alone())
    for name in (f"{stage}.safetensors", f"{stage}/last.safetensors"):
        expected, found = (load_file(folder / name) for folder in (straight, out))
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value), key
    for key in ("epoch", "lr", "loss"):
        assert [m[key] for m in metrics(out, stage)] == [m[key] for m in metrics(straight, stage)]


def same_weights(one, two, stage):
    expected, found = (load_file(folder / stage / "last.safetensors") for folder in (one, two))
    assert expected.keys() == found.keys()
    return all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize(("stage", "hard", "epochs"), [("coarse", 0.0, 7), ("lesion", 0.2, 10)])
def test_two_processes_equal_one_bit_for_bit_and_go_on_as_one(
    stage, hard, epochs, killed, write_dataset, make_config, tmp_path
):
    """20 steps or more; without mining the last of each epoch has a single case, so one process has none.

    Killed, the coarse stage goes on with one process instead of two, the lesion stage with two instead of one.
    """
    data = write_dataset(tmp_path / "data", 9)
    config = make_config(
        epochs=epochs, batch=3, mixup_probability=0.5, paste_probability=0.5, hard_cases=hard, validate_every=epochs
    )
    one, two = (tmp_path / name for name in ("one", "two"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = ["--fold", 0, "--validation-cases", 2]
    subprocess.run([sys.executable, *command(stage, data, one, config, *options)], check=True, env=alone())
    subprocess.run([*torchrun, *command(stage, data, two, config, *options)], check=True, env=alone())
    assert same_weights(one, two, stage)
    first, second = ([{k: v for k, v in m.items() if k not in TIMES} for m in metrics(o, stage)] for o in (one, two))
    assert first == second
    assert first[-1]["dice_kidney"] > 0
    before, after = (torchrun, [sys.executable]) if stage == "coarse" else ([sys.executable], torchrun)
    out = tmp_path / "other"
    run = arguments(stage, data, out, config, *options)
    died = subprocess.run([*before, killed, *run], env=alone(), start_new_session=True, check=False)
    assert died.returncode
    assert [m["epoch"] for m in metrics(out, stage)] == [1]
    subprocess.run([*after, "-m", "renalseg", *run, "--resume"], check=True, env=alone())
    assert same_weights(one, out, stage)


def test_more_processes_than_a_batch_holds_are_refused(dataset, make_config, tmp_path, monkeypatch):
    monkeypatch.setattr("renalseg.train.run.join", lambda device: nullcontext((World(0, 3), device)))
    with pytest.raises(ConfigError, match="3 processes cannot share a batch of 2"):
        run_training(request("coarse", dataset, tmp_path / "out", make_config()), QUIET)


def test_averaged_weights_are_kept_and_scored(dataset, make_config, make_run, tmp_path):
    seen = []

    def validate(network):
        seen.append({k: v.clone() for k, v in network.state_dict().items()})
        return {"score": 1.0}

    config = make_config(epochs=2, ema=0.5, validate_every=2)
    train(make_run("coarse", dataset, tmp_path, config, cases=3, validate=validate))
    kept, last = load_file(tmp_path / "coarse.safetensors"), load_file(tmp_path / "coarse" / "last.safetensors")
    for key, value in kept.items():
        assert torch.equal(value, seen[0][key])
        assert torch.equal(value, last[f"average.{key}"])
    assert not all(torch.equal(value, last[f"network.{key}"]) for key, value in kept.items())


def test_hard_cases_are_seen_in_more_epochs(dataset, make_config, make_run, tmp_path, monkeypatch):
    """The second of three cases is made hard: it is in every epoch, and one of the others is left out of each."""
    config = make_config(epochs=12, batch=1, hard_cases=0.4, mixup_probability=0.0)
    step, seen = loop._step, []

    def losses_of(*arguments):
        found, finite = step(*arguments)
        return {case: 10.0 if case == 1 else 0.001 for case in found}, finite

    monkeypatch.setattr(loop, "_step", losses_of)
    hooks = {"on_samples": lambda samples, _: seen.extend(sample.case for sample in samples)}
    progress = train(make_run("coarse", dataset, tmp_path, config, cases=3, **hooks))
    counts = [seen.count(case) for case in range(3)]
    assert sum(counts) == 12 * 2
    assert counts[1] >= 11  # in the first epoch all count alike
    assert min(counts) > 0
    assert progress["case_losses"] == pytest.approx([0.001, 10.0, 0.001])


def test_trains_from_a_cache_whose_dataset_is_gone(write_dataset, make_config, tmp_path):
    data, config = write_dataset(tmp_path / "data", 5), make_config(epochs=1)
    ids = [c.case_id for c in list_cases(data)]
    write_index(data, tmp_path / "cache", config, prepare(data, tmp_path / "cache", GRIDS, config, ids))
    expected = run_training(request("lesion", data, tmp_path / "a", config, fold=1), QUIET)
    found = run_training(request("lesion", tmp_path / "cache", tmp_path / "b", config, fold=1), QUIET)
    assert [{k: v for k, v in m.items() if k not in TIMES} for m in found["history"]] == [
        {k: v for k, v in m.items() if k not in TIMES} for m in expected["history"]
    ]
    data.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="validation needs the CT scans"):
        run_training(request("lesion", tmp_path / "cache", tmp_path / "c", config, fold=1), QUIET)
    blind = request("lesion", tmp_path / "cache", tmp_path / "c", config, fold=1, validation_cases=0)
    assert run_training(blind, QUIET)["history"][-1]["loss"] == expected["history"][-1]["loss"]


def test_examples_and_epochs_are_told(write_dataset, make_config, tmp_path):
    data = write_dataset(tmp_path / "data", 5)
    examples, epochs = [], []
    hooks = Hooks(on_epoch=lambda history: epochs.append(len(history)), on_example=lambda *e: examples.append(e))
    run_training(request("kidney", data, tmp_path / "out", make_config(epochs=2), fold=0), hooks)
    assert epochs == [1, 2]
    ((ct, found, truth),) = examples
    assert ct.shape == found.shape == truth.shape
    assert set(np.unique(found.array)) <= {0, 1, 2, 3}


def test_records_that_a_kill_left_behind_are_caught_up_on_resuming(dataset, make_config, make_run, tmp_path):
    """The state of an epoch is written before its line and the page; a kill between them leaves both an epoch short."""
    config = make_config(epochs=2)
    train(make_run("coarse", dataset, tmp_path, config))
    log, told = tmp_path / "coarse" / "metrics.jsonl", []
    whole = log.read_text()
    log.write_text(whole.splitlines(keepends=True)[0])
    train(make_run("coarse", dataset, tmp_path, config, resume=True, on_epoch=lambda h: told.append(len(h))))
    assert log.read_text() == whole
    assert told == [2]


def test_deterministic_algorithms_are_on_inside_a_run_alone(dataset, make_config, tmp_path):
    seen = []
    hooks = Hooks(on_step=lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()))
    for wanted in (True, False):
        run_training(
            request("coarse", dataset, tmp_path / str(wanted), make_config(epochs=1), deterministic=wanted), hooks
        )
    assert seen == [True, True, False, False]
    assert not torch.are_deterministic_algorithms_enabled()


def test_samples_are_shown_before_their_step_and_their_making_is_timed(dataset, make_config, make_run, tmp_path):
    order = []
    run = make_run(
        "kidney",
        dataset,
        tmp_path,
        make_config(epochs=1),
        cases=3,
        on_samples=lambda samples, _: order.append(sorted(sample.case for sample in samples)),
        on_step=lambda *_: order.append("step"),
    )
    record = train(run)["history"][0]
    assert order[1::2] == ["step", "step"]
    assert sorted(order[0] + order[2]) == [0, 1, 2]
    assert 0 <= record["sample_seconds"] < record["seconds"]
    assert record["skipped_steps"] == 0


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_a_gpu_augments_itself_and_the_loader_pins_for_cuda_alone(
    device, dataset, make_config, make_run, tmp_path, monkeypatch
):
    options = {}

    def loader(patches, **given):
        options.update(given, augmented=patches.augmented)
        raise Stop

    monkeypatch.setattr("renalseg.train.loop.DataLoader", loader)
    monkeypatch.setattr("renalseg.train.loop._start", lambda _: State(torch.nn.Identity(), None, None))
    with pytest.raises(Stop):
        train(make_run("coarse", dataset, tmp_path, make_config(), runtime=Runtime(torch.device(device), "fp32")))
    assert options["pin_memory"] == (device == "cuda")
    assert options["augmented"] == (device == "cpu")
