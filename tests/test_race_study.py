"""A study whose policy is the race: cells as trials, resuming, what is recommended and tested."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from toy_race import FakeTrial, run
from toy_study import space, toy_store, use_toy

from ptal_ray.errors import ConfigError, DivergedError
from ptal_ray.reporting.early_stopping import early_stopping_text
from ptal_ray.reporting.outcome import show_summary, summary
from ptal_ray.reporting.outcome import test_figures as figures_of_tests
from ptal_ray.reporting.report import write_report
from ptal_ray.study import start_end
from ptal_ray.study.continuing import check_trials
from ptal_ray.study.events import read_events
from ptal_ray.study.provenance import provenance
from ptal_ray.study.recent import recent_studies
from ptal_ray.study.study import create_study, read_study
from ptal_ray.study.view import StudyView, best_yaml
from ptal_ray.training.stages import start


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    use_toy(monkeypatch)


@pytest.fixture
def store(tmp_path):
    return toy_store(tmp_path)


@pytest.fixture
def study(store, tmp_path):
    plan = replace(space("budget.trials=24"), policy="race")
    return create_study(plan, store, tmp_path / "studies", seed=5)


def cells(view):
    return [(t.arm, t.cell, t.fold, t.seed, t.stage, t.params) for t in view.trials]


def test_a_race_runs_to_its_end_and_names_one_winner(study, tmp_path):
    view = run(study)
    assert view.trials[0].params == {"lr": 0.02} and view.trials[0].arm == 0
    folds = {t.fold for t in view.trials}
    assert folds == set(range(study.num_folds))
    by_cell = {t.cell: (t.fold, t.seed) for t in view.trials}
    assert all((t.fold, t.seed) == by_cell[t.cell] for t in view.trials)
    assert len({seed for _, seed in by_cell.values()}) == len(by_cell)
    best = view.recommended
    assert best.verdict == "better"
    assert abs(np.log(best.params["lr"] / 0.05)) < abs(np.log(0.02 / 0.05))
    winner = view.trials[best.trial]
    assert (winner.arm, winner.cell, winner.params) == (best.arm, 0, best.params)
    assert view.best == winner
    assert {f.params["lr"] for f in view.runs("test", "best")} == {best.params["lr"]}
    assert f"lr: {best.params['lr']}" in best_yaml(view)
    assert not view.runs("reselect", "candidate1")
    outcome = summary(study, tmp_path / "report", ())
    assert outcome["recommended"] == best.short()
    assert outcome["best_trial"] == best.trial
    assert outcome["difference"]["low"] > 0
    said = show_summary(outcome)
    assert f"the configuration of trial {best.trial} is better" in said
    assert f"trial {best.trial}: {100 * winner.objective:.1f} in its own run" in said
    end = read_events(study.events)[-1]
    assert end.recommended == outcome["recommended"]
    assert [row["mean"] for row in end.arms if row["mean"] is not None] == sorted(
        (row["mean"] for row in end.arms if row["mean"] is not None), reverse=True
    )
    json.dumps(outcome)


def test_the_defaults_are_kept_where_nothing_beats_them(study, tmp_path):
    class Flat(FakeTrial):
        best = 0.02

    view = run(study, Flat)
    assert view.recommended.verdict in ("tie", "defaults")
    assert (view.recommended.trial, view.recommended.params) == (None, {})
    assert view.best is None
    assert view.arms("test") == ("default",)
    assert len(view.deployable()) == 2
    outcome = summary(study, tmp_path / "report", ())
    assert outcome["test"]["best"] == outcome["test"]["default"]
    unfinished = replace(view, end=replace(view.end, state="interrupted"))
    assert set(figures_of_tests(unfinished)) == {"default"}  # those of "best" may still follow
    said = show_summary(outcome)
    assert "the defaults are" in said and "recommended" not in said
    assert "lr: 0.02" in best_yaml(view)


@pytest.mark.parametrize("best", [0.05, 0.02])
def test_the_last_lines_and_the_report_hold_the_same_values(study, tmp_path, monkeypatch, best):
    """Also where the defaults, with a learning rate of 0.02, are recommended."""
    monkeypatch.setattr(start_end, "provenance", provenance)  # a report names hardware
    monkeypatch.setattr(FakeTrial, "best", best)
    view = run(study)
    report = write_report(study.directory, tmp_path / "reports")
    last = json.loads(json.dumps(summary(study, report, ())))
    whole = json.loads((report / "result.json").read_text())
    assert (view.recommended.verdict == "better") == (best == 0.05)
    shared = (last.keys() & whole.keys()) - {"study", "trials"}  # more is known of these there
    assert {"recommended", "verdict", "difference", "evidence", "test", "ensemble"} <= shared
    assert {k: last[k] for k in shared} == {k: whole[k] for k in shared}
    assert last["test"].keys() == {"best", "default"}
    assert (last["test"]["best"] == last["test"]["default"]) == (best == 0.02)
    assert len(whole["runs"]) == len(view.finals)
    assert whole["early_stopping"]["stopped"] == view.counts["pruned"] > 0
    assert early_stopping_text(view) in (report / "REPORT.md").read_text()
    if best == 0.05:
        _check_evidence(view, last, (report / "REPORT.md").read_text())
        assert last["evidence"]["trial"] == view.recommended.trial
        assert last["evidence"]["first"] == view.best.objective


def _check_evidence(view, last, text):
    """The posterior counts the runs before the gate; those of the gate stand beside it."""
    best, own = view.recommended, last["evidence"]
    runs = [t for t in view.trials if t.arm == best.arm and t.state == "complete"]
    new = [t.reports[-1].settings[best.setting] for t in runs if t.stage == "gate"]
    assert len(new) > 1 and own["new_runs"] == len(new) == best.difference["cells"]
    assert own["cells"] == len(runs) - len(new)
    assert own["new"] == pytest.approx(np.mean(new))
    said = f"{100 * np.mean(new):.1f} in {len(new)} new runs of the comparison with the defaults"
    assert f"from {own['cells']} run" in show_summary(last) and said in show_summary(last)
    assert said in text and f"{100 * own['mean']:.1f} ± {100 * own['sd']:.1f} from" in text


def test_an_interrupted_race_is_the_race_that_was_not(study, tmp_path, store):
    whole = create_study(study.space, store, tmp_path / "whole", seed=5)
    expected = run(whole)

    class Killed(FakeTrial):
        left = 0

        def advance(self):
            type(self).left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return super().advance()

    for reports in (3, 8, 11, 14):
        Killed.left = reports
        with pytest.raises(KeyboardInterrupt):
            run(read_study(study.directory), Killed)
    view = run(read_study(study.directory))
    assert cells(view) == cells(expected)
    assert replace(view.recommended, time=expected.recommended.time) == expected.recommended
    count = len(read_events(study.events))
    run(read_study(study.directory))
    assert [e.kind for e in read_events(study.events)[count:]] == ["study", "study_end"]


def test_a_trial_that_was_to_stop_stops_after_a_kill_too(study, tmp_path, store):
    expected = run(study)
    log = study.events.read_text().splitlines()
    stopped = {t.number: t.reports[-1].step for t in expected.trials if t.state == "pruned"}
    cuts = [
        number + 1
        for number, line in enumerate(map(json.loads, log))
        if line["event"] == "report" and stopped.get(line["trial"]) == line["step"]
    ]
    assert len(cuts) > 5
    for cut in cuts[::3]:
        other = create_study(study.space, store, tmp_path / f"cut{cut}", seed=5)
        other.events.write_text("\n".join(log[:cut]) + "\n")
        view = run(other)
        assert cells(view) == cells(expected)
        assert [t.state for t in view.trials] == [t.state for t in expected.trials]


def test_a_finalist_that_diverges_in_the_gate_is_not_recommended(
    study, tmp_path, store, monkeypatch
):
    monkeypatch.setattr(start_end, "provenance", provenance)  # a report names hardware
    first = run(study)
    assert first.recommended.verdict == "better"
    gate = {t.seed for t in first.trials if t.stage == "gate"}

    class Fragile(FakeTrial):
        def advance(self):
            if self.config.seed in sorted(gate)[1:] and self.config.train["lr"] != 0.02:
                raise DivergedError("train/loss_total: nan by step 2; lower lr")
            return super().advance()

    view = run(create_study(study.space, store, tmp_path / "again", seed=5), Fragile)
    assert [t.state for t in view.trials if t.stage == "gate"].count("failed") == len(gate) - 1
    assert view.recommended.verdict == "tie"
    met = {t.arm for t in view.trials if t.stage == "gate"} - {0}
    first = min(t.number for t in view.trials if t.arm in met)
    _check_tie(view, f"trial {first} is", tmp_path)


def test_a_tie_of_the_decoding_alone_names_it(store, tmp_path, monkeypatch):
    """All other configurations are worse, and one decode setting is better in some runs."""
    monkeypatch.setattr(start_end, "provenance", provenance)  # a report names hardware

    class Decoded(FakeTrial):
        def advance(self):
            told = super().advance()
            rng = np.random.default_rng([self.config.seed, self.config.fold])
            base = 0.5 if self.config.train["lr"] == 0.02 else 0.2
            gain = 0.03 + 0.05 * rng.normal()
            return replace(told, settings=(base, base + gain, 0.1, 0.1)[: len(told.settings)])

    plan = replace(space("budget.trials=16"), policy="race")
    view = run(create_study(plan, store, tmp_path / "alone", seed=1), Decoded)
    assert view.recommended.verdict == "tie"
    assert {t.arm for t in view.trials if t.stage == "gate"} == {0}
    _check_tie(view, "the defaults with tuned decoding are", tmp_path)


def _check_tie(view, named, folder):
    """The terminal, REPORT.md and result.json name what was compared with the defaults."""
    study = read_study(next(folder.glob(f"*/{view.study.study}")))
    report = write_report(study.directory, folder / "reports")
    shown = show_summary(summary(study, report, ()))
    assert f"verdict {named} not distinguishable from the defaults: " in shown
    text = (report / "REPORT.md").read_text()
    assert f"Verdict: {named} not distinguishable from the defaults, which are kept" in text
    assert "| parameter | recommended | default |" in text
    compared = json.loads((report / "result.json").read_text())["compared"]
    assert named.startswith(compared)


def test_a_resumed_race_takes_its_own_budget_again(study):
    class Killed(FakeTrial):
        left = 60

        def advance(self):
            type(self).left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return super().advance()

    with pytest.raises(KeyboardInterrupt):
        run(study, Killed)
    begun = len(StudyView.read(study.directory).trials)
    assert begun > 16
    check_trials(study, 24)  # whose full runs are fewer than the trials that have started
    with pytest.raises(ConfigError, match=r"full runs of this study are used; must be at least"):
        check_trials(study, 5)
    run(study)
    with pytest.raises(ConfigError, match="the search of this study has ended"):
        check_trials(study, 48)


def test_a_finished_race_of_many_arms_is_done(study):
    view = run(study)
    end = replace(view.end, arms=view.end.arms * 40)
    lines = study.events.read_text().splitlines()
    study.events.write_text("\n".join([*lines[:-1], json.dumps(end.line())]) + "\n")
    assert len(json.dumps(end.line())) > 1 << 17
    assert [one.state for one in recent_studies(study.directory.parent, 3)] == ["done"]


def test_other_seeds_make_other_races(study, store, tmp_path):
    other = create_study(study.space, store, tmp_path / "other", seed=6)
    assert cells(run(study)) != cells(run(other))


def test_a_race_of_one_trial_keeps_the_defaults(study):
    view = run(replace(study, num_trials=1))
    assert len(view.trials) == 1
    found = view.recommended
    assert (found.verdict, found.trial, found.difference["cells"]) == ("tie", None, 0)


def test_a_space_of_decode_parameters_alone_tests_decoding(store, tmp_path):
    class Decoded(FakeTrial):
        def advance(self):
            found = super().advance()
            plain = found.settings[0]
            return replace(found, settings=(plain, *[plain + 0.1] * (len(found.settings) - 1)))

    plan = replace(space("budget.trials=12", "train.lr=0.02"), policy="race")
    view = run(create_study(plan, store, tmp_path / "studies"), Decoded)
    found = view.recommended
    assert (found.verdict, found.trial, found.params) == ("better", None, {})
    assert found.difference["mean"] == pytest.approx(0.1)
    assert {t.arm for t in view.trials} == {0} and 4 <= len(view.trials) <= 12


def test_gpu_hours_end_a_race(study):
    gpu = replace(study.space.resources, gpus_per_worker=1.0)
    plan = replace(study, space=replace(study.space, resources=gpu), gpu_hours=0.5 / 3600)
    view = run(plan)  # each trial says that it took a tenth of a second
    assert len(view.trials) < 10
    assert view.recommended.verdict in ("better", "tie", "defaults")


def test_a_race_trains_on_real_folds(study, store):
    view = run(replace(study, num_trials=8), start)
    complete = [t for t in view.trials if t.state == "complete"]
    assert complete and all(len(t.reports[-1].settings) == 4 for t in complete)
    assert StudyView.read(study.directory).recommended is not None


@pytest.mark.parametrize("name", ["tpe", "random", "grid", "gp", "cmaes"])
def test_every_searcher_suggests_for_a_race(study, name):
    view = run(replace(study, searcher=name, num_trials=24))
    arms = {t.arm: t.params["lr"] for t in view.trials}
    assert len(set(arms.values())) == len(arms) > 6
    assert all(study.space.train["lr"].contains(lr) for lr in arms.values())


@pytest.mark.parametrize("policy", ["simple", "race"])
def test_no_trial_starts_once_the_gpu_hours_are_used(store, tmp_path, policy):
    """Each trial says that it took a tenth of a second, at whatever step it stopped."""
    plan = replace(space("budget.trials=24", "resources.gpus_per_worker=1"), policy=policy)
    view = run(create_study(plan, store, tmp_path, seed=1, gpu_hours=0.45 / 3600))
    assert len(view.trials) == 5 if policy == "simple" else len(view.trials) <= 5
    assert view.recommended is not None and view.runs("test", "default")
