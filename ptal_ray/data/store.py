"""FeatureStore: the features, annotations and points of a dataset, memory-mapped.

A store is a directory:
    features.arrow      one record batch a video, one column: fixed-size lists of D numbers
    videos.arrow        id, subset, length, duration_s
    annotations.arrow   video (row of videos), start_s, end_s, label
    points.arrow        video, time_s, label
    store.json          schema version, DatasetInfo, dtype, file sizes
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ptal_ray.data import datasets
from ptal_ray.data.types import DatasetInfo, FloatArray, Grid, Points, Segments, Video
from ptal_ray.errors import DataError

SCHEMA_VERSION = 1
SUBSETS = ("train", "test")
_TABLES = ("videos", "annotations", "points")
_FILES = ("features.arrow", *(f"{name}.arrow" for name in _TABLES))


class FeatureStore:
    """A dataset on disk; opening reads no features. Pickles as its path."""

    def __init__(self, path: Path, info: DatasetInfo, description: dict[str, Any]) -> None:
        self.path, self.info, self._description = path, info, description

    @classmethod
    def open(cls, path: str | Path) -> FeatureStore:
        """The store in directory `path`.

        Raises:
            DataError: it is missing, of another schema version, or a file is truncated.
        """
        path = Path(path)
        try:
            description = json.loads((path / "store.json").read_text())
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not a feature store ({error}); import it again") from error
        if description.get("schema_version") != SCHEMA_VERSION:
            found = description.get("schema_version")
            raise DataError(
                f"{path}: schema version {found}, this version reads {SCHEMA_VERSION}; import again"
            )
        for name, size in description["sizes"].items():
            found = (path / name).stat().st_size if (path / name).exists() else "no"
            if found != size:
                raise DataError(f"{path / name}: {found} bytes, {size} expected; import it again")
        plain = description["info"]
        plain |= {"classes": tuple(plain["classes"]), "grid": Grid(**plain["grid"])}
        return cls(path, DatasetInfo(**plain), description)

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureStore.open, (str(self.path),)

    def ids(self, subset: str) -> tuple[str, ...]:
        """Video ids of "train" or "test", in stored order."""
        if subset not in SUBSETS:
            raise DataError(f"subset {subset!r}: allowed are {', '.join(SUBSETS)}")
        videos = self._videos
        return tuple(i for i, s in zip(videos["id"], videos["subset"], strict=True) if s == subset)

    def length(self, id: str) -> int:
        """T, snippets of a video."""
        return int(self._videos["length"][self._row(id)])

    def duration_s(self, id: str) -> float:
        """Seconds of a video."""
        return float(self._videos["duration_s"][self._row(id)])

    def video(self, id: str) -> Video:
        """A video with its features (T, D), a view into the mapped file."""
        batch = self._features.get_batch(self._row(id))
        flat = batch.column(0).flatten().to_numpy(zero_copy_only=True)
        return Video(
            id=id,
            features=flat.reshape(-1, self.info.feature_dim),
            duration_s=self.duration_s(id),
            grid=self.info.grid,
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
        content = _Content(self.info, self._description["dtype"])
        for id, subset in zip(self._videos["id"], self._videos["subset"], strict=True):
            content.add(
                id, subset, self.video(id).features, self.duration_s(id), self.annotations(id),
                self.points(id),
            )  # fmt: skip
        if content.digest() != self.info.content_hash:
            raise DataError(f"{self.path}: content differs from its hash; import it again")

    @cached_property
    def _features(self) -> pa.ipc.RecordBatchFileReader:
        return pa.ipc.open_file(pa.memory_map(str(self.path / "features.arrow")))

    @cached_property
    def _videos(self) -> dict[str, Any]:
        table = self._table("videos")
        return {n: table[n].to_pylist() for n in ("id", "subset")} | {
            n: table[n].to_numpy() for n in ("length", "duration_s")
        }

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
        with pa.memory_map(str(self.path / f"{name}.arrow")) as file:
            return pa.ipc.open_file(file).read_all()

    def _rows(self, name: str, id: str) -> tuple[dict[str, NDArray[Any]], slice]:
        table = self._columns[name]
        row = self._row(id)
        first, last = np.searchsorted(table["video"], [row, row + 1])
        return table, slice(int(first), int(last))

    def _row(self, id: str) -> int:
        if id not in self._index:
            raise DataError(f"{self.path}: no video {id!r}; `python -m ptal_ray.data info` lists them")
        return self._index[id]


class StoreWriter:
    """Writes a store beside its target and renames it at the end; removes its work on an error.

    Args:
        path: directory of the store.
        name: dataset name.
        classes: class names.
        grid: stride and offset of all videos.
        features: "real" or what simulated them.
        note: one line on what the data is.
        dtype: "float16" or "float32".
        replace: whether an existing store at `path` is replaced.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str,
        classes: tuple[str, ...],
        grid: Grid,
        features: str,
        note: str = "",
        dtype: str = "float16",
        replace: bool = False,
    ) -> None:
        if dtype not in ("float16", "float32"):
            raise DataError(f"dtype {dtype!r}: allowed are float16 and float32")
        if not classes or len(set(classes)) != len(classes):
            raise DataError(f"{path}: classes must be named, each once; got {list(classes)[:5]}")
        self.path, self.replace, self.dtype = Path(path), replace, np.dtype(dtype)
        self.info = DatasetInfo(
            name=name, classes=tuple(classes), feature_dim=0, grid=grid, features=features,
            content_hash="", note=note,
        )  # fmt: skip
        self._work = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        self._sink: Any = None
        self._writer: Any = None
        self._content: _Content | None = None
        self._rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _TABLES}
        self._seen: set[str] = set()

    def __enter__(self) -> StoreWriter:
        if self.path.exists() and not self.replace:
            raise DataError(f"{self.path}: exists already; pass --replace to write it anew")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(self.path)
        self._work.mkdir()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()
            self._sink.close()
        try:
            if kind is None:
                self._finish()
        finally:
            shutil.rmtree(self._work, ignore_errors=True)

    def add(
        self,
        id: str,
        *,
        subset: str,
        features: FloatArray,
        duration_s: float,
        annotations: Segments,
        points: Points,
    ) -> None:
        """Appends a video.

        Args:
            id: unique; no path separator.
            subset: "train" or "test"; points of a test video are not stored.
            features: (T, D), finite.
            duration_s: seconds, positive.
            annotations: instances inside the video.
            points: inside the video, ascending.

        Raises:
            DataError: with the video, the value, what is allowed and the fix.
        """
        check_video(id, subset, features, duration_s, annotations, points, self.info)
        if id in self._seen:
            raise DataError(f"video {id}: added twice; ids must be unique")
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(features, dtype=self.dtype)
        if not np.isfinite(stored).all():
            largest = float(np.abs(features).max())
            raise DataError(f"video {id}: value {largest:g} overflows float16; use --dtype float32")
        if self._writer is None:
            self._open(stored.shape[1])
        kept = points if subset == "train" else points_none()
        row = len(self._seen)
        self._seen.add(id)
        assert self._content is not None
        self._content.add(id, subset, stored, duration_s, annotations, kept)
        values = pa.array(stored.reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(values, stored.shape[1])
        self._writer.write_batch(pa.record_batch([column], names=["features"]))
        self._rows["videos"].append((id, subset, len(stored), float(duration_s)))
        self._rows["annotations"] += [
            (row, *r)
            for r in zip(
                annotations.start_s.tolist(),
                annotations.end_s.tolist(),
                annotations.label.tolist(),
                strict=True,
            )
        ]
        self._rows["points"] += [
            (row, *r) for r in zip(kept.time_s.tolist(), kept.label.tolist(), strict=True)
        ]

    def _open(self, dim: int) -> None:
        self.info = replace(self.info, feature_dim=dim)
        self._content = _Content(self.info, self.dtype.name)
        kind = pa.list_(pa.from_numpy_dtype(self.dtype), dim)
        self._sink = pa.OSFile(str(self._work / "features.arrow"), "wb")
        self._writer = pa.ipc.new_file(self._sink, pa.schema([("features", kind)]))

    def _finish(self) -> None:
        if self._content is None:
            raise DataError(f"{self.path}: no video was added; check the annotations and subsets")
        for name, schema in _SCHEMAS.items():
            columns = list(zip(*self._rows[name], strict=True)) or [()] * len(schema)
            table = pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)],
                             schema=schema)  # fmt: skip
            with pa.OSFile(str(self._work / f"{name}.arrow"), "wb") as sink, \
                    pa.ipc.new_file(sink, schema) as writer:  # fmt: skip
                writer.write_table(table)
        info = replace(self.info, content_hash=self._content.digest())
        description = {
            "schema_version": SCHEMA_VERSION,
            "info": asdict(info),
            "dtype": self.dtype.name,
            "sizes": {name: (self._work / name).stat().st_size for name in _FILES},
        }
        (self._work / "store.json").write_text(json.dumps(description, indent=1))
        self._publish()

    def _publish(self) -> None:
        old = self._work.with_suffix(".old")
        if self.path.exists():
            os.rename(self.path, old)
        os.rename(self._work, self.path)
        shutil.rmtree(old, ignore_errors=True)


