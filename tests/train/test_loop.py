import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from renalseg.config import STAGES
from renalseg.core.errors import ConfigError, InputError, RenalsegError, WeightsError
from renalseg.io.kits import list_cases
from renalseg.model.checkpoint import open_weights
from renalseg.model.runtime import Runtime
from renalseg.train.loop import Run, cosine, train
from renalseg.train.prepare import prepare
from renalseg.train.run import Progress, Request, run_training

CPU = Runtime(torch.device("cpu"), "fp32")
QUIET = Progress(lambda *_: None, lambda *_: None)


class Stop(Exception):
    """Stands for a power cut."""


def request(stage, dataset, out, config, **changes):
    return Request(stage, dataset, out, config, device="cpu", precision="fp32", **changes)


def make_run(stage, dataset, out, config, cases=1, **changes):
    ids = [case.case_id for case in list_cases(dataset)][:cases]
    prepared = prepare(dataset, out / "cache", stage, config, ids)
    return Run(stage, config, prepared, out, CPU, {"dataset": "test"}, **changes)


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
    straight = Progress(lambda *_: None, lambda *step: steps.append(step))
    run_training(request(stage, dataset, tmp_path / "straight", config), straight)
    assert [(step, total) for step, total, _ in steps] == [(i, 8) for i in range(1, 9)]

    def cut(step, total, loss):
        if step == 5:  # the first step of the third epoch
            raise Stop

    out = tmp_path / "resumed"
    with pytest.raises(Stop):
        run_training(request(stage, dataset, out, config), Progress(lambda *_: None, cut))
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
    assert len(trained_on.pop("cases_sha256")) == 16
    expected_on = {"dataset": dataset.name, "cases": 3, "fold": None, "seed": config.training[stage].seed, "epoch": 4}
    assert trained_on == expected_on
    assert not weights.network(stage).training


def test_resuming_a_finished_run_changes_nothing(dataset, make_config, tmp_path):
    config = make_config(epochs=1)
    train(make_run("coarse", dataset, tmp_path, config))
    before = (tmp_path / "coarse.safetensors").read_bytes()
    assert train(make_run("coarse", dataset, tmp_path, config, resume=True))["epoch"] == 1
    assert (tmp_path / "coarse.safetensors").read_bytes() == before


@pytest.mark.parametrize("stage", STAGES)
def test_learns_one_case_by_heart(stage, dataset, make_config, tmp_path):
    quiet = {"mirror_z": 0.0, "scale_probability": 0.0, "intensity_probability": 0.0}
    config = make_config(epochs=15, batch=1, learning_rate=2e-2, **quiet)
    losses = [m["loss"] for m in train(make_run(stage, dataset, tmp_path, config))["history"]]
    assert len(losses) == 15
    assert np.mean(losses[-3:]) < 0.6 * losses[0]


def test_a_loss_that_is_not_finite_stops_the_run(dataset, make_config, tmp_path, monkeypatch):
    monkeypatch.setattr("renalseg.train.loop.dice_ce", lambda logits, *_: logits.mean((1, 2, 3, 4)) * float("nan"))
    with pytest.raises(RenalsegError, match=r"kidney: the loss is nan at step 0; lower the learning rate"):
        train(make_run("kidney", dataset, tmp_path, make_config()))
    assert not (tmp_path / "kidney.safetensors").exists()
    assert not (tmp_path / "kidney").exists()


def test_regions_of_different_depth_share_a_step(dataset, make_config, tmp_path):
    run = make_run("kidney", dataset, tmp_path, make_config(epochs=1, batch=3), cases=3)
    image, target = (np.array(a) for a in run.cases[0].load())
    np.save(run.cases[0].image, image[:5])
    np.save(run.cases[0].target, target[:5])
    assert np.isfinite(train(run)["history"][0]["loss"])


def test_the_best_weights_by_validation_are_kept(dataset, make_config, tmp_path):
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
    with pytest.raises(WeightsError, match="start it without --resume"):
        run_training(request("coarse", dataset, tmp_path / "out", config, resume=True), QUIET)
    run_training(request("coarse", dataset, tmp_path / "out", config), QUIET)
    with pytest.raises(ConfigError, match="add --resume"):
        run_training(request("coarse", dataset, tmp_path / "out", config), QUIET)
    with pytest.raises(WeightsError, match="another configuration"):
        run_training(request("coarse", dataset, tmp_path / "out", make_config(epochs=2), resume=True), QUIET)


def test_weights_of_another_configuration_are_refused_before_any_work(dataset, make_config, tmp_path):
    train(make_run("coarse", dataset, tmp_path, make_config(epochs=1)))

    def refuse(*_):
        raise AssertionError("work was begun")

    with pytest.raises(RenalsegError, match="another configuration"):
        run_training(request("kidney", dataset, tmp_path, make_config(epochs=2)), Progress(refuse, refuse))


def test_a_dataset_without_labels_is_refused(dataset, make_config, tmp_path):
    folder = tmp_path / "data" / "case_00000"
    folder.mkdir(parents=True)
    (folder / "imaging.nii.gz").write_bytes((dataset / "case_00000" / "imaging.nii.gz").read_bytes())
    with pytest.raises(InputError, match="no case with"):
        run_training(request("coarse", tmp_path / "data", tmp_path / "out", make_config()), QUIET)
