"""What each MLflow run of a study gets: a pure translation of events, which no server sees.

    study                   parent run: resolved space, provenance, what is recommended
    trial/<number>          child run: searched parameters, metrics as curves over steps
    <role>/<arm>            child run of an arm of the finals: mean, sd, interval over its seeds
    <role>/<arm>/seed<k>    child run of that arm: metrics and detections of one seed

Their kind, a tag, is study, trial, arm or seed.

Timestamps are those of the events, so that writing an event twice changes nothing in MLflow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptal_ray.study.conclusion import (
    conclusion,
    cross_validated_difference,
    interval,
    test_reads,
)
from ptal_ray.study.cross_validation import cross_validated
from ptal_ray.study.event_types import (
    Event,
    FinalReport,
    Recommendation,
    Report,
    StudyEnd,
    StudyStart,
    TrialEnd,
    TrialStart,
)
from ptal_ray.study.events import dumps
from ptal_ray.study.paper_compat import selection_gain
from ptal_ray.study.view import IncrementalView, StudyView, TrialView, best_yaml, summarise
from ptal_ray.tracking.naming import (
    arm_name,
    arm_trial,
    cell,
    chosen,
    of_report,
    study_name,
    trial_name,
)
from ptal_ray.tracking.note import note

LONGEST = 500  # characters of a parameter or tag that every MLflow server accepts
NOTE = "mlflow.note.content"
_STATUS = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
_ILLEGAL = re.compile(r"[^\w\-. :/]")  # in the name of a metric or parameter


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A file, a folder or a text that a run keeps.

    Args:
        run: key of the run.
        name: name of a text, or the folder that a file goes into ("" for the top).
        path: the file or folder; "" for a text.
        text: the text.
    """

    run: str
    name: str = ""
    path: str = ""
    text: str = ""


@dataclass(kw_only=True)
class RunUpdate:
    """What one run gets in one round of writing; filled by `Round`.

    Args:
        key, parent: of this run and of the one it lies under (None for the study).
        name: shown by MLflow.
        kind: "study", "trial", "arm" or "seed".
        started_ms, ended_ms: milliseconds since 1970.
        metrics: (name, step) -> (value, milliseconds).
        params, tags: texts of at most `LONGEST` characters.
        status: RUNNING, FINISHED, KILLED or FAILED; None leaves it.
        artifacts: files to upload.
    """

    key: str
    parent: str | None
    name: str
    kind: str
    started_ms: int
    metrics: dict[tuple[str, int], tuple[float, int]] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    status: str | None = None
    ended_ms: int | None = None
    artifacts: list[Artifact] = field(default_factory=list)

    def add_metrics(self, values: Mapping[str, float], step: int, time_s: float) -> None:
        """Adds metrics of one step; a later value of the same step replaces an earlier one."""
        for name, value in values.items():
            self.metrics[_ILLEGAL.sub("_", name), step] = float(value), _ms(time_s)

    def add_params(self, values: Mapping[str, Any], prefix: str = "") -> None:
        """Adds parameters as texts."""
        for name, value in values.items():
            self.params[_ILLEGAL.sub("_", prefix + name)] = _text(value)

    def add_curves(self, losses: Mapping[str, Any], time_s: float) -> None:
        """Adds the points of each term of the loss between two reports, the last one included."""
        for name, points in losses.items():
            if points and (f"train/loss_{name}", points[-1][0]) in self.metrics:
                for step, value in points:
                    self.add_metrics({f"train/loss_{name}": value}, int(step), time_s)

    def end(self, status: str, time_s: float) -> None:
        """The run ended."""
        self.status, self.ended_ms = status, _ms(time_s)

    def reopen(self) -> None:
        """The run goes on after an interruption."""
        self.status, self.ended_ms = "RUNNING", None


