"""Work shared by several processes."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from renalseg.core.errors import InputError

Job = TypeVar("Job")
Result = TypeVar("Result")


@contextmanager
def process_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh interpreters: forking a process that runs threads (torch's, the progress bar's) may deadlock.

    Raises:
        InputError: the system ended one of them.
    """
    try:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool
    except BrokenProcessPool as error:
        raise InputError(
            f"one of {workers} worker processes was ended from outside, most likely because the memory ran out; "
            "use fewer workers."
        ) from error


def spread(work: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    """The results of ``work``, in the order of the jobs, by ``workers`` processes; by this one where it is one.

    Raises:
        InputError: as ``process_pool``.
    """
    if workers <= 1:
        yield from map(work, jobs)
        return
    with process_pool(workers) as pool:
        yield from pool.map(work, jobs)
