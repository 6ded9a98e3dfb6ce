"""Processes that torchrun started: that they part cleanly."""

import subprocess
import sys
from pathlib import Path

import pytest

AFTER_A_RUN = """
import os
import torch
from torch import distributed
from renalseg.train.parallel import join

with join("cpu") as (world, device):
    torch.optim.AdamW(torch.nn.Linear(2, 2).parameters())
    assert world.gather(world.rank) == [0, 1]
    names = {open(f"/proc/self/task/{t}/comm").read().strip() for t in os.listdir("/proc/self/task")}
    assert "gloo_tcp_loop" in names, names
names = [open(f"/proc/self/task/{t}/comm").read().strip() for t in os.listdir("/proc/self/task")]
assert not [name for name in names if "gloo" in name], names
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="names of threads are read from /proc")
def test_no_thread_of_the_group_outlives_it(tmp_path):
    """One that does may hold the last of a tensor while the interpreter ends, and abort the process."""
    (tmp_path / "script.py").write_text(AFTER_A_RUN)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*torchrun, str(tmp_path / "script.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
