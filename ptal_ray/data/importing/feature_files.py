"""The feature files of an import: which one serves a video, and what their headers say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ptal_ray.data.features.feature_file import FeatureFile
from ptal_ray.data.features.windows import channels_of
from ptal_ray.data.findings import Problem
from ptal_ray.data.user_files import nfc
from ptal_ray.data.video_ids import spellings
from ptal_ray.errors import DataError

NEAR = (0.8, 1.25)  # snippets of a video, in those that its duration gives
MOST = 0.9  # share of the files that must look transposed

Shape = tuple[int, ...]


class Served(Protocol):
    """A video and the file that has its features."""

    @property
    def id(self) -> str:
        """Of the video."""

    @property
    def subset(self) -> str:
        """The split it is in."""

    @property
    def file(self) -> Path:
        """Where its features lie."""

    @property
    def features(self) -> FeatureFile:
        """Their shape and type, read from the head of the file."""


class FeatureFolder:
    """The .npy files of a folder, found by video id whatever Unicode form their names have.

    Raises:
        DataError: the folder cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[str, list[str]] = {}
        try:
            for file in sorted(folder.iterdir()):
                self._names.setdefault(nfc(file.name), []).append(file.name)
        except OSError as error:
            raise DataError(
                f"{folder}: cannot be read ({error.strerror}); give the folder of <id>.npy files"
            ) from error

    def file(self, id: str) -> Path:
        """The file of a video, with or without "v_"; the plain one where there is none."""
        wanted = [f"{name}.npy" for name in spellings(id)]
        name = next((name for name in wanted if name in self._names), wanted[0])
        return self.folder / self._names.get(name, [name])[0]


def file_problems(videos: Iterable[Served]) -> Iterator[str]:
    """Files that several videos would take, and videos that several files could serve."""
    owners: dict[Path, list[str]] = {}
    for video in videos:
        owners.setdefault(video.file, []).append(video.id)
    names: dict[Path, Counter[str]] = {}  # in each folder, in NFC
    for file, ids in owners.items():
        if len(ids) > 1:
            yield Problem(
                f"{file}: is the file of the videos {' and '.join(ids)}; rename the videos, or "
                "give each a file of its own",
                "feature files of several videos",
            )
        if file.name.isascii() or not file.exists():
            continue
        if file.parent not in names:
            names[file.parent] = Counter(nfc(other.name) for other in file.parent.iterdir())
        if names[file.parent][nfc(file.name)] > 1:
            yield Problem(
                f"{file}: there are two files of this name, in two Unicode forms (NFC and "
                f"NFD), for video {ids[0]}; remove one",
                "videos with several feature files",
            )


def unused_recordings(folder: Path, known: Iterable[Path | None]) -> int:
    """Number of .npy and .csv files in a folder, which may not exist, that are not `known`."""
    taken = {path.resolve() for path in known if path}
    there = folder.iterdir() if folder.is_dir() else ()
    return sum(file.suffix in (".npy", ".csv") and file.resolve() not in taken for file in there)


def snippets_of(
    videos: Mapping[str, Served],
    expected: Mapping[str, float],
    transpose: bool,
    problems: list[str],
    window: int = 0,
) -> dict[str, int]:
    """T of every video whose feature file has a sound header.

    Args:
        videos: by id.
        expected: about how many snippets the duration of each video gives.
        transpose: whether --transpose was passed.
        problems: takes in a line on each file that is wrong.
        window: samples of a window of recordings; 0 for files of features.
    """
    shapes: dict[str, Shape] = {}
    for id, video in videos.items():
        try:
            shapes[id] = video.features.shape()
        except DataError as error:
            text = f"{error} (video {id}, {video.subset} split)"
            problems.append(Problem(text, "feature files that cannot be read"))
    if wrong := _transposed(shapes, expected):
        first = wrong[0]
        fix = "leave --transpose out" if transpose else "pass --transpose"
        problems.append(
            Problem(
                f"{videos[first].file}: shape {shapes[first]} for about {expected[first]:.0f} "
                f"snippets looks transposed, (D, T), as {len(wrong)} of {len(shapes)} files do; "
                f"{fix}",
                "transposed features",
            )
        )
        return {}
    return _sound(videos, shapes, problems, window)


def _sound(
    videos: Mapping[str, Served], shapes: Mapping[str, Shape], problems: list[str], window: int
) -> dict[str, int]:
    known = Counter(s[1] for s in shapes.values() if len(s) == 2 and 0 not in s)
    dim = known.most_common(1)[0][0] if known else "D"
    for id, shape in shapes.items():
        if window and isinstance(dim, int) and len(shape) == 2 and shape[1] != dim:
            own, others = (channels_of(number, window) for number in (shape[1], dim))
            text = f"{videos[id].file}: {own} channels; most other recordings have {others}"
            problems.append(Problem(text, "recordings with other channels"))
        elif len(shape) != 2 or 0 in shape or shape[1] != dim:
            like = " (this one looks transposed)" if len(shape) == 2 and shape[0] == dim else ""
            problems.append(
                Problem(
                    f"{videos[id].file}: shape {shape}; (T, {dim}) is needed, with T >= 1 and the "
                    f"same D in all files{like}",
                    "features of another shape",
                )
            )
    return {id: s[0] for id, s in shapes.items() if len(s) == 2 and s[0] and s[1] == dim}


def _transposed(shapes: Mapping[str, Shape], expected: Mapping[str, float]) -> list[str]:
    """Ids of the videos whose files look like (D, T), where almost all do; else none."""
    flat = {id: s for id, s in shapes.items() if len(s) == 2}
    if len({s[0] for s in flat.values()}) != 1:
        return []
    right = sum(_near(s[0], expected[id]) for id, s in flat.items())
    if len({s[1] for s in flat.values()}) > 1:
        turned = sum(_near(s[1], expected[id]) for id, s in flat.items())
        return [] if 2 * right > len(flat) and right > turned else list(flat)
    wrong = [
        id for id, s in flat.items() if _near(s[1], expected[id]) and not _near(s[0], expected[id])
    ]
    return wrong if len(wrong) >= MOST * len(flat) else []


def _near(snippets: int, expected: Any) -> bool:
    return bool(NEAR[0] * expected <= snippets <= NEAR[1] * expected)
