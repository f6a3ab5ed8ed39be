"""The work of `python -m ptal_ray.data`: one function a command, which returns its exit code."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ptal_ray.data.datasets import data_root, find, origin
from ptal_ray.data.exclusions import excluded_ids
from ptal_ray.data.findings import remark_lines
from ptal_ray.data.importing.importer import examine, import_dataset
from ptal_ray.data.importing.page import page, review, summary_line
from ptal_ray.data.importing.plan import Plan
from ptal_ray.data.names import check_name
from ptal_ray.data.point_noise import drawn_anew, given_noise
from ptal_ray.data.points import write_points_csv
from ptal_ray.data.publication import published
from ptal_ray.data.readers.source import source
from ptal_ray.data.staging import check_place
from ptal_ray.data.statistics import NOT_SEALED, statistics, stored_videos, table
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.store_files import STORE
from ptal_ray.errors import ConfigError, DataError
from ptal_ray.storage.folder import Folder

_BAR = 40  # characters of a progress bar
_MANY = 100  # videos whose progress is told where there is no terminal


def run_import(flags: argparse.Namespace) -> int:
    """Writes a store of features, annotations and points."""
    with _target(flags) as out:
        plan = import_dataset(
            source(flags),
            out,
            dtype=flags.dtype,
            replace=flags.replace,
            workers=flags.workers,
            progress=_progress,
        )
        _show(FeatureStore.open(out))
    _remark(plan)
    return 0


def run_validate(flags: argparse.Namespace) -> int:
    """Shows all that is wrong with an import, or checks a store."""
    if flags.features is None and flags.layout == ["plain"]:
        store = find(flags.name)
        problems, remarks = review(store)
        place, videos, classes = str(store.path), stored_videos(store), store.info.classes
        lines = page(videos, classes, problems, remarks, remarks.examples)
        rest = f", {store.info.content_hash}"
    else:
        check_name(flags.name)
        plan = examine(source(flags), dtype=flags.dtype, workers=flags.workers, progress=_progress)
        place, problems, rest = flags.name, list(plan.problems), ""
        lines = page(plan.videos, plan.classes, problems, plan.remarks, plan.examples)
    print("\n".join(lines))
    if problems:
        raise DataError(f"{place}: {summary_line(problems)}")
    print(f"{place}: sound{rest}")
    return 0


def run_points(flags: argparse.Namespace) -> int:
    """Writes the points of a store, or simulated ones, as CSV."""
    noise = given_noise(flags, bool(flags.kind), "--kind")
    store = find(flags.name)
    classes = len(store.info.classes)
    points = {
        id: drawn_anew(id, store.annotations(id), store.duration_s(id), kind=flags.kind,
                       noise=noise, seed=flags.seed, classes=classes)
        if flags.kind
        else store.points(id)
        for id in store.ids("train")
    }  # fmt: skip
    write_points_csv(flags.out, points, store.info.classes, replace=flags.replace)
    print(f"{sum(map(len, points.values()))} points of {len(points)} videos: {flags.out}")
    return 0


def run_info(flags: argparse.Namespace) -> int:
    """Shows what a store holds."""
    store = find(flags.name)
    found = statistics(stored_videos(store), store.info.classes)
    if flags.json:
        plain = {subset: split.plain() for subset, split in found.items()}
        print(json.dumps(_facts(store) | {"statistics": plain}))
    else:
        _show(store)
        print("\n".join(["", *table(found)]))
    return 0


def run_simulate(flags: argparse.Namespace) -> int:
    """Writes a store of simulated features."""
    from ptal_ray.data.simulate import Published, simulate  # the other commands need none of it

    with _target(flags) as out:
        simulate(
            flags.name, flags.annotations, points_csv=flags.points, dim=flags.dim,
            difficulty=flags.difficulty, seed=flags.seed, out=out, limit=flags.limit,
            workers=flags.workers, replace=flags.replace, train_list=flags.train_list,
            test_list=flags.test_list, stride_s=flags.stride_s, progress=_progress,
            exclude=excluded_ids(flags.exclude),
            published=Published(
                fps=flags.point_fps, allow_points=flags.allow_points, remark=print
            ),
        )  # fmt: skip
        _show(FeatureStore.open(out))
    return 0


@contextmanager
def _target(flags: argparse.Namespace) -> Iterator[Path]:
    """Where to write a new store; it goes to $PTAL_DATA afterwards where that is an address."""
    where = origin(check_name(flags.name))
    if flags.out or not (place := Folder.parse(where)).remote:
        if str(flags.out).startswith("s3:/"):  # a path has no two slashes
            raise ConfigError(f"--out {flags.out}: give a local folder, or set PTAL_DATA")
        out = flags.out or data_root() / flags.name
        check_place(out, STORE, replace=flags.replace)  # before the work; and again after it
        yield out
        return
    with published(place, replace=flags.replace) as path:
        yield path
    print(f"stored    {where}")


def _facts(store: FeatureStore) -> dict[str, Any]:
    info = store.info
    grids = [store.grid(i) for i in store.ids("train") + store.ids("test")]
    subsets, groups = {}, store.groups()
    for subset in ("train", "test"):
        ids = store.ids(subset)
        subsets[subset] = {
            "videos": len(ids),
            "hours": sum(map(store.duration_s, ids)) / 3600,
            "snippets": sum(map(store.length, ids)),
            "instances": sum(len(store.annotations(i)) for i in ids),
            "points": sum(len(store.points(i)) for i in ids),
            "groups": len({groups[i] for i in ids if i in groups}),
        }
    return {
        "name": info.name,
        "path": str(store.path),
        "features": info.features,
        "note": info.note,
        "classes": list(info.classes),
        "feature_dim": info.feature_dim,
        "dtype": store.dtype,
        "stride_s": _shared({grid.stride_s for grid in grids}),
        "offset_s": _shared({grid.offset_s for grid in grids}),
        "content_hash": info.content_hash,
        "subsets": subsets,
    }


def _shared(values: set[float]) -> float | list[float]:
    """The one value of all videos, or the least and the largest."""
    return min(values) if len(values) == 1 else [min(values), max(values)]


def _text(value: float | list[float]) -> str:
    return " to ".join(f"{v:g}" for v in (value if isinstance(value, list) else [value]))


def _show(store: FeatureStore) -> None:
    facts = _facts(store)
    names = facts["classes"]
    more = f", ... ({len(names)})" if len(names) > 6 else f" ({len(names)})"
    rows = [
        ("dataset", facts["name"]),
        ("path", facts["path"]),
        ("features", facts["features"]),
        ("note", facts["note"] or "-"),
        ("classes", ", ".join(names[:6]) + more),
        ("snippet", f"{facts['feature_dim']} numbers, {facts['dtype']}"),
        ("grid", f"a snippet every {_text(facts['stride_s'])} s from {_text(facts['offset_s'])} s"),
    ]
    rows += [
        (
            subset,
            f"{n['videos']} videos, {n['hours']:.2f} h, {n['snippets']} snippets, "
            f"{n['instances']} instances, {n['points']} points"
            f"{_grouped(n['groups'])}"
            if n["videos"] or subset == "train"
            else f"no videos; {NOT_SEALED}",
        )
        for subset, n in facts["subsets"].items()
    ]
    rows.append(("content", facts["content_hash"]))
    for key, value in rows:
        print(f"{key:<9} {value}")


def _grouped(groups: int) -> str:
    return f", {groups} groups" if groups else ""


def _remark(plan: Plan) -> None:
    for line in remark_lines(plan.remarks, plan.examples):
        print(line)


def _progress(done: int, total: int) -> None:
    """A bar on a terminal; elsewhere a line every tenth of many videos."""
    if sys.stderr.isatty():
        filled = _BAR * done // max(total, 1)
        bar = "#" * filled + "." * (_BAR - filled)
        print(f"\r[{bar}] {done}/{total} videos", end="\n" * (done == total), file=sys.stderr,
              flush=True)  # fmt: skip
    elif total >= _MANY and 10 * done // total > 10 * (done - 1) // total and done:
        print(f"{100 * done // total} % ({done} of {total} videos)", file=sys.stderr, flush=True)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "import": run_import,
    "validate": run_validate,
    "points": run_points,
    "info": run_info,
    "simulate": run_simulate,
}
