"""A whole search: checks its flags, runs the study, writes the report and the summary."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ptal_ray.backends.preview import (
    announced,
    begun_note,
    distinct,
    dry_run,
    places,
    planned_space,
    room,
)
from ptal_ray.backends.ray.address import given_address
from ptal_ray.backends.session import Signals, run_session
from ptal_ray.errors import DataError, StorageError
from ptal_ray.reporting.outcome import show_summary, summary
from ptal_ray.reporting.plan import plan_text
from ptal_ray.reporting.progress import make_progress
from ptal_ray.storage.ownership import check_writable
from ptal_ray.storage.place import kept, make_results_root
from ptal_ray.study.continuing import check_space
from ptal_ray.study.feasibility import demand, problems
from ptal_ray.study.from_flags import planned, resume_command, resumed, storage
from ptal_ray.study.mirror import bring_scores
from ptal_ray.study.study import Study, create_directory


def search(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the command; returns the output of --json.

    Raises:
        PtalError: it failed, or no trial finished.
        KeyboardInterrupt: it was interrupted and has stopped cleanly; its argument is the command
            that continues.
    """
    args.address = given_address(args.address)
    notes: list[str] = []
    if args.resume is not None:
        study = resumed(args)
        if args.space is not None:
            notes = check_space(study, args.space, resume_command(study, args))
    else:
        study, store, notes = planned(args)
        places(study, args)
        demand(problems(study, store))
    study, more = distinct(study)
    notes += more
    notes += begun_note(study) if args.dry_run else []
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if args.dry_run:
        plan = dry_run(study, args) | {"notes": notes}
        say(planned_space(study).to_yaml())
        say(plan_text(plan))
        return plan
    room(study, args)
    make_results_root()
    check_writable("--out", kept(args.out), folder=True)
    if study.events.exists():
        _check_report(study, kept(args.out))
    outcome = _run(study, args)
    say(show_summary(outcome))
    return outcome


def _run(study: Study, args: argparse.Namespace) -> dict[str, Any]:
    """Create a study, or take the one to resume, and run it to its end.

    Returns:
        Its summary. Errors have the command that continues it.
    """
    try:
        with ExitStack() as stack:
            signals = stack.enter_context(Signals())
            if args.resume is None:
                study = create_directory(study, storage(args))
            progress = make_progress(study, args.quiet, args.json, lambda: signals.asked)
            signals.silent = progress.live
            stack.enter_context(progress)
            if args.resume is None and not (args.quiet or args.json):
                progress.say(announced(study))
            report, unlogged = run_session(
                study,
                created=args.resume is None,
                address=args.address,
                verbose=args.verbose,
                signals=signals,
                listen=progress.event,
                say=progress.say,
                report=lambda: _write_report(study, kept(args.out), progress.say),
            )
            return summary(study, report, unlogged)
    except (KeyboardInterrupt, BrokenPipeError) as error:  # the second: its output is closed
        raise KeyboardInterrupt(resume_command(study, args)) from error
    except StorageError as error:
        raise StorageError(f"{error}: {resume_command(study, args)}") from error
    except DataError as error:
        then = resume_command(study, args)
        raise DataError(f"{error}; restore the original data, then run: {then}") from error


def _write_report(study: Study, reports: Path, say: Callable[[str], None]) -> Path:
    from ptal_ray.reporting.report import write_report  # plotting is slow to import

    try:
        bring_scores(study)
    except (StorageError, OSError) as error:
        say(f"scores could not be downloaded, so the report judges no ensemble: {error}")
    return write_report(study.directory, reports)


def _check_report(study: Study, reports: Path) -> None:
    """Check before the work that the report of a resumed study can be written.

    Raises:
        DataError: its folder has other files.
    """
    from ptal_ray.reporting.report import check_report  # plotting is slow to import

    check_report(study.directory, reports)