_SCHEMAS = {
    "videos": pa.schema(
        [("id", pa.string()), ("subset", pa.string()), ("length", pa.int64()),
         ("duration_s", pa.float64())]
    ),
    "annotations": pa.schema(
        [("video", pa.int64()), ("start_s", pa.float64()), ("end_s", pa.float64()),
         ("label", pa.int64())]
    ),
    "points": pa.schema([("video", pa.int64()), ("time_s", pa.float64()), ("label", pa.int64())]),
}  # fmt: skip


class _Content:
    """The running hash over what a store holds."""

    def __init__(self, info: DatasetInfo, dtype: str) -> None:
        plain = asdict(replace(info, content_hash=""))
        self._hash = hashlib.sha256(json.dumps([SCHEMA_VERSION, dtype, plain]).encode())

    def add(
        self,
        id: str,
        subset: str,
        features: FloatArray,
        duration_s: float,
        annotations: Segments,
        points: Points,
    ) -> None:
        head = [id, subset, list(features.shape), float(duration_s), len(annotations), len(points)]
        self._hash.update(json.dumps(head).encode())
        self._hash.update(np.ascontiguousarray(features).data)
        for seconds in (annotations.start_s, annotations.end_s, points.time_s):
            self._hash.update(np.ascontiguousarray(seconds, np.float64).data)
        for label in (annotations.label, points.label):
            self._hash.update(np.ascontiguousarray(label, np.int64).data)

    def digest(self) -> str:
        return self._hash.hexdigest()


