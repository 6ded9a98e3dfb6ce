"""``room``: a device that runs out of memory gives smaller windows, then the CPU, and says so."""

import weakref

import pytest
import torch

from renalseg.config import PRESETS
from renalseg.model.runtime import Runtime, usable_cores, use_real_cores
from renalseg.predict.room import KEPT_BYTES, SMALLEST_WINDOW, _copy_on_cpu, fine_with_room, or_on_cpu, place_for

META = Runtime(torch.device("meta"), "fp32")
"""Stands for a device that is not the CPU."""

FINE = PRESETS["tiny"].fine.model_copy(update={"window": 48})


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
        (1, [(48, "meta"), (24, "meta"), (12, "meta"), (48, "cpu")], "was computed on the CPU"),
    ],
)
def test_smaller_windows_then_the_cpu(room, wanted, sentence):
    run, windows = tried(room)
    warnings = []
    assert fine_with_room("kidney", [torch.nn.Identity()], FINE, META, run, warnings) == "done"
    assert windows == wanted
    assert len(warnings) == (len(wanted) > 1)  # of what came of it, not of what was tried
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


def test_the_copy_on_the_cpu_is_made_without_one_on_the_full_device(monkeypatch):
    """On the meta device a clone would be one more tensor there; a parameter that is shared stays shared."""
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), torch.nn.BatchNorm3d(2))
    network[0].again = network[0].weight
    before = {name: value.clone() for name, value in network.state_dict().items()}
    cloned = []
    monkeypatch.setattr(torch.Tensor, "__deepcopy__", lambda tensor, _: cloned.append(tensor) or tensor)
    copy = _copy_on_cpu(network)
    assert cloned == []
    assert copy is not network
    assert copy[0].again is copy[0].weight
    for name, value in copy.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_cpu_without_room_says_so():
    def run(*_):
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError, match="no memory for the stage lesion on the CPU"):
        fine_with_room("lesion", [], FINE, Runtime(torch.device("cpu"), "fp32"), run, [])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_a_lack_of_memory_is_known_in_each_devices_words(error):
    def run(networks, fine, runtime):
        if fine.window > SMALLEST_WINDOW:
            raise error
        return fine.window

    cpu, warnings = Runtime(torch.device("cpu"), "fp32"), []
    assert fine_with_room("lesion", [], FINE, cpu, run, warnings) == SMALLEST_WINDOW
    assert len(warnings) == 2


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def run(*_):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        fine_with_room("lesion", [], FINE, META, run, [])
    with pytest.raises(RuntimeError, match="shapes differ"):
        or_on_cpu("the labels were", torch.device("meta"), run, [])


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
        ({"slurm/job_7/cpu.max": "200000 100000\n"}, 2),
        ({"slurm/cpu.max": "300000 100000\n", "slurm/job_7/step_0/cpu.max": "max 100000\n"}, 3),
        ({"slurm/job_8/cpu.max": "100000 100000\n"}, None),
        ({"cpu/jobs/cpu.cfs_quota_us": "400000\n", "cpu/jobs/cpu.cfs_period_us": "100000\n"}, 4),
        ({}, None),
    ],
)
def test_cores_by_the_quota_of_a_container(files, most, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    process = tmp_path / "cgroup"
    process.write_text("4:cpu,cpuacct:/jobs/7\n3:memory:/slurm/job_8\n0::/slurm/job_7/step_0\n")
    assert usable_cores(tmp_path / "groups", process) == (most or 8)
    process.unlink()
    outer = most if any(name.count("/") < 2 and "slurm" not in name for name in files) else None
    assert usable_cores(tmp_path / "groups", process) == (outer or 8)


def test_threads_are_those_of_the_quota_and_never_more_than_before(monkeypatch):
    threads = [8]
    monkeypatch.setattr("torch.get_num_threads", lambda: threads[-1])
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    monkeypatch.setattr("renalseg.model.runtime.usable_cores", lambda: 3)
    assert use_real_cores() == 3
    monkeypatch.setattr("renalseg.model.runtime.usable_cores", lambda: 6)
    assert use_real_cores() == 3
