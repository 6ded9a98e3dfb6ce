import logging
import sys

import pytest

from renalseg.report.tensorboard_log import TensorboardLog

HISTORY = [
    {"epoch": 1, "loss": 2.0, "lr": 1e-3, "seconds": 9.0, "wait_seconds": 1.0},
    {"epoch": 2, "loss": 1.0, "lr": 5e-4, "seconds": 8.0, "wait_seconds": 0.5, "dice_kidney": 0.75, "score": 1.5},
    {"epoch": 3, "loss": 0.5, "lr": 1e-4, "seconds": 7.0, "wait_seconds": 0.5},
]


def read(folder):
    """Tag to (step, value) pairs over all event files of a folder, as TensorBoard shows them."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture
def new(tmp_path):
    logs = []

    def make():
        logs.append(TensorboardLog(tmp_path / "tensorboard"))
        return logs[-1]

    yield make
    for log in logs:
        log.close()


def test_every_number_of_every_epoch_once(new, tmp_path):
    log = new()
    for done in (1, 2, 3):
        log.update(HISTORY[:done])
    found = read(tmp_path / "tensorboard")
    assert found["training/loss"] == [(1, 2.0), (2, 1.0), (3, 0.5)]
    assert found["validation/dice_kidney"] == [(2, 0.75)]
    assert found.keys() == {
        *(f"training/{n}" for n in ("loss", "lr", "seconds", "wait_seconds")),
        "validation/dice_kidney",
        "validation/score",
    }


def test_a_resumed_run_writes_no_epoch_twice_and_leaves_none_out(new, tmp_path):
    new().update(HISTORY[:1])  # stopped after epoch 2, before its record came here
    new().update(HISTORY)
    found = read(tmp_path / "tensorboard")
    assert [step for step, _ in found["training/loss"]] == [1, 2, 3]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_without_tensorboard_nothing_is_written_and_it_is_said_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    log = TensorboardLog(tmp_path / "tensorboard")
    with caplog.at_level(logging.INFO, logger="renalseg"):
        log.update(HISTORY[:1])
        log.update(HISTORY[:2])
        log.close()
    assert [r.levelname for r in caplog.records] == ["INFO"]
    assert not (tmp_path / "tensorboard").exists()