class Round:
    """The updates of the runs that `events` touch.

    Args:
        before: the study before `events`.
        events: new ones, oldest first.
        study_dir: where the files of the events lie.
    """

    def __init__(self, before: StudyView, events: Iterable[Event], study_dir: Path) -> None:
        self.study_dir = study_dir
        self.updates: dict[str, RunUpdate] = {}
        self._growing = IncrementalView(before)
        of_trial: dict[type[Event], Callable[[Any, TrialView | None, TrialView], None]] = {
            TrialStart: self._trial_start, Report: self._report, TrialEnd: self._trial_end,
        }  # fmt: skip
        of_study: dict[type[Event], Callable[[Any, StudyView, StudyView], None]] = {
            StudyStart: self._study, Recommendation: self._recommended, FinalReport: self._final,
            StudyEnd: self._end,
        }  # fmt: skip
        for event in events:
            if isinstance(event, TrialStart | Report | TrialEnd):
                old = self._growing.trials.get(event.trial)
                self._growing.take(event)
                of_trial[type(event)](event, old, self._growing.trials[event.trial])
            elif tell := of_study.get(type(event)):
                earlier = self._growing.view
                self._growing.take(event)
                tell(event, earlier, self._growing.view)
            else:
                self._growing.take(event)

    @property
    def view(self) -> StudyView:
        """The study after the events."""
        return self._growing.view

    def _run(self, key: str, parent: str | None, name: str, kind: str, at: float) -> RunUpdate:
        new = RunUpdate(key=key, parent=parent, name=name, kind=kind, started_ms=_ms(at))
        return self.updates.setdefault(key, new)

    def _study_run(self, study: StudyStart, at: float) -> RunUpdate:
        return self._run("study", None, study_name(study.study), "study", at)

    def _study(self, event: StudyStart, before: StudyView, after: StudyView) -> None:
        run = self._study_run(event, event.time)
        if before.start:
            run.reopen()
        else:
            run.add_params(_resolved(event))
        run.tags |= _provenance(event)
        whole = {k: v for k, v in event.line().items() if k not in ("event", "time")}
        run.artifacts.append(
            Artifact(run="study", name="study.json", text=dumps(whole, indent=1) + "\n")
        )

    def _trial_run(self, trial: TrialView, at: float) -> RunUpdate:
        return self._run(f"trial/{trial.number}", "study", trial_name(trial), "trial", at)

    def _trial_start(self, event: TrialStart, before: TrialView | None, trial: TrialView) -> None:
        run = self._trial_run(trial, event.time)
        if before:
            run.reopen()
        else:
            run.add_params(event.params, "train.")
            run.add_params(cell(trial))
        run.tags["state"] = "running"

    def _report(self, event: Report, before: TrialView | None, trial: TrialView) -> None:
        step = event.step
        old = next((r for r in before.reports if r.step == step), None) if before else None
        new = next(r for r in trial.reports if r.step == step)
        if old and dumps([old.objective, old.metrics]) == dumps([new.objective, new.metrics]):
            return  # trained again after a kill, with the same result
        run = self._trial_run(trial, event.time)
        last_step = int(self._growing.study.space["budget"]["max_steps"])
        run.add_metrics(of_report(new, last_step), step, new.time)
        run.add_curves(new.losses, new.time)

    def _trial_end(self, event: TrialEnd, before: TrialView | None, trial: TrialView) -> None:
        run = self._trial_run(trial, event.time)
        run.end(_STATUS[event.state], event.time)
        run.tags |= {"state": event.state, "message": _cut(event.message)}
        if trial.reports:
            run.add_params(trial.reports[-1].decode, "decode.")

    def _recommended(self, event: Recommendation, before: StudyView, after: StudyView) -> None:
        """Marks the trials of the recommended configuration, with the mean of its posterior; those
        of an earlier recommendation are no longer marked."""
        arms = {event.arm} | ({before.recommended.arm} if before.recommended else set())
        means = {row["arm"]: row["mean"] for row in event.arms if row["mean"] is not None}
        for trial in after.trials:
            if trial.arm in arms:
                run = self._trial_run(trial, trial.started)
                run.tags["recommended"] = str(trial.arm == event.arm).lower()
                if trial.arm in means:
                    run.add_metrics({"posterior_mean": means[trial.arm]}, 0, event.time)

    def _final(self, event: FinalReport, before: StudyView, after: StudyView) -> None:
        final = next(f for f in after.runs(event.role, event.arm) if f.seed == event.seed)
        known = before.runs(final.role, final.arm)
        arm, title = f"{final.role}/{final.arm}", arm_name(final, after)
        tags = {"role": final.role, "arm": final.arm}
        if (number := arm_trial(final, after)) is not None:
            tags["trial"] = str(number)
        parent = self._run(arm, "study", title, "arm", final.time)
        if before.end:
            parent.reopen()
        if not known:
            parent.add_params(final.params, "train.")
            if final.role != "reselect":  # frozen; a reselect run tunes its own
                parent.add_params(final.decode, "decode.")
            parent.tags |= tags | {"state": "running"}
        if final.seed in [f.seed for f in known]:
            return
        name = f"seed {final.real_seed} of {title}"
        run = self._run(f"{arm}/seed{final.seed}", arm, name, "seed", final.time)
        run.add_params({"seed": final.real_seed, "repeat": final.seed})
        run.add_params(final.decode, "decode.")
        run.add_metrics(chosen(final.metrics), final.step, final.time)
        failed = bool(final.message) and not final.metrics
        state = "failed" if failed else "complete"
        run.tags |= tags | {"message": _cut(final.message), "state": state}
        run.end("FAILED" if failed else "FINISHED", final.time)
        if final.detections:
            path = str(self.study_dir / final.detections)
            run.artifacts.append(Artifact(run=run.key, path=path))

    def _end(self, event: StudyEnd, before: StudyView, after: StudyView) -> None:
        done = event.state == "done"
        status = "FINISHED" if done else "KILLED"
        run = self._study_run(after.study, event.time)
        run.end(status, event.time)
        run.tags |= {"state": event.state, "message": _cut(event.message)}
        said = {"best_trial": event.best_trial, "verdict": conclusion(after).verdict or None}
        run.tags |= {name: str(value) for name, value in said.items() if value is not None}
        run.tags |= {NOTE: note(after), "ptal.test_reads": str(test_reads(after))}
        if gained := selection_gain(after):
            run.tags["ptal.selected_on_test"] = _cut(gained.text)
        for trial in after.trials:
            if trial.state == "running":
                killed = self._trial_run(trial, trial.started)
                killed.end("KILLED", event.time)
                killed.tags["state"] = "interrupted"
        for role in ("reselect", "test", "fold", "deploy"):
            for name in after.arms(role):
                self._arm_end(after, after.runs(role, name), status, event.time)
        run.add_metrics(of_folds(after), 0, event.time)
        text = best_yaml(after)
        if text:
            run.artifacts.append(Artifact(run="study", name="best.yaml", text=text))

    def _arm_end(
        self, view: StudyView, runs: tuple[FinalReport, ...], status: str, time_s: float
    ) -> None:
        """Mean, sd and interval over the seeds; also to the study, for what it recommends."""
        first, last = runs[0], max(r.time for r in runs)
        key = f"{first.role}/{first.arm}"
        arm = self._run(key, "study", arm_name(first, view), "arm", first.time)
        finished = [r for r in runs if r.metrics]
        arm.end(status if finished else "FAILED", time_s)
        arm.tags["state"] = "complete" if status == "FINISHED" else "interrupted"
        if status != "FINISHED":
            return  # seeds are missing
        values = over_seeds(finished)
        arm.add_metrics(values, 0, last)
        if first.role not in ("test", "deploy"):
            return
        found = conclusion(view)
        arm.tags["recommended"] = str(first.arm == found.arm).lower()
        if found.verdict:
            arm.tags["verdict"] = found.verdict
        if first.arm == found.arm:
            if first.role == "test":
                self.updates["study"].add_metrics(values, 0, last)
            self.updates["study"].tags["recommended"] = first.arm


