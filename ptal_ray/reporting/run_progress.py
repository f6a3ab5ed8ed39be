"""Says how far a training is that reports at its end alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from ptal_ray.process.words import clock

EVERY_S = 10.0
LIVE_S = 1.0  # on a terminal, where a line takes the place of the one before


class Steps(Protocol):
    """What counts its steps, like a trial."""

    step: int


@contextmanager
def following(
    trial: Steps, last: int, what: str = "", *, to: TextIO, every_s: float = EVERY_S
) -> Iterator[None]:
    """Writes a line every few seconds while the block runs, where something has changed.

    On a terminal each line takes the place of the one before.

    Args:
        trial: what is trained in the block.
        last: its last step.
        what: stands before each line: the stage of the training, or "".
        to: where lines go.
        every_s: seconds between them.
    """
    ended = threading.Event()
    prefix = f"{what}: " if what else ""
    follow = (trial, last, prefix, to, every_s, ended)
    follower = threading.Thread(target=_follow, args=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()


def _follow(
    trial: Steps, last: int, prefix: str, to: TextIO, every_s: float, ended: threading.Event
) -> None:
    began, first, said = time.monotonic(), trial.step, -1
    live = to.isatty()
    while not ended.wait(min(every_s, LIVE_S) if live else every_s):
        step = trial.step
        if step != said or live:
            line = prefix + _line(step, first, last, time.monotonic() - began)
            to.write(f"\r\x1b[K{line}" if live else f"{line}\n")
            to.flush()
        said = step
    if live and said >= 0:
        to.write("\r\x1b[K")
        to.flush()


def _line(step: int, first: int, last: int, elapsed_s: float) -> str:
    words = f"step {step} of {last}, {clock(elapsed_s)} so far"
    if step >= last:
        return f"{words}, scoring"
    if step > first:
        return f"{words}, about {clock(elapsed_s * (last - step) / (step - first))} left"
    return f"{words}, preparing"
