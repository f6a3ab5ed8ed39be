"""One run of the driver of a study: starts Ray and MLflow in parallel, handles signals, writes the
report, and ends cleanly."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path

from ptal_ray.errors import StorageError
from ptal_ray.process.interruption import INTERRUPTED
from ptal_ray.study.event_types import Event
from ptal_ray.study.mirror import Mirror
from ptal_ray.study.study import Study
from ptal_ray.tracking.tracker import MlflowTracker

FLUSH_S = 20.0  # without progress


class Signals:
    """The first SIGINT or SIGTERM requests a clean stop, the next one ends the process.

    A context manager that restores the previous handlers.
    """

    def __init__(self) -> None:
        self.asked = False
        self.silent = False  # a live table shows that the study stops

    def __enter__(self) -> Signals:
        self._before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        self.install()
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def install(self) -> None:
        """Install handlers for both signals; called again after other code has replaced them."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        if self.asked:
            os.write(2, b"\x1b[?25h\n" if sys.stderr.isatty() else b"\n")  # shows the cursor
            os._exit(INTERRUPTED)  # the processes of Ray end with their driver
        self.asked = True
        if not self.silent:
            os.write(2, b"\nstopping; a second signal stops immediately\n")


def run_session(
    study: Study,
    *,
    created: bool,
    address: str | None,
    verbose: bool,
    signals: Signals,
    listen: Callable[[Event], None],
    say: Callable[[str], None],
    report: Callable[[], Path],
) -> tuple[Path, tuple[str, ...]]:
    """Run a study, or continue it, with Ray and MLflow, and report it.

    Args:
        study: the study, its directory absolute.
        created: whether this process has just created its directory, which is removed if nothing
            starts.
        address: of a Ray cluster, or None for only this machine.
        verbose: whether to show the output of Ray and of the trials on stderr.
        signals: the installed signal handlers.
        listen: called with every new event.
        say: prints a line for the user.
        report: writes the report of the finished study and returns its folder.

    Returns:
        The folder of the report, and a line for each item that is missing in MLflow.

    Raises:
        TrackingError: the tracking server does not answer; a new study is removed again.
        KeyboardInterrupt: there was a signal; everything is stopped and logged.
        StorageError: not everything could be mirrored.
        PtalError: as `run_study`.
    """
    messages: tuple[str, ...] = ()
    tracker, mirror, unsent = MlflowTracker(study.directory), Mirror(study), ""
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(tracker.start)  # while Ray starts
        try:
            mirror.start()
            _run(study, address, verbose, signals, mirror, listen, starting.result)
            folder = report()
            tracker.attach(folder)
        finally:
            if starting.exception() is None:
                messages = tracker.close(FLUSH_S)
            unsent = mirror.close()
            for message in filter(None, (*messages, unsent)):
                say(message)
            if created and not study.events.exists():
                shutil.rmtree(study.directory)
    if unsent:
        raise StorageError(unsent)
    return folder, messages


def _run(
    study: Study,
    address: str | None,
    verbose: bool,
    signals: Signals,
    mirror: Mirror,
    listen: Callable[[Event], None],
    tracker_is_up: Callable[[], None],
) -> None:
    from ptal_ray.backends.ray.runner import run_study  # seconds, while MLflow starts

    def ready() -> None:
        """Install the signal handlers again and check the tracker, before the first trial."""
        signals.install()  # Ray has replaced the handlers
        tracker_is_up()
        if signals.asked:
            raise KeyboardInterrupt

    with redirect_stdout(sys.stderr if verbose else _Nowhere()):  # Ray prints to it
        run_study(
            study,
            address=address,
            verbose=verbose,
            listen=listen,
            interrupted=lambda: signals.asked or mirror.lost,
            ready=ready,
        )


class _Nowhere(io.TextIOBase):
    """Discards all output."""

    def write(self, text: str) -> int:
        """Discard `text`."""
        return len(text)
