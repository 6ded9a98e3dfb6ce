"""The benchmark of a training step, on networks that take no time."""

import argparse
import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from renalseg.config import STAGES
from renalseg.model.runtime import Runtime


@pytest.fixture(scope="module")
def benchmark(load_script):
    return load_script("benchmarks/training_step.py")


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
    cells, _ = benchmark.measure("kidney", config, runtime, a, tmp_path)
    shares = waiting, making, network = [float(cell) for cell in cells[2:5]]
    assert len(counted) == 4 * 2
    assert counted == ran[2:]
    assert len(set(counted)) > 2
    assert sum(shares) == pytest.approx(100, abs=0.02)
    assert all(-0.1 < share < 100 for share in shares)
    assert network > 10
    assert (waiting > making) == loader_finishes


def test_the_whole_program_prints_a_row_a_stage_and_the_sum(benchmark, make_config, monkeypatch, capsys):
    config = make_config(epochs=100, batch=2, hard_cases=0.2)
    monkeypatch.setattr(benchmark, "preset", {"tiny": config}.get)
    monkeypatch.setattr(benchmark, "matrix_rate", lambda _: 1.0)
    options = ["--preset", "tiny", "--steps", "2", "--workers", "0", "--device", "cpu", "--precision", "fp32"]
    monkeypatch.setattr("sys.argv", ["training_step.py", *options, "--cases", "9"])
    benchmark.main()
    *_, first, second, third, _, last = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in (first, second, third)]
    assert [row[0] for row in rows] == list(STAGES)
    assert all((row[5], row[7]) == ("-", "-") for row in rows)  # no GPU
    assert [row[9] for row in rows] == ["100 x 4"] * 3  # one of nine cases is left out, in batches of two
    assert all(float(row[8]) > 50 for row in rows)
    sum_h = float(last.split(": ")[1].split()[0])
    assert sum_h == pytest.approx(sum(float(row[10]) for row in rows), abs=0.16)


def test_the_schedule_is_epochs_times_steps_of_the_cases_that_are_kept(benchmark, make_config, tmp_path, monkeypatch):
    """9 cases of which 1 is left out, in batches of 2: 4 steps an epoch. Time is made to go by a second a look."""
    clock = itertools.count()
    monkeypatch.setattr(benchmark, "_now", lambda _: float(next(clock)))
    a = argparse.Namespace(steps=2, workers=0, compile=False, cases=9)
    config = make_config(epochs=900, batch=2, hard_cases=0.2)
    cells, hours = benchmark.measure("coarse", config, Runtime(torch.device("cpu"), "fp32"), a, tmp_path)
    assert cells[1] == "2.00"
    assert hours == pytest.approx(900 * 4 * 2.0 / 3600)


def test_what_the_loader_makes_ahead_is_not_measured(benchmark, make_config, tmp_path, monkeypatch, capsys):
    """With one process, which makes two batches ahead, three steps are dropped; fewer than four more are refused."""
    waited, trained = [], []
    real = benchmark.train

    def spy(run):
        trained.append(len(run.cases))
        on_samples = run.on_samples

        def waits(samples, wait_s):
            waited.append(100.0 if len(waited) < 3 else 0.0)
            on_samples(samples, waited[-1])

        return real(replace(run, on_samples=waits))

    monkeypatch.setattr(benchmark, "train", spy)
    a = argparse.Namespace(steps=4, workers=1, compile=False, cases=9)
    cells, _ = benchmark.measure("coarse", make_config(batch=1), Runtime(torch.device("cpu"), "fp32"), a, tmp_path)
    assert trained == [3 + 4]
    assert cells[2] == "0.00"
    monkeypatch.setattr("sys.argv", ["training_step.py", "--workers", "4", "--steps", "15"])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert "measure at least 16 steps" in capsys.readouterr().err


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 10))))
def test_time_that_spans_share_counts_once(benchmark, spans):
    spans = [(start, start + length) for start, length in spans]
    assert benchmark.covered(spans) == len({i for start, end in spans for i in range(start, end)})
