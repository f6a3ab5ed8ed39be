"""The frame of every command: streams, errors and the exit code.

def main(argv=None):
    args = flags(argv)
    from ... import work  # after the flags, so that --help is fast; a signal ends the process
    return exit_code(lambda: work(args))  # from here on a signal is a KeyboardInterrupt

if __name__ == "__main__":
    run_main(main)
"""

from __future__ import annotations

import argparse
import os
import select
import sys
from collections.abc import Callable
from typing import NoReturn, TextIO

from ptal_ray.errors import ConfigError, PtalError, StorageError
from ptal_ray.process.interruption import INTERRUPTED, SCRIPT, interruptible
from ptal_ray.storage.user_directories import ensure_home

CLOSED_PIPE = 141  # a shell's exit code for a program whose reader has closed the pipe


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and end with exit code 2."""
        self.exit(ConfigError.exit_code, f"error: {message}; all flags: {self.prog} --help\n")


def program(command: str) -> str:
    """The start of a command line for help texts: "ptal search" or "python -m ...".

    Args:
        command: its name.
    """
    if os.path.basename(sys.argv[0]) == SCRIPT:
        return f"{SCRIPT} {command}"
    return f"python -m {__name__.partition('.')[0]}.{command}"


def run_main(main: Callable[[], int]) -> NoReturn:
    """Call the `main` of a command and end the process with its exit code.

    Characters that a terminal cannot show are escaped. A closed pipe and errors of the operating
    system end in at most one line, never in a traceback.

    Args:
        main: returns the exit code; takes its arguments from `sys.argv`. It parses its flags, then
            imports slow modules, then does its work with `exit_code`.
    """
    _prepare_streams()
    code = _ended(main)
    _drop_closed_streams()
    sys.exit(code)


@interruptible
def exit_code(work: Callable[[], int], advice: Callable[[], str] | None = None) -> int:
    """Do the work of a command; an error is printed in one line.

    Args:
        work: prints its results and returns the exit code.
        advice: returns what to do after an interruption; "" for nothing.

    Returns:
        The exit code of the work, of a `PtalError`, or 130 after Ctrl-C or SIGTERM.
    """
    try:
        return work()
    except PtalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        text = advice() if advice else ""
        if not text:
            raise
        print(f"interrupted; {text}", file=sys.stderr)
        return INTERRUPTED


def _ended(main: Callable[[], int]) -> int | str | None:
    """The exit code of `main`, however it ends."""
    try:
        ensure_home()
        try:
            code: int | str | None = main()
        except SystemExit as leaving:  # argparse
            code = leaving.code
        sys.stdout.flush()
        return code
    except UnicodeEncodeError as error:  # the streams escape characters, so this was a file name
        name = ascii(error.object[:200])
        return _say(
            f"error: {name}: the locale's encoding {error.encoding} cannot encode this file name; "
            "set LC_ALL=C.UTF-8",
            ConfigError.exit_code,
        )
    except OSError as error:
        if error.errno is None:
            raise  # not from the operating system
        if _drop_closed_streams():
            return CLOSED_PIPE
        return _say(f"error: {error}", StorageError.exit_code)


def _say(line: str, code: int) -> int:
    """Print a line if there still is a reader; returns `code`."""
    try:
        print(line, file=sys.stderr)
    except OSError:
        _drop_closed_streams()
    return code


def _prepare_streams() -> None:
    """Make streams that accept every character; closed streams are replaced by null streams."""
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # in this order they get the file numbers that the system expects
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        elif name != "stdin" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _drop_closed_streams() -> bool:
    """Replace streams that can no longer be written by null streams, so that Python does not fail
    at exit; returns whether a reader has closed its end."""
    return any([_dropped(stream) for stream in (sys.stdout, sys.stderr)])


def _dropped(stream: TextIO) -> bool:
    reader = select.poll()
    reader.register(stream.fileno(), 0)
    gone = any(event & (select.POLLERR | select.POLLHUP) for _, event in reader.poll(0))
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    return gone
