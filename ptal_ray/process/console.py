"""What every command does around its work: streams, errors and the exit code.

def main(argv=None):
    args = flags(argv)
    from ... import work  # after the flags, so that --help is fast; a signal ends the process
    return exit_code(lambda: work(args))  # from here on a signal is a KeyboardInterrupt

if __name__ == "__main__":
    run_main(main)
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from typing import NoReturn, TextIO

from ptal_ray.errors import ConfigError, PtalError, StorageError
from ptal_ray.process.interruption import INTERRUPTED, SCRIPT, interruptible
from ptal_ray.storage.user_directories import ensure_home

CLOSED_PIPE = 141  # what a shell reports of a program whose reader has gone


def program(command: str) -> str:
    """How the user started a command, as its help shows it: "ptal search" or "python -m ...".

    Args:
        command: its word.
    """
    if os.path.basename(sys.argv[0]) == SCRIPT:
        return f"{SCRIPT} {command}"
    return f"python -m {__name__.partition('.')[0]}.{command}"


def run_main(main: Callable[[], int]) -> NoReturn:
    """Calls the `main` of a command and ends the process with its exit code.

    Characters that a terminal cannot show are escaped. A reader that closed its end of a pipe, and
    what the operating system refuses end in one line at most, never in a traceback.

    Args:
        main: returns the exit code; takes its arguments from `sys.argv`. It reads its flags, then
            imports what takes seconds, then does its work by `exit_code`.
    """
    _prepare_streams()
    code = _ended(main)
    _drop_closed_streams()
    sys.exit(code)


@interruptible
def exit_code(work: Callable[[], int], advice: Callable[[], str] | None = None) -> int:
    """Does the work of a command, and shows in one line why it could not.

    Args:
        work: shows what it found and returns the exit code.
        advice: what to do after an interruption, asked then; "" for nothing.

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
    """The exit code of `main`, whatever ends it."""
    try:
        ensure_home()
        try:
            code: int | str | None = main()
        except SystemExit as leaving:  # argparse
            code = leaving.code
        sys.stdout.flush()
        return code
    except UnicodeEncodeError as error:  # the streams escape, so it was the name of a file
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
    """Shows a line where there still is someone to read it; returns `code`."""
    try:
        print(line, file=sys.stderr)
    except OSError:
        _drop_closed_streams()
    return code


def _prepare_streams() -> None:
    """Makes streams that take every character; one that the caller closed leads nowhere."""
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # in this order it gets the number that the system expects
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        elif name != "stdin" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _drop_closed_streams() -> bool:
    """Leads streams that can no longer be written nowhere, or Python would complain at its end;
    returns whether a reader has gone."""
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
