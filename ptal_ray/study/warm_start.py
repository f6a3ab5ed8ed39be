"""Configurations and scores of earlier studies of a method, as evidence for a new search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptal_ray.errors import ConfigError, PtalError
from ptal_ray.space.domain import Domain, Scalar
from ptal_ray.space.space import SearchSpace
from ptal_ray.storage.place import kept
from ptal_ray.study.paper_compat import on_test
from ptal_ray.study.view import StudyView

FIRST = 3  # number of configurations that are tried first
MOST = 32  # number of configurations that are used, from the best to the worst


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """A configuration of an earlier study.

    Args:
        study: its name.
        params: all parameters that the new study searches, inside their domains.
        value: its score in that study minus the mean of all, in standard deviations.
        place: the directory of that study, as a flag takes it; "" in studies of earlier versions.
    """

    study: str
    params: dict[str, Scalar]
    value: float
    place: str = ""


def earlier_configurations(
    studies: Sequence[str], space: SearchSpace, storage: Path | None
) -> tuple[tuple[Earlier, ...], list[str]]:
    """The configurations that studies have tried, best first, and a line for each study with values
    outside the domains.

    Args:
        studies: directories, or names of studies in `storage`.
        space: of the new study.
        storage: folder of studies; None if it is an address.

    Raises:
        ConfigError: one is not a study, has another method or no finished trial, or selected on the
            test split while the new one does not.
    """
    found: list[Earlier] = []
    notes = []
    for given in dict.fromkeys(studies):
        directory, own = _scores(given, space, storage)
        name, place = directory.name, _from_root(directory)
        values = np.array([value for _, value in own])
        spread = float(values.std()) or 1.0
        outside = set[str]()
        for params, value in own:
            fitting = _fitted(params, space, outside)
            z = (value - float(values.mean())) / spread
            found.append(Earlier(study=name, params=fitting, value=z, place=place))
        if outside:
            notes.append(
                f"--warm-start {name}: {', '.join(sorted(outside))} had values outside the domains "
                "of this space; numbers are clipped to the domain, choices replaced by the default"
            )
    found.sort(key=lambda one: (-one.value, one.study))
    distinct = {tuple(one.params.values()): one for one in reversed(found)}
    best_first = sorted(distinct.values(), key=lambda one: (-one.value, one.study))
    rows = np.unique(np.linspace(0, len(best_first) - 1, min(MOST, len(best_first))).round())
    return tuple(best_first[int(row)] for row in rows), notes


def tried_first(earlier: Sequence[Earlier], space: SearchSpace) -> list[dict[str, Scalar]]:
    """The best configurations of earlier studies that are not the defaults."""
    defaults = space.train_defaults()
    plain = {name: defaults[name] for name in space.train}
    others = [dict(one.params) for one in earlier if one.params != plain and one.value > 0]
    return others[:FIRST]


def _scores(
    given: str, space: SearchSpace, storage: Path | None
) -> tuple[Path, list[tuple[dict[str, Scalar], float]]]:
    """The directory of a study, and all parameters and the score of each of its configurations."""
    places = [kept(Path(given)), *([storage / given] if storage and "/" not in given else [])]
    directory = next((place for place in places if place.is_dir()), None)
    if directory is None:
        raise ConfigError(f"--warm-start {given}: no such study; give its directory or its name")
    try:
        view = StudyView.read(directory)
    except (PtalError, OSError, KeyError, ValueError, TypeError) as error:
        raise ConfigError(
            f"--warm-start {given}: the study cannot be read ({error}); give another study"
        ) from error
    method = view.study.method
    if method != space.method:
        raise ConfigError(
            f"--warm-start {given}: this is a study of {method}, but {space.method} is searched; "
            f"give studies of {space.method}"
        )
    if on_test(view) and space.selection.metric != "test":
        raise ConfigError(
            f"--warm-start {given}: its configurations were selected on the test split, which this "
            "search keeps sealed; give another study"
        )
    if not (own := _believed(view) or _reported(view)):
        raise ConfigError(
            f"--warm-start {given}: none of its trials has finished; give another study"
        )
    fixed = {k: v for k, v in view.study.space["train"].items() if not isinstance(v, dict)}
    known = view.study.defaults["train"] | fixed
    return directory, [(known | {**params}, value) for params, value in own]


def _from_root(directory: Path) -> str:
    """A directory as commands take it: relative where it lies among the results."""
    root = kept(Path())
    inside = directory.resolve().is_relative_to(root)
    return str(directory.resolve().relative_to(root) if inside else directory.resolve())


def _believed(view: StudyView) -> list[tuple[Mapping[str, Scalar], float]]:
    """The posterior means of the arms of a race."""
    arms = view.recommended.arms if view.recommended else ()
    return [(arm["params"], arm["mean"]) for arm in arms if arm["mean"] is not None]


def _reported(view: StudyView) -> list[tuple[Mapping[str, Scalar], float]]:
    """The mean of the complete trials of each configuration."""
    found: dict[int, list[float]] = {}
    params: dict[int, Mapping[str, Scalar]] = {}
    for trial in view.complete:
        found.setdefault(trial.arm, []).append(trial.reports[-1].objective)
        params[trial.arm] = trial.params
    return [(params[arm], float(np.mean(values))) for arm, values in found.items()]


def _fitted(
    params: Mapping[str, Scalar], space: SearchSpace, outside: set[str]
) -> dict[str, Scalar]:
    """The searched parameters, moved inside their domains; adds those that were outside to
    `outside`."""
    defaults, fitted = space.train_defaults(), dict[str, Scalar]()
    for name, domain in space.train.items():
        value = params.get(name, defaults[name])
        if not domain.contains(value):
            outside.add(name)
            value = _nearest(domain, value, defaults[name])
        fitted[name] = value
    return fitted


def _nearest(domain: Domain, value: Scalar, default: Scalar) -> Scalar:
    """The value of a domain nearest to a number; for a choice the default, or the first option."""
    if domain.kind == "choice" or isinstance(value, bool | str) or not math.isfinite(value):
        return default if domain.contains(default) else domain.extremes()[0]
    low, high = (float(end) for end in domain.extremes())
    near = min(max(float(value), low), high)
    if domain.size is None:
        return near
    step = float(domain.args[2]) if domain.kind == "quniform" else 1.0
    return domain.at(min(round((near - low) / step), domain.size - 1))
