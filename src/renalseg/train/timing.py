"""How long the device works on a part of each step, without making it wait for the clock."""

import time
from typing import Self

import torch


class Stopwatch:
    """Adds up the time spent in the bodies of ``with``, which must not be nested.

    A CUDA device works behind the program's back: there, events in its queue mark where a body's work begins and ends,
    and nothing waits. Elsewhere the clock is read; on MPS, where work is queued too, it counts the queueing alone.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._seconds, self._started = 0.0, 0.0

    def __enter__(self) -> Self:
        if self._device.type == "cuda":
            pair = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
            pair[0].record(torch.cuda.current_stream(self._device))
            self._events.append(pair)
        else:
            self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        if self._device.type == "cuda":
            self._events[-1][1].record(torch.cuda.current_stream(self._device))
        else:
            self._seconds += time.perf_counter() - self._started

    def seconds(self) -> float:
        """The sum; the device has to be synchronised before."""
        return self._seconds + sum(float(start.elapsed_time(end)) for start, end in self._events) / 1000
