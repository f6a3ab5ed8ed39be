"""Optuna as the searcher of a study, with a journal for optuna-dashboard and optuna.importance.

The event log is authoritative; after a kill the journal is restored from it.
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import warnings
from collections.abc import Collection, Container, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from ptal_ray.errors import ConfigError, DataError
from ptal_ray.policy.samplers import sampler
from ptal_ray.space.domain import Domain, Scalar
from ptal_ray.space.untried import Point, number_of_points, point, untried
from ptal_ray.study.study import Study
from ptal_ray.study.view import TrialView
from ptal_ray.study.warm_start import tried_first

# Name of the objective in optuna-dashboard, by `selection.metric`.
METRICS = {"map": "mAP", "points": "points score", "test": "test mAP"}
JOURNAL = "optuna.journal"
GOOD, MOST_LEARNT = 25, 256  # trials that a searcher learns from: the best, and in all
_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


class OptunaSearcher:
    """Suggests trials with TPE, at random or from a grid, and writes the journal.

    The suggestion for trial n depends only on the seed, n and the history, so a resumed study
    continues as if it had not stopped. Trial 0 has the defaults that are inside their domains, the
    next ones have the best configurations of earlier studies (a grid has neither). In a finite
    space no configuration is suggested twice.

    Args:
        study: the study; its journal is created, or opened and repaired.

    Raises:
        ConfigError: --searcher grid with more combinations than trials.
    """

    def __init__(self, study: Study) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = study
        self._distributions = {k: distribution(d) for k, d in study.space.train.items()}
        self._grid = grid(study) if study.searcher == "grid" else None
        self._storage = open_journal(study.directory / JOURNAL)
        optuna.create_study(
            study_name=study.name,
            storage=self._storage,
            direction="maximize",
            load_if_exists=True,
        )
        self._optuna = _Bounded(study.name, self._storage, pruner=NopPruner())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._optuna.set_metric_names([METRICS[study.space.selection.metric]])
        self._id = self._storage.get_study_id_from_name(study.name)

    def restore(self, trials: Sequence[TrialView]) -> None:
        """Restore the journal from the event log of an interrupted run."""
        for view in trials:
            if view.number >= self._num_known():
                if self.study.space.policy == "race":
                    self.record(
                        view.number, view.params, arm=view.arm, cell=view.cell, stage=view.stage
                    )
                else:
                    self._create(view.number, self._inside(view.params))
            if self._storage.get_trial(self._trial_id(view.number)).state.is_finished():
                continue
            for report in view.reports:
                self.report(view.number, report.step, report.objective)
            if view.state != "running":
                self.finish(view.number, view.state)

    def suggest(self, number: int) -> dict[str, Scalar] | None:
        """The parameters of trial `number`; called in ascending order. None after the last.

        A trial that was suggested before a kill and did not start is suggested again.
        """
        if number < self._num_known():
            self._optuna.sampler = self._sampler(number)
            return self._complete(self._trial(number))
        if self._grid is not None:
            tried = self._tried(number)
            new = (p for p in self._grid if point(self.study.space.train, p) not in tried)
            following = next(new, None)
            return None if following is None else self._create(number, following)
        points = number_of_points(self.study.space.train)
        if points is not None and len(self._tried(number)) >= points:
            return None
        defaults = self._inside(self.study.space.train_defaults())
        first = [defaults, *tried_first(self.study.warm_start, self.study.space)]
        return self._create(number, first[number] if number < len(first) else {})

    def record(self, number: int, params: Mapping[str, Scalar], **attributes: Scalar) -> None:
        """Take a trial that another searcher suggested, and facts about it; values outside their
        domain are ignored."""
        if number < self._num_known():
            return self.annotate(number, **attributes)
        inside = self._inside(params)
        self._optuna.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=inside,
                user_attrs=attributes,
                distributions={name: self._distributions[name] for name in inside},
            )  # fmt: skip
        )

    def report(self, number: int, step: int, value: float) -> None:
        """Take the objective of a trial at a report step."""
        trial = self._trial(number)
        known = self._storage.get_trial(self._trial_id(number)).intermediate_values
        if step not in known and math.isfinite(value):
            trial.report(value, step)

    def finish(self, number: int, state: str) -> None:
        """Take the end of a trial; a trial without a finite last value is not complete."""
        values = self._storage.get_trial(self._trial_id(number)).intermediate_values
        last = values.get(self.study.space.budget.max_steps)
        if state == "complete" and last is not None:
            self._optuna.tell(number, last)
        else:
            told = TrialState.FAIL if state == "complete" else _STATES[state]
            self._optuna.tell(number, state=told)

    def annotate(self, number: int, **attributes: Scalar) -> None:
        """Record facts about a trial for optuna-dashboard."""
        for name, value in attributes.items():
            self._trial(number).set_user_attr(name, value)

    def _create(self, number: int, fixed: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """A new running trial with `fixed` parameters; the sampler chooses the rest."""
        waiting = self._optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if fixed and not waiting:  # a waiting trial exists if the last run was killed at this point
            self._optuna.enqueue_trial(dict(fixed))
        self._optuna.sampler = self._sampler(number)
        trial = self._optuna.ask()
        assert trial.number == number, f"trial {trial.number} where {number} was due"
        return self._complete(trial)

    def _complete(self, trial: Trial) -> dict[str, Scalar]:
        """All parameters of `trial`; missing ones are drawn."""
        return complete(trial, self._distributions, self.study.space.train)

    def _sampler(self, number: int) -> BaseSampler:
        """The sampler of trial `number`."""
        inner = sampler(self.study.searcher, [self.study.seed, number])
        domains = self.study.space.train
        if number_of_points(domains) is None:
            return inner
        rng = np.random.default_rng([self.study.seed, number, 1])
        return _Untried(inner, self._distributions, domains, self._tried(number), rng)

    def _tried(self, number: int) -> set[Point | None]:
        """The configurations of all trials but `number`."""
        trials = self._storage.get_all_trials(self._id, deepcopy=False)
        found = {point(self.study.space.train, t.params) for t in trials if t.number != number}
        return found - {None}

    def _inside(self, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
        domains = self.study.space.train.items()
        return {k: values[k] for k, domain in domains if k in values and domain.contains(values[k])}

    def _num_known(self) -> int:
        """Number of started trials, without one that a killed run only enqueued."""
        trials = self._storage.get_all_trials(self._id, deepcopy=False)
        return sum(t.state != TrialState.WAITING for t in trials)

    def _trial(self, number: int) -> Trial:
        return Trial(self._optuna, self._trial_id(number))

    def _trial_id(self, number: int) -> int:
        return int(self._storage.get_trial_id_from_study_id_trial_number(self._id, number))


class _Bounded(optuna.Study):
    """A study in which samplers see only the best trials (all that TPE counts as good) and the
    newest, because the time of a suggestion grows with the number of trials."""

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        found = super()._get_trials(deepcopy, states, use_cache)
        if len(found) <= MOST_LEARNT:
            return found
        done = [t for t in found if t.state == TrialState.COMPLETE]
        best = sorted(done, key=lambda t: (-(t.value or 0.0), t.number))[:GOOD]
        kept = {t.number for t in best} | {t.number for t in found[-(MOST_LEARNT - GOOD) :]}
        return [t for t in found if t.number in kept]


class _Untried(BaseSampler):
    """Draws with another sampler, and replaces a configuration that was already tried."""

    def __init__(
        self,
        inner: BaseSampler,
        distributions: Mapping[str, BaseDistribution],
        domains: Mapping[str, Domain],
        tried: Collection[Point | None],
        rng: np.random.Generator,
    ) -> None:
        self._inner, self._distributions = inner, dict(distributions)
        self._domains, self._tried, self._rng = domains, tried, rng

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All parameters; they are drawn together, so that repetitions can be detected."""
        return self._distributions

    def sample_relative(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """A new configuration."""
        together = self._inner.infer_relative_search_space(study, trial)
        drawn = self._inner.sample_relative(study, trial, together)
        for name, distribution in search_space.items():
            if name not in drawn:
                drawn[name] = self.sample_independent(study, trial, name, distribution)
        found = untried(self._domains, drawn, self._tried, self._rng)
        return drawn if found is None else found  # the caller has made sure that there is one

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """One parameter."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)


class _Journal(JournalFileBackend):
    """A journal with one writer (a study has one driver), so entries need no lock. It needs no
    fsync either, because it is restored from the event log."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append complete lines."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self.path.open("ab", buffering=0) as file:
            size, data = file.tell(), lines.encode()
            if file.write(data) < len(data):  # the disk is full
                file.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))


