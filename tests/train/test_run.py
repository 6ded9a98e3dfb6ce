"""``run``: which weights a run leaves, and that it goes on in a later version and after a kill at a bad moment."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from renalseg.core.errors import ConfigError, WeightsError
from renalseg.io.files import file_sha256
from renalseg.model.checkpoint import open_weights
from renalseg.train import run as module
from renalseg.train.run import Hooks, Request, run_training


class Stop(Exception):
    """Stands for a power cut."""


def request(stage, dataset, out, config, **changes):
    return Request(stage, dataset, out, config, device="cpu", precision="fp32", **changes)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def part(out, stage, prefix):
    """The tensors of ``prefix`` in a run's last state."""
    tensors = load_file(out / stage / "last.safetensors")
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def cut_at(wanted):
    def on_step(step, *_):
        if step == wanted:
            raise Stop

    return Hooks(on_step=on_step)


@pytest.mark.parametrize(("keep", "ema"), [("best", 0.0), ("last", 0.0), ("last", 0.5)])
def test_the_best_or_the_last_weights_are_kept(keep, ema, write_dataset, make_config, tmp_path, monkeypatch):
    """Validation scores fall from the first epoch on, so the best weights are not the last ones."""
    scores = iter((0.9, 0.5, 0.1))
    monkeypatch.setattr(module, "make_validator", lambda *_, **__: lambda _: {"score": next(scores)})
    data, out, config = write_dataset(tmp_path / "data", 5), tmp_path / "out", make_config(epochs=3, validate_every=1)
    training = {k: v.model_copy(update={"ema": ema}) for k, v in config.training.items()}
    config = config.model_copy(update={"training": training})
    progress = run_training(request("coarse", data, out, config, fold=0, keep=keep))
    assert [m["score"] for m in progress["history"]] == [0.9, 0.5, 0.1]
    weights = open_weights(out)
    weights.network("coarse")
    assert weights.manifest["stages"]["coarse"]["trained_on"]["epoch"] == (1 if keep == "best" else 3)
    last = part(out, "coarse", "average." if ema else "network.")
    assert same(load_file(out / "coarse.safetensors"), last) == (keep == "last")


def made_by_an_earlier_version(folder):
    """Takes the setting ``stem`` out of a run's folder, with every hash as the version without it noted it."""
    path = folder / "config.yaml"
    data = yaml.safe_load(path.read_text())
    for network in (data["coarse"]["network"], data["fine"]["kidney"], data["fine"]["lesion"]):
        del network["stem"]
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    sha256 = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
    if (folder / "manifest.json").exists():
        manifest = json.loads((folder / "manifest.json").read_text()) | {"config_sha256": file_sha256(path)}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    for state in folder.glob("*/last.safetensors"):
        with safe_open(state, framework="pt") as file:
            meta = json.loads(file.metadata()["state"])
        meta["progress"]["config_sha256"] = sha256
        save_file(load_file(state), state, {"state": json.dumps(meta)})
    return sha256


@pytest.mark.parametrize("steps", [3, 5])
def test_a_run_of_a_version_with_fewer_settings_goes_on(steps, write_dataset, make_config, tmp_path):
    """Killed before its first validation, when it has no manifest yet, and after it."""
    data, config = write_dataset(tmp_path / "data", 5), make_config(batch=2)
    straight, out = tmp_path / "straight", tmp_path / "out"
    run_training(request("coarse", data, straight, config, fold=0))
    with pytest.raises(Stop):
        run_training(request("coarse", data, out, config, fold=0), cut_at(steps))
    assert (out / "manifest.json").exists() == (steps == 5)
    noted = made_by_an_earlier_version(out)
    text = (out / "config.yaml").read_text()
    assert "stem" not in text
    again = request("coarse", data, out, config, fold=0, resume=True)
    changed = replace(again, config=make_config(learning_rate=1e-4))
    with pytest.raises(WeightsError, match="another configuration"):
        run_training(changed)
    progress = run_training(again)
    assert progress["epoch"] == 4
    assert progress["config_sha256"] == noted  # kept, as provenance
    assert (out / "config.yaml").read_text() == text
    assert same(part(out, "coarse", "network."), part(straight, "coarse", "network."))


