from __future__ import annotations

import pytest

from ptal_ray.data.datasets import DATASETS, import_hint, note, protocol
from ptal_ray.data.flags import parse


def test_thumos_like_thresholds_and_averages():
    found = protocol("thumos14")
    assert found.tiou == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert list(found.averages) == ["0.10-0.70", "0.10-0.50", "0.30-0.70"]
    assert found.averages["0.10-0.50"] == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert found.averages["0.30-0.70"] == (0.3, 0.4, 0.5, 0.6, 0.7)
    for name in ("watch", "gtea", "gtea_scores", "salads50_scores", "beoid", "an unknown one"):
        assert protocol(name) == found


@pytest.mark.parametrize("name", ["anet12", "anet13"])
def test_activitynet_thresholds(name):
    found = protocol(name)
    assert found.tiou == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    assert found.averages == {"0.50-0.95": found.tiou}


@pytest.mark.parametrize("name", DATASETS)
def test_averages_use_reported_thresholds(name):
    found = protocol(name)
    assert all(set(average) <= set(found.tiou) for average in found.averages.values())


@pytest.mark.parametrize("name", [n for n in DATASETS if n != "watch"])
def test_import_hints_are_commands_that_parse(name):
    commands = import_hint(name).split("`")[1::2]
    assert commands[0].startswith(f"python -m ptal_ray.data import {name} ")
    for command in commands:
        parse(command.split()[3:])


def test_what_simulates_and_what_is_noted():
    assert "data simulate anet13 " in import_hint("anet13")
    assert "data simulate thumos14 " in import_hint("thumos14")
    assert "simulate features" not in import_hint("gtea_scores")
    assert "data import other --features DIR" in import_hint("other")
    assert "trained with full labels" in note("gtea_scores") and note("other") == ""
