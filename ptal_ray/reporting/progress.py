"""What a person sees of a running study: a live table, or one line a trial where there is no
terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ptal_ray.process.words import clock
from ptal_ray.reporting.remaining import influential, seconds_left, work
from ptal_ray.space.domain import Scalar
from ptal_ray.study.captions import with_trial
from ptal_ray.study.conclusion import MEASURE
from ptal_ray.study.event_types import Event, FinalReport, TrialEnd
from ptal_ray.study.events import read_events
from ptal_ray.study.study import Study
from ptal_ray.study.view import IncrementalView, StudyView, TrialView
from ptal_ray.training.selection import ByPoints, called, main_figure

REFRESHES_PER_S = 4
STOPPING = "stopping; a second signal stops immediately"
MOST_ROWS, MOST_PARAMS = 16, 5
_PARAM_WIDTH, _OTHER_WIDTH = 12, 44  # columns of the terminal: of a parameter, of all the others
_FOLD_WIDTH = 7
_COLOURS = {"running": "cyan", "complete": "green", "pruned": "yellow", "failed": "red"}


class Progress:
    """Follows a study event by event. Use as a context manager: the terminal is given back.

    Args:
        study: the study; what its log already holds is shown too.
        console: where to write.
        live: show trials in a table that is drawn again; else a line for each that ended.
        quiet: show neither.
        stopping: whether the user has asked for a stop.
    """

    def __init__(
        self,
        study: Study,
        console: Console,
        *,
        live: bool,
        quiet: bool,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.study, self.console, self._stopping = study, console, stopping
        self._quiet = quiet
        events = read_events(study.events) if study.events.exists() else []
        self.growing = IncrementalView(StudyView.from_events(events))
        self._steps_before = work(self.view, study.space, study.num_trials).done
        self._began = time.time()
        self._live: Live | None = None
        if live and not quiet:
            self._live = Live(
                console=console, refresh_per_second=REFRESHES_PER_S, get_renderable=self.render
            )

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.transient = error is not None  # what is said of it stands alone
            self._live.stop()

    @property
    def view(self) -> StudyView:
        """The study after all events so far."""
        return self.growing.view

    @property
    def live(self) -> bool:
        """Whether there is a table that is drawn again, which other output would break."""
        return self._live is not None

    def event(self, event: Event) -> None:
        """A new event of the study."""
        self.growing.take(event)
        if self._live and isinstance(event, TrialEnd):
            return  # the table has it
        if not self._quiet and (line := self._line(event)):
            self.say(line)

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def render(self) -> Group:
        """The table, and a bar and a line on the whole study."""
        view, best = self.view, self.view.best
        last = self.study.space.budget.max_steps
        names = self._shown_params()
        objective = "score" if self.study.space.selection.metric == "points" else "mAP, %"
        peeks = self.study.space.selection.metric == "test"
        said = " (selected on the test split)" if peeks else ""
        table = Table(title=f"{self.study.name}{said}", title_justify="left")
        fold = ("fold",) if self._folds else ()
        for title in ("", "trial", *fold, "state", "step", objective):
            table.add_column(title, no_wrap=True, justify="left" if title == "state" else "right")
        for name in names:
            table.add_column(name, no_wrap=True, max_width=_PARAM_WIDTH - 3, overflow="ellipsis")
        for trial in _rows(view):
            table.add_row(
                "★" if best and trial.number == best.number else "",
                str(trial.number),
                *([_number(trial.fold)] if fold else []),
                Text(trial.state, style=_COLOURS[trial.state]),
                f"{trial.step}/{last}",
                f"{100 * trial.objective:.1f}" if trial.objective is not None else "",
                *(_short(trial.params.get(name)) for name in names),
            )
        share = work(view, self.study.space, self.study.num_trials).share
        bar = Padding(ProgressBar(total=1.0, completed=share), 0)  # on a line of its own
        lines = filter(None, (self._star(view), self._status(view)))
        return Group(table, bar, Text("\n".join(lines)))

    @property
    def _folds(self) -> bool:
        """Whether trials differ in the fold that scores them, as in a race."""
        return any(trial.fold is not None for trial in self.view.trials)

    def _shown_params(self) -> list[str]:
        """The parameters that matter, as many as the terminal has room for."""
        others = _OTHER_WIDTH + _FOLD_WIDTH * self._folds
        room = max(1, (self.console.width - others) // _PARAM_WIDTH)
        names = influential(self.view.trials, list(self.study.space.train))
        return names[: min(MOST_PARAMS, room)]

    def _status(self, view: StudyView) -> str:
        """Best so far, time, and how much is left."""
        if self._stopping():
            return STOPPING
        elapsed = time.time() - self._began
        own = work(view, self.study.space, self.study.num_trials)
        words = [self._used(view, own.spent), clock(elapsed)]
        if view.best and not self._folds:
            words.insert(0, f"best {_best(view.best)}")
        if view.finals:
            words.append(f"final runs {len(view.finals)}")
        budget = self.study.time_budget_s
        left = None if budget is None else budget - elapsed
        rest = seconds_left(own, self._steps_before, elapsed, left)
        if view.end:
            words.append("writing the report")
        else:
            words.append("starting" if rest is None else f"about {clock(rest)} left")
        return " · ".join(words)

    def _star(self, view: StudyView) -> str:
        """What the marked trial of a race is; "" for other studies, and without one."""
        if not view.best or not self._folds:
            return ""
        if view.recommended:
            return f"★ recommended: trial {view.best.number}, {_number(view.best.objective)} alone"
        return f"★ best single run {_best(view.best)}; runs differ in fold and seed"

    def _used(self, view: StudyView, spent: float) -> str:
        """How much of its budget the search has used; after a race, its trials."""
        budget = self.study.num_trials
        if self.study.space.policy != "race":
            return f"trials {spent:.0f}/{budget}"
        if not view.finals:
            return f"{spent:.1f} of {budget} full runs"
        return f"{sum(t.state != 'running' for t in view.trials)} trials"

    def _line(self, event: Event) -> str:
        if isinstance(event, TrialEnd):
            return _trial_line(self.growing.trials[event.trial])
        if isinstance(event, FinalReport):
            run = self.view.runs(event.role, event.arm)
            return _final_line(self.view, next(r for r in run if r.seed == event.seed))
        return ""


class _Console(Console):
    """A console whose reader may go; Rich would end the process."""

    def on_broken_pipe(self) -> None:
        """Leaves it to the search, which stops cleanly."""
        raise  # the BrokenPipeError in whose handler Rich calls this


def make_progress(
    study: Study, quiet: bool, stderr: bool, stopping: Callable[[], bool] = lambda: False
) -> Progress:
    """Live on a terminal, lines elsewhere; `stopping` as of `Progress`."""
    console = _Console(file=sys.stderr if stderr else sys.stdout)
    live = console.is_terminal
    return Progress(study, console, live=live, quiet=quiet, stopping=stopping)


def _rows(view: StudyView) -> list[TrialView]:
    """The newest trials, those that run and the best one."""
    newest = {t.number for t in view.trials[-MOST_ROWS:]}
    best = {view.best.number} if view.best else set()
    return [t for t in view.trials if t.number in newest | best or t.state == "running"]


def _trial_line(trial: TrialView) -> str:
    params = " ".join(f"{name}={_number(value)}" for name, value in trial.params.items())
    message = f"  ({trial.message})" if trial.message else ""
    cell = "" if trial.fold is None else f"{trial.stage:<6} fold {trial.fold} seed {trial.seed}  "
    return (
        f"trial {trial.number:4d}  {cell}{trial.state:<9} step {trial.step:6d}  "
        f"{_objective(trial)} {_number(trial.objective)}  {params}{message}"
    )


def _objective(trial: TrialView) -> str:
    """What the objective of a trial is called."""
    metrics = trial.reports[-1].metrics if trial.reports else {}
    if MEASURE in metrics:
        return "test mAP"
    return "val points score" if f"val/{ByPoints.name}" in metrics else "val mAP"


def _final_line(view: StudyView, run: FinalReport) -> str:
    named = f"{run.role:<9} {with_trial(run.arm, view, run.arm):<16} seed {run.real_seed}"
    if run.role == "deploy" and not run.message:
        return f"{named}  trained on all videos"
    split = "test" if run.role == "test" else "val"
    message = f"  ({run.message})" if run.message else ""
    figure = main_figure(run.metrics, split)
    number = run.metrics.get(f"{split}/num_videos")
    of = "" if number is None else f" of {number:.0f} videos"
    return f"{named}  {split} {called(figure)} {_number(run.metrics.get(figure))}{of}{message}"


def _best(trial: TrialView) -> str:
    return f"{_number(trial.objective)} (trial {trial.number})"


def _short(value: Scalar | None) -> str:
    """A parameter in few characters."""
    return f"{value:.2g}" if isinstance(value, float) else _number(value)


def _number(value: Scalar | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