def test_an_edited_configuration_is_not_the_runs_own(write_dataset, make_config, tmp_path):
    data, out, config = write_dataset(tmp_path / "data", 5), tmp_path / "out", make_config()
    with pytest.raises(Stop):
        run_training(request("coarse", data, out, config, fold=0), cut_at(3))
    changed = make_config(learning_rate=1e-4)
    (out / "config.yaml").write_text(changed.to_yaml())
    with pytest.raises(WeightsError, match="another configuration"):
        run_training(request("coarse", data, out, changed, fold=0, resume=True))


def test_killed_between_weights_and_manifest_it_goes_on(write_dataset, make_config, tmp_path, monkeypatch):
    data, out, config = write_dataset(tmp_path / "data", 5), tmp_path / "out", make_config()
    with pytest.raises(Stop):
        run_training(request("coarse", data, out, config, fold=0), cut_at(5))
    other = {k: v + 1 for k, v in load_file(out / "coarse.safetensors").items()}
    save_file(other, out / "coarse.safetensors")
    with pytest.raises(WeightsError, match=r"coarse.safetensors: .* go on with it \(--resume\)"):
        open_weights(out).network("coarse")
    monkeypatch.setattr(module, "train", lambda run: {})  # what goes on finds a whole folder
    run_training(request("coarse", data, out, config, fold=0, resume=True))
    weights = open_weights(out)
    assert same(dict(weights.network("coarse").state_dict()), part(out, "coarse", "network."))
    assert weights.manifest["stages"]["coarse"]["trained_on"]["epoch"] == 2


def started(make_config, epochs=1):
    """A configuration whose lesion stage starts from the kidney network; its learning rate is next to nothing."""
    config = make_config(epochs=epochs, learning_rate=1e-12, weight_decay=0.0)
    lesion = config.training["lesion"].model_copy(update={"start_from": "kidney"})
    return config.model_copy(update={"training": config.training | {"lesion": lesion}})


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_lesion_stage_starts_from_the_kidney_network(elsewhere, write_dataset, make_config, tmp_path):
    data, out, config = write_dataset(tmp_path / "data", 3), tmp_path / "out", started(make_config)
    kidney_out = tmp_path / "kidney" if elsewhere else out
    run_training(request("kidney", data, kidney_out, config))
    run_training(request("lesion", data, out, config, cascade=kidney_out if elsewhere else None))
    kidney, lesion = load_file(kidney_out / "kidney.safetensors"), load_file(out / "lesion.safetensors")
    body = [key for key in kidney if not key.startswith("head.")]
    assert len(body) == len(kidney) - 2
    for key in body:
        torch.testing.assert_close(lesion[key], kidney[key], rtol=0, atol=1e-6)
    assert lesion["head.weight"].shape != kidney["head.weight"].shape
    trained_on = open_weights(out).manifest["stages"]["lesion"]["trained_on"]
    assert trained_on["start_from"] == f"kidney {file_sha256(kidney_out / 'kidney.safetensors')[:16]}"


def test_a_start_from_the_kidney_network_is_resumed_alike(write_dataset, make_config, tmp_path):
    data, config = write_dataset(tmp_path / "data", 3), started(make_config, epochs=2)
    for out in (tmp_path / "whole", tmp_path / "cut"):
        run_training(request("kidney", data, out, config))
    run_training(request("lesion", data, tmp_path / "whole", config))
    with pytest.raises(Stop):
        run_training(request("lesion", data, tmp_path / "cut", config), cut_at(3))
    run_training(request("lesion", data, tmp_path / "cut", config, resume=True))
    names = [tmp_path / name / "lesion.safetensors" for name in ("whole", "cut")]
    assert file_sha256(names[0]) == file_sha256(names[1])


def test_a_start_from_a_kidney_network_that_is_missing_or_unlike_is_refused(write_dataset, make_config, tmp_path):
    data, config = write_dataset(tmp_path / "data", 3), started(make_config)
    with pytest.raises(ConfigError, match=r"train the stage kidney to the same --out first, or set start_from: random"):
        run_training(request("lesion", data, tmp_path / "out", config))
    wider = config.fine.kidney.model_copy(update={"widths": (6, 8)})
    other = config.model_copy(update={"fine": config.fine.model_copy(update={"kidney": wider})})
    run_training(request("kidney", data, tmp_path / "other", other))
    with pytest.raises(ConfigError, match="has other layers than the lesion network"):
        run_training(request("lesion", data, tmp_path / "other", other))


