import json

import pytest
import torch
from safetensors.torch import save_file

from renalseg.core.errors import WeightsError
from renalseg.model.resunet import build
from renalseg.train.state import State, load_state, save_state


def parts(config, seed, steps=0):
    """A network and its optimiser after some steps."""
    network = build(config.network("coarse"), seed)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2, weight_decay=1e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        network(torch.randn(1, 1, 8, 8, 8)).square().mean().backward()
        optimiser.step()
    return network, optimiser


def state(config, seed, steps=0, progress=None, scaler=None, average=False):
    network, optimiser = parts(config, seed, steps)
    averaged = {k: v.detach().clone() * 2 for k, v in network.state_dict().items()} if average else None
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
    return State(network, optimiser, scaler, averaged, progress or {"config_sha256": "abc"})


@pytest.fixture
def saved(make_config, tmp_path):
    torch.manual_seed(3)
    progress = {"epoch": 2, "config_sha256": "abc", "best": 0.5, "history": [{"loss": 1.0}], "case_losses": [0.1, None]}
    before = state(make_config(), 0, 2, progress, average=True)
    path = tmp_path / "run" / "last.safetensors"
    save_state(path, before)
    return path, before


def test_round_trip_of_weights_moments_numbers_and_random_state(saved, make_config):
    path, original = saved
    expected = torch.rand(3)
    other = state(make_config(), 1, average=True)
    load_state(path, other, "abc")
    assert torch.equal(torch.rand(3), expected)
    assert other.progress == original.progress
    for key, value in original.network.state_dict().items():
        assert torch.equal(other.network.state_dict()[key], value)
        assert torch.equal(other.average[key], 2 * value)
    before, after = original.optimiser.state_dict(), other.optimiser.state_dict()
    assert json.dumps(after["param_groups"]) == json.dumps(before["param_groups"])  # betas come back as a list
    assert after["state"].keys() == before["state"].keys()
    for index, moments in before["state"].items():
        assert after["state"][index].keys() == moments.keys() == {"step", "exp_avg", "exp_avg_sq"}
        for key, value in moments.items():
            assert torch.equal(after["state"][index][key], value)
            assert after["state"][index][key].dtype == value.dtype


def test_the_scaler_of_mixed_precision_is_kept(make_config, tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=1234.0)
    save_state(tmp_path / "s.safetensors", state(make_config(), 0, scaler=scaler))
    fresh = torch.amp.GradScaler("cpu")
    load_state(tmp_path / "s.safetensors", state(make_config(), 0, scaler=fresh), "abc")
    assert fresh.state_dict() == scaler.state_dict()
    assert fresh.get_scale() == 1234.0


def test_another_configuration_is_refused(saved, make_config):
    with pytest.raises(WeightsError, match="another configuration"):
        load_state(saved[0], state(make_config(), 1), "abd")


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
        load_state(path, state(make_config(), 1), "abc")
    assert str(path) in str(caught.value)


def test_a_failed_write_keeps_the_previous_state(saved, monkeypatch):
    path, original = saved
    before = path.read_bytes()

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("renalseg.io.files.os.replace", fail)
    with pytest.raises(KeyboardInterrupt):
        save_state(path, original)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_average_follows_the_network(make_config):
    moving = state(make_config(), 0)
    moving.average = {k: torch.zeros_like(v) for k, v in moving.network.state_dict().items()}
    moving.update_average(0.75)
    for key, value in moving.network.state_dict().items():
        torch.testing.assert_close(moving.average[key], 0.25 * value)
