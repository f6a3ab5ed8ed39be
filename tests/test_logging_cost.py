"""The benchmark of what MLflow adds to a study."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptal_ray.benchmarks import logging_cost


def test_a_logged_study_costs_time_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging_cost, "TRIAL_S", 0.4)
    with_mlflow, without = (
        logging_cost.one_study(2, 2, "simple", logged) for logged in (True, False)
    )
    assert min(with_mlflow["reports"], without["reports"]) >= 2 * logging_cost.REPORTS
    assert with_mlflow["cpu_s"] > without["cpu_s"] > 0
    assert with_mlflow["wall_s"] > 0.4 > without["connect_s"]
    assert with_mlflow["cpu_s"] > with_mlflow["connect_cpu_s"] > without["connect_cpu_s"]
    assert list(tmp_path.iterdir()) == []
