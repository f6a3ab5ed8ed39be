"""Earlier studies as evidence for a new one."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import numpy as np
import pytest
from test_race_study import FakeTrial, cells, run
from toy_study import fill, space, toy_store, use_toy

from ptal_ray.errors import ConfigError
from ptal_ray.reporting.report import write_report
from ptal_ray.search import main
from ptal_ray.study.choices import PAPER_COMPAT
from ptal_ray.study.events import EventLog, read_events
from ptal_ray.study.provenance import provenance
from ptal_ray.study.start_end import study_event
from ptal_ray.study.study import create_study, read_study
from ptal_ray.study.view import StudyView
from ptal_ray.study.warm_start import FIRST, MOST, Earlier, earlier_configurations, tried_first
from ptal_ray.tracking.runs import Round

pytestmark = pytest.mark.usefixtures("empty_plots")


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    use_toy(monkeypatch)


@pytest.fixture
def store(tmp_path):
    return toy_store(tmp_path)


@pytest.fixture
def earlier(store, tmp_path):
    """A study of six trials, whose best one is the fourth."""
    study = create_study(space(), store, tmp_path / "studies")
    EventLog(study.events).append(study_event(study))
    fill(study, [0.3, 0.1, 0.2, 0.9, 0.4, 0.5])
    return study


def of(*studies, **overrides):
    plan = space(*(f"{k}={json.dumps(v)}" for k, v in overrides.items()))
    return earlier_configurations([str(s.directory) for s in studies], plan, None)


def lrs(found):
    return [round(one.params["lr"], 9) for one in found]


def test_the_configurations_of_a_study_best_first(earlier):
    found, notes = of(earlier)
    assert lrs(found) == [0.013, 0.015, 0.014, 0.01, 0.012, 0.011]
    values = np.array([one.value for one in found])
    assert values.mean() == pytest.approx(0) and values.std() == pytest.approx(1)
    assert {one.study for one in found} == {earlier.name} and notes == []


def test_a_study_is_found_by_its_name_too(earlier):
    found, _ = earlier_configurations([earlier.name], space(), earlier.directory.parent)
    assert found == of(earlier)[0]


def test_values_outside_the_domains_move_inside_with_one_line(earlier):
    found, notes = of(earlier, **{"train.lr": {"loguniform": [0.05, 0.1]}})
    assert {one.params["lr"] for one in found} == {0.05}
    (note,) = notes
    assert "lr had values outside the domains" in note and "\n" not in note
    found, notes = of(earlier, **{"train.batch_size": {"choice": [8, 16]}})
    assert {one.params["batch_size"] for one in found} == {16} and "batch_size" in notes[0]
    found, _ = of(earlier, **{"train.lr": {"quniform": [0.02, 0.1, 0.02]}})
    assert set(lrs(found)) == {0.02}


def test_of_very_many_the_best_and_the_worst_are_kept(store, tmp_path):
    study = create_study(space(), store, tmp_path / "many")
    EventLog(study.events).append(study_event(study))
    fill(study, np.linspace(0, 1, 90).tolist())
    found, _ = of(study)
    assert len(found) == MOST
    assert (lrs(found)[0], lrs(found)[-1]) == (0.099, 0.01)


def test_the_defaults_and_the_bad_ones_do_not_come_first():
    rows = [(0.02, 2.0), (0.03, 1.5), (0.04, 1.0), (0.05, -1.0)]
    known = [Earlier(study="s", params={"lr": lr}, value=v) for lr, v in rows]
    assert tried_first(known, space()) == [{"lr": 0.03}, {"lr": 0.04}]


def race(store, folder, known=(), **settings):
    plan = replace(space("budget.trials=24"), policy="race")
    return create_study(plan, store, folder, **{"seed": 5, "warm_start": known} | settings)


def test_a_race_tries_them_first_and_searches_near_them(store, tmp_path):
    known, _ = of(_run(store, tmp_path / "first"))
    study = race(store, tmp_path / "warm", known)
    view = run(study)
    first = tried_first(known, study.space)
    assert len(first) == FIRST
    arms = {t.arm: t.params for t in view.trials}
    assert arms[0] == {"lr": 0.02} and [arms[k] for k in (1, 2, 3)] == first
    again = run(race(store, tmp_path / "again", known))
    assert cells(again) == cells(view)


def test_the_first_arms_come_nearer_to_the_best_than_without_evidence(store, tmp_path):
    known, _ = of(_run(store, tmp_path / "first"))
    warm, cold = ([_near(race(store, tmp_path / f"{len(own)}_{seed}", own, seed=seed))
                   for seed in range(10, 14)] for own in (known, ()))  # fmt: skip
    assert max(warm) < min(cold)


def _run(store, folder):
    study = race(store, folder, seed=1)
    run(study)
    return study


def _near(study):
    """How far the nearest of the first arms is from the best learning rate, as a logarithm."""
    arms = {t.arm: t.params["lr"] for t in run(study).trials}
    return min(abs(np.log(arms[k] / FakeTrial.best)) for k in range(1, FIRST + 1))


@pytest.mark.parametrize("policy", ["race", "simple"])
def test_a_resumed_study_goes_on_with_them(store, tmp_path, earlier, policy):
    known, _ = of(earlier)
    plan = replace(space("budget.trials=8"), policy=policy)
    made = [create_study(plan, store, tmp_path / k, warm_start=known) for k in ("a", "b")]

    class Killed(FakeTrial):
        left = 3

        def advance(self):
            type(self).left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return super().advance()

    with pytest.raises(KeyboardInterrupt):
        run(made[0], Killed)
    assert read_study(made[0].directory).warm_start == known
    assert cells(run(read_study(made[0].directory))) == cells(view := run(made[1]))
    assert view.trials[1].params == {"lr": pytest.approx(0.013)}
    events = read_events(made[1].events)
    assert events[0].warm_start == (earlier.name,)
    logged = Round(StudyView(), events, made[1].directory).updates["study"].params
    assert logged["warm_start"] == f'["{earlier.name}"]'


def test_the_command_in_the_report_finds_the_earlier_study(store, tmp_path, monkeypatch, earlier):
    monkeypatch.setattr("ptal_ray.study.start_end.provenance", provenance)
    elsewhere = tmp_path / "of an earlier year"
    earlier.directory.parent.rename(elsewhere)
    monkeypatch.chdir(tmp_path)
    given = f"of an earlier year/{earlier.name}"
    known, _ = earlier_configurations([given], space(), tmp_path / "studies")
    study = race(store, tmp_path / "warm", known)
    run(study)
    text = (write_report(study.directory, tmp_path / "reports") / "REPORT.md").read_text()
    (line,) = [line for line in text.splitlines() if "ptal_ray.search" in line]
    words = shlex.split(line)
    again, _ = earlier_configurations(
        [words[words.index("--warm-start") + 1]], space(), tmp_path / "studies"
    )
    assert again == known and str(tmp_path) not in line


def test_what_is_no_evidence_is_said_in_one_line(earlier, store, tmp_path):
    log = earlier.events.read_text()
    cases = {
        "of another method": log.replace('"method": "toy"', '"method": "other"'),
        "selected on the test split": log.replace(
            '"protocol": "sealed"', f'"protocol": "{PAPER_COMPAT}"'
        ),
        "has finished": log.splitlines()[0] + "\n",
        "the study cannot be read": "nonsense\n" + log,
    }
    for said, text in cases.items():
        earlier.events.write_text(text)
        expected = {"of another method": "a study of other, but toy is searched"}.get(said, said)
        with pytest.raises(ConfigError, match=expected) as caught:
            of(earlier)
        assert str(caught.value).startswith("--warm-start") and "\n" not in str(caught.value)
    for name in ("absent", "studies"):  # no folder, and one that is no study
        (tmp_path / "studies").mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match="--warm-start .*give"):
            earlier_configurations([str(tmp_path / name)], space(), None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["apn_watch", "--warm-start", "absent"], "--warm-start absent: no such study"),
        (
            ["apn_watch", "--searcher", "grid", "--warm-start", "s"],
            "cannot be combined with --searcher grid",
        ),
        (["--resume", "s", "--warm-start", "s"], "--warm-start: a resumed study keeps its own"),
    ],
)
def test_flags_of_a_warm_start(words, said, monkeypatch, capsys, tmp_path):
    monkeypatch.undo()  # of the toy
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
