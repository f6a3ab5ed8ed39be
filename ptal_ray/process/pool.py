"""A pool of processes that ends with this process."""

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
    """A pool for a block; if the block fails, its processes are ended at once.

    Processes are spawned, not forked, because this process may have threads of Arrow and BLAS with
    locks. Only this process handles Ctrl-C, which a terminal sends to all of them.

    Args:
        workers: number of processes.
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
    """Start the processes while SIGINT is ignored, which they inherit.

    Such a pool starts one process per task while none is idle, so each process needs a task now. A
    process started later would be ended by Ctrl-C during its imports.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # signals go to the main thread
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for _ in range(workers):
            pool.submit(int)
    finally:
        signal.signal(signal.SIGINT, before)


def _end_with_parent() -> None:
    """End a process of the pool if its parent was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        """End this process when its parent has ended."""
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
