"""``renalseg.benchmark``: figures of a case on this machine."""

import json
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from renalseg import __version__
from renalseg.benchmark import as_markdown, draw_ct, drawn, limits, measure, measure_case, network_tflop, untrained
from renalseg.benchmark.meter import Metered
from renalseg.cli import main
from renalseg.config import preset
from renalseg.model.resunet import build
from renalseg.model.runtime import Runtime
from renalseg.predict import room
from renalseg.predict.segmenter import Segmenter

STEPS = ["read", "coarse", "roi", "kidney", "lesion", "compose", "clean", "confidence", "write"]


@pytest.fixture(autouse=True)
def small_cases(monkeypatch):
    monkeypatch.setattr(measure, "CASES", {"median": (40, 5.0), "thin": (24, 8.0)})
    monkeypatch.setattr(drawn, "IN_PLANE", 96)
    monkeypatch.setattr(drawn, "PIXEL_MM", 4.16)
    monkeypatch.setattr(measure, "matrix_rate", lambda _: 0.5)


def test_kidneys_are_found_with_networks_that_were_never_trained(small_config, tmp_path):
    segmenter = Segmenter(untrained(small_config, tmp_path / "weights"), "cpu", "fp32")
    kept = segmenter.models
    result = measure_case(segmenter, "median", 1)
    assert segmenter.models is kept  # the networks answer for themselves again
    assert result.shape == (40, 96, 96)
    assert result.box is not None
    assert 22 <= result.box[0] < 40  # kidneys of 110 mm and what surrounds them, in slices of 5 mm
    assert list(result.seconds) == STEPS
    assert all(seconds > 0 for seconds in result.network_s.values())
    assert result.wall_s >= sum(result.seconds.values()) * 0.99
    assert 0 < result.network_share < 1
    assert result.device_mb is None
    assert result.device_by_step_mb == {}
    assert result.warnings == []
    assert list(result.host_by_step_mb) == STEPS
    assert min(result.host_by_step_mb.values()) > 50
    assert result.host_mb == max(result.host_by_step_mb.values())
    assert result.host_mb > 50


def test_what_runs_on_the_cpu_for_lack_of_memory_is_counted_and_told(small_config, tmp_path, monkeypatch):
    """A device that has room for the coarse stage alone: the fine networks' copies on the CPU are timed like them."""
    segmenter = Segmenter(untrained(small_config, tmp_path / "weights"), "cpu", "fp32")
    whole = measure_case(segmenter, "median", 1)
    monkeypatch.setattr(Runtime, "is_host", property(lambda runtime: runtime is not segmenter.runtime))
    monkeypatch.setattr(Runtime, "peak_device_mb", lambda runtime: 12.0)
    forward = Metered.forward

    def full(network, image):
        if network.stage != "coarse" and not getattr(network, "moved", False):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(network, image)

    copied = room._copy_on_cpu

    def copy(network):
        made = copied(network)
        made.moved = True
        return made

    monkeypatch.setattr(Metered, "forward", full)
    monkeypatch.setattr(room, "_copy_on_cpu", copy)
    fallen = measure_case(segmenter, "median", 1)
    assert fallen.tflop == pytest.approx(whole.tflop)
    assert min(fallen.network_s.values()) > 0
    assert any("the stage kidney was computed on the CPU" in warning for warning in fallen.warnings)
    assert fallen.device_by_step_mb["kidney"] == 12.0
    table = as_markdown([fallen])
    assert "median: The device's memory ran out; the stage lesion was computed on the CPU." in table
    assert "| kidney, s / peak host / peak device memory, MB |" in table
    assert " / 12 |" in table


@pytest.mark.slow
def test_a_median_case_of_the_papers_networks_needs_less_than_two_gigabytes(tmp_path):
    """In a process of its own, whose peak is not that of the tests before."""
    figures = tmp_path / "figures.json"
    command = ["benchmark", "--preset", "paper", "--device", "cpu", "--repeats", "1", "--json", figures]
    subprocess.run([sys.executable, "-m", "renalseg", *command], check=True)
    (median,) = json.loads(figures.read_text())
    assert median["shape"] == [104, 512, 512]
    assert 500 < median["host_mb"] < 2000


