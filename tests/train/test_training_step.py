"""The benchmark of a training step, on networks that take no time."""

import argparse
import importlib.util
from pathlib import Path

import pytest
import torch

from renalseg.model.runtime import Runtime

FILE = Path(__file__).parents[2] / "benchmarks" / "training_step.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("training_step", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("loader_finishes", [True, False], ids=["as on a CPU", "as on a GPU"])
def test_shares_of_a_step_and_arithmetic_of_the_samples_that_ran(
    loader_finishes, benchmark, make_config, tmp_path, monkeypatch
):
    config = make_config(batch=2, mixup_probability=0.5)
    training = {k: v.model_copy(update={"patch": (400, *v.patch[1:])}) for k, v in config.training.items()}
    config = config.model_copy(update={"training": training})  # every slice of a case, so that depths are unlike
    ran, counted, real = [], [], benchmark.step_tflop
    if not loader_finishes:
        patches = benchmark.Run.__init__.__globals__["Patches"]
        monkeypatch.setattr("renalseg.train.loop.Patches", lambda *a, augmented: patches(*a, augmented=False))
    monkeypatch.setattr(benchmark, "step_tflop", lambda *a: counted.extend(a[2]) or real(*a))
    forward = torch.nn.Module.__call__

    def spy(network, image):
        if image.shape[1] == 1 and image.device.type == "cpu" and type(network).__name__ == "ResUnet":
            ran.append(image.shape[2])
        return forward(network, image)

    monkeypatch.setattr(torch.nn.Module, "__call__", spy)
    a = argparse.Namespace(steps=4, workers=0, compile=False, cases=391)
    runtime = Runtime(torch.device("cpu"), "fp32")
    row = benchmark.measure("kidney", config, runtime, a, tmp_path)
    shares = waiting, making, network = [float(cell) for cell in row.strip("| ").split("|")[2:5]]
    assert len(counted) == 4 * 2
    assert counted == ran[2:]
    assert len(set(counted)) > 2
    assert sum(shares) == pytest.approx(100, abs=0.02)
    assert all(-0.1 < share < 100 for share in shares)
    assert network > 10
    assert (waiting > making) == loader_finishes