def check_video(
    id: str,
    subset: str,
    features: FloatArray,
    duration_s: float,
    annotations: Segments,
    points: Points,
    info: DatasetInfo,
) -> None:
    """Checks one video; `info.feature_dim` 0 allows any D.

    Raises:
        DataError: with the video, the value, what is allowed and the fix.
    """
    for problem in problems(id, subset, features, duration_s, annotations, points, info):
        raise DataError(problem)


def problems(
    id: str,
    subset: str,
    features: FloatArray,
    duration_s: float,
    annotations: Segments,
    points: Points,
    info: DatasetInfo,
) -> Iterator[str]:
    """Everything wrong with a video, a line each; see `check_video`."""
    if not id or "/" in id or "\\" in id or id.startswith(".") or "\0" in id:
        yield f"video {id!r}: an id must not be empty, hold a path separator or start with a dot"
    if subset not in SUBSETS:
        yield f"video {id}: subset {subset!r}; allowed are {', '.join(SUBSETS)}"
    if features.ndim != 2 or 0 in features.shape:
        yield f"video {id}: features of shape {features.shape}; (T, D) with T, D >= 1 is needed"
        return
    if info.feature_dim and features.shape[1] != info.feature_dim:
        yield f"video {id}: D = {features.shape[1]}, but {info.feature_dim} in the videos before it"
    bad = np.argwhere(~np.isfinite(features))
    if len(bad):
        t, d = bad[0]
        yield (
            f"video {id}: features[{t}, {d}] is {features[t, d]}, {len(bad)} such values; "
            "features must be finite: extract them again"
        )
    if not (np.isfinite(duration_s) and duration_s > 0):
        yield f"video {id}: duration {duration_s} s; it must be positive"
        return
    for start, end in zip(annotations.start_s, annotations.end_s, strict=True):
        if not (0 <= start < end <= duration_s + 1e-6):
            yield (
                f"video {id}: instance [{start:g}, {end:g}] s; "
                f"0 <= start < end <= {duration_s:g} is needed"
            )
    for time_s in points.time_s:
        if not 0 <= time_s <= duration_s:
            yield f"video {id}: point at {time_s:g} s; it must lie in [0, {duration_s:g}] s"
    for kind, label in (("instance", annotations.label), ("point", points.label)):
        unknown = label[(label < 0) | (label >= info.num_classes)]
        if len(unknown):
            yield f"video {id}: {kind} label {unknown[0]}; there are {info.num_classes} classes"


def points_none() -> Points:
    """No point labels."""
    return Points(time_s=np.zeros(0), label=np.zeros(0, np.int64))


def data_root() -> Path:
    """Where stores lie: $PTAL_DATA, else the user's cache directory."""
    if "PTAL_DATA" in os.environ:
        return Path(os.environ["PTAL_DATA"])
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "ptal_ray"


def find(name_or_path: str) -> FeatureStore:
    """A store by name under `data_root()`, or by path; "watch" is assembled on first use.

    Raises:
        DataError: there is none; says how to import it.
    """
    path = Path(name_or_path) if "/" in name_or_path else data_root() / name_or_path
    if name_or_path == "watch" and not (path / "store.json").exists():
        from ptal_ray.data.watch import assemble  # needs seglearn, which nothing else does

        assemble(path)
    if not path.exists():
        raise DataError(
            f"dataset {name_or_path!r} is not imported ({path} is missing); "
            f"{datasets.import_hint(name_or_path)}; `--dataset watch` tries the same space at once"
        )
    return FeatureStore.open(path)


def _remove_leftovers(path: Path) -> None:
    """Removes what killed writers of this store left, and brings back a store they had set aside."""
    for work in path.parent.glob(f".{path.name}.*.partial"):
        if not _alive(work):
            shutil.rmtree(work, ignore_errors=True)
    for old in path.parent.glob(f".{path.name}.*.old"):
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, path)


def _alive(work: Path) -> bool:
    pid = int(work.name.rsplit(".", 2)[1])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
