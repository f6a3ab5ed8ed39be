"""The Optuna searcher: suggestions, states, and a journal that survives a kill."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import optuna
import pytest
from conftest import make_store
from optuna.trial import TrialState

from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError
from ptal_ray.methods import method as methods
from ptal_ray.methods.method import DecodeParams, Method, TrainParams, param
from ptal_ray.policy.optuna_searcher import JOURNAL, OptunaSearcher, grid, open_journal
from ptal_ray.policy.policies import make_policy
from ptal_ray.policy.samplers import sampler
from ptal_ray.space.domain import Domain
from ptal_ray.space.space import parse_space
from ptal_ray.study.choices import SEARCHERS
from ptal_ray.study.event_types import Report
from ptal_ray.study.study import Study, create_study
from ptal_ray.study.view import TrialView

SPACE = """
method: toy
dataset: tiny
policy: simple
selection: {metric: val, val_fraction: 0.3, decode_settings: 4}
budget: {trials: 12, min_steps: 2, max_steps: 8, eta: 2}
train: {lr: {loguniform: [1e-3, 1e-1]}, width: {choice: [8, 16, 32]}}
final: {top: 2, seeds: 2}
"""


@dataclass(frozen=True, kw_only=True)
class ToyTrain(TrainParams):
    lr: float = param(0.02, doc="learning rate", source="PROPOSED", allowed=(1e-6, 1.0))
    width: int = param(16, doc="hidden units", source="PROPOSED", allowed=(1, 64))
    share: float = param(0.5, doc="a share", source="PROPOSED", allowed=(0.0, 1.0))
    deep: bool = param(True, doc="a switch", source="PROPOSED")
    kind: str = param("a", doc="a name", source="PROPOSED", allowed=("a", "b"))


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    """A method of which only the parameters are looked at."""
    method = Method(
        name="toy", supervision="point", train_params=ToyTrain, decode_params=DecodeParams,
        build=None, loss=None, scores=None, decode=None,
    )  # fmt: skip
    monkeypatch.setattr(methods, "load", lambda name: method)
    monkeypatch.setattr(methods, "names", lambda: ("toy",))


@pytest.fixture
def store(tmp_path):
    return FeatureStore.open(make_store(tmp_path / "tiny", train=12, test=3))


@pytest.fixture
def make(store, tmp_path):
    """Makes a study of the toy space with some of its fields replaced."""

    def study(train=None, **settings) -> Study:
        space = parse_space(SPACE, name="toy_tiny", source="toy_tiny.yaml")
        if train is not None:
            space = replace(
                space, train={k: Domain(kind=v[0], args=v[1]) for k, v in train.items()}
            )
        return create_study(space, store, tmp_path / "studies", **{"seed": 3} | settings)

    return study


def journal(study) -> optuna.Study:
    """The study as optuna-dashboard opens it."""
    storage = open_journal(study.directory / JOURNAL)
    return optuna.load_study(study_name=study.name, storage=storage)


def value(params) -> float:
    return 1 / (1 + abs(math.log10(params["lr"]) + 2))


def work(searcher, numbers, last=8):
    """Suggests and completes trials; returns their parameters."""
    found = []
    for number in numbers:
        params = searcher.suggest(number)
        found.append(params)
        for step in (2, 4, 8):
            if step <= last:
                searcher.report(number, step, value(params) * step / 8)
        searcher.finish(number, "complete" if last == 8 else "pruned")
    return found


def views(study, found, state="complete"):
    """Trials as the event log tells them."""
    return tuple(
        TrialView(
            number=n, params=p, state=state,
            reports=tuple(
                Report(time=0.0, trial=n, step=s, objective=value(p) * s / 8, metrics={}, decode={},
                       seconds=0.0) for s in (2, 4, 8)
            ),
        )
        for n, p in enumerate(found)
    )  # fmt: skip


def test_every_searcher_has_a_sampler_and_an_unknown_name_is_an_error():
    for past in (None, []):
        kinds = {name: type(sampler(name, [0, 1], past)) for name in SEARCHERS}
        assert len(set(kinds.values())) == len(SEARCHERS) - 1  # a grid draws the rest at random
        with pytest.raises(ConfigError, match="--searcher tep: .*; allowed are tpe, random"):
            sampler("tep", [0, 1], past)


@pytest.mark.parametrize("name", ["tpe", "random", "gp", "cmaes"])
def test_suggestions_lie_in_their_domains_and_the_first_are_the_defaults(make, name, capfd):
    train = {
        "lr": ("loguniform", (1e-3, 1e-1)),
        "width": ("lograndint", (8, 33)),
        "batch_size": ("randint", (2, 5)),
        "share": ("quniform", (0.1, 0.65, 0.1)),
        "weight_decay": ("uniform", (0.0, 0.5)),
        "deep": ("choice", (True, False)),
        "kind": ("choice", ("a", "b")),
    }
    study = make(train, searcher=name)
    searcher = OptunaSearcher(study)
    found = work(searcher, range(30))
    for params in found:
        assert list(params) == list(train)
        for key, domain in study.space.train.items():
            assert domain.contains(params[key]), (key, params[key])
            assert type(params[key]) is type(study.space.train_defaults()[key])
    defaults = study.space.train_defaults()
    inside = [k for k, d in study.space.train.items() if d.contains(defaults[k])]
    assert "batch_size" not in inside  # 16 is not, so it is drawn
    assert {k: found[0][k] for k in inside} == {k: defaults[k] for k in inside}
    if name in ("tpe", "random"):  # the others look elsewhere less often
        assert {p["batch_size"] for p in found} == {2, 3, 4}
        assert max(p["share"] for p in found) == 0.6  # the last step inside
    assert capfd.readouterr() == ("", "")


def test_states_are_optunas(make):
    study = make()
    searcher = OptunaSearcher(study)
    work(searcher, [0])
    work(searcher, [1], last=4)
    searcher.suggest(2)
    searcher.finish(2, "failed")
    searcher.suggest(3)
    searcher.report(3, 8, math.nan)
    searcher.finish(3, "complete")
    searcher.suggest(4)
    searcher.annotate(4, ray_trial_id="abc")
    trials = journal(study).get_trials()
    states = [t.state for t in trials]
    assert states == [
        TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL, TrialState.RUNNING
    ]  # fmt: skip
    assert trials[0].value == trials[0].intermediate_values[8] == value(trials[0].params)
    assert trials[1].intermediate_values.keys() == {2, 4}
    assert trials[4].user_attrs == {"ray_trial_id": "abc"}


def test_importances_can_be_read(make):
    study = make()
    work(OptunaSearcher(study), range(12))
    found = optuna.importance.get_param_importances(
        journal(study), evaluator=optuna.importance.PedAnovaImportanceEvaluator()
    )
    assert found["lr"] > found["width"]


@pytest.mark.parametrize("name", ["tpe", "random", "grid"])
def test_a_resumed_search_goes_on_as_if_it_had_not_stopped(make, name):
    train = {"lr": ("loguniform", (1e-3, 1e-1)), "width": ("choice", (8, 16, 32))}
    whole = work(OptunaSearcher(make(train, searcher=name, num_trials=18)), range(18))
    study = make(train, searcher=name, num_trials=18)
    first = work(OptunaSearcher(study), range(13))
    again = OptunaSearcher(study)
    again.restore(views(study, first))
    assert first + work(again, range(13, 18)) == whole
    other = work(OptunaSearcher(make(train, searcher=name, num_trials=18, seed=4)), range(18))
    assert other != whole


def test_tpe_finds_the_best_region(make):
    study = make(num_trials=40)
    found = work(OptunaSearcher(study), range(40))
    late = sorted(abs(math.log10(p["lr"]) + 2) for p in found[25:])
    assert late[len(late) // 2] < 0.25


def test_a_lost_journal_is_rebuilt_from_the_log(make):
    study = make()
    found = work(OptunaSearcher(study), range(4))
    before = journal(study).get_trials()
    (study.directory / JOURNAL).unlink()
    searcher = OptunaSearcher(study)
    searcher.restore(views(study, found))
    after = journal(study).get_trials()
    assert [(t.params, t.value, t.state) for t in after] == [
        (t.params, t.value, t.state) for t in before
    ]
    assert searcher.suggest(4) is not None


def test_the_journal_follows_the_log_after_a_kill(make):
    study = make()
    searcher = OptunaSearcher(study)
    found = [searcher.suggest(n) for n in range(3)]
    again = OptunaSearcher(study)  # the log has the end of 0, the start of 1, and not yet 2
    again.restore((*views(study, found[:1]), *views(study, found[:2], "running")[1:]))
    states = [t.state for t in journal(study).get_trials()]
    assert states == [TrialState.COMPLETE, TrialState.RUNNING, TrialState.RUNNING]
    assert again.suggest(2) == found[2]
    again.report(1, 8, 0.1)  # known from the log already
    assert journal(study).get_trials()[1].intermediate_values[8] == value(found[1])
    again.suggest(3)


def test_half_written_lines_locks_and_trials_are_mended(make):
    study = make()
    searcher = OptunaSearcher(study)
    first = searcher.suggest(0)
    path = study.directory / JOURNAL
    journal(study).ask()  # killed before its parameters were drawn
    with path.open("ab") as file:
        file.write(b'{"op_code": 4, "worker_')
    path.with_name(path.name + ".lock").symlink_to(path)
    again = OptunaSearcher(study)
    assert again.suggest(0) == first
    assert again.suggest(1).keys() == {"lr", "width"}
    assert again.suggest(2) is not None
    journal(study).enqueue_trial({"lr": 0.01})  # killed between the two halves of trial 3
    found = OptunaSearcher(study).suggest(3)
    assert found["lr"] == 0.01
    assert len(journal(study).get_trials()) == 4


def test_the_journal_of_a_race_is_rebuilt_with_the_values_that_ran(make):
    study = make({"lr": ("loguniform", (1e-3, 1e-1))})
    study = replace(study, space=replace(study.space, policy="race"))
    searcher = OptunaSearcher(study)
    searcher.record(0, {"lr": 0.5}, arm=0, cell=1, stage="race")  # defaults may lie outside
    before = journal(study).get_trials()[0]
    (study.directory / JOURNAL).unlink()
    again = OptunaSearcher(study)
    again.restore([TrialView(number=0, params={"lr": 0.5}, arm=0, cell=1, stage="race")])
    after = journal(study).get_trials()[0]
    assert after.params == before.params == {}
    assert after.user_attrs == before.user_attrs == {"arm": 0, "cell": 1, "stage": "race"}


def test_a_race_can_try_its_whole_grid(make):
    study = make({"lr": ("uniform", (0.0, 1.0))}, searcher="grid", num_trials=9)
    race = replace(study, space=replace(study.space, policy="race"))
    assert (len(grid(study)), len(grid(race))) == (9, 4)
    with pytest.raises(ConfigError, match="allow 4 trials"):
        grid(replace(race, num_trials=3))


def test_a_grid_is_covered_once(make):
    train = {"lr": ("uniform", (0.0, 1.0)), "width": ("choice", (8, 16, 32))}
    study = make(train, searcher="grid", num_trials=13)
    found = work_grid(OptunaSearcher(study))
    assert len(found) == 12
    assert {(p["lr"], p["width"]) for p in found} == {
        (lr, w) for lr in Domain(kind="uniform", args=(0.0, 1.0)).grid(4) for w in (8, 16, 32)
    }
    assert found != sorted(found, key=lambda p: (p["lr"], p["width"]))
    with pytest.raises(ConfigError, match="coarsest grid over 2 parameters has 6 points"):
        grid(make(train, searcher="grid", num_trials=5))


def work_grid(searcher):
    found, number = [], 0
    while (params := searcher.suggest(number)) is not None:
        found.append(params)
        searcher.finish(number, "failed")
        number += 1
    return found


FEW = {"width": ("choice", (8, 16)), "batch_size": ("randint", (2, 5)), "kind": ("choice", ("a",))}


@pytest.mark.parametrize("name", ["tpe", "random", "grid"])
@pytest.mark.parametrize("held", [1, 4])
def test_no_configuration_is_suggested_twice(make, name, held):
    study = make(FEW, searcher=name, num_trials=20)
    searcher, found, running = OptunaSearcher(study), [], []
    while (params := searcher.suggest(len(found))) is not None:
        running.append(len(found))
        found.append(params)
        if len(running) == held:  # others run while the next is asked for
            number = running.pop(0)
            searcher.report(number, 8, params["batch_size"] / 10)
            searcher.finish(number, ("complete", "failed", "pruned")[number % 3])
    assert sorted((p["width"], p["batch_size"]) for p in found) == [
        (w, b) for w in (8, 16) for b in (2, 3, 4)
    ]
    assert searcher.suggest(len(found)) is None


@pytest.mark.parametrize("name", ["tpe", "random", "grid"])
def test_a_resumed_search_repeats_nothing_either(make, name):
    study = make(FEW, searcher=name, num_trials=6)
    found = [OptunaSearcher(study).suggest(number) for number in range(3)]  # killed each time
    again = OptunaSearcher(replace(study, num_trials=50))
    assert again.suggest(2) == found[2]
    found += [again.suggest(number) for number in range(3, 6)]
    assert len({tuple(p.values()) for p in found}) == 6
    assert again.suggest(6) is None


@pytest.mark.parametrize("name", ["tpe", "random", "grid"])
@pytest.mark.parametrize("train", [{}, {"width": ("choice", (8,))}])
def test_one_configuration_is_one_trial(make, name, train):
    searcher = OptunaSearcher(make(train, searcher=name))
    assert searcher.suggest(0) == {key: 8 for key in train}
    searcher.finish(0, "failed")
    assert searcher.suggest(1) is None


def test_a_grid_that_grows_when_resumed_leaves_out_what_was_tried(make):
    study = make({"lr": ("uniform", (0.0, 1.0))}, searcher="grid", num_trials=3)
    first = work_grid(OptunaSearcher(study))
    more = OptunaSearcher(replace(study, num_trials=5))
    later = [p for n in range(3, 8) if (p := more.suggest(n)) is not None]
    assert sorted(p["lr"] for p in first) == [0.0, 0.5, 1.0]
    assert sorted(p["lr"] for p in later) == [0.25, 0.75]


@pytest.mark.parametrize("policy", ["race", "simple"])
@pytest.mark.parametrize(("metric", "called"), [("map", "mAP"), ("points", "points score")])
def test_the_objective_has_its_name_in_the_dashboard(make, policy, metric, called):
    study = make()
    selection = replace(study.space.selection, metric=metric)
    study = replace(study, space=replace(study.space, policy=policy, selection=selection))
    for _ in range(2):  # a resumed study names it again
        make_policy(study)
    assert journal(study).metric_names == [called]
