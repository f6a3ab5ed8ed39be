"""Checks before the first trial, from space and data, that the runs of a study are possible.

A trial calls the same functions and raises the same errors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields, replace
from functools import cache, partial
from itertools import chain, islice

import numpy as np

from ptal_ray.data.drawn_points import redrawn
from ptal_ray.data.sampling import BatchPlan
from ptal_ray.data.splits import only_group
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

FEWEST_RACED = 8  # full runs that a race needs to try configurations and to test one
DRAWN = 200  # random configurations that are checked, besides the ends of the domains


def problems(study: Study, store: FeatureStore, *, values: bool = True) -> list[PtalError]:
    """The reasons why a study is not possible, without duplicates, those of the whole study first.

    Checks the trials, the final runs of the defaults on the whole training split, every fold of the
    training split (for a race, and without a test split), and the values that a trial may get.
    Reads no features and loads no model.

    Args:
        study: what would run.
        store: its data.
        values: whether to check the values too; False for a study that has started, which keeps
            them.
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
        return [DataError(f"{store.path}: has no test split to select on; {advice}")]
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
    """Problems of the folds on which the trials of a race are scored, and on which all results are
    based if there is no test split."""
    fixes = ["raise selection.val_fraction for fewer folds (0.5 gives 2)"] * (study.num_folds > 2)
    fixes += ["pass --policy simple"] * bool(store.ids("test"))
    advice = "; " * bool(fixes) + ", or ".join(fixes)
    for fold in range(study.num_folds):
        for error in _data_problems(trial_config(study, {}, fold=fold), store):
            yield type(error)(f"fold {fold} of {study.num_folds}: {error}{advice}")


def group_note(study: Study, store: FeatureStore) -> str:
    """What the folds of a study do not show if all training videos are of one group.

    "" if they are of several groups or of none, or if no result is based on folds.
    """
    group = only_group(store)
    if not group or (study.space.policy != "race" and store.ids("test")):
        return ""
    return (
        f"all {len(store.ids('train'))} training videos are of one group ({group}); the folds "
        "divide its recordings, so their scores say nothing about other groups, such as new people"
    )


def remarks(study: Study, asked: int) -> list[str]:
    """Differences between a study and its space and flags that do not make it impossible.

    Args:
        study: the study, with at most as many trials as it has configurations.
        asked: the requested number of trials.
    """
    space, trials, found = study.space, study.num_trials, []
    if trials < asked:
        what = "the grid" if study.searcher == "grid" else "train:"
        found.append(
            f"{what} has {counted(trials, 'different configuration')} and "
            f"{counted(asked, 'trial')} were requested; no configuration is run twice, so the "
            f"search ends after {trials}"
        )
    if space.policy == "race" and trials < FEWEST_RACED:
        found.append(
            f"a race of {counted(trials, 'full run')} compares few configurations, or only trains "
            f"the defaults, and its last comparison can add up to 3 runs; {FEWEST_RACED} or more "
            "are recommended"
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
    if note := group_note(study, FeatureStore.open(study.store)):
        found.append(note)
    return found


def run_problems(config: TrialConfig, store: FeatureStore, workers: int = 1) -> list[PtalError]:
    """The reasons why a run is not possible.

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
    """The reasons why a run is not possible with any parameters: problems of its splits."""
    method = load(config.method)
    hp = with_values(method.train_params, config.train)
    if config.points and method.supervision != "point":
        learned = (
            f"points {config.points}: {config.method} does not learn from points; leave "
            "out --points, or points: of the space"
        )
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
    """Raise all problems as one error, of the type of the first.

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
    """Check that a method has something to learn from in the videos `fit`.

    Raises:
        DataError: it has not.
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
    """Check what depends on the parameters of a run: for the method, then for its earlier stages.

    Raises:
        ConfigError, DataError: a trial with these parameters cannot run.
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
    """The reasons why a run with its own values, or with other values in the domains, is not
    possible."""
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
    """Configurations of a space, and the parameters that are new in each: one in the middle, all
    ends and options of each domain, then some at random."""
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
