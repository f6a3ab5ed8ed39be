"""What the runs of a race say of the configuration that it recommends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ptal_ray.process.words import counted
from ptal_ray.study.cross_validation import GATE
from ptal_ray.study.view import StudyView, TrialView


def evidence(view: StudyView) -> dict[str, Any] | None:
    """What is known of the recommended configuration, JSON-able; scores are fractions.

    Returns:
        "trial" and "first" (what that trial scored), "mean" and "sd" of the posterior, from "cells"
        runs, and "new" and "new_runs": mean score and number of the runs of the comparison with
        the defaults, which the posterior does not use ("new" is None without any), and
        "defaults_failed": whether no run of the defaults has a score, so that they count as 0. None
        for the defaults, or where the policy has no posterior.
    """
    best = view.recommended
    if best is None or view.best is None:
        return None
    row = next((row for row in best.arms if row["arm"] == best.arm), None)
    if row is None or row["mean"] is None:
        return None
    own = [t for t in view.trials if t.arm == best.arm and t.stage == GATE]
    new = [value for t in own if (value := _score(t, best.setting)) is not None]
    found = {"trial": view.best.number, "first": view.best.objective}
    found |= {key: row[key] for key in ("mean", "sd", "cells")}
    found |= {"new": sum(new) / len(new) if new else None, "new_runs": len(new)}
    return found | {"defaults_failed": not any(t.arm == 0 for t in view.complete)}


def evidence_text(found: Mapping[str, Any]) -> str:
    """One sentence on the result of `evidence`, without a full stop; in percent."""
    said = (
        f"trial {found['trial']}: {100 * found['first']:.1f} in its own run; posterior mean "
        f"{100 * found['mean']:.1f} ± {100 * found['sd']:.1f} from {counted(found['cells'], 'run')}"
    )
    if found["new"] is not None:
        runs = counted(found["new_runs"], "new run")
        said += f"; {100 * found['new']:.1f} in {runs} of the comparison with the defaults"
    if found["defaults_failed"]:
        said += "; the defaults could not be trained and count as 0"
    return said


def _score(trial: TrialView, setting: int) -> float | None:
    """The score of a run at a decode setting as the comparison counts it: 0 if it diverged or has
    none, None if it has not ended or its process was lost."""
    if trial.state == "failed" and not trial.crashed:
        return 0.0
    if trial.state != "complete" or not trial.reports:
        return None
    settings = trial.reports[-1].settings
    value = settings[setting] if setting < len(settings) else math.nan
    return value if math.isfinite(value) else 0.0