def test_flops_are_those_of_all_windows_and_mirrors(small_config, tmp_path):
    """By hand: every convolution's multiplications and additions, over what the fine networks see."""
    folder = untrained(small_config, tmp_path / "weights")
    both = measure_case(Segmenter(folder, "cpu", "fp32"), "median", 1)
    one = measure_case(Segmenter(folder, "cpu", "fp32", tta=False), "median", 1)
    assert both.tflop["coarse"] == one.tflop["coarse"]
    assert both.tflop["kidney"] == pytest.approx(2 * one.tflop["kidney"])
    assert both.limit_share == pytest.approx(sum(both.tflop.values()) / sum(both.network_s.values()) / 0.5)


def test_flops_are_two_for_each_weight_and_voxel_of_each_convolution():
    config, total = preset("tiny"), 0

    def count(layer, _, out):
        nonlocal total
        total += 2 * layer.weight.numel() * out.shape[2:].numel()

    network = build(config.network("coarse")).eval()
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv3d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 1, 32, 32, 32))
    counted = network_tflop(config, "coarse", [(1, 1, 32, 32, 32), (1, 1, 32, 32, 32)])
    assert counted == pytest.approx(2 * total / 1e12, rel=0.02)  # a shortcut's weights are used without its layer


def test_the_rate_of_matrix_products_is_the_best_of_both_ways(monkeypatch):
    runtime, seen = Runtime(torch.device("cpu"), "fp32"), []
    monkeypatch.setattr(limits, "_product_rate", lambda size, way, _: seen.append((size, way)) or size + way)
    assert limits.matrix_rate(runtime) == 3073
    assert len(seen) == 6
    monkeypatch.undo()
    for way in (False, True):  # 0.1 GFLOP/s to 10 TFLOP/s
        assert 1e-4 < limits._product_rate(256, way, runtime) < 10


def test_the_drawn_ct():
    ct = draw_ct(30, 5.0)
    assert ct.array.dtype == np.int16
    assert ct.spacing_mm == pytest.approx((5.0, 4.16, 4.16))
    bright = ct.array > 110
    height = np.flatnonzero(bright.any(axis=(1, 2)))
    assert height[-1] - height[0] + 1 == pytest.approx(110 / 5, abs=2)
    assert bright[15, :, :48].any()
    assert bright[15, :, 48:].any()


def test_the_command_prints_a_table_and_writes_all_figures(small_config, tmp_path, monkeypatch, capsys):
    folder = untrained(small_config, tmp_path / "weights")
    argv = ["renalseg", "benchmark", "--weights", folder, "--case", "median", "--case", "thin", "--repeats", "1"]
    argv += ["--device", "cpu", "--precision", "fp32", "--json", tmp_path / "figures.json"]
    monkeypatch.setattr("sys.argv", list(map(str, argv)))
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "| slices x rows x columns | 40 x 96 x 96 | 24 x 96 x 96 |" in printed
    assert "preset small, weights weights, mirror averaged; median of 1, " in " ".join(printed.split())
    for row in (
        *(f"{step}, s / peak host memory, MB" for step in STEPS),
        "**from file to files, s**",
        "networks, TFLOP",
        "inside the networks, % of the time",
        "networks, TFLOP/s",
        "matrix products here, TFLOP/s",
        "networks, % of it",
        "peak host memory, MB",
        "peak device memory, MB",
    ):
        assert f"| {row} |" in printed
    assert f"renalseg {__version__}, torch {torch.__version__}, Python {platform.python_version()}" in printed
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [f["case"] for f in figures] == ["median", "thin"]
    assert figures[0]["matrix_tflops"] == 0.5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--preset", "tiny", "--weights", "default"), "leave out --weights and --input"),
        (("--input", "ct.nii.gz", "--case", "median"), "give --case or --input, not both"),
        (("--input", "missing.nii.gz"), "missing.nii.gz does not exist"),
    ],
)
def test_what_it_refuses(options, sentence, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["renalseg", "benchmark", *options])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_a_case_without_kidneys_has_no_region(small_config, tmp_path):
    from renalseg.core.volume import Volume
    from renalseg.io.nifti import write_nifti

    path = tmp_path / "air.nii.gz"
    write_nifti(Volume.from_array(np.full((12, 32, 32), -1000, np.int16), (5.0, 5.0, 5.0)), path)
    folder = untrained(small_config, tmp_path / "weights")
    result = measure_case(Segmenter(folder, "cpu", "fp32"), path, 1)
    text = as_markdown([result])
    assert result.case == "air"
    assert "| region of the fine stages |" in text
