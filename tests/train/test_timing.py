import time

import pytest
import torch

from renalseg.train.timing import Stopwatch


def test_adds_up_the_bodies_alone():
    watch = Stopwatch(torch.device("cpu"))
    for _ in range(2):
        with watch:
            time.sleep(0.02)
        time.sleep(0.05)
    assert 0.04 <= watch.seconds() < 0.09


def test_marks_the_queue_of_a_cuda_device(monkeypatch):
    queue = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            queue.append(stream)
            self.at_ms = 100.0 * len(queue)

        def elapsed_time(self, end):
            return end.at_ms - self.at_ms

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    watch = Stopwatch(torch.device("cuda:1"))
    for _ in range(3):
        with watch:
            pass
    assert watch.seconds() == pytest.approx(0.3)
    assert queue == ["stream of cuda:1"] * 6
