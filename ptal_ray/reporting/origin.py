"""What both reports say of the configuration that was found and of where its numbers come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptal_ray.space.domain import Domain
from ptal_ray.study.view import StudyView

MOST_SEEDS = 6  # of the trials that are listed


def changed(view: StudyView) -> list[tuple[str, Any, Any, str]]:
    """The parameters of the best configuration that were searched or differ from their default:
    name, value, default, and the domain or "fixed". Empty before a trial is complete."""
    best = view.best_config()
    if best is None:
        return []
    rows = []
    for section, found in (("train", best[0]), ("decode", best[1])):
        searched = view.study.space.get(section, {})
        for name, value in found.items():
            default, domain = view.study.defaults[section].get(name), searched.get(name)
            if isinstance(domain, dict):
                rows.append((f"{section}.{name}", value, default, _domain(domain)))
            elif value != default:
                rows.append((f"{section}.{name}", value, default, "fixed"))
    return rows


def as_text(value: Any) -> str:
    """A value as text."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _domain(domain: Mapping[str, Any]) -> str:
    """Its values; the default stands in a column of its own."""
    found = Domain.from_dict(domain)
    return f"{found.kind} [{', '.join(as_text(a) for a in found.args)}]"


def origin(view: StudyView) -> dict[str, str]:
    """Machine, versions and commit of a study."""
    study, machine = view.study, view.study.hardware
    return {
        "machine": f"{machine['cpus']} CPUs ({machine['cpu']}), {machine['memory_gib']} GiB, "
        f"GPUs: {', '.join(machine['gpus']) or 'none'}",
        "versions": ", ".join(f"{k} {v}" for k, v in study.versions.items() if v),
        "commit": study.git_commit or "not from a checkout",
    }


def seconds_of(view: StudyView) -> str:
    """Seconds from the first to the last event."""
    return f"{view.updated - view.started if view.started and view.updated else 0.0:.0f} s"


def seeds_of(view: StudyView) -> str:
    """Of the search, of its trials where they have others, and of the runs after it."""
    first = view.study.seed
    trials = sorted({t.seed for t in view.trials if t.seed is not None} or {first})
    said = f"{first} for the search"
    if trials != [first]:
        shown = [str(seed) for seed in trials]
        if len(trials) > MOST_SEEDS:
            shown[MOST_SEEDS - 1 : -1] = ["..."]
        said = f"{first} for the choices of the search, {', '.join(shown)} for its trials"
    after = [first + 1 + r.seed if r.run_seed is None else r.run_seed for r in view.finals]
    if not after:
        return said
    last = f" to {max(after)}" if max(after) > min(after) else ""
    return f"{said}, {min(after)}{last} for the runs after it"
