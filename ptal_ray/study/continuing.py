"""Checks that the flags of a command agree with the study that it continues."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptal_ray.errors import ConfigError
from ptal_ray.space.space import SearchSpace, find_space, load_space
from ptal_ray.storage.folder import Folder
from ptal_ray.study.choices import DEFAULT_STORAGE
from ptal_ray.study.policy import spent
from ptal_ray.study.study import Study
from ptal_ray.study.view import StudyView

# Flags that are fixed once a study has started.
_FIXED = (
    "set", "dataset", "points", "policy", "searcher", "scheduler", "seed", "protocol", "warm_start"
)  # fmt: skip


def check_flags(args: argparse.Namespace) -> None:
    """Check that no flag would change the study.

    Raises:
        ConfigError: a flag would.
    """
    for flag in _FIXED:
        if getattr(args, flag) not in (None, []):
            raise ConfigError(
                f"--{flag.replace('_', '-')}: a resumed study keeps its own; leave it out, or "
                "start a new study without --resume"
            )


def check_storage(study: Study, given: str, storage: Path | Folder) -> None:
    """Check that the study is in the given storage.

    Args:
        study: the study that was found.
        given: the text of --storage.
        storage: the folder or address for that text.

    Raises:
        ConfigError: it is not.
    """
    own = study.place.parent
    if given != DEFAULT_STORAGE and str(own) != str(storage):
        raise ConfigError(
            f"--storage {given}: the study is in {own} and cannot be moved; remove --storage"
        )


def check_trials(study: Study, asked: int | None) -> None:
    """Check that the study can still have the requested number of trials.

    Args:
        study: the study on disk.
        asked: --num-trials; None if not given.

    Raises:
        ConfigError: its search has ended, or it has used more.
    """
    if asked is None or not study.events.exists():
        return
    view = StudyView.read(study.directory)
    if view.finals or view.recommended:
        raise ConfigError("--num-trials: the search of this study has ended; start a new study")
    if study.space.policy == "race":
        most = study.space.budget.max_steps
        full = sum(spent(t.state, t.step, most) for t in view.trials)
        least, used = math.ceil(full - 1e-9), f"{full:.3g} full runs of this study are used"
    else:
        least = trials_begun(study)
        used = f"{least} trials of this study have already started"
    if asked < least:
        raise ConfigError(f"--num-trials {asked}: {used}; must be at least {least}")


def trials_begun(study: Study) -> int:
    """The number of trials that a study has started, whatever their result."""
    if not study.events.exists():
        return 0
    return max((t.number + 1 for t in StudyView.read(study.directory).trials), default=0)


def check_space(study: Study, given: str, command: str) -> list[str]:
    """Compares the space of a study with the file, or the name, that the command gives.

    Args:
        study: the study; it keeps the space of its first start.
        given: the name or the file of a search space.
        command: the command that continues the study without that file.

    Returns:
        Lines to print if the file no longer exists.

    Raises:
        ConfigError: they differ; names each key, and what to do instead.
    """
    go_on = (
        f"a resumed study keeps its own space; to continue it, run: {command}; to search the space "
        f"of {given} in a new study, remove --resume"
    )
    try:
        path = find_space(given)
    except ConfigError:
        return [f"{given}: no such search space; the study uses the space stored in it"]
    try:
        space = load_space(path, study.overrides, kept=study.space)
    except ConfigError as error:
        raise ConfigError(f"{error}; {go_on}") from error
    if found := differences(study.space, space):
        raise ConfigError(f"--resume: {path} differs from study {study.name}: {found}; {go_on}")
    return []


def differences(own: SearchSpace, other: SearchSpace) -> str:
    """Each key in which two spaces differ, with both values; "" if they are equal."""
    ours, theirs = _flat(own.as_dict()), _flat(other.as_dict())
    return ", ".join(
        f"{key} (study: {_shown(ours, key)}, file: {_shown(theirs, key)})"
        for key in dict.fromkeys([*ours, *theirs])
        if _shown(ours, key) != _shown(theirs, key)
    )


def overrides(settings: list[str], dataset: str | None) -> tuple[str, ...]:
    """The changes of --set and --dataset to the file of a space, all in the form of --set."""
    if dataset is None:
        return tuple(settings)
    others = (text for text in settings if text.partition("=")[0].strip() != "dataset")
    return (*others, f"dataset={json.dumps(dataset)}")


def _flat(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Keys as --set writes them; a domain is one value."""
    flat: dict[str, Any] = {}
    for section, value in plain.items():
        inner = value.items() if isinstance(value, dict) else ()
        flat |= {f"{section}.{key}": v for key, v in inner} or {section: value}
    return {key: value for key, value in flat.items() if value != {}}


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return json.dumps(flat[key]) if key in flat else "not set"
