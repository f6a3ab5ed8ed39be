"""What makes a run, or a whole study, impossible: known from its space and its data, before the
first trial.

A trial raises the same errors, from the same functions, where it meets them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields, replace
from functools import cache, partial
from itertools import chain, islice

import numpy as np

from ptal_ray.data.drawn_points import redrawn
from ptal_ray.data.sampling import BatchPlan
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError, DataError, PtalError
from ptal_ray.methods.method import AnyMethod, TrainParams, load, with_values
from ptal_ray.process.words import counted
from ptal_ray.space.domain import Domain, Scalar
from ptal_ray.study.choices import PAPER_COMPAT
from ptal_ray.study.study import Study, trial_config
from ptal_ray.training.batches import check_divides
from ptal_ray.training.config import TrialConfig
from ptal_ray.training.optim import learning_rate
from ptal_ray.training.selection import check_instances, check_selection
from ptal_ray.training.stage_cache import check_folder
from ptal_ray.training.supervision import split_ids, visible_ids

DRAWN = 200  # configurations of a space that are looked at, beside the ends of its domains


def problems(study: Study, store: FeatureStore, *, values: bool = True) -> list[PtalError]:
    """Why a study cannot be done, each once, what concerns the whole of it first.

    Looks at the trials, at the final runs of the defaults on the whole training split, at every
    fold of the training split for a race and for data without a test split, and at the values that
    a trial may be given.
    Reads no feature and loads no model.

    Args:
        study: what would run.
        store: its data.
        values: look at the values too: False for a study that has begun, which keeps them.
    """
    space, workers = study.space, study.space.resources.workers
    for field in fields(space.train_params()):
        if field.name in space.train and (reason := field.metadata["fixed"]):
            advice = "fix it, and run one study per value"
            return [ConfigError(f"train.{field.name}: {reason}; {advice}")]
    trial = trial_config(study, {})
    has_test = bool(store.ids("test"))
    if space.selection.metric == "test" and not has_test:
        advice = f"leave out --protocol {PAPER_COMPAT}, and give --set selection.metric=map"
        return [DataError(f"{store.path}: has no test split to choose on; {advice}")]
    score_on = "test" if has_test else "none"
    final = replace(trial, fit_on="train", score_on=score_on, report_steps=trial.report_steps[-1:])
    found = [*_data_problems(trial, store), *run_problems(final, store, workers)]
    if (space.policy == "race" or not has_test) and not found:
        found = list(islice(_fold_problems(study, store), 1))
    if values and not found:
        each = [_value_problems(run, space.train, store, workers) for run in (trial, final)]
        found = list(islice(chain(*each), 1))
    return list({str(error): error for error in found}.values())


def _fold_problems(study: Study, store: FeatureStore) -> Iterator[PtalError]:
    """What the folds lack on which the trials of a race are scored, and all figures rest where
    there is no test split."""
    advice = "raise selection.val_fraction for fewer folds"
    for fold in range(study.num_folds):
        for error in _data_problems(trial_config(study, {}, fold=fold), store):
            yield type(error)(f"fold {fold} of {study.num_folds}: {error}; {advice}")


def remarks(study: Study, asked: int) -> list[str]:
    """What of a study will not be as its space and its flags say, though it can be done.

    Args:
        study: what would run, with no more trials than it has configurations.
        asked: the trials that were asked for.
    """
    space, trials, found = study.space, study.num_trials, []
    if trials < asked:
        what = "the grid" if study.searcher == "grid" else "train:"
        found.append(
            f"{what} has {counted(trials, 'different configuration')} and "
            f"{counted(asked, 'trial')} were requested; no configuration is run twice, so the "
            f"search ends after {trials}"
        )
    if space.policy == "simple" and space.final.top > trials:
        found.append(
            f"final.top: {space.final.top} configurations are to be compared, but the search has "
            f"only {counted(trials, 'trial')}"
        )
    if space.decode and space.selection.decode_settings == 1:
        found.append(
            "selection.decode_settings: 1 means only the defaults, so the domains of decode: are "
            "not searched"
        )
    return found


def run_problems(config: TrialConfig, store: FeatureStore, workers: int = 1) -> list[PtalError]:
    """Why one run cannot be done.

    Args:
        config: the run.
        store: its data.
        workers: that share its batches.
    """
    found = _data_problems(config, store)
    if not found:
        found = list(islice(_value_problems(config, {}, store, workers), 1))
    return found


def _data_problems(config: TrialConfig, store: FeatureStore) -> list[PtalError]:
    """Why a run could not be done whatever its parameters: what its splits lack."""
    method = load(config.method)
    hp = with_values(method.train_params, config.train)
    if config.points and method.supervision != "point":
        learned = f"--points: {config.method} does not learn from points; leave it out"
        return [ConfigError(learned)]
    try:
        fit, scored = split_ids(store, config, hp)
    except DataError as error:
        return [error]
    store = redrawn(store, config.points)
    checks: list[Callable[[], None]] = [partial(_check_teaching, config, store, fit, method, hp)]
    if scored:
        judged = partial(check_selection, store, scored, config.score_on, config.metric)
        checks.insert(0, judged)
    found: list[PtalError] = []
    for check in checks:
        try:
            check()
        except DataError as error:
            found.append(error)
    return found


def demand(found: list[PtalError]) -> None:
    """Raises all problems as one error, of the kind of the first.

    Raises:
        PtalError: there are any.
    """
    if found:
        raise type(found[0])("; also: ".join(map(str, found)))


def _check_teaching(
    config: TrialConfig,
    store: FeatureStore,
    fit: tuple[str, ...],
    method: AnyMethod,
    hp: TrainParams,
) -> None:
    """Says whether a method finds anything to learn from in the videos `fit`.

    Raises:
        DataError: it does not.
    """
    seen, labelled = visible_ids(store, fit, method, hp)
    if method.supervision == "point":
        if not any(len(store.points(i)) for i in seen):
            raise DataError(
                f"{store.path}: no point in the {len(seen)} videos of split {config.fit_on!r}; "
                f"{config.method} learns from points; import or simulate points"
            )
    elif method.labels is not None:
        check_instances(store, labelled, config.fit_on)


def _check_parameters(
    config: TrialConfig,
    store: FeatureStore,
    hp: TrainParams,
    workers: int,
    videos: Callable[[str], int],
) -> None:
    """What of a run depends on its parameters: of the method itself, then of the stage before.

    Raises:
        ConfigError, DataError: a trial with them cannot run.
    """
    method = load(config.method)
    if method.check is not None:
        method.check(store, hp)
    if number := videos(config.method):
        plan = BatchPlan(groups=(np.arange(number),), asked_batch_size=hp.batch_size, seed=0)
        check_divides(plan, workers, config.method)
    steps = config.report_steps[-1]
    if not any(learning_rate(hp, step, steps) for step in range(min(steps, 3))):
        raise ConfigError(
            f"train.warmup: with {hp.warmup} of {steps} steps of {config.method}, lr is never "
            "above 0; train for more steps or lower train.warmup"
        )
    if method.stage is not None and (before := int(getattr(hp, method.stage.steps))):
        check_folder(config.stages)
        stage = replace(config, method=method.stage.method, report_steps=(before,))
        _check_parameters(stage, store, method.stage.params(hp), workers, videos)


def _videos(store: FeatureStore, fit: tuple[str, ...], hp: TrainParams) -> Callable[[str], int]:
    """How many of the videos `fit` each method, or stage, trains on."""
    return cache(lambda name: len(visible_ids(store, fit, load(name), hp)[0]))


def _value_problems(
    config: TrialConfig, domains: Mapping[str, Domain], store: FeatureStore, workers: int
) -> Iterator[PtalError]:
    """Why a run with its own values, or with others that the domains hold, could not be done."""
    kind = load(config.method).train_params
    base = with_values(kind, config.train)
    fit, _ = split_ids(store, config, base)
    videos = _videos(store, fit, base)
    for params, named in _configurations(domains):
        try:
            hp = with_values(kind, config.train | params)
            _check_parameters(config, store, hp, workers, videos)
        except (ConfigError, DataError) as error:
            values = ", ".join(f"train.{name}={params[name]}" for name in named)
            given = f"a trial may be given {values}: " if named else ""
            yield type(error)(f"{given}{error}")


def _configurations(
    domains: Mapping[str, Domain],
) -> Iterator[tuple[dict[str, Scalar], Collection[str]]]:
    """Configurations of a space, and which of their parameters are new in them: one in the middle,
    all ends and options of each domain, then some at random."""
    middle = {name: domain.sample(0.5) for name, domain in domains.items()}
    yield middle, middle
    if not middle:
        return
    for name, domain in domains.items():
        for value in domain.extremes():
            yield middle | {name: value}, (name,)
    rng = np.random.default_rng(0)
    for _ in range(DRAWN):
        drawn = {name: domain.sample(float(rng.random())) for name, domain in domains.items()}
        yield drawn, drawn
