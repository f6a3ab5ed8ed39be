"""Compares two concurrent trials on one device with two trials one after the other."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import torch

from ptal_ray.benchmarks.step_times import wait, warm
from ptal_ray.errors import NoTrialFinished, PtalError
from ptal_ray.process.cpus import usable_cpus
from ptal_ray.training.config import TrialConfig
from ptal_ray.training.stages import start
from ptal_ray.training.trial import Trial

ANSWER_S = 180.0  # timeout for creating a trial and warming up, or for training
Request = tuple[int, str, int]  # number, configuration (empty: train the current trial), steps


class Pair:
    """Two processes that each train a trial on request.

    Args:
        ends: ends of the pipes to them.
    """

    def __init__(self, ends: Sequence[Connection]) -> None:
        self._ends, self._numbers = ends, count()

    def seconds(self, config: TrialConfig, steps: int, trials: int) -> float:
        """Wall time of `steps` steps of `trials` concurrent trials, one per process.

        Raises:
            NoTrialFinished: a process failed, e.g. without enough memory, or does not answer.
        """
        self._ask(trials, config.to_json(), 0)
        began = time.perf_counter()
        self._ask(trials, "", steps)
        return time.perf_counter() - began

    def _ask(self, trials: int, config: str, steps: int) -> None:
        number, used = next(self._numbers), self._ends[:trials]
        with suppress(OSError):  # then its answer is missing
            for end in used:
                end.send((number, config, steps))
        if failed := list(filter(None, [_answer(end, number) for end in used])):
            raise NoTrialFinished(failed[0])


@contextmanager
def pair(device: str) -> Iterator[Pair]:
    """Two processes that end with the block."""
    spawn = multiprocessing.get_context("spawn")
    pipes = [spawn.Pipe() for _ in range(2)]
    processes = [
        spawn.Process(target=_train, args=(there, device, usable_cpus()), daemon=True)
        for _, there in pipes
    ]
    try:
        _start(processes)
        for _, there in pipes:
            there.close()  # so that the pipe closes when they end
        yield Pair([here for here, _ in pipes])
    finally:
        for process in processes:
            if process.pid is not None:
                process.terminate()
                process.join()


def _start(processes: Sequence[SpawnProcess]) -> None:
    """Start the processes while SIGINT is ignored, because only this process handles Ctrl-C."""
    mine = threading.current_thread() is threading.main_thread()  # signals go only there
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if mine else None
    try:
        for process in processes:
            process.start()
    finally:
        if mine:
            signal.signal(signal.SIGINT, before)


def _answer(end: Connection, number: int) -> str:
    """The error of a process at request `number`; empty if it succeeded."""
    until = time.monotonic() + ANSWER_S
    try:
        while end.poll(max(0.0, until - time.monotonic())):
            answered, failed = end.recv()
            if answered == number:  # otherwise a late answer
                return str(failed)
    except (EOFError, OSError):
        return "a process ended before it answered; its memory may have been used up"
    return f"a process gave no answer within {ANSWER_S:g} s"


def _train(end: Connection, device: str, threads: int) -> None:
    """Serve requests until the parent process is gone."""
    torch.set_num_threads(threads)
    trial: Trial | None = None
    with suppress(EOFError):
        while True:
            number, config, steps = end.recv()
            failed = ""
            try:
                if config:
                    trial = start(TrialConfig.from_json(config), device)
                    warm(trial)
                elif trial is not None:
                    for _ in range(steps):
                        trial.train_step()
                wait(torch.device(device))
            except (PtalError, RuntimeError) as error:  # memory errors of torch are RuntimeErrors
                failed = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            if not config or failed:
                trial = None
                torch.cuda.empty_cache()
            end.send((number, failed))
