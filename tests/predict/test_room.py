"""``room``: a device that runs out of memory gives smaller windows, then the CPU, and says so."""

import weakref

import pytest
import torch

from renalseg.config import PRESETS
from renalseg.model.runtime import Runtime, usable_cores
from renalseg.predict.room import KEPT_BYTES, fine_with_room, place_for

META = Runtime(torch.device("meta"), "fp32")
"""Stands for a device that is not the CPU."""

FINE = PRESETS["tiny"].fine


def tried(room):
    """A run that fits windows of up to ``room`` slices on the device, and anything on the CPU; what was tried."""
    windows = []

    def run(networks, fine, runtime):
        windows.append((fine.window, runtime.device.type))
        if runtime.device.type != "cpu" and fine.window > room:
            raise torch.OutOfMemoryError("no room")
        return "done"

    return run, windows


@pytest.mark.parametrize(
    ("room", "wanted", "sentence"),
    [
        (48, [(48, "meta")], None),
        (24, [(48, "meta"), (24, "meta")], "took windows of 24 slices"),
        (1, [(48, "meta"), (24, "meta"), (12, "meta"), (12, "cpu")], "was computed on the CPU"),
    ],
)
def test_smaller_windows_then_the_cpu(room, wanted, sentence):
    run, windows = tried(room)
    warnings = []
    assert fine_with_room("kidney", [torch.nn.Identity()], FINE, META, run, warnings) == "done"
    assert windows == wanted
    assert len(warnings) == len(wanted) - 1
    assert sentence is None or sentence in warnings[-1]


def test_the_failed_attempt_is_forgotten_before_the_next():
    """An error holds on to its frames, and they to what they had allocated."""
    held, alive = [], []

    def run(networks, fine, runtime):
        alive.append([one() is not None for one in held])
        mine = torch.empty(8)
        held.append(weakref.ref(mine))
        if runtime.device.type != "cpu":
            raise torch.OutOfMemoryError("no room")
        return "done"

    fine_with_room("kidney", [torch.nn.Identity()], FINE, META, run, [])
    assert alive == [[], [False], [False, False], [False, False, False]]


def test_a_cpu_without_room_says_so():
    def run(*_):
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError, match="no memory for the stage lesion on the CPU"):
        fine_with_room("lesion", [], FINE, Runtime(torch.device("cpu"), "fp32"), run, [])


def test_large_regions_gather_on_the_host():
    slices = KEPT_BYTES // (4 * 6 * 224 * 384)
    assert place_for((slices, 224, 384), 6, META).type == "meta"
    assert place_for((slices + 1, 224, 384), 6, META).type == "cpu"


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_cores_by_the_quota_of_a_container(files, most, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == (most or 8)