def open_journal(path: Path) -> JournalStorage:
    """The journal at `path`; a partial line or a lock of a killed writer is removed.

    Raises:
        DataError: the file is not a journal.
    """
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if path.exists() and not (data := path.read_bytes()).endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)
    try:
        return JournalStorage(_Journal(path))
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise DataError(
            f"{path}: no journal of Optuna ({error}); delete it: it is made again from events.jsonl"
        ) from error


def grid(study: Study) -> list[dict[str, Scalar]]:
    """Every combination of the finest grid that has at most `num_trials` points, shuffled; in a
    race half as many, because it tries new configurations with half of its budget.

    A choice has all its values, any other domain as many evenly spaced ones as fit.

    Raises:
        ConfigError: even two values per parameter are too many.
    """
    domains, num = study.space.train, 1
    runs = 2 if study.space.policy == "race" else 1  # for each point
    most = study.num_trials // runs
    if (least := _grid_size(domains, 2)) > most:
        raise ConfigError(
            f"--searcher grid: the coarsest grid over {len(domains)} parameters has {least} points "
            f"and --num-trials is {study.num_trials}; allow {runs * least} trials, search fewer "
            "parameters or use --searcher tpe"
        )
    while _grid_size(domains, num + 1) <= most and num < most:
        num += 1
    combinations = itertools.product(*(domain.grid(num) for domain in domains.values()))
    points = [dict(zip(domains, values, strict=True)) for values in combinations]
    return [points[k] for k in np.random.default_rng(study.seed).permutation(len(points))]


