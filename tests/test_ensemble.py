"""Averaged scores: which arms are averaged, what that is worth, and the row of the report."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from test_race_study import run
from toy_method import METHOD as TOY
from toy_study import space, toy_store, use_toy

from ptal_ray.data.types import Scores
from ptal_ray.policy.ensemble import choose_members, common_cells, find_ensemble
from ptal_ray.reporting import ensemble as rows
from ptal_ray.reporting.ensemble import ensemble_row, ensemble_section
from ptal_ray.reporting.outcome import show_summary, summary
from ptal_ray.reporting.report import write_report
from ptal_ray.space.members import Member
from ptal_ray.space.space import load_space
from ptal_ray.study.provenance import provenance
from ptal_ray.study.study import create_study
from ptal_ray.training.averaging import averaged

pytestmark = pytest.mark.usefixtures("empty_plots")


def scores(*values, **more):
    return [Scores(id="v", arrays={"a": np.array(values, np.float32)} | more)]


def test_scores_are_averaged_video_by_video():
    (found,) = averaged([scores(0, 1), scores(1, 1), scores(1, 1)])
    assert found.arrays["a"].tolist() == pytest.approx([2 / 3, 1]) and found.id == "v"
    assert found.arrays["a"].dtype == np.float32


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (scores(1, 2, 3), "a of two models differ in shape"),
        ([Scores(id="v", arrays={"a": np.zeros(2)})], "a of two models differ in shape or type"),
        ([Scores(id="w", arrays={"a": np.zeros(2, np.float32)})], "scores of different videos"),
        ([Scores(id="v", arrays={})], "a of two models differ"),
        (scores(1, 2, b=np.zeros(1)), "or different arrays"),
    ],
)
def test_scores_of_another_structure_have_no_average(other, said):
    with pytest.raises(ValueError, match=said):
        averaged([scores(1, 2), other])


def test_whole_numbers_must_be_equal():
    one, same = (scores(1, 2, b=np.array([3])) for _ in range(2))
    assert averaged([one, same])[0].arrays["b"].tolist() == [3]
    with pytest.raises(ValueError, match="b are not numbers that can be averaged"):
        averaged([one, scores(1, 2, b=np.array([4]))])


def near(target):
    """A judge: the nearer the mean of the arms' numbers to a target, the better."""
    return lambda members, cell: 1 - abs(np.mean(members) - target[cell])


def test_members_are_added_while_they_help_and_may_come_twice():
    assert choose_members(0, [0, 1], [0], near([1.0])) == (0, 1, 1, 1, 1)
    assert choose_members(0, [0, 1, 3], [0], near([1.5])) == (0, 3)
    assert choose_members(0, [0, 1], [0], near([0.0])) == (0,)


def test_a_cell_is_judged_by_members_that_the_others_chose():
    found = find_ensemble(0, [0, 2], [0, 1], near([0.0, 1.0]))
    # the second cell alone takes (0, 2), which loses 1 in the first; the first takes (0,)
    assert found.value == pytest.approx(np.mean([0.0, 0.0]))
    assert found.difference.mean == pytest.approx(-0.5) and found.difference.cells == 2


def test_an_ensemble_passes_by_the_error_rate_of_the_gate():
    def worth(gains):
        return lambda members, cell: gains[cell] * (len(set(members)) - 1)

    assert find_ensemble(0, [0, 1], [0, 1, 2], worth([0.02, 0.025, 0.03])).lacks == ""
    uncertain = find_ensemble(0, [0, 1], [0, 1, 2], worth([0.001, 0.1, 0.3]))
    assert uncertain.difference.mean > 0.1 and "within the noise" in uncertain.lacks
    alone = find_ensemble(0, [0], [0, 1, 2], worth([0.1, 0.1, 0.1]))
    assert alone.lacks == "no other arm improves it"


def test_two_cells_that_gain_the_same_prove_nothing():
    found = find_ensemble(0, [0, 1], [0, 1], lambda members, cell: 0.5 + 0.02 * len(set(members)))
    assert found.difference.cells == 2 and "within the noise" in found.lacks


def test_an_arm_that_the_same_cells_chose_proves_nothing():
    found = find_ensemble(0, [0, 1], [0, 1, 2], lambda members, cell: 0.5 + 0.1 * np.mean(members))
    assert found.difference.p < 0.05 and "an arm alone is better" in found.lacks


def simulated_search(rng):
    """The ensemble of the defaults and the luckiest of arms that are all equal."""
    own = rng.normal(0.5, 0.02, (12, 4))
    best = sorted(range(1, 12), key=lambda arm: -own[arm].mean())[:3]

    @cache
    def judge(members, cell):
        luck = rng.normal(0, 0.02) if len(set(members)) > 1 else 0.0
        return own[list(members), cell].mean() + luck

    return find_ensemble(0, [0, *best], range(4), judge)


