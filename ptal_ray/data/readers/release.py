"""Input and output of a reader of released folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

from ptal_ray.data.features.feature_file import FeatureFile, npy, npz, table, turned
from ptal_ray.data.importing.groups import GroupSource
from ptal_ray.data.rates import RateSource
from ptal_ray.data.user_files import is_file, read_json, read_lines
from ptal_ray.data.video_ids import spellings
from ptal_ray.errors import ConfigError, DataError

_FORMATS = {".npy": npy, ".csv": table}


@dataclass(frozen=True, kw_only=True)
class Given:
    """The values of the flags; None, 0 or empty means the default of the layout.

    Args:
        root: the released folder.
        features, annotations, points: folder and files, if they are not at their default place.
        fps, stride, window: as of an import.
        key: of the array in a .npz.
        prefix, suffix: before and after the video id in the name of a feature file; the suffix
            includes the extension.
        transpose: whether to transpose feature files.
        split: number of the cross-validation split.
        task: "verb" or "noun".
        background: frame labels that are background.
    """

    root: Path | None = None
    features: Path | None = None
    annotations: Path | None = None
    points: Path | None = None
    fps: RateSource | None = None
    stride: float = 0.0
    window: float = 0.0
    key: str = ""
    prefix: str = ""
    suffix: str = ""
    transpose: bool = False
    split: int = 1
    task: str = "verb"
    background: frozenset[str] = frozenset()

    def folder(self, *names: str) -> Path:
        """The folder of features: the flag's, else the first of `names` that ROOT has."""
        return self.features or self._first("folder of features", "--features", names, Path.is_dir)

    def file(self, *names: str) -> Path:
        """The annotations: the flag's, else the first of `names` (patterns) that ROOT has."""
        return self.annotations or self._first("annotations", "--annotations", names, Path.exists)

    def inside(self, *names: str, fits: Callable[[Path], bool] = Path.exists) -> Path | None:
        """The first of `names` (patterns) that ROOT has and that `fits`; "." is ROOT itself.

        Raises:
            DataError: several fit one pattern.
        """
        for name in names:
            if name == "." or self.root is None:
                return self.root
            found = sorted(path for path in self.root.glob(name) if fits(path))
            if len(found) > 1:
                raise DataError(
                    f"{self.root}: {name} matches {', '.join(p.name for p in found[:5])}; choose "
                    "one with a flag, or keep only one"
                )
            if found:
                return found[0]
        return None

    def _first(
        self, what: str, flag: str, names: Sequence[str], fits: Callable[[Path], bool]
    ) -> Path:
        if self.root is None:
            raise ConfigError(f"{flag} or the folder after --layout is needed: the {what}")
        if not self.root.is_dir():
            what = "not a folder" if self.root.exists() else "no such folder"
            raise DataError(f"{self.root}: {what}; give the folder that holds the files")
        found = self.inside(*names, fits=fits)
        if found is None:
            raise DataError(
                f"{self.root}: no {what}; {' or '.join(names)} is needed there, or pass {flag}"
            )
        return found


@dataclass(frozen=True, kw_only=True)
class Release:
    """A released folder, as input of the importer.

    Args:
        annotations: the file that messages name.
        folder: of features, likewise.
        content: annotations in the ActivityNet layout; None reads the file.
        files: video id -> features; None takes <id>.npy of the folder.
        of_recordings: whether `files` are window features of recordings; `stride` and `window` are
            then in samples.
        channels: of recordings: the names of their columns; () if no header gives them.
        transposed, every: what `files` do with the files as released, see
            `data/features/preparation.py`; None: transposed as the flag says.
        fps, stride, window, point_fps, points, point_columns, lists, group: as of `plan.Source`.
    """

    annotations: Path
    folder: Path
    content: Mapping[str, Any] | None = None
    files: Mapping[str, FeatureFile] | None = None
    fps: RateSource = "json"
    stride: float = 0.0
    window: float = 0.0
    points: Path | None = None
    point_fps: RateSource | None = None
    point_columns: tuple[str, ...] = ()
    lists: dict[str, Path] | None = None
    group: GroupSource | None = None
    of_recordings: bool = False
    channels: tuple[str, ...] = ()
    transposed: bool | None = None
    every: int = 1


def database(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """A file of the ActivityNet layout and its videos, to be completed by a reader.

    Raises:
        DataError: it is of another layout.
    """
    content = json_object(path)
    videos = content.get("database")
    if not isinstance(videos, dict) or not all(isinstance(v, dict) for v in videos.values()):
        raise DataError(f'{path}: no object "database" of videos; the ActivityNet layout is needed')
    return content, videos


def json_object(path: Path) -> dict[str, Any]:
    """The object of a JSON file.

    Raises:
        DataError: it cannot be read, or is not an object.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: not an object of JSON")
    return content


def lines(path: Path) -> list[str]:
    """The lines of a text file without the blank ones.

    Raises:
        DataError: it cannot be read.
    """
    return [line for _, line in read_lines(path)]


def feature_file(folders: Sequence[Path], id: str, given: Given) -> FeatureFile:
    """The features of a video in the first of `folders` that has a file of its name.

    The name is prefix, id and suffix of `given`; without a suffix the extensions .npy, .npz and
    .csv are tried, and an id also with and without "v_". What is missing is named as in the last
    folder.
    """
    suffixes = (given.suffix,) if given.suffix else (".npy", ".npz", ".csv")
    names = [f"{given.prefix}{i}{suffix}" for i in spellings(id) for suffix in suffixes]
    files = [folder / name for folder in folders for name in names]
    found = next((f for f in map(spelled, files) if is_file(f)), folders[-1] / names[0])
    return open_file(found, given)


def spelled(file: Path) -> Path:
    """`file` in the Unicode form that its name has in its folder; as it is if it is not there."""
    return next((form for form in _forms(file) if is_file(form)), file)


def _forms(file: Path) -> Sequence[Path]:
    """`file` in the Unicode forms that its name may have."""
    if file.name.isascii():
        return (file,)
    return [file.with_name(normalize(form, file.name)) for form in ("NFC", "NFD")]


def open_file(file: Path, given: Given) -> FeatureFile:
    """A feature file by its extension.

    Raises:
        DataError: it is none that can be read.
    """
    if file.suffix != ".npz" and file.suffix not in _FORMATS:
        raise DataError(
            f"{file}: features are read from .npy, .npz and .csv; convert it, or pass --suffix"
        )
    found = npz(file, given.key) if file.suffix == ".npz" else _FORMATS[file.suffix](file)
    return turned(found) if given.transpose else found
