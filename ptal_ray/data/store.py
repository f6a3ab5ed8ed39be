"""FeatureStore: the features, annotations and points of a dataset, memory-mapped.

A store is a directory:
    features.arrow      one record batch a video, one column: fixed-size lists of D numbers
    videos.arrow        id, subset, length, duration_s, stride_s, offset_s, and group if any has one
    annotations.arrow   video (row of videos), start_s, end_s, label
    points.arrow        video, time_s, label
    store.json          schema version, DatasetInfo, dtype, file sizes, preparation of the features
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ptal_ray.data.checks import SUBSETS, check_labels, width_problems
from ptal_ray.data.content import Content
from ptal_ray.data.features.precision import Channels
from ptal_ray.data.features.preparation import UNKNOWN, Preparation
from ptal_ray.data.features.prepared import Prepared, prepared
from ptal_ray.data.points import ascending, no_points
from ptal_ray.data.rates import own_grid
from ptal_ray.data.staging import staged
from ptal_ray.data.store_files import SCHEMA_VERSION, STORE, STORE_FILES, read_description
from ptal_ray.data.tables import TABLES, write_table
from ptal_ray.data.types import DatasetInfo, FloatArray, Grid, Points, Segments, Video
from ptal_ray.errors import DataError
from ptal_ray.storage.flush import early_writes

_TEXTS = ("id", "subset", "group")


class FeatureStore:
    """A dataset on disk; opening reads no features. Pickles as its path and content hash."""

    def __init__(self, path: Path, info: DatasetInfo, description: dict[str, Any]) -> None:
        self.path, self.info, self._description = path, info, description

    @classmethod
    def open(cls, path: str | Path) -> FeatureStore:
        """The store in directory `path`.

        Raises:
            DataError: it is missing, of another schema version, or a file is truncated.
        """
        path = Path(path)
        description = read_description(path)
        try:
            sizes, plain = dict(description["sizes"]), dict(description["info"])
            version = description["schema_version"]
            shared = Grid(**plain["grid"]) if plain["grid"] or version == 1 else None
            plain |= {"classes": tuple(plain["classes"]), "grid": shared}
            info = DatasetInfo(**plain)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path / 'store.json'}: damaged; import it again") from error
        if sizes.keys() != set(STORE_FILES):
            raise DataError(f"{path / 'store.json'}: damaged; import it again")
        for name, size in sizes.items():
            found = (path / name).stat().st_size if (path / name).exists() else "no"
            if found != size:
                raise DataError(f"{path / name}: {found} bytes, {size} expected; import it again")
        return cls(path, info, description)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (str(self.path), self.info.content_hash)

    @property
    def dtype(self) -> str:
        """ "float16" or "float32", as the features are stored."""
        return str(self._description["dtype"])

    @property
    def preparation(self) -> Preparation:
        """How the features were made from user files, as far as it is known.

        Raises:
            DataError: its record in store.json is damaged.
        """
        try:
            return Preparation.of(self._description.get("preparation", {}))
        except (AttributeError, TypeError, ValueError) as error:
            raise DataError(f"{self.path / 'store.json'}: damaged; import it again") from error

    def ids(self, subset: str) -> tuple[str, ...]:
        """Video ids of "train" or "test", in stored order."""
        if subset not in SUBSETS:
            raise DataError(f"subset {subset!r}: allowed are {', '.join(SUBSETS)}")
        return self._subsets[subset]

    def length(self, id: str) -> int:
        """T, snippets of a video."""
        return int(self._videos["length"][self._row(id)])

    def duration_s(self, id: str) -> float:
        """Seconds of a video."""
        return float(self._videos["duration_s"][self._row(id)])

    def grid(self, id: str) -> Grid:
        """The times of the snippets of a video."""
        row, columns = self._row(id), self._videos
        return Grid(
            stride_s=float(columns["stride_s"][row]), offset_s=float(columns["offset_s"][row])
        )

    def groups(self) -> dict[str, str]:
        """The group (e.g. a person) by video id, for videos that have one."""
        groups = self._videos.get("group", ())
        return {id: group for id, group in zip(self._videos["id"], groups, strict=False) if group}

    def video(self, id: str) -> Video:
        """A video with its features (T, D), a view into the mapped file."""
        batch = self._features.get_batch(self._row(id))
        flat = batch.column(0).flatten().to_numpy(zero_copy_only=True)
        return Video(
            id=id,
            features=flat.reshape(-1, self.info.feature_dim),
            duration_s=self.duration_s(id),
            grid=self.grid(id),
        )

    def annotations(self, id: str) -> Segments:
        """The annotated instances of a video, score 1."""
        table, rows = self._rows("annotations", id)
        return Segments(
            start_s=table["start_s"][rows],
            end_s=table["end_s"][rows],
            label=table["label"][rows],
            score=np.ones(rows.stop - rows.start),
        )

    def points(self, id: str) -> Points:
        """The point labels of a video; none for a test video."""
        table, rows = self._rows("points", id)
        return Points(time_s=table["time_s"][rows], label=table["label"][rows])

    def verify(self) -> None:
        """Recomputes the content hash.

        Raises:
            DataError: the content is not what was imported.
        """
        content, groups = Content(self.info, self._description["dtype"]), self.groups()
        for id, subset in zip(self._videos["id"], self._videos["subset"], strict=True):
            content.add(
                id, subset, self.video(id).features, self.duration_s(id), self.annotations(id),
                self.points(id), self.grid(id), groups.get(id, ""),
            )  # fmt: skip
        if content.digest() != self.info.content_hash:
            raise DataError(f"{self.path}: the content does not match its hash; import it again")

    @cached_property
    def _features(self) -> pa.ipc.RecordBatchFileReader:
        with _whole(path := self.path / "features.arrow"):
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._check_unchanged()
        return reader

    @cached_property
    def _videos(self) -> dict[str, Any]:
        table = self._table("videos")
        shared = asdict(self.info.grid) if self.info.grid else {}
        columns = {n: np.full(len(table), value) for n, value in shared.items()}  # version 1
        columns |= {n: table[n].to_numpy() for n in table.column_names if n not in _TEXTS}
        return columns | {n: table[n].to_pylist() for n in _TEXTS if n in table.column_names}

    @cached_property
    def _subsets(self) -> dict[str, tuple[str, ...]]:
        pairs = list(zip(self._videos["id"], self._videos["subset"], strict=True))
        return {name: tuple(id for id, subset in pairs if subset == name) for name in SUBSETS}

    @cached_property
    def _index(self) -> dict[str, int]:
        return {id: row for row, id in enumerate(self._videos["id"])}

    @cached_property
    def _columns(self) -> dict[str, dict[str, NDArray[Any]]]:
        read = {}
        for name in ("annotations", "points"):
            table = self._table(name)
            read[name] = {c: table[c].to_numpy() for c in table.column_names}
        return read

    def _table(self, name: str) -> pa.Table:
        path = self.path / f"{name}.arrow"
        with _whole(path), pa.memory_map(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        self._check_unchanged()
        return table

    def _check_unchanged(self) -> None:
        found = read_description(self.path)["info"]["content_hash"]
        if found != self.info.content_hash:
            raise DataError(f"{self.path}: the store was replaced while in use; start again")

    def _rows(self, name: str, id: str) -> tuple[dict[str, NDArray[Any]], slice]:
        table = self._columns[name]
        row = self._row(id)
        first, last = np.searchsorted(table["video"], [row, row + 1])
        return table, slice(int(first), int(last))

    def _row(self, id: str) -> int:
        if id not in self._index:
            raise DataError(f"{self.path}: no video {id!r} (of {len(self._index)} videos)")
        return self._index[id]


class StoreWriter:
    """Writes a store next to its target and renames it at the end; removes it on an error.

    Args:
        path: directory of the store.
        name: dataset name.
        classes: class names.
        grid: stride and offset of all videos; None if `add` gives each video its own.
        features: "real", or the recipe that simulated them.
        note: one line that describes the data.
        dtype: "float16" or "float32"; an error at the end if its rounding error is too large.
        replace: whether to replace an existing store at `path`.
        wait: whether to wait for another process writing the same store; otherwise an error.
        measured: whether the caller has already checked the rounding error of `dtype`.
        preparation: how the features were made from user files.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str,
        classes: tuple[str, ...],
        grid: Grid | None,
        features: str,
        note: str = "",
        dtype: str = "float16",
        replace: bool = False,
        wait: bool = False,
        measured: bool = False,
        preparation: Preparation = UNKNOWN,
    ) -> None:
        if dtype not in ("float16", "float32"):
            raise DataError(f"dtype {dtype!r}: allowed are float16 and float32")
        if not classes or len(set(classes)) != len(classes):
            raise DataError(
                f"{path}: class names must be unique and not empty; got {list(classes)[:5]}"
            )
        self.path, self.dtype = Path(path), np.dtype(dtype)
        self.info = DatasetInfo(
            name=name, classes=tuple(classes), feature_dim=0, grid=grid, features=features,
            content_hash="", note=note,
        )  # fmt: skip
        self._staging = ExitStack()
        self._staged = staged(self.path, STORE, replace=replace, wait=wait)
        self._sink: Any = None
        self._writer: Any = None
        self._content: Content | None = None
        self._channels, self._measured = Channels(dtype), measured
        self._preparation = preparation
        self._rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in TABLES}
        self._seen: set[str] = set()

    def __enter__(self) -> StoreWriter:
        self._work = self._staging.enter_context(self._staged)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self._staging:
            if self._writer is not None:
                self._writer.close()
                self._sink.close()
            if error is not None:
                raise error
            self._finish()

    def add(
        self,
        id: str,
        *,
        subset: str,
        features: FloatArray,
        duration_s: float,
        annotations: Segments,
        points: Points,
        grid: Grid | None = None,
        group: str = "",
    ) -> None:
        """Appends a video.

        Args:
            id: unique; no path separator.
            subset: "train" or "test"; points of a test video with instances are not stored.
            features: (T, D), finite.
            duration_s: seconds, positive.
            annotations: instances; may end after the video, as published ones do.
            points: inside the video.
            grid: of this video, if the store has no shared grid.
            group: e.g. the person in the video; empty for none.

        Raises:
            DataError: a value is not allowed; the message names video, value and fix.
        """
        video = prepared(id, features, self.dtype.name, measured=self._measured)
        self.append(
            video, subset=subset, duration_s=duration_s, annotations=annotations, points=points,
            grid=grid, group=group,
        )  # fmt: skip

    def append(
        self,
        video: Prepared,
        *,
        subset: str,
        duration_s: float,
        annotations: Segments,
        points: Points,
        grid: Grid | None = None,
        group: str = "",
    ) -> None:
        """Appends a video whose features `prepared` has made; the rest is as for `add`."""
        id, stored = video.id, video.features
        check_labels(id, subset, duration_s, annotations, points, classes=self.info.num_classes)
        for problem in width_problems(id, stored.shape, self.info.feature_dim):
            raise DataError(problem)
        grid = own_grid(id, grid, self.info.grid)
        if id in self._seen:
            raise DataError(f"video {id}: added twice; ids must be unique")
        if self._writer is None:
            self._open(stored.shape[1])
        judged_by_points = subset == "train" or not len(annotations)
        kept = ascending(points) if judged_by_points else no_points()
        if video.sums is not None:
            self._channels.take(video.sums)
        row = len(self._seen)
        self._seen.add(id)
        assert self._content is not None
        self._content.add(id, subset, stored, duration_s, annotations, kept, grid, group)
        values = pa.array(stored.reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(values, stored.shape[1])
        self._writer.write_batch(pa.record_batch([column], names=["features"]))
        self._grown(stored.nbytes)
        self._rows["videos"].append(
            (id, subset, len(stored), float(duration_s), grid.stride_s, grid.offset_s, group)
        )
        columns = (annotations.start_s, annotations.end_s, annotations.label)
        self._rows["annotations"] += [
            (row, *r) for r in zip(*(column.tolist() for column in columns), strict=True)
        ]
        self._rows["points"] += [
            (row, *r) for r in zip(kept.time_s.tolist(), kept.label.tolist(), strict=True)
        ]

    def _open(self, dim: int) -> None:
        self.info = replace(self.info, feature_dim=dim)
        self._content = Content(self.info, self.dtype.name)
        kind = pa.list_(pa.from_numpy_dtype(self.dtype), dim)
        self._sink = pa.OSFile(str(self._work / "features.arrow"), "wb")
        self._writer = pa.ipc.new_file(self._sink, pa.schema([("features", kind)]))
        self._grown = self._staging.enter_context(early_writes(self._sink.fileno()))

    def _finish(self) -> None:
        if self._content is None:
            raise DataError(f"{self.path}: no video was added; check the annotations and subsets")
        self._channels.check(str(self.path))
        for name in TABLES:
            write_table(self._work, name, self._rows[name])
        info = replace(self.info, content_hash=self._content.digest())
        description = {
            "schema_version": SCHEMA_VERSION,
            "info": asdict(info),
            "dtype": self.dtype.name,
            "sizes": {name: (self._work / name).stat().st_size for name in STORE_FILES},
            "preparation": self._preparation.plain(),
        }
        (self._work / "store.json").write_text(json.dumps(description, indent=1), encoding="utf-8")


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Names the file that turns out to be no Arrow file."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: damaged; import it again") from error


def _reopen(path: str, content_hash: str) -> FeatureStore:
    store = FeatureStore.open(path)
    if store.info.content_hash != content_hash:
        raise DataError(f"{path}: the store was replaced while in use; start again")
    return store
