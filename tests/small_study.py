"""A study whose trials train a small model for a second, on a tiny store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conftest import make_store
from test_trial import SMALL

from ptal_ray.data.store import FeatureStore
from ptal_ray.space.space import parse_space
from ptal_ray.study.events import EventLog
from ptal_ray.study.start_end import study_event
from ptal_ray.study.study import Study, create_study

METHOD = "lacp"  # its steps cost the least time of all
SPACE = """
method: {method}
dataset: tiny
policy: simple
selection: {{metric: val, val_fraction: 0.34, decode_settings: 2}}
budget: {{trials: 4, min_steps: 10, max_steps: 40, eta: 2}}
train:
  lr: {{loguniform: [1.0e-3, 1.0e-2]}}
  weight_decay: {{choice: [1.0e-5, 1.0e-4]}}
final: {{top: 2, seeds: 2}}
"""


def small_space(*overrides: str, method: str = METHOD) -> Any:
    """A space whose trials take a second."""
    fixed = [f"train.{k}={v}" for k, v in SMALL[method].items() if k != "lr"]
    text = SPACE.format(method=method)
    return parse_space(text, name="small", source="small.yaml", overrides=(*fixed, *overrides))


def small_study(folder: Path, *overrides: str, method: str = METHOD, **settings: Any) -> Study:
    store = FeatureStore.open(make_store(folder / "tiny", train=9))
    return create_study(
        small_space(*overrides, method=method), store, folder / "studies", **settings
    )


def begun(study: Study) -> Study:
    """The same study, whose log has its first event."""
    EventLog(study.events).append(study_event(study))
    return study
