import json

import pytest
import torch
from safetensors.torch import save_file

from renalseg.core.errors import WeightsError
from renalseg.model.resunet import build
from renalseg.train.state import load_state, save_state


def parts(config, seed, steps=0):
    """A network and its optimiser after some steps."""
    network = build(config.network("coarse"), seed)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2, weight_decay=1e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        network(torch.randn(1, 1, 8, 8, 8)).square().mean().backward()
        optimiser.step()
    return network, optimiser


@pytest.fixture
def saved(make_config, tmp_path):
    torch.manual_seed(3)
    network, optimiser = parts(make_config(), 0, steps=2)
    path = tmp_path / "run" / "last.safetensors"
    save_state(path, network, optimiser, {"epoch": 2, "config_sha256": "abc", "best": 0.5, "history": [{"loss": 1.0}]})
    return path, network, optimiser


def test_round_trip_of_weights_moments_numbers_and_random_state(saved, make_config):
    path, network, optimiser = saved
    expected = torch.rand(3)
    other, other_optimiser = parts(make_config(), 1)
    progress = load_state(path, other, other_optimiser, "abc")
    assert torch.equal(torch.rand(3), expected)
    assert progress == {"epoch": 2, "config_sha256": "abc", "best": 0.5, "history": [{"loss": 1.0}]}
    for key, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)
    before, after = optimiser.state_dict(), other_optimiser.state_dict()
    assert json.dumps(after["param_groups"]) == json.dumps(before["param_groups"])  # betas come back as a list
    assert after["state"].keys() == before["state"].keys()
    for index, moments in before["state"].items():
        assert after["state"][index].keys() == moments.keys() == {"step", "exp_avg", "exp_avg_sq"}
        for key, value in moments.items():
            assert torch.equal(after["state"][index][key], value)
            assert after["state"][index][key].dtype == value.dtype


def test_the_scaler_of_mixed_precision_is_kept(make_config, tmp_path):
    network, optimiser = parts(make_config(), 0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1234.0)
    save_state(tmp_path / "s.safetensors", network, optimiser, {"config_sha256": "abc"}, scaler)
    fresh = torch.amp.GradScaler("cpu")
    load_state(tmp_path / "s.safetensors", network, optimiser, "abc", fresh)
    assert fresh.state_dict() == scaler.state_dict()
    assert fresh.get_scale() == 1234.0


def test_another_configuration_is_refused(saved, make_config):
    with pytest.raises(WeightsError, match="another configuration"):
        load_state(saved[0], *parts(make_config(), 1), "abd")


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text", "foreign"])
def test_a_file_that_is_no_state_is_refused(damage, saved, make_config):
    path = saved[0]
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("this is not a run\n" * 20)
    else:
        save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="no run to resume") as caught:
        load_state(path, *parts(make_config(), 1), "abc")
    assert str(path) in str(caught.value)


def test_a_failed_write_keeps_the_previous_state(saved, monkeypatch):
    path, network, optimiser = saved
    before = path.read_bytes()

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("renalseg.io.files.os.replace", fail)
    with pytest.raises(KeyboardInterrupt):
        save_state(path, network, optimiser, {"config_sha256": "new"})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
