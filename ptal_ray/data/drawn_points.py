"""Points of the training videos drawn anew from their instances, in place of those of the store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ptal_ray.data.choices import KINDS
from ptal_ray.data.point_noise import PointNoise, drawn_anew
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Points
from ptal_ray.errors import ConfigError

_OPTIONS = ("jitter", "dropout", "label_noise", "seed")
_FORM = f"KIND[:NAME=VALUE,...], KIND one of {', '.join(KINDS)}, NAME one of {', '.join(_OPTIONS)}"


@dataclass(frozen=True, kw_only=True)
class DrawnPoints:
    """How points are drawn.

    Args:
        kind: one of `choices.KINDS`.
        noise: what is done to the points.
        seed: of the points; those of a video follow from it and the id.
    """

    kind: str
    noise: PointNoise = PointNoise()
    seed: int = 0

    @property
    def text(self) -> str:
        """The value of --points that gives this, its seed included."""
        values = {
            "jitter": self.noise.jitter_s, "dropout": self.noise.dropout,
            "label_noise": self.noise.label_noise,
        }  # fmt: skip
        options = [f"{name}={value!r}" for name, value in values.items() if value]
        return f"{self.kind}:{','.join([*options, f'seed={self.seed}'])}"


def drawn_points(text: str) -> DrawnPoints:
    """What a value of --points asks for.

    Without a seed in it the seed is 0, whatever the seeds of the search or of the run are: all
    commands that are given the same value draw the same points.

    Args:
        text: such as "human" or "uniform:jitter=0.5,dropout=0.1".

    Raises:
        ConfigError: it has another form, or a value is out of range.
    """
    kind, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    for pair in filter(None, re.split("[,:]", rest)):
        name, _, value = (part.strip() for part in pair.partition("="))
        if name not in _OPTIONS or name in options:
            raise ConfigError(f"--points {text}: {pair!r} is not allowed; write {_FORM}")
        try:
            options[name] = int(value) if name == "seed" else float(value)
        except ValueError as error:
            raise ConfigError(f"--points {text}: {value!r} is no number; write {_FORM}") from error
    if kind.strip() not in KINDS:
        raise ConfigError(f"--points {text}: unknown kind; write {_FORM}")
    if (seed := options.pop("seed", 0)) < 0:
        raise ConfigError(f"--points {text}: allowed is a seed of 0 or more")
    if "jitter" in options:
        options["jitter_s"] = options.pop("jitter")
    try:
        return DrawnPoints(kind=kind.strip(), noise=PointNoise(**options), seed=seed)
    except ConfigError as error:
        raise ConfigError(f"--points {text}: {error}") from error


class RedrawnStore(FeatureStore):
    """A store whose training videos have other points; all else is that of `store`."""

    def __init__(self, store: FeatureStore, drawn: DrawnPoints) -> None:
        super().__init__(store.path, store.info, store._description)
        self._drawn, self._points = drawn, _points(store, drawn)

    def __reduce__(self) -> tuple[Any, ...]:
        made, given = super().__reduce__()
        return _redrawn_again, (made(*given), self._drawn)

    def points(self, id: str) -> Points:
        """The drawn points of a training video, the stored ones of a test video."""
        return self._points[id] if id in self._points else super().points(id)


def redrawn(store: FeatureStore, text: str) -> FeatureStore:
    """`store` with the points that a value of --points asks for; as it is for ""."""
    return _redrawn(store, text) if text else store


@lru_cache(maxsize=8)
def _redrawn(store: FeatureStore, text: str) -> FeatureStore:
    return RedrawnStore(store, drawn_points(text))


def _redrawn_again(store: FeatureStore, drawn: DrawnPoints) -> RedrawnStore:
    return RedrawnStore(store, drawn)


def _points(store: FeatureStore, drawn: DrawnPoints) -> Mapping[str, Points]:
    """Points by training video, those that an import with --simulate-points makes."""
    return {
        id: drawn_anew(
            id, store.annotations(id), store.duration_s(id), kind=drawn.kind, noise=drawn.noise,
            seed=drawn.seed, classes=store.info.num_classes,
        )
        for id in store.ids("train")
    }  # fmt: skip
