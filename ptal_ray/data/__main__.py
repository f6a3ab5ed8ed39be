"""python -m ptal_ray.data: import, validate, points, info, simulate."""

from __future__ import annotations

from ptal_ray.process.interruption import interruptible

# isort: split
import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ptal_ray.data.datasets import data_root, find, origin
from ptal_ray.data.findings import remark_lines
from ptal_ray.data.importer import examine, import_dataset
from ptal_ray.data.names import check_name
from ptal_ray.data.page import page, review, verdict
from ptal_ray.data.plan import Plan
from ptal_ray.data.points import KINDS, simulate_points, write_points_csv
from ptal_ray.data.publication import published
from ptal_ray.data.rates import RateSource, rate_source
from ptal_ray.data.readers.flags import add_flags, source
from ptal_ray.data.staging import check_place
from ptal_ray.data.statistics import statistics, stored_videos, table
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.store_files import STORE
from ptal_ray.data.survey import AUTO, DTYPES
from ptal_ray.data.types import Segments
from ptal_ray.errors import ConfigError, DataError, PtalError
from ptal_ray.process.console import run_main
from ptal_ray.storage.remote import Remote, is_remote


@interruptible
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 2 flags, 3 data, 130 interrupted."""
    flags = _parser().parse_args(arguments)
    try:
        return int(flags.run(flags))
    except PtalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _import(flags: argparse.Namespace) -> int:
    with _target(flags) as out:
        plan = import_dataset(
            source(flags), out, dtype=flags.dtype, replace=flags.replace, progress=_progress
        )
        _show(FeatureStore.open(out))
    _remark(plan)
    return 0


def _validate(flags: argparse.Namespace) -> int:
    if flags.features is None and flags.layout == ["plain"]:
        store = find(flags.name)
        problems, remarks = review(store)
        place, videos, classes = str(store.path), stored_videos(store), store.info.classes
        lines = page(videos, classes, problems, remarks, remarks.examples)
        rest = f", {store.info.content_hash}"
    else:
        check_name(flags.name)
        plan = examine(source(flags), dtype=flags.dtype, progress=_progress)
        place, problems, rest = flags.name, list(plan.problems), ""
        lines = page(plan.videos, plan.classes, problems, plan.remarks, plan.examples)
    print("\n".join(lines))
    if problems:
        raise DataError(f"{place}: {verdict(problems)}")
    print(f"{place}: sound{rest}")
    return 0


def _points(flags: argparse.Namespace) -> int:
    store = find(flags.name)
    rng = np.random.default_rng(flags.seed)
    points = {
        id: simulate_points(store.annotations(id), rng, flags.kind)
        if flags.kind
        else store.points(id)
        for id in store.ids("train")
    }
    write_points_csv(flags.out, points, store.info.classes, replace=flags.replace)
    print(f"{sum(map(len, points.values()))} points of {len(points)} videos: {flags.out}")
    return 0


def _info(flags: argparse.Namespace) -> int:
    store = find(flags.name)
    found = statistics(stored_videos(store), store.info.classes)
    if flags.json:
        plain = {subset: split.plain() for subset, split in found.items()}
        print(json.dumps(_facts(store) | {"statistics": plain}))
    else:
        _show(store)
        print("\n".join(["", *table(found)]))
    if flags.plot:
        _plot(store, flags.plot)
        print(f"picture: {flags.plot}", file=sys.stderr if flags.json else sys.stdout)
    return 0


def _plot(store: FeatureStore, path: Path) -> None:
    from ptal_ray.reporting.plots import (  # the other commands need no matplotlib
        data_statistics,
        save_as,
    )

    instances = {
        subset: Segments.concatenate(
            [Segments.empty(), *(store.annotations(id) for id in store.ids(subset))]
        )
        for subset in ("train", "test")
    }
    save_as(data_statistics(instances, store.info.classes, store.info.name), path)


def _simulate(flags: argparse.Namespace) -> int:
    from ptal_ray.data.simulate import Published, simulate  # the other commands need none of it

    with _target(flags) as out:
        simulate(
            flags.name, flags.annotations, points_csv=flags.points, dim=flags.dim,
            difficulty=flags.difficulty, seed=flags.seed, out=out, limit=flags.limit,
            workers=flags.workers, replace=flags.replace, train_list=flags.train_list,
            test_list=flags.test_list, stride_s=flags.stride_s, progress=_progress,
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
    if flags.out or not is_remote(where):
        if str(flags.out).startswith("s3:/"):  # a path has no two slashes
            raise ConfigError(f"--out {flags.out}: give a folder of this machine, or set PTAL_DATA")
        out = flags.out or data_root() / flags.name
        check_place(out, STORE, replace=flags.replace)  # before the work; and again after it
        yield out
        return
    with published(Remote.parse(where), replace=flags.replace) as path:
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
            + (f", {n['groups']} groups" if n["groups"] else ""),
        )
        for subset, n in facts["subsets"].items()
    ]
    rows.append(("content", facts["content_hash"]))
    for key, value in rows:
        print(f"{key:<9} {value}")


def _remark(plan: Plan) -> None:
    for line in remark_lines(plan.remarks, plan.examples):
        print(line)


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and (done % 50 == 0 or done == total):
        print(f"\r{done}/{total} videos", end="\n" if done == total else "", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ptal_ray.data", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("import", help="features, annotations and points into a store")
    _source_flags(command)
    _out_flags(command)
    command.set_defaults(run=_checked(command, _import, needs_source=True))
    command = commands.add_parser(
        "validate", help="list all problems of an import, or verify a store by its hash"
    )
    _source_flags(command)
    command.set_defaults(run=_checked(command, _validate))
    command = commands.add_parser("points", help="write the points of a store, or others, as CSV")
    command.add_argument("name", help="dataset name or path of a store")
    command.add_argument("--kind", choices=KINDS, help="simulate them; default: those it has")
    command.add_argument("--seed", type=_seed, default=0, help="of --kind")
    command.add_argument("--out", type=Path, required=True, metavar="CSV")
    command.add_argument("--replace", action="store_true", help="a CSV of points that is there")
    command.set_defaults(run=_points)
    command = commands.add_parser("info", help="what a store holds")
    command.add_argument("name", help="dataset name or path of a store")
    command.add_argument("--json", action="store_true", help="statistics too")
    command.add_argument("--plot", type=Path, metavar="FILE.png", help="a picture of durations "
                         "and counts")  # fmt: skip
    command.set_defaults(run=_info)
    command = commands.add_parser("simulate", help="a store of simulated features")
    command.add_argument("name", help="dataset name, e.g. thumos14")
    command.add_argument("--annotations", type=Path, required=True, metavar="GT.json")
    command.add_argument("--points", type=Path, metavar="CSV", help="default: simulated")
    _point_flags(command, "json, and for a video without, what stop_frame of --points gives")
    command.add_argument("--dim", type=_positive_int, default=128)
    command.add_argument("--difficulty", choices=("easy", "standard", "hard"), default="standard")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--limit", type=_positive_int, metavar="VIDEOS", help="about so many")
    command.add_argument("--stride-s", type=_positive, help="default: that of the dataset")
    command.add_argument("--workers", type=_positive_int, default=os.cpu_count() or 1)
    _list_flags(command)
    _out_flags(command)
    command.set_defaults(run=_checked(command, _simulate))
    return parser


def _source_flags(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("name", help="dataset name")
    add_flags(command)
    add("--features", "--signals", type=Path, metavar="DIR", help="<id>.npy, each (T, D)")
    add("--annotations", type=Path, metavar="GT.json")
    add("--fps", "--rate", type=_rates, metavar="json|CSV|NUMBER", help="that --stride "
        "and --window count: json: the one that GT.json gives each video; CSV: columns video,fps "
        "and, where videos differ in them, stride,window; or one for all")  # fmt: skip
    add("--stride", type=_positive, default=0.0, metavar="FRAMES", help="unless CSV or json has it")
    add("--window", type=_positive, default=0.0, metavar="FRAMES", help="default: the stride")
    add("--allow-length", action="store_true",
        help="go on with features that cover another time than their video lasts")  # fmt: skip
    add("--points", type=Path, metavar="CSV")
    _point_flags(command)
    add("--simulate-points", "--point-kind", choices=KINDS, default="", help="in place of --points")
    add("--seed", type=_seed, default=0, help="of --simulate-points")
    _list_flags(command)
    add("--drop-invalid", action="store_true", help="leave out instances with end <= start "
        "or start < 0")  # fmt: skip
    add("--transpose", action="store_true", help="the feature files hold (D, T); "
        "with --layout mstcn (T, D)")  # fmt: skip
    add("--dtype", choices=DTYPES, default=AUTO, help="of the store; auto: float16 where it loses "
        "nothing that matters")  # fmt: skip
    add("--note", default="", help="one line on the data, shown with every result")


def _point_flags(command: argparse.ArgumentParser, default: str = "json") -> None:
    add = command.add_argument
    add("--point-fps", type=_rates, metavar="json|CSV|NUMBER",
        help=f"of the frame numbers in --points; a CSV has columns video,fps; default: {default}"
        )  # fmt: skip
    add("--allow-points", action="store_true",
        help="go on with points of which many lie in no instance of their class")  # fmt: skip


def _list_flags(command: argparse.ArgumentParser) -> None:
    help = "ids of the {} videos, one a line, in place of the subsets in GT.json"
    for subset in ("train", "test"):
        command.add_argument(
            f"--{subset}-list", type=Path, metavar="FILE", help=help.format(subset)
        )


def _out_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--replace", action="store_true", help="an existing store")
    command.add_argument("--out", type=Path, metavar="DIR", help="default: the name in the cache")


def _checked(
    command: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int],
    *,
    needs_source: bool = False,
) -> Callable[[argparse.Namespace], int]:
    """`run` after a check of the flags that depend on each other.

    Args:
        command: whose flags they are.
        run: the command.
        needs_source: whether it always reads features and annotations.
    """

    def checked(flags: argparse.Namespace) -> int:
        if (flags.train_list is None) != (flags.test_list is None):
            command.error("--train-list and --test-list go together")
        if getattr(flags, "layout", None) == ["plain"] and (needs_source or flags.features):
            missing = [n for n in ("features", "annotations", "fps") if not getattr(flags, n)]
            missing += ["stride"] if not flags.stride and isinstance(flags.fps, float) else []
            if missing:
                command.error(f"--{missing[0]} is needed")
            if flags.points is None and not flags.simulate_points:
                command.error("one of --points CSV and --simulate-points KIND is needed")
        if getattr(flags, "simulate_points", "") and flags.points:
            command.error("one of --points CSV and --simulate-points KIND is needed, not both")
        return run(flags)

    return checked


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: a positive number is needed")
    return value


def _seed(text: str) -> int:
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 0 on is needed")
    return value


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 1 on is needed")
    return value


def _rates(text: str) -> RateSource:
    try:
        return rate_source(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    run_main(main)
