"""The events of a study: one type for each kind of line of events.jsonl.

The fields of a type are the keys of its line, in this order. A field with a default was not written
by every version. Keys of a line that its type does not have are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from time import time as now
from types import NoneType, UnionType
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

from ptal_ray.errors import DataError
from ptal_ray.space.domain import Scalar

_SPARSE = {"sparse": True}  # marks a field that is written only if it differs from the default
_JSON: dict[Any, tuple[str, tuple[type, ...]]] = {
    int: ("a whole number", (int,)), float: ("a number", (int, float)), str: ("a text", (str,)),
    dict: ("an object", (dict,)), tuple: ("a list", (list, tuple)), NoneType: ("null", (NoneType,)),
    bool: ("true or false", (bool,)),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event; `time` in seconds since 1970, `kind` is its name in the file."""

    kind: ClassVar[str]
    time: float = field(default_factory=now)

    def line(self) -> dict[str, Any]:
        """The JSON object of its line."""
        said = {f.name: getattr(self, f.name) for f in fields(self) if self._says(f)}
        return {"event": self.kind} | said

    def _says(self, part: Field[Any]) -> bool:
        return not part.metadata.get("sparse") or getattr(self, part.name) != part.default


@dataclass(frozen=True, kw_only=True)
class StudyStart(Event):
    """A study began or was continued: everything that is true of the whole study.

    Args:
        study: its name.
        method, dataset: their names.
        features: kind of features: "real", "simulated ...".
        note: what a reader must know about the data and about external files.
        external: the part of the note about external files.
        space: the resolved search space, as in study.json.
        defaults: {"train", "decode"}, the default of every parameter.
        seed: those of the searcher and of all runs are derived from it.
        num_trials: the budget in full trials; None in logs of earlier versions.
        protocol: a name of `study.choices.PROTOCOLS`.
        git_commit, versions, hardware: see `provenance`.
        data_hash: content hash of the feature store.
        searcher, scheduler: their names.
        warm_start: names of the studies whose configurations are evidence.
        points: how new points were drawn; "" for those of the store.
        test_videos: their number; None in logs of earlier versions.
        annotated: {"search", "final"}, ids of the videos whose annotations the runs may read; empty
            for point supervision.
    """

    kind = "study"
    study: str
    method: str
    dataset: str
    features: str
    note: str = ""
    external: str = ""
    points: str = field(default="", metadata=_SPARSE)
    space: dict[str, Any]
    defaults: dict[str, dict[str, Scalar]]
    seed: int
    num_trials: int | None = field(default=None, metadata=_SPARSE)
    protocol: str = field(default="", metadata=_SPARSE)
    git_commit: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    data_hash: str
    searcher: str
    scheduler: str
    warm_start: tuple[str, ...] = field(default=(), metadata=_SPARSE)
    annotated: dict[str, list[str]] = field(default_factory=dict)
    test_videos: int | None = field(default=None, metadata=_SPARSE)


@dataclass(frozen=True, kw_only=True)
class TrialStart(Event):
    """A trial began, or began again.

    Args:
        trial: its number.
        params, arm, cell, fold, seed, stage: as for `Suggestion`; None is an arm with this trial
            only.
        from_step: the step of the checkpoint from which it continues; 0 for none.
    """

    kind = "trial_start"
    trial: int
    params: dict[str, Scalar]
    arm: int | None = None
    cell: int = 0
    fold: int | None = None
    seed: int | None = None
    stage: str = "search"
    from_step: int = 0