def test_chosen_arms_that_are_no_better_pass_in_at_most_five_percent():
    rng = np.random.default_rng(0)
    found = [simulated_search(rng) for _ in range(200)]
    assert np.mean([one.difference.p <= 0.05 for one in found]) > 0.05  # they were lucky
    assert np.mean([not one.lacks for one in found]) <= 0.05


def test_arms_that_share_cells_with_the_single_one():
    cells = {3: {0, 1, 2}, 1: {0}, 0: {0, 1, 2, 5}, 2: {1, 2}}
    assert common_cells(cells, 0, 4) == ([0, 3, 2], [1, 2])
    assert common_cells(cells, 0, 2) == ([0, 3], [0, 1, 2])


@pytest.fixture
def study(tmp_path, monkeypatch):
    use_toy(monkeypatch)
    monkeypatch.setattr(rows, "load", lambda name: TOY)
    monkeypatch.setattr(
        "ptal_ray.study.start_end.provenance", provenance
    )  # a report names hardware
    plan = replace(space("budget.trials=24"), policy="race")
    return create_study(plan, toy_store(tmp_path), tmp_path / "studies", seed=5)


def test_the_report_has_a_row_that_is_not_recommended(study, tmp_path):
    from ptal_ray.training.stages import start

    view = run(study, start)
    row = ensemble_row(view, study.directory)
    assert row["note"] == "" and row["test"] == "not read on test"
    assert sum(m["times"] for m in row["members"]) <= 5
    assert row["validation"] - row["single"] == pytest.approx(row["difference"]["mean"])
    assert all(view.trials[m["trial"]].arm == m["arm"] for m in row["members"])
    assert (
        "each with members chosen on the others. Test mAP: not read on test."
        in (ensemble_section(row, "train")[0])
    )
    report = write_report(study.directory, tmp_path / "reports")
    assert json.loads((report / "result.json").read_text())["ensemble"] == row
    assert summary(study, report, ())["ensemble"] == row
    assert "## Ensemble" in (report / "REPORT.md").read_text()


def judged_by(monkeypatch, gain):
    """Every other arm among the members is worth a gain."""
    monkeypatch.setattr(
        rows._Scores,
        "judge",
        lambda self, members, cell: 0.5 + gain * (len(set(members)) - 1) + 0.001 * cell,
    )


def test_the_best_yaml_names_the_members_of_an_ensemble_that_passes(study, tmp_path, monkeypatch):
    view = run(study)
    judged_by(monkeypatch, 0.1)
    report = write_report(study.directory, tmp_path / "reports")
    row = json.loads((report / "result.json").read_text())["ensemble"]
    assert row["offered"] and len(row["members"]) > 1
    best, plain = load_space(report / "best.yaml"), view.best_config()[0]
    members = tuple(Member(times=m["times"], train=m["train"]) for m in row["members"])
    assert best.ensemble == members and replace(best, ensemble=()).train_defaults() == plain
    for named, member in zip(row["members"], members, strict=True):
        whole = best.freeze(member.train, {}).train_defaults()
        assert whole == best.train_defaults() | view.trials[named["trial"]].params
    head = (report / "best.yaml").read_text().partition("method:")[0]
    assert f"trial {row['members'][0]['trial']} x" in head and "what the study recommends" in head
    command = "best.yaml --test --seed 6 --ensemble --out runs/ensemble"
    assert f"reports/{report.name}/{command}" in (report / "REPORT.md").read_text()
    said = show_summary(summary(study, report, ()))
    assert f"{report}/{command}" in said and "; not read on test" in said


@pytest.mark.parametrize("gain", [0.0, -0.1])
def test_an_ensemble_that_fails_is_no_part_of_best_yaml(study, tmp_path, monkeypatch, gain):
    run(study)
    judged_by(monkeypatch, gain)
    report = write_report(study.directory, tmp_path / "reports")
    assert not json.loads((report / "result.json").read_text())["ensemble"]["offered"]
    assert load_space(report / "best.yaml").ensemble == ()
    assert "ensemble" not in (report / "best.yaml").read_text()
    assert "--ensemble" not in (report / "REPORT.md").read_text()
    assert "--ensemble" not in show_summary(summary(study, report, ()))


def test_a_row_says_why_there_is_no_ensemble(study):
    view = run(study)
    for path in study.directory.glob("trials/*/scores.npz"):
        path.unlink()
    row = ensemble_row(view, study.directory)
    assert row["members"] == [] and "scores in two cells or more" in row["note"]
    assert row["note"] in ensemble_section(row, "train")[0]