def _grid_size(domains: Mapping[str, Domain], num: int) -> int:
    return math.prod(len(domain.grid(num)) for domain in domains.values())


def distribution(domain: Domain) -> BaseDistribution:
    """The Optuna distribution of a domain."""
    if domain.kind == "choice":
        return CategoricalDistribution(domain.args)
    low, high = domain.args[:2]
    if domain.kind in ("randint", "lograndint"):
        return IntDistribution(int(low), int(high) - 1, log=domain.kind == "lograndint")
    low, high = float(low), float(high)
    if domain.kind == "quniform":
        step = float(domain.args[2])
        whole = math.floor((high - low) / step + 1e-9)
        return FloatDistribution(low, float(f"{low + whole * step:.12g}"), step=step)
    return FloatDistribution(low, high, log=domain.kind == "loguniform")


def complete(
    trial: Trial,
    distributions: Mapping[str, BaseDistribution],
    domains: Mapping[str, Domain],
) -> dict[str, Scalar]:
    """All parameters of `trial`, drawing those it lacks; steps are rounded to 12 digits."""
    params: dict[str, Scalar] = {}
    for name, domain in domains.items():
        value = _suggest(trial, name, distributions[name])
        params[name] = float(f"{value:.12g}") if domain.kind == "quniform" else value
    return params


def _suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Scalar:
    if isinstance(distribution, CategoricalDistribution):
        return cast(Scalar, trial.suggest_categorical(name, distribution.choices))
    if isinstance(distribution, IntDistribution):
        low, high = distribution.low, distribution.high
        return trial.suggest_int(name, low, high, log=distribution.log)
    assert isinstance(distribution, FloatDistribution)
    step, log = distribution.step, distribution.log
    return trial.suggest_float(name, distribution.low, distribution.high, step=step, log=log)
