"""What `search --dry-run` says to a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_WIDTH = 12  # of the names of rows


def plan_text(plan: Mapping[str, Any]) -> str:
    """A line for each fact of a plan, its time and its room first.

    Args:
        plan: what `backends.preview.dry_run` gives.
    """
    return "\n".join(f"{name:<{_WIDTH}}{text}" for name, text in _rows(plan) if text)


def _rows(plan: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    data = plan["data"]
    yield "study", str(plan["study"])
    yield "data", f"{data['name']}, features: {data['features']}, in {data['store']}"
    yield "", str(data["note"])
    yield "", data["points"] and f"points drawn anew: {data['points']}"
    yield "trials", f"{plan['num_trials']} full ones, {_at_once(plan)}{_limit(plan)}"
    yield "plan", str(plan["plan"])
    yield "reports", f"at steps {_listed(plan['report_steps'])} of a trial"
    yield "searcher", f"{plan['searcher']}, scheduler {plan['scheduler']}, seed {plan['seed']}"
    yield "warm start", ", ".join(dict.fromkeys(plan["warm_start"]))
    yield "protocol", str(plan["protocol"])
    yield "each trial", _resources(plan["resources"])
    yield "time", str(plan["time"]["text"])
    yield "room", str(plan["storage"]["text"])
    yield "mlflow", str(plan["mlflow"])
    yield "reports in", str(plan["reports"])
    for k, rule in enumerate(plan["rules"]):
        yield "" if k else "from data", f"{rule['key']:<26}{rule['value']!s:<10}{rule['why']}"


def _limit(plan: Mapping[str, Any]) -> str:
    """How long the search may take; "" for as long as its trials do."""
    budget, hours = plan["time_budget_s"], plan["gpu_hours"]
    limits = [] if budget is None else [_clock(budget)]
    limits += [] if hours is None else [f"{hours:g} GPU hours"]
    return f", at most {' and '.join(limits)} for the search" if limits else ""


def _at_once(plan: Mapping[str, Any]) -> str:
    """Trials at a time: their number, or where only a cluster knows."""
    number = plan["concurrent_trials"]
    return f"{number} at a time" if isinstance(number, int) else str(number)


def _resources(own: Mapping[str, Any]) -> str:
    """What a trial occupies."""
    workers = own["workers"]
    gpus = f" and {own['gpus_per_worker']:g} GPU" if own["gpus_per_worker"] else ""
    several = f", {own['placement']}" if workers > 1 else ""
    return f"{workers} x ({own['cpus_per_worker']} CPU{gpus}){several}, {own['precision']}"


def _listed(numbers: Sequence[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
