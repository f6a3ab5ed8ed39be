"""Processes many items with several threads; results are in the order of the items."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


@contextmanager
def in_order(
    make: Callable[[Item], Made], items: Iterable[Item], workers: int
) -> Iterator[Iterator[Made]]:
    """The results of `make` for the items, in order; at most `workers` + 1 wait in memory.

    Threads are faster if `make` reads files or works on large arrays. One worker needs no thread.
    If the block ends early, started items are finished and others are skipped.

    Args:
        make: called in a thread; its exception is raised instead of its result.
        items: in order.
        workers: number of threads, 1 or more.
    """
    if workers == 1:
        yield map(make, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        try:
            yield _results(pool, make, iter(items), workers + 1)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _results(
    pool: ThreadPoolExecutor, make: Callable[[Item], Made], items: Iterator[Item], ahead: int
) -> Iterator[Made]:
    waiting: deque[Future[Made]] = deque(pool.submit(make, item) for item in islice(items, ahead))
    while waiting:
        made = waiting.popleft().result()
        waiting.extend(pool.submit(make, item) for item in islice(items, 1))
        yield made
        del made  # else it would stay in memory while the next one is made
