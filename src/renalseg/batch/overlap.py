"""Three steps for each of many cases, so that reading and writing do not keep the networks waiting."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


def overlapped(
    items: Iterable[A], load: Callable[[A], B], compute: Callable[[B], C], store: Callable[[C], D]
) -> Iterator[D]:
    """``store(compute(load(item)))`` of each item, in order: the next is loaded and the last stored meanwhile.

    ``compute`` runs in the caller's thread, the others in a thread each. At most three items are in memory. Where the
    caller stops early, or a step raises, what has begun is waited for and nothing else is begun.
    """
    waiting = iter(items)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:

        def ahead() -> Future[B] | None:
            for item in waiting:
                return reader.submit(load, item)
            return None

        loading = ahead()
        storing: Future[D] | None = None
        while loading is not None:
            loaded, loading = loading.result(), ahead()
            computed = compute(loaded)
            before, storing = storing, writer.submit(store, computed)
            del loaded, computed
            if before is not None:
                yield before.result()
        if storing is not None:
            yield storing.result()
