"""The results that the process of a run sends to the driver: a report, a failure, or StandBy.

Tune passes them on as flat dictionaries and adds its own keys; report.json has them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from ptal_ray.errors import DataError, PtalError, StorageError
from ptal_ray.space.domain import Scalar
from ptal_ray.study.event_types import FinalReport, Report, event_of

MOST_ATTEMPTS = 3  # consecutive losses of the process of a run without progress
HALTS: dict[str, type[PtalError]] = {"storage": StorageError, "data": DataError}


@dataclass(frozen=True, kw_only=True)
class Reported:
    """A run reached a report step.

    Args:
        step, objective, metrics, decode, seconds, settings, losses: as for `TrialReport`.
        to_first_step_s: from the start of the run to its first step; None where not measured.
        done: it was the last one.
        event: of a final run; its time is set when the driver receives it.
        note: a problem that did not end the run; "" for none.
    """

    step: int
    objective: float
    metrics: dict[str, float]
    decode: dict[str, Scalar]
    seconds: float
    settings: tuple[float, ...] = ()
    losses: dict[str, list[list[float]]] = field(default_factory=dict)
    to_first_step_s: float | None = None
    done: bool
    event: FinalReport | None = None
    note: str = ""

    def plain(self) -> dict[str, Any]:
        """The dictionary that `result_of` reads back."""
        said = {f.name: getattr(self, f.name) for f in fields(self)} | {"failed": None}
        said |= {"settings": list(self.settings), "event": self.event and self.event.line()}
        return {k: v for k, v in said.items() if k not in ("event", "note") or v}

    def of_trial(self, number: int) -> Report:
        """The event of search trial `number`."""
        return Report(
            trial=number, step=self.step, objective=self.objective, metrics=self.metrics,
            decode=self.decode, seconds=self.seconds, to_first_step_s=self.to_first_step_s,
            settings=self.settings, losses=self.losses,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A job cannot continue, and a retry now would fail too.

    Args:
        message: the reason.
        halt: a key of `HALTS` if other jobs would fail too: files cannot be stored, or the data has
            changed; "" for a fault of this job.
        note: as for `Reported`.
        crashed: its processes are gone, after `MOST_ATTEMPTS` attempts or with their Ray Train run;
            this says nothing about its configuration.
    """

    message: str
    halt: str = ""
    note: str = ""
    crashed: bool = False
    done: ClassVar[bool] = True

    def plain(self) -> dict[str, Any]:
        """The dictionary that `result_of` reads back."""
        said = {"halt": self.halt, "note": self.note, "crashed": self.crashed}
        return {"done": True, "failed": self.message} | {k: v for k, v in said.items() if v}


@dataclass(frozen=True, kw_only=True)
class StandBy:
    """A process has waited a moment for a job; not a report."""

    note: ClassVar[str] = ""
    done: ClassVar[bool] = False

    def plain(self) -> dict[str, Any]:
        """The dictionary that `result_of` reads back."""
        return {"done": False, "failed": None, "standby": True}


Result = Reported | Failed | StandBy


def result_of(plain: Mapping[str, Any]) -> Result | None:
    """The result in a dictionary; None if it has none. Unknown keys are ignored."""
    if "failed" not in plain:
        return None
    if plain.get("standby"):
        return StandBy()
    note = plain.get("note", "")
    if plain["failed"] is not None:
        halt, crashed = plain.get("halt", ""), plain.get("crashed", False)
        return Failed(message=plain["failed"], halt=halt, note=note, crashed=crashed)
    given = {f.name: plain[f.name] for f in fields(Reported) if f.name in plain}
    event = event_of(plain["event"], "report.json") if plain.get("event") else None
    assert event is None or isinstance(event, FinalReport)
    return Reported(**given | {"settings": tuple(plain.get("settings", ())), "event": event})
