"""The search of decode parameters on cached scores: many settings, one trained model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from torch.quasirandom import SobolEngine

from ptal_ray.data.types import Grid, IntArray, Scores, Segments
from ptal_ray.errors import DataError
from ptal_ray.methods.method import DecodeT
from ptal_ray.space.domain import Domain, Scalar
from ptal_ray.storage.whole import whole
from ptal_ray.training.selection import Objective

Decode = Callable[[Scores, Grid, float, DecodeT], Segments]
Detections = dict[str, Segments]


@dataclass(frozen=True, kw_only=True)
class DecodeResult(Generic[DecodeT]):
    """The result of a decode search.

    Args:
        params: the decode parameters that are best on all videos.
        objective: the value that the search maximises; cross-fitted if `cross_fitted`.
        metrics: this and related values by name, as `Objective.metrics`.
        detections: by video, made with `params`.
        table: every setting and its objective on all videos, in order; the start first.
        cross_fitted: whether each video was scored with parameters tuned on the other half.
        on_test: the metrics that `select_on_test.with_test` adds, by full name; empty if the test
            split is sealed.
    """

    params: DecodeT
    objective: float
    metrics: dict[str, float]
    detections: Detections
    table: tuple[tuple[dict[str, Scalar], float], ...]
    cross_fitted: bool
    on_test: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Tried:
    """One setting, evaluated on a set of videos; the detections are those of all videos."""

    index: int
    objective: float
    metrics: dict[str, float]
    detections: Detections


def search_decode(
    decode: Decode[DecodeT],
    scores: Sequence[Scores],
    grids: Sequence[Grid],
    durations: Sequence[float],
    objective: Objective,
    *,
    start: DecodeT,
    domains: Mapping[str, Domain],
    settings: int,
    cross_fit: bool,
    seed: int,
) -> DecodeResult[DecodeT]:
    """Evaluate `start`, then the same Sobol points in every call, and return the best.

    With `cross_fit`, each half of the videos is scored with the parameters tuned on the other half,
    so that the objective is not biased by the choice. With fewer than two videos, or without
    instances in a half, the objective is not cross-fitted. If the halves chose different settings,
    their score scales differ, so every score is replaced by its rank per video before pooling.

    Args:
        decode: the method's decode.
        scores, grids, durations: one per video; durations in seconds.
        objective: the measure of detections in these videos.
        start: decode parameters tried first, and the value of every parameter not searched.
        domains: searched parameters; if empty, only `start` is evaluated.
        settings: total number of settings.
        cross_fit: see above.
        seed: for the Sobol sequence and the halves.
    """
    every = objective.labels
    labels = {s.id: every[s.id] for s in scores}
    candidates = decode_settings(start, domains, settings, seed)
    fitted = cross_fit and len(candidates) > 1
    halves = _halves(labels, objective.num_classes, seed) if fitted else ()
    groups = [tuple(labels), *halves]
    videos = list(zip(scores, grids, durations, strict=True))
    best: list[_Tried] = []
    table = []
    for index, hp in enumerate(candidates):
        found = {s.id: decode(s, grid, duration_s, hp) for s, grid, duration_s in videos}
        tried = [_judge(index, objective, found, ids) for ids in groups]
        table.append((asdict(hp), tried[0].objective))
        pairs = zip(best or tried, tried, strict=True)
        best = [new if new.objective > old.objective else old for old, new in pairs]
    metrics = best[0].metrics
    if pooled := _out_of_half(halves, best[1:]) if halves else None:
        metrics = objective.metrics({i: pooled[i] for i in labels})
    return DecodeResult(
        params=candidates[best[0].index],
        objective=metrics[objective.name],
        metrics=metrics,
        detections=best[0].detections,
        table=tuple(table),
        cross_fitted=bool(halves),
    )


def decode_settings(
    start: DecodeT, domains: Mapping[str, Domain], settings: int, seed: int
) -> tuple[DecodeT, ...]:
    """`start`, then up to `settings` - 1 different others; deterministic."""
    found = {tuple(asdict(start).values()): start}
    if domains and settings > 1:
        names = sorted(domains)
        sobol = SobolEngine(len(names), scramble=True, seed=seed)  # type: ignore[no-untyped-call]
        for point in sobol.draw(settings - 1).double().tolist():
            units = zip(names, point, strict=True)
            hp = replace(start, **{n: domains[n].sample(min(u, 1 - 1e-9)) for n, u in units})
            found.setdefault(tuple(asdict(hp).values()), hp)
    return tuple(found.values())


def write_scores(path: Path, scores: Sequence[Scores]) -> None:
    """Write scores to one .npz file atomically."""
    arrays: dict[str, Any] = {
        f"{i}/{name}": array for i, s in enumerate(scores) for name, array in s.arrays.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as beside, beside.open("wb") as file:
        np.savez(file, ids=np.array([s.id for s in scores], dtype=np.str_), **arrays)


def read_scores(path: Path) -> list[Scores]:
    """The scores that `write_scores` wrote.

    Raises:
        DataError: the file is damaged.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            ids = [str(i) for i in file["ids"]]
            arrays: list[dict[str, NDArray[Any]]] = [{} for _ in ids]
            for key in file.files:
                index, slash, name = key.partition("/")
                if slash:
                    arrays[int(index)][name] = file[key]
    except (BadZipFile, EOFError, KeyError, OSError, ValueError) as error:
        raise DataError(
            f"{path}: damaged scores; delete the file to have them made again"
        ) from error
    return [Scores(id=i, arrays=a) for i, a in zip(ids, arrays, strict=True)]