def test_named_weights_are_trained_further_and_the_manifest_says_so(write_dataset, make_config, tmp_path):
    data, config = write_dataset(tmp_path / "data", 3), started(make_config)
    run_training(request("kidney", data, tmp_path / "first", make_config(epochs=1, seed=5)))
    run_training(request("kidney", data, tmp_path / "out", config, initial=tmp_path / "first"))
    first, out = (load_file(tmp_path / name / "kidney.safetensors") for name in ("first", "out"))
    for key, value in first.items():
        torch.testing.assert_close(out[key], value, rtol=0, atol=1e-6)
    trained_on = open_weights(tmp_path / "out").manifest["stages"]["kidney"]["trained_on"]
    assert trained_on["start_from"] == f"kidney {file_sha256(tmp_path / 'first' / 'kidney.safetensors')[:16]}"
    with pytest.raises(WeightsError, match="--initial"):
        run_training(request("kidney", data, tmp_path / "out", config, resume=True))


def test_weights_that_cannot_be_trained_further_are_refused(write_dataset, make_config, tmp_path):
    data, config, first = write_dataset(tmp_path / "data", 3), make_config(epochs=1), tmp_path / "first"
    run_training(request("kidney", data, first, config))
    with pytest.raises(WeightsError, match="holds no network of the stage lesion"):
        run_training(request("lesion", data, tmp_path / "out", config, initial=first))
    with pytest.raises(WeightsError, match="no weights there"):
        run_training(request("kidney", data, tmp_path / "out", config, initial=tmp_path / "none"))
    with pytest.raises(ConfigError, match="begin with weights that it replaces"):
        run_training(request("kidney", data, first, config, initial=first, resume=True))
    wider = config.fine.kidney.model_copy(update={"widths": (6, 8)})
    other = config.model_copy(update={"fine": config.fine.model_copy(update={"kidney": wider})})
    with pytest.raises(ConfigError, match="its kidney network is not that of the configuration"):
        run_training(request("kidney", data, tmp_path / "out", other, initial=first))
    intensity = config.intensity.model_copy(update={"clip_hu": (-100.0, 300.0)})
    brighter = config.model_copy(update={"intensity": intensity})
    with pytest.raises(ConfigError, match="its intensity is not that of the configuration"):
        run_training(request("kidney", data, tmp_path / "out", brighter, initial=first))
    assert not (tmp_path / "out").exists()  # refused before anything is prepared


def test_a_run_that_began_with_named_weights_is_resumed_alike_and_they_win(write_dataset, make_config, tmp_path):
    data, config, first = write_dataset(tmp_path / "data", 3), started(make_config, epochs=2), tmp_path / "first"
    run_training(request("lesion", data, first, make_config(epochs=1, seed=5)))
    run_training(request("lesion", data, tmp_path / "whole", config, initial=first))
    with pytest.raises(Stop):
        run_training(request("lesion", data, tmp_path / "cut", config, initial=first), cut_at(3))
    run_training(request("lesion", data, tmp_path / "cut", config, initial=first, resume=True))
    names = [tmp_path / name / "lesion.safetensors" for name in ("whole", "cut")]
    assert file_sha256(names[0]) == file_sha256(names[1])
    before, after = load_file(first / "lesion.safetensors"), load_file(names[0])
    for key, value in before.items():  # the head too, and not a kidney network's body, which is not even there
        torch.testing.assert_close(after[key], value, rtol=0, atol=1e-6)


def test_packaged_weights_go_by_name_on_the_command_line(write_dataset, tmp_path, run):
    packaged, path = open_weights("default"), tmp_path / "config.yaml"
    coarse = packaged.config.training["coarse"].model_copy(update={"epochs": 1})
    training = packaged.config.training | {"coarse": coarse}
    path.write_text(packaged.config.model_copy(update={"training": training}).to_yaml())
    arguments = ("--data", write_dataset(tmp_path / "data", 3), "--out", tmp_path / "out", "--config", path)
    code, _, err = run("train", "coarse", *arguments, "--initial", "default")
    assert code == 0, err
    trained_on = open_weights(tmp_path / "out").manifest["stages"]["coarse"]["trained_on"]
    assert trained_on["start_from"] == f"coarse {packaged.hashes['coarse'][:16]}"
    assert run("train", "kidney", *arguments, "--initial", "nothing")[0] == WeightsError.exit_code
