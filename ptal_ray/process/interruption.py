"""Ctrl-C and SIGTERM in a command: one line, exit code 130, and no partial files.

A command imports this module first. From then on, also during slow imports, either signal ends the
process with a line; within `interruptible` it is a KeyboardInterrupt.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import ParamSpec

INTERRUPTED = 130
GONE = 1  # as all of storage
CLEANING_S = 5.0  # further signals are ignored for so long after the first one
AGAIN_S = 0.02  # delay until a signal that would be discarded is raised again
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LLVMLITE = f"{os.sep}llvmlite{os.sep}"
SCRIPT = "ptal"
_PACKAGE = __name__.partition(".")[0]

_Words = ParamSpec("_Words")


def interruptible(main: Callable[_Words, int]) -> Callable[_Words, int]:
    """Wrap a command so that either signal ends it with one line and exit code 130.

    Args:
        main: takes the words of the command line and returns the exit code. Its context managers
            get a KeyboardInterrupt and clean up.
    """

    @wraps(main)
    def run(*args: _Words.args, **kwargs: _Words.kwargs) -> int:
        """Call `main`; an interruption becomes a line and an exit code."""
        try:
            with _raising():
                return main(*args, **kwargs)
        except KeyboardInterrupt:
            print("\n" * sys.stderr.isatty() + "interrupted", file=sys.stderr)  # after ^C
            return INTERRUPTED

    return run


@contextmanager
def _raising() -> Iterator[None]:
    """Raise KeyboardInterrupt on either signal in this block, once, so that cleanup is not
    interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread
        return
    last = float("-inf")

    def interrupt(number: int, frame: FrameType | None) -> None:
        """The handler of both signals and of the timer."""
        nonlocal last
        if time.monotonic() - last <= CLEANING_S:
            return
        if _discarded(frame):
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
            return
        last = time.monotonic()
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (*_heard(), signal.SIGALRM)}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _discarded(frame: FrameType | None) -> bool:
    """Whether a KeyboardInterrupt would be discarded: in callbacks of the import system, while an
    extension module is initialized, and in callbacks of llvmlite, by which Numba compiles."""
    while frame:
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib") or _LLVMLITE in file:
            return True
        frame = frame.f_back
    return False


def _heard() -> list[signal.Signals]:
    """The signals that this process was not started to ignore (nohup does so)."""
    return [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


def _end(number: int, frame: FrameType | None) -> None:
    """End the process at once: outside the work of a command there is nothing to clean up."""
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def _is_command() -> bool:
    """Whether this process is `python -m` with a module of this package, or the script `ptal`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None:
        return os.path.basename(sys.argv[0]) == SCRIPT
    return bool(spec.name.partition(".")[0] == _PACKAGE)


def _check_working_directory() -> None:
    """End a command whose working directory was removed; the import of torch would end it with a
    message of MKL."""
    try:
        os.getcwd()
    except FileNotFoundError:
        os.write(2, b"error: the working directory was removed; cd to one that exists\n")
        os._exit(GONE)


if _is_command():
    _check_working_directory()
    for _number in _heard():
        signal.signal(_number, _end)
