"""The videos in arguments of a command: files, or folders at any depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ptal_ray.errors import DataError

SUFFIXES = (
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
    ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv",
)  # fmt: skip


def find_videos(places: Sequence[Path]) -> dict[str, Path]:
    """Video files by id, which is the name of the file without its suffix.

    Args:
        places: files with any suffix, or folders: their files at any depth that have a suffix in
            `SUFFIXES` and no path part that starts with a dot.

    Returns:
        id -> absolute path, sorted by id.

    Raises:
        DataError: a place is missing, a folder has no video, or two files have the same id.
    """
    found: dict[str, Path] = {}
    for place in places:
        for path in _files(place):
            other = found.setdefault(path.stem, path)
            if other != path:
                raise DataError(
                    f"{path}: its id {path.stem!r} is also the id of {other}; ids are file names "
                    "without the suffix and must differ: rename one, or extract it to another --out"
                )
    return dict(sorted(found.items()))


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place.absolute()
        return
    if not place.is_dir():
        raise DataError(f"{place}: no such file or folder; give videos or a folder of videos")
    videos = [path for path in sorted(place.rglob("*")) if _is_video(path.relative_to(place))]
    videos = [path.absolute() for path in videos if path.is_file()]
    if not videos:
        raise DataError(
            f"{place}: no video in this folder; suffixes of videos are {', '.join(SUFFIXES)}"
        )
    yield from videos


def _is_video(relative: Path) -> bool:
    hidden = any(part.startswith(".") for part in relative.parts)
    return not hidden and relative.suffix.lower() in SUFFIXES
