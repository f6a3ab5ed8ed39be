"""The work of `python -m ptal_ray.report`: a report a study, and a table of several."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptal_ray.errors import ConfigError
from ptal_ray.reporting.comparison import Comparison, compared
from ptal_ray.reporting.html.leaderboard import is_leaderboard_page, leaderboard_html
from ptal_ray.reporting.leaderboard import FILES as LEADERBOARD_FILES
from ptal_ray.reporting.leaderboard import leaderboard, write_leaderboard
from ptal_ray.reporting.report import send, write_reports
from ptal_ray.reporting.text import leaderboard_text
from ptal_ray.storage.ownership import check_files, check_writable
from ptal_ray.storage.whole import folder_made, whole
from ptal_ray.study.events import dumps


def report(
    studies: Sequence[Path],
    root: Path,
    *,
    html: Path | None = None,
    log: bool = False,
    as_json: bool = False,
) -> int:
    """Writes the reports and shows where they lie.

    Args:
        studies: study directories.
        root: folder of all reports.
        html: file for the page that compares the methods of the studies; None for no such page.
        log: also send MLflow the events and reports that it lacks.
        as_json: show the table of studies as JSON.

    Returns:
        The exit code: that of the first study without a report, or 2 where MLflow lacks something.

    Raises:
        ConfigError: files that are not of a table of studies, or not the page of one, are in its
            place, the page is the folder of reports, or its folder cannot be written to.
        TrackingError: the server does not answer.
    """
    unlogged: list[str] = []
    if html is not None:
        check_files("--html", html.parent, {html.name: is_leaderboard_page})
        check_writable("--html", html)
        if html.absolute() == root.absolute():
            raise ConfigError(f"--html {html}: this is the folder of --out; give a file")
    if len(studies) > 1:
        check_files("--out", root, LEADERBOARD_FILES)
    made, failed = write_reports(studies, root)
    rows = leaderboard([view for _, view in made.values()])
    if len(rows) > 1:
        write_leaderboard(rows, root)
    views = {study: view for study, (_, view) in made.items()}
    comparison = compared(views if html or len(views) > 1 else {})  # reads all detections
    if html is not None:
        page = leaderboard_html(list(views.values()), comparison)
        with folder_made(html.parent), whole(html) as beside:
            beside.write_text(page, encoding="utf-8")
    if log:
        for study, (folder, _) in made.items():
            unlogged += send(study, folder)
    folders = [folder for folder, _ in made.values()]
    if as_json:
        plain = {"reports": [str(f) for f in folders], "leaderboard": rows,
                 "differences": [pair.plain() for pair in comparison.pairs], "unlogged": unlogged,
                 "html": str(html) if html else None,
                 "errors": [str(error) for error in failed]}  # fmt: skip
        print(dumps(plain))
    elif made:
        print("\n".join(f"report {folder}" for folder in folders))
        _show_comparison(rows, comparison, html)
    for message in unlogged:
        print(message, file=sys.stderr)
    codes = [error.exit_code for error in failed] + [ConfigError.exit_code] * bool(unlogged)
    return codes[0] if codes else 0


def _show_comparison(
    rows: Sequence[dict[str, Any]], comparison: Comparison, html: Path | None
) -> None:
    print(leaderboard_text(rows))
    if comparison.pairs:
        print(comparison.text())
    if html is not None:
        print(f"methods {html}")
