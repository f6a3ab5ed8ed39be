"""Policies replayed on recorded searches whose truth is known, and what is wrong with a table."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recorded_table import STEPS, made_table

import ptal_ray
from ptal_ray.benchmarks import replay as replaying
from ptal_ray.benchmarks.__main__ import main
from ptal_ray.benchmarks.policies import POLICIES, Recommendation, drawn, race, raced, simple
from ptal_ray.benchmarks.replay import BUDGETS, RANDOM_RUNS, all_defaults, figures, replay
from ptal_ray.benchmarks.scorer import sealed_values
from ptal_ray.benchmarks.table import read_table
from ptal_ray.benchmarks.table_facts import facts
from ptal_ray.errors import ConfigError, DataError
from ptal_ray.policy.race import Race

FIGURES = {"p_worse", "gain", "worst_decile", "optimism", "spread", "cost_ratio"}
TRUTH = (0.5, *np.linspace(0.3, 0.6, 24))  # the best one gains 0.1


@pytest.fixture
def certain(tmp_path):
    """A table without noise."""
    return made_table(tmp_path / "certain", TRUTH)


def test_a_table_is_read_into_its_places(certain):
    table = read_table(certain)
    assert table.objective.shape == (25, 4, 3, 3, 3) and table.name == "certain"
    assert table.objective[2, 3, 1, -1, 2] == pytest.approx(TRUTH[2] + 0.03 * 3 + 0.01)
    assert table.objective[2, 3, 1, 0, 0] == pytest.approx(TRUTH[2] + 0.03 * 3 - 0.08)
    assert table.steps.tolist() == list(STEPS) and (table.eta, table.top, table.seeds) == (3, 2, 2)
    assert sealed_values(certain, table)[2, 1] == pytest.approx(TRUTH[2] - 0.1 - 0.02)


def test_coordinates_are_places_in_the_ranges(certain):
    places = read_table(certain).coordinates
    np.testing.assert_allclose(places[[0, 1, -1], 0], [0.5, 0, 1], atol=1e-12)
    apart = np.linalg.norm(places[0, 1:] - places[1, 1:])  # options a and b
    assert apart == pytest.approx(1)


def test_a_training_that_diverged_is_worth_nothing(certain):
    rows = pq.read_table(certain / "cells.parquet").to_pylist()
    rows[5] |= {"objective": [float("nan")] * 3, "cross_fitted": float("nan")}
    rewrite(certain / "cells.parquet", rows)
    table = read_table(certain)
    assert table.objective.min() == 0 and (table.objective == 0).sum() == 3


def test_a_search_draws_cells_whose_folds_rotate(certain):
    table = read_table(certain)
    orders = set()
    for seed in range(6):
        search, rows = drawn(table, 10, seed)
        assert rows[0] == 0 and sorted(rows) == list(range(25))
        fold = (search.objective[0, :, -1, 0] - TRUTH[0]) / 0.03
        folds = np.rint(fold).astype(int)
        assert sorted(folds[:4]) == [0, 1, 2, 3]
        np.testing.assert_array_equal(folds, np.tile(folds[:4], 3))
        np.testing.assert_allclose(search.objective[:, 0, -1, 0] - 0.03 * folds[0],
                                   np.array(TRUTH)[rows])  # fmt: skip
        orders.add((tuple(rows), tuple(folds[:4])))
    assert len(orders) == 6


def test_every_cell_of_a_search_is_another_training(tmp_path):
    table = read_table(made_table(tmp_path / "noisy", TRUTH, noise=0.1))
    search, _ = drawn(table, 10, 1)
    assert len(np.unique(search.objective[0, :, -1, 0])) == 12


@pytest.mark.parametrize("policy", ["race", "race+warm", "simple", "random", "one_cell"])
def test_without_noise_the_best_of_the_affordable_ones_is_found(certain, policy):
    table = read_table(certain)
    search, rows = drawn(table, 24, 0)
    best = POLICIES[policy](search)
    seen = {"random": 24, "one_cell": 12, "race": 12, "race+warm": 25, "simple": 25}[policy]
    name = policy if policy != "race" else "race_without_gate"
    found = best[name]
    assert rows[found.arm] == rows[:seen][np.array(TRUTH)[rows[:seen]].argmax()]
    assert found.setting == 2


def test_a_step_of_the_race_can_be_left_out(tmp_path, monkeypatch):
    table = read_table(made_table(tmp_path / "noisy", TRUTH, noise=0.03))
    search, _ = drawn(table, 24, 0)
    dropped = []
    drop = Race.drop
    monkeypatch.setattr(Race, "drop", lambda *given: dropped.append(1) or drop(*given))
    race(search)
    assert dropped
    dropped.clear()
    POLICIES["race_without_early_stop"](search)
    assert not dropped
    found = POLICIES["race_without_decoding"](search)["race_without_decoding"]
    assert race(search)["race"].setting == 2 and found.setting == 0


def test_an_earlier_search_of_other_configurations_helps(tmp_path):
    table = read_table(made_table(tmp_path / "noisy", TRUTH, noise=0.03))
    searches = [drawn(table, 12, seed) for seed in range(24)]
    gains = {
        name: np.mean([TRUTH[rows[POLICIES[name](s)[name].arm]] for s, rows in searches])
        for name in ("race", "race+warm")
    }
    assert gains["race+warm"] > gains["race"]


def test_successive_halving_spends_its_budget(certain):
    """1 of 5 full runs trains two again with one seed each; 3 are left for the search."""
    search, _ = drawn(read_table(certain), 5, 0)
    falling = np.array(search.cross_fitted)
    falling[:, 0] -= np.arange(25)[:, None]  # nobody but the defaults goes on
    found = simple(replace(search, cross_fitted=falling))["simple"]
    assert found.arm == 0
    rising = np.array(search.cross_fitted)
    rising[:, 0] += np.arange(25)[:, None]  # everybody goes on: 3 full runs
    found = simple(replace(search, cross_fitted=rising))["simple"]
    assert found.arm in (1, 2)


def test_a_race_stops_early_where_early_scores_told_the_last_ones(certain):
    search, _ = drawn(read_table(certain), 44, 0)
    done = raced(search)
    stopped = [arm for arm in done.arms if arm.stopped]
    assert stopped and all(not arm.cells for arm in stopped)
    assert not done.arms[0].stopped


def test_a_race_is_driven_within_its_budget(certain):
    search, _ = drawn(read_table(certain), 20, 0)
    done = raced(search)
    trained = sum(len(arm.cells) for arm in done.arms)
    assert 15 <= trained <= 21
    for arm, own in enumerate(done.arms):
        for index, values in own.cells.items():
            np.testing.assert_array_equal(values, search.objective[arm, index, -1])


def test_figures_of_a_certain_table(certain):
    found = replay([certain], ["random", "simple"], searches=40, budget=24, workers=1)
    assert (found["searches"], found["budget"]) == (40, 24)
    for values in found["tables"]["certain"].values():
        assert values.keys() == FIGURES | {"intervals"}
        assert values["intervals"].keys() == FIGURES
        for name in FIGURES:
            low, high = values["intervals"][name]
            assert values[name] is None or low <= values[name] <= high
    random = found["tables"]["certain"]["random"]
    assert random["p_worse"] == 0 and 0.1 <= random["gain"] <= 0.11 + 1e-9
    assert found["aa"]["certain"]["random"]["opened"] == 0  # no noise, no error


def test_figures_of_known_outcomes():
    gain = np.array([-0.2, -0.1, *[0.1] * 18])
    outcome = replaying.Outcome(
        gain=gain, test=0.5 + gain, optimism=np.full(20, 0.07), opened=np.ones(20)
    )
    curve = np.repeat(np.linspace(0, 0.1, len(BUDGETS))[:, None], 20, axis=1)
    found = figures(outcome, curve, target=0.05)
    assert found["p_worse"] == pytest.approx(0.1)
    assert found["gain"] == pytest.approx(0.075)
    assert found["worst_decile"] == pytest.approx(-0.15)
    assert found["optimism"] == pytest.approx(0.07)
    assert found["spread"] == pytest.approx(gain.std())
    middle = (BUDGETS[2] + BUDGETS[3]) / 2
    assert found["cost_ratio"] == pytest.approx(middle / RANDOM_RUNS)
    assert found["intervals"]["optimism"] == pytest.approx([0.07, 0.07])
    assert found["intervals"]["p_worse"][0] < 0.1 < found["intervals"]["p_worse"][1]
    assert figures(outcome, curve, target=0.2)["cost_ratio"] is None
    assert figures(outcome, curve, target=-1)["cost_ratio"] == BUDGETS[0] / RANDOM_RUNS


def test_optimism_is_the_claim_beyond_the_gain(certain, monkeypatch):
    table = read_table(certain)
    level = TRUTH[0] + 0.03 * 1.5
    claim = {"x": Recommendation(arm=0, setting=2, believed=level + 0.05)}
    monkeypatch.setitem(POLICIES, "x", lambda search: claim)
    found = replay([certain], ["x"], searches=10, budget=20, workers=1)
    values = found["tables"]["certain"]["x"]
    assert values["gain"] == pytest.approx(0.01)
    assert values["optimism"] == pytest.approx(0.04)
    assert values["spread"] == pytest.approx(0, abs=1e-9)
    assert table.name in found["aa"] and found["aa"]["certain"]["x"]["opened"] == 1


def test_in_the_null_table_nothing_is_better_than_the_defaults(tmp_path):
    table = read_table(made_table(tmp_path / "noisy", TRUTH, noise=0.05))
    many = np.stack([all_defaults(table, seed).objective for seed in range(200)])
    means = many.mean(axis=(0, 3))  # (C, F, R, J)
    truth = table.objective[0, :, :, :, 0].mean(axis=1)  # (F, R)
    np.testing.assert_allclose(means, np.broadcast_to(truth[None, ..., None], means.shape),
                               atol=0.015)  # fmt: skip
    own = table.objective[0, :, :, -1, 0]
    assert many[..., -1, 0].std(axis=(0, 1, 3)) == pytest.approx(
        np.sqrt(own.var(axis=1, ddof=1).mean()), rel=0.1
    )
    assert np.ptp(table.objective[:, 0, 0, -1, 0]) > 0.1  # of the table as it is


def test_the_gate_of_the_race_stays_shut_in_the_null_table(tmp_path):
    folder = made_table(tmp_path / "noisy", TRUTH, noise=0.03)
    found = replaying._all_played(None, read_table(folder), ["race"], 12, 20, null=True)
    opened = {name: replaying._opened(rows).mean() for name, rows in found.items()}
    assert opened["race"] <= 0.2 and opened["race_without_gate"] >= 0.5


def test_the_same_replay_gives_the_same_figures_however_many_processes_share_it(certain):
    alone, shared = (
        replay([certain], ["random", "one_cell"], searches=30, budget=8, workers=n) for n in (1, 2)
    )
    assert alone == shared


def test_facts_of_a_table_whose_truth_is_known(tmp_path):
    truth = np.array([0.5, *np.random.default_rng(3).normal(0.5, 0.04, 60)])
    folder = made_table(tmp_path / "known", truth, noise=0.06)
    found = facts(folder)
    assert found["sizes"] == [61, 4, 3, 3, 3]
    assert found["spread"] == pytest.approx(truth.std(ddof=1), abs=0.01)
    assert found["noise"] == pytest.approx(0.06, rel=0.1)
    assert found["test"] == pytest.approx(0.4)
    assert found["best_gain"] == pytest.approx(truth.max() - 0.5)
    assert found["best_decode_gain"] == pytest.approx(0.01)
    assert found["better"] == pytest.approx((truth[1:] > 0.5).mean())
    assert found["seconds"] == pytest.approx(4.5)
    assert found["rank_correlation"] == pytest.approx({1: 1.0, 3: 1.0})
    assert found["objective"] == pytest.approx(0.5 + 0.045, abs=0.06)


def test_show_prints_the_facts(certain, capsys):
    assert main(["show", str(certain)]) == 0
    text = capsys.readouterr().out
    assert (
        "25 configurations, 4 folds, 3 seeds" in text and "test mAP of the defaults: 40.0%" in text
    )
    assert main(["show", str(certain), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[str(certain)]["sizes"] == [25, 4, 3, 3, 3]


# The sealed file


def test_policies_run_where_the_test_values_are_gone(certain):
    before = recommendations(certain)
    (certain / "test.parquet").unlink()
    assert recommendations(certain) == before


def recommendations(folder):
    return [policy(drawn(read_table(folder), 12, 3)[0]) for policy in POLICIES.values()]


def test_only_the_scorer_opens_the_sealed_file():
    readers, named = set(), []
    for path in Path(ptal_ray.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Constant)]
        named += [path.name for n in nodes if n.value == "test.parquet"]
        for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
            words = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
            words |= {n.attr for n in ast.walk(function) if isinstance(n, ast.Attribute)}
            if "TEST" in words and words & {"columns", "read_table", "ParquetFile"}:
                readers.add((path.name, function.name))
    assert named == ["recording.py"]
    assert readers == {("scorer.py", "sealed_values")}


# Bad input


def rewrite(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)


def without_a_column(folder):
    table = pq.read_table(folder / "cells.parquet")
    pq.write_table(table.drop_columns("fold"), folder / "cells.parquet")


def without_a_row(folder):
    rewrite(folder / "cells.parquet", pq.read_table(folder / "cells.parquet").to_pylist()[1:])


def with_a_row_twice(folder):
    rows = pq.read_table(folder / "cells.parquet").to_pylist()
    rewrite(folder / "cells.parquet", [*rows[1:], rows[3]])


def with_another_step(folder):
    rows = pq.read_table(folder / "cells.parquet").to_pylist()
    rows[0]["step"] = 77
    rewrite(folder / "cells.parquet", rows)


def edited(**changes):
    def edit(folder):
        path = folder / "table.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def lacking(key):
    def edit(folder):
        path = folder / "table.json"
        about = json.loads(path.read_text())
        del about[key]
        path.write_text(json.dumps(about))

    return edit


DAMAGE = {
    "no folder": (lambda f: f.rename(f.with_name("other")), "table.json: No such file"),
    "no table.json": (lambda f: (f / "table.json").unlink(), "table.json: No such file"),
    "not JSON": (lambda f: (f / "table.json").write_text("{"), "table.json: damaged"),
    "version": (edited(version=7), "version 7, this program reads 1"),
    "no steps": (lacking("steps"), "no 'steps'"),
    "settings": (edited(settings=[{}]), "3 decode settings, 1 expected"),
    "unfinished": (lambda f: (f / "cells.parquet").unlink(), "the recording is not finished"),
    "no test": (lambda f: (f / "test.parquet").unlink(), "test.parquet: no such file"),
    "no Parquet": (
        lambda f: (f / "cells.parquet").write_text("x" * 50),
        "not a readable Parquet file",
    ),
    "column": (without_a_column, "no column fold"),
    "row": (without_a_row, "899 rows of 899 trainings and steps, 900 expected (25 x 4 x 3 x 3)"),
    "twice": (with_a_row_twice, "900 rows of 899 trainings"),
    "step": (with_another_step, "900 expected"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_what_is_wrong_with_a_table(certain, case, capsys):
    damage, message = DAMAGE[case]
    damage(certain)
    code = main(["replay", str(certain), "--policies", "random", "--workers", "1"])
    told = capsys.readouterr().err
    assert code == 3 and message in told and str(certain) in told


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--policies", "rase"], "'rase' is not a policy; give all, or names of race, race+warm"),
     (["--searches", "0"], "0: must be a whole number of at least 1"),
     (["--budget", "x"], "x: must be a whole")],
)  # fmt: skip
def test_flags_of_replay(words, message, capsys):
    with pytest.raises(SystemExit) as left:
        main(["replay", "folder", *words])
    assert left.value.code == 2 and message in capsys.readouterr().err


def test_two_tables_of_one_name(certain, tmp_path):
    (tmp_path / "deeper").mkdir()
    other = made_table(tmp_path / "deeper" / "certain", TRUTH)
    with pytest.raises(ConfigError, match="certain: two tables have this name"):
        replay([certain, other], ["random"], searches=10, budget=8, workers=1)


def test_the_command_prints_json_or_a_table(certain, capsys):
    words = ["replay", str(certain), "--policies", "random,simple", "--searches", "10",
             "--workers", "1"]  # fmt: skip
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tables"]["certain"].keys() == {"random", "simple"}
    assert main(words) == 0
    text = capsys.readouterr().out
    row = next(line for line in text.splitlines() if line.startswith("random"))
    gain = 100 * found["tables"]["certain"]["random"]["gain"]
    assert f"{gain:.1f} [" in row and "cost ratio" in text


def test_a_missing_test_value_is_named(certain):
    table = read_table(certain)
    rewrite(certain / "test.parquet", pq.read_table(certain / "test.parquet").to_pylist()[:-1])
    with pytest.raises(DataError, match=r"test.parquet: 74 rows .* 75 expected \(25 x 3\)"):
        sealed_values(certain, table)
