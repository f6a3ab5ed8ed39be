"""Processes that compute for this one, and end with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


@contextmanager
def process_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool for the time of a block; where the block fails its processes end in the middle.

    They are spawned, not forked: this process may hold threads of Arrow and BLAS, and their locks.
    Ctrl-C, which a terminal sends to all of them, is left to this process.

    Args:
        workers: processes.
    """
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        try:
            _start(pool, workers)
            yield pool
        except BaseException:
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start(pool: ProcessPoolExecutor, workers: int) -> None:
    """Starts the processes, which inherit that SIGINT is ignored for this moment.

    A pool that spawns starts one process a task while none is idle, so each needs a task now: one
    that started later would be ended by Ctrl-C in the middle of its imports.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # signals are not for this thread
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for _ in range(workers):
            pool.submit(int)
    finally:
        signal.signal(signal.SIGINT, before)


def _end_with_parent() -> None:
    """Lets a process of the pool end where the one that it computes for was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
