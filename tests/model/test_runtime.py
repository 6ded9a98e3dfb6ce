"""``runtime``: what the user asks for against what the machine has."""

import gc
import mmap
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from renalseg.core.errors import ConfigError
from renalseg.model import runtime as module
from renalseg.model.runtime import Runtime, choose, choose_for_prediction, peak_host_mb, reset_host_peak


@pytest.mark.parametrize(("hardware", "expected"), [(False, "fp32"), (True, "bf16")])
def test_a_cpu_takes_bf16_only_where_the_hardware_multiplies_in_it(monkeypatch, hardware, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: hardware)
    runtime = choose("cpu")
    assert runtime == Runtime(torch.device("cpu"), expected)
    assert choose("cpu", "fp32").precision == "fp32"


def test_auto_falls_back_to_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose().device == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:", "cuda:-1", "meta", "xla", "cpu:x", "cpu:7"])
def test_an_unknown_device(name):
    with pytest.raises(ConfigError, match="choose auto, cpu, cuda, cuda:N or mps") as caught:
        choose(name)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_devices_that_are_not_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"the device 'cuda:1' is not on this machine \(1 CUDA devices\)"):
        choose("cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="is not on this machine"):
        choose("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="is not on this machine"):
        choose("mps")


def test_an_unknown_precision():
    with pytest.raises(ConfigError, match=r"^there is no precision 'int8'; choose auto, fp32, bf16 or fp16$"):
        choose("cpu", "int8")


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_prediction_is_in_fp32_unless_asked_otherwise(device, monkeypatch):
    """And in all of fp32's bits: no other precision was held against it on a device."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert choose(device).precision == ("fp32" if device == "mps" else "bf16")
    assert choose_for_prediction(device, "bf16").precision == "bf16"
    assert torch.backends.cudnn.allow_tf32
    assert choose_for_prediction(device).precision == "fp32"
    assert torch.backends.cudnn.allow_tf32 == (device != "cuda")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_computes_in_the_precision(precision, dtype):
    with choose("cpu", precision).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_place_changes_the_layout_but_not_the_values():
    runtime = choose("cpu", "fp32")
    network = torch.nn.Conv3d(4, 4, 3)
    before = network.weight.detach().clone()
    placed = runtime.place(network)
    assert torch.equal(placed.weight, before)
    assert placed.weight.is_contiguous(memory_format=runtime.memory_format)


@pytest.mark.parametrize(("wide", "layout"), [(True, torch.channels_last_3d), (False, torch.contiguous_format)])
def test_channels_are_last_where_that_is_faster(wide, layout, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: wide)
    assert choose("cpu", "fp32").memory_format == layout
    assert Runtime(torch.device("cuda"), "fp32").memory_format == torch.channels_last_3d


def test_the_cpu_has_no_device_memory():
    runtime = choose("cpu")
    runtime.synchronise()
    assert runtime.peak_device_mb() is None


def test_peak_memory_grows_and_starts_anew():
    if not os.access("/proc/self/clear_refs", os.W_OK) or "VmHWM" not in Path("/proc/self/status").read_text():
        pytest.skip("this system does not let a process reset its peak memory")
    gc.collect()
    reset_host_peak()
    before = peak_host_mb()
    block = mmap.mmap(-1, 80_000_000)  # not from the C library, which may keep what is freed
    np.frombuffer(block, np.uint8)[:] = 1
    assert peak_host_mb() - before > 70
    block.close()
    assert peak_host_mb() - before > 70
    reset_host_peak()
    assert peak_host_mb() - before < 40


def test_freed_memory_is_handed_back_once_there_is_much(monkeypatch):
    trimmed = []
    library = SimpleNamespace(malloc_trim=trimmed.append)
    monkeypatch.setattr(module.ctypes, "CDLL", lambda _: library)
    cpu, cuda = Runtime(torch.device("cpu"), "fp32"), Runtime(torch.device("cuda"), "bf16")
    for resident, place in ((1e6, cpu), (9e9, cuda), (9e9, cpu)):
        monkeypatch.setattr(module, "resident_bytes", lambda resident=resident: resident)
        place.trim_host_memory()
    assert trimmed == [0]


def test_resident_memory_is_told():
    assert module.resident_bytes() == 0 or 1e7 < module.resident_bytes() < 1e12