def of_folds(view: StudyView) -> dict[str, float]:
    """The cross-validated figures of a study without a test split, `cv/<arm>` and `cv/<arm>_sd`,
    and the difference of the arms with its interval; empty for any other study."""
    found, values = cross_validated(view), dict[str, float]()
    for arm, own in (found.arms if found else {}).items():
        values |= {f"cv/{arm}": own.mean} | ({} if own.sd is None else {f"cv/{arm}_sd": own.sd})
    if difference := cross_validated_difference(view):
        bounds = {"": difference.mean, "_low": difference.low, "_high": difference.high}
        values |= {f"cv/difference{name}": value for name, value in bounds.items()}
    return values


def over_seeds(runs: Iterable[FinalReport]) -> dict[str, float]:
    """Each metric's mean over seeds; of mAP also the standard deviation as `<name>_sd`, of its
    average the interval as `_low` and `_high` (for two seeds and more); the number of `seeds`."""
    runs = tuple(runs)
    values: dict[str, float] = {"seeds": len(runs)}
    named = summarise(runs)
    for name in chosen({k: s.mean for k, s in named.items()}):
        if name.startswith("train/"):
            continue
        values[name] = named[name].mean
        if (sd := named[name].sd) is not None:
            values[f"{name}_sd"] = sd
        if name.endswith("/mAP_avg") and sd is not None:
            found = interval(named[name].values)
            values |= {f"{name}_low": found.low, f"{name}_high": found.high}
    return values


def _resolved(study: StudyStart) -> dict[str, Any]:
    """Everything that determines a study, flat: a searched parameter shows its domain."""
    space = study.space
    names = (
        "method", "dataset", "features", "note", "points", "seed", "searcher", "scheduler",
        "data_hash", "warm_start",
    )  # fmt: skip
    flat = {name: getattr(study, name) for name in names}
    sections = {k: v for k, v in space.items() if isinstance(v, dict)}
    for name in ("train", "decode"):
        sections[name] = study.defaults[name] | space.get(name, {})
    return flat | {f"{s}.{k}": v for s, keys in sections.items() for k, v in keys.items()}


def _provenance(study: StudyStart) -> dict[str, str]:
    """What may differ when a study is resumed elsewhere, as tags."""
    tags = {f"version.{k}": str(v) for k, v in study.versions.items()}
    tags |= {f"hardware.{k}": _text(v) for k, v in study.hardware.items()}
    tags |= {"git_commit": study.git_commit, "state": "running"}
    return tags | {NOTE: note(StudyView(start=study))}


def _text(value: Any) -> str:
    return _cut(value if isinstance(value, str) else dumps(value))


def _cut(text: str) -> str:
    mark = "... (whole in study.json or events.jsonl)"
    return text if len(text) <= LONGEST else text[: LONGEST - len(mark)] + mark


def _ms(time_s: float) -> int:
    return round(time_s * 1000)