@dataclass(frozen=True, kw_only=True)
class Report(Event):
    """A trial reached a report step.

    Args:
        trial: its number.
        step, objective, metrics, decode, seconds, settings, losses: as for `TrialReport`; settings
            are empty in logs of earlier versions.
        to_first_step_s: from the start of the trial to its first step; None where not measured.
    """

    kind = "report"
    trial: int
    step: int
    objective: float
    metrics: dict[str, float]
    decode: dict[str, Scalar]
    seconds: float
    to_first_step_s: float | None = None
    settings: tuple[float, ...] = ()
    losses: dict[str, list[list[float]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrialEnd(Event):
    """A trial ended.

    Args:
        trial: its number.
        state: "complete", "pruned" or "failed".
        message: the reason of a failure.
        crashed: whether it failed because its processes were lost, as for `results.Failed`.
    """

    kind = "trial_end"
    trial: int
    state: str
    message: str = ""
    crashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Restart(Event):
    """The run in the folder `run` lost its process, for `reason`.

    Args:
        run: relative to the study directory.
        reason: one line.
        again: whether it was started again; else a resumed study starts it.
    """

    kind = "restart"
    run: str
    reason: str
    again: bool = field(default=True, metadata=_SPARSE)


@dataclass(frozen=True, kw_only=True)
class Recommendation(Event):
    """The recommendation of a search, with its evidence.

    Args:
        arm: number of the configuration; 0 for the defaults.
        trial: the first trial of that arm; None for the defaults.
        params: its searched train parameters; empty for the defaults.
        decode: all its decode parameters.
        setting: number of that decode setting in the reports of trials; 0 for the default one.
        verdict: "better", "tie" or "defaults", see `policy.cells.Verdict`; "" if the policy does
            not compare with the defaults.
        difference: {"mean", "low", "high", "cells"} to the defaults, fractions of mAP; empty if not
            compared.
        arms: posterior of each arm, best first: {"arm", "trial", "params", "cells", "mean",
            "sd", "state"}; empty if the policy has none.
    """

    kind = "recommended"
    arm: int
    trial: int | None
    params: dict[str, Scalar]
    decode: dict[str, Scalar]
    setting: int = field(default=0, metadata=_SPARSE)
    verdict: str = ""
    difference: dict[str, float] = field(default_factory=dict)
    arms: tuple[dict[str, Any], ...] = ()

    def short(self) -> dict[str, Any]:
        """The recommended configuration: {"arm", "trial", "params", "decode"}."""
        return {"arm": self.arm, "trial": self.trial, "params": self.params, "decode": self.decode}


# Roles of runs after the search; the last two are of data without a test split, see
# `no_test_split.py`.
RESELECT, TEST, FOLD, DEPLOY = "reselect", "test", "fold", "deploy"


@dataclass(frozen=True, kw_only=True)
class FinalReport(Event):
    """A run after the search ended.

    Args:
        arm, role: as for `Job`.
        seed: the repeat, from 0 on.
        run_seed: the seed of the run; None in logs of earlier versions.
        params, decode: every parameter.
        step: the last one.
        metrics: of its last report; empty if it diverged.
        detections: a path relative to the study directory; "" or None if it diverged.
        message: why it diverged.
    """

    kind = "final_report"
    arm: str
    role: str
    seed: int
    run_seed: int | None = None
    params: dict[str, Scalar]
    decode: dict[str, Scalar]
    step: int
    metrics: dict[str, float]
    detections: str | None = ""
    message: str = field(default="", metadata=_SPARSE)

    @property
    def real_seed(self) -> int:
        """The seed that the run was trained with; its repeat if the log does not say."""
        return self.seed if self.run_seed is None else self.run_seed


@dataclass(frozen=True, kw_only=True)
class StudyEnd(Event):
    """A study ended; it may be continued later.

    Args:
        state: "done" or "interrupted".
        message: the reason, if something went wrong.
        verdict, difference, arms: of the recommendation; None before there is one.
        best_trial: the trial of the recommended configuration; None also for the defaults.
        recommended: {"arm", "trial", "params", "decode"}; None before there is a recommendation.
        best_params, best_decode: parameters of the best trial; only in earlier versions.
    """

    kind = "study_end"
    state: str
    message: str = ""
    verdict: str | None = field(default=None, metadata=_SPARSE)
    difference: dict[str, float] | None = field(default=None, metadata=_SPARSE)
    arms: tuple[dict[str, Any], ...] | None = field(default=None, metadata=_SPARSE)
    best_trial: int | None = field(default=None, metadata=_SPARSE)
    recommended: dict[str, Any] | None = field(default=None, metadata=_SPARSE)
    best_params: dict[str, Scalar] | None = field(default=None, metadata=_SPARSE)
    best_decode: dict[str, Scalar] | None = field(default=None, metadata=_SPARSE)

    @property
    def recommendation(self) -> Recommendation | None:
        """The recommendation in this event; None if it has none."""
        if self.recommended is None:
            return None
        line = {
            "event": Recommendation.kind, "time": self.time, "verdict": self.verdict or "",
            "difference": self.difference or {}, "arms": self.arms or (),
        }  # fmt: skip
        made = event_of(_UNSAID | self.recommended | line, "events.jsonl")
        assert isinstance(made, Recommendation)
        return made

    def _says(self, part: Field[Any]) -> bool:
        of_all = part.name in ("verdict", "best_trial") and self.recommended is not None
        return of_all or super()._says(part)


_UNSAID: dict[str, Any] = {"trial": None, "params": {}, "decode": {}}

KINDS: dict[str, type[Event]] = {
    kind.kind: kind
    for kind in (
        StudyStart, TrialStart, Report, TrialEnd, Restart, Recommendation, FinalReport, StudyEnd
    )
}  # fmt: skip


def event_of(line: Mapping[str, Any], place: str) -> Event:
    """The event of a line.

    Args:
        line: its JSON object, with NaN and infinities as floats.
        place: file and number of the line, for errors.

    Raises:
        DataError: its kind is unknown, or a field is missing or of a wrong type.
    """
    kind = KINDS.get(str(line.get("event")))
    if kind is None:
        raise DataError(
            f"{place}: event {str(line.get('event'))[:80]!r} is unknown; allowed are "
            f"{', '.join(KINDS)}; remove this line, or open the log with the version that wrote it"
        )
    given: dict[str, Any] = {}
    for name, (types, required) in _parts(kind.kind).items():
        if name in line:
            given[name] = _checked(line[name], types, f"{place}: {name} of event {kind.kind}")
        elif required:
            raise DataError(f"{place}: event {kind.kind} lacks {name}; restore or remove this line")
    return kind(**given)


@cache
def _parts(name: str) -> dict[str, tuple[tuple[Any, ...], bool]]:
    """For each field of a kind: its possible types, and whether it is required."""
    kind = KINDS[name]
    hints = get_type_hints(kind)
    return {
        part.name: (
            get_args(hint) if isinstance(hint := hints[part.name], UnionType) else (hint,),
            part.default is MISSING and part.default_factory is MISSING,
        )
        for part in fields(kind)
    }


def _checked(value: Any, types: tuple[Any, ...], place: str) -> Any:
    """`value` as one of these types; a list becomes a tuple."""
    known = [_JSON[get_origin(kind) or kind] for kind in types]
    if not any(type(value) in allowed for _, allowed in known):
        raise DataError(
            f"{place}: {str(value)[:80]!r} is not {' or '.join(word for word, _ in known)}; "
            "restore or remove this line"
        )
    return tuple(value) if isinstance(value, list) else value