def _judge(index: int, objective: Objective, found: Detections, ids: Sequence[str]) -> _Tried:
    """Setting `index` with detections `found`, evaluated on the videos `ids`."""
    metrics = objective.metrics({i: found[i] for i in ids})
    return _Tried(index=index, objective=metrics[objective.name], metrics=metrics, detections=found)


def _halves(
    labels: Mapping[str, IntArray], num_classes: int, seed: int
) -> tuple[tuple[str, ...], ...]:
    """Two halves of the videos with about equally many instances per class; () if there are too
    few.

    Args:
        labels: the class of each instance or point, by video.
        num_classes: C.
        seed: of the order of the videos.
    """
    ids = sorted(labels)
    counts = np.stack([np.bincount(labels[i], minlength=num_classes) for i in ids])
    weight = counts / np.maximum(counts.sum(0), 1)  # rare and common classes have the same weight
    order = np.random.default_rng(seed).permutation(len(ids))
    order = order[np.argsort(-weight[order].sum(1), kind="stable")]
    difference, sides = np.zeros(num_classes), ([], [])  # type: ignore[var-annotated]
    for video in order:
        full = [len(side) >= (len(ids) + 1) // 2 for side in sides]
        heavier = (
            np.abs(difference + weight[video]).sum() > np.abs(difference - weight[video]).sum()
        )
        side = int(full[0] or (bool(heavier) and not full[1]))
        difference += weight[video] if side == 0 else -weight[video]
        sides[side].append(int(video))
    if any(len(side) < 2 or counts[side].sum() == 0 for side in sides):
        return ()
    return tuple(tuple(ids[v] for v in sorted(side)) for side in sides)


def _out_of_half(halves: Sequence[tuple[str, ...]], best: Sequence[_Tried]) -> Detections:
    """Detections of each half with the setting that was best on the other half."""
    first = {i: best[1].detections[i] for i in halves[0]}
    second = {i: best[0].detections[i] for i in halves[1]}
    if best[0].index == best[1].index:
        return first | second
    return _ranked(first) | _ranked(second)


def _ranked(detections: Detections) -> Detections:
    """Replace each score by a function of its rank in the video, so that scales are comparable."""
    score = np.concatenate([d.score for d in detections.values()])
    _, dense = np.unique(-score, return_inverse=True)  # equal scores stay equal
    first = np.cumsum(np.bincount(dense)) - np.bincount(dense)
    rank = first[dense] / len(detections)
    parts = np.split(1 / (1 + rank), np.cumsum([len(d) for d in detections.values()])[:-1])
    return {
        i: replace(d, score=part) for (i, d), part in zip(detections.items(), parts, strict=True)
    }
