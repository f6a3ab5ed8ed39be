"""Sections on the configuration that was found, and on where its numbers come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ptal_ray.reporting.html.outcome import note
from ptal_ray.reporting.html.page import Section, paragraph, table
from ptal_ray.reporting.html.page import shown as text
from ptal_ray.reporting.text import seeds_of
from ptal_ray.study.captions import arm_label
from ptal_ray.study.view import StudyView


def configuration(view: StudyView) -> Section:
    """What differs between the best found and the defaults, or was searched."""
    best = view.best_config()
    if best is None:
        parts = [note("No trial is complete.")]
        return Section(key="configuration", title="Configuration", parts=parts)
    rows: list[list[Any]] = []
    for section, found in (("train", best[0]), ("decode", best[1])):
        searched = view.study.space.get(section, {})
        for name, value in found.items():
            default = view.study.defaults[section].get(name)
            domain = searched.get(name)
            if isinstance(domain, dict) or value != default:
                said = _domain(domain) if isinstance(domain, dict) else "fixed"
                same = "" if value == default else "differs"
                rows.append([f"{section}.{name}", text(value), text(default), same, said])
    head = ["parameter", arm_label(view, "best"), "default", "", "searched"]
    said = "Parameters that were searched or differ from their default; best.yaml holds all."
    parts = [table(head, rows), note(said)]
    return Section(key="configuration", title="Configuration", parts=parts)


def _domain(domain: Mapping[str, Any]) -> str:
    ((kind, args),) = ((key, value) for key, value in domain.items() if key != "default")
    return f"{kind} [{', '.join(text(a) for a in args)}]"


def provenance(view: StudyView, commands: Sequence[str]) -> Section:
    """Machine, versions, data, seeds, and the commands that repeat the study."""
    study, machine = view.study, view.study.hardware
    seconds = view.updated - view.started if view.started and view.updated else 0.0
    rows = [
        ["machine", f"{machine['cpus']} CPUs ({machine['cpu']}), {machine['memory_gib']} GiB, "
                    f"GPUs: {', '.join(machine['gpus']) or 'none'}"],
        ["versions", ", ".join(f"{k} {v}" for k, v in study.versions.items() if v)],
        ["commit", study.git_commit or "not from a checkout"],
        ["data", f"{study.dataset}, {study.features}, content {study.data_hash}"],
        ["search", f"{study.searcher}, {study.scheduler}, seed {study.seed}"],
        ["seeds", seeds_of(view)],
        ["from the first to the last event", f"{seconds:.0f} s"],
        ["incidents", str(len(view.incidents))],
    ]  # fmt: skip
    listed = "<pre>" + escape("\n".join(commands)) + "</pre>"
    said = paragraph("These commands repeat the search and the first test run of what it found:")
    return Section(
        key="provenance", title="Provenance", parts=[table(["", ""], rows), said, listed]
    )
