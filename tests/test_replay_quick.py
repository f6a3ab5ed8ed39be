"""Quick tries: replays of few searches, and of tables of one seed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from recorded_table import made_table

from ptal_ray.benchmarks.__main__ import main
from ptal_ray.benchmarks.policies import POLICIES
from ptal_ray.benchmarks.replay import all_defaults
from ptal_ray.benchmarks.table import read_table

TRUTH = (0.5, *np.linspace(0.3, 0.6, 24))


def test_the_null_table_of_one_seed_has_the_noise_of_the_folds(tmp_path):
    table = read_table(made_table(tmp_path / "once", TRUTH, noise=0.05, seeds=1))
    many = np.stack([all_defaults(table, seed).objective for seed in range(200)])
    own = table.objective[0, :, 0, -1, 0]
    means = many[..., -1, 0].mean(axis=(0, 3))
    np.testing.assert_allclose(means, np.full_like(means, own.mean()), atol=0.02)
    assert many[..., -1, 0].std() == pytest.approx(own.std(ddof=1), rel=0.05)


@pytest.mark.parametrize("folds", [2, 4])
def test_one_search_of_every_policy_on_a_table_of_one_seed(tmp_path, folds, capsys):
    folder = made_table(tmp_path / "once", TRUTH[:4], noise=0.02, folds=folds, seeds=1)
    assert main(["replay", str(folder), "--searches", "1", "--workers", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tables"]["once"].keys() == POLICIES.keys() | {"race_without_gate"}
    for values in (*found["tables"]["once"].values(), *found["aa"]["once"].values()):
        intervals = values.pop("intervals")
        assert intervals == {name: [value] * 2 for name, value in values.items()}
    assert found["aa"]["once"].keys() == found["tables"]["once"].keys()


def test_a_row_of_the_race_names_the_race(tmp_path, capsys):
    certain = made_table(tmp_path / "certain", TRUTH)
    words = ["replay", str(certain), "--searches", "2", "--workers", "1", "--json"]
    for names in ("race_without_gate", "race,race_without_gate"):
        assert main([*words, "--policies", names]) == 0
        found = json.loads(capsys.readouterr().out)["tables"]["certain"]
        assert list(found) == ["race", "race_without_gate"]
