"""What of an annotation file is left out by wish: videos, and classes with their instances."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from ptal_ray.data.user_files import nfc, read_lines
from ptal_ray.data.video_ids import bare
from ptal_ray.errors import DataError

_SUFFIXES = (".txt", ".csv", ".list", ".lst")  # of a file, not of an id
# Test videos of THUMOS14 that papers leave out; a name says how many of the 213 remain.
_FALSE = ("video_test_0000270", "video_test_0001292", "video_test_0001496")
PROTOCOLS = {
    "thumos14-213": (),
    "thumos14-212": _FALSE[1:2],  # the annotations of HR-Pro
    "thumos14-211": (_FALSE[0], _FALSE[2]),
    "thumos14-210": _FALSE,  # LACP, HR-Pro
}


def without(
    content: Mapping[str, Any], exclude: Set[str], drop_labels: Set[str], place: Path
) -> tuple[Mapping[str, Any], dict[str, int]]:
    """`content` of the ActivityNet layout without those, and counts of what is left out.

    Args:
        content: with an object "database" of videos.
        exclude: ids, with or without "v_".
        drop_labels: class names.
        place: the file that messages name.

    Raises:
        DataError: no instance has one of the classes, or all have.
    """
    if not exclude and not drop_labels:
        return content, {}
    excluded = set(map(bare, exclude))
    database = {id: v for id, v in content["database"].items() if bare(id) not in excluded}
    known = set(map(bare, content["database"]))
    counts = Counter(
        {
            "videos excluded": len(content["database"]) - len(database),
            "excluded names that match no video": len(excluded - known),
        }
    )
    if drop_labels:
        _check_labels(content["database"], drop_labels, place)
        database = {id: _kept(video, drop_labels, counts) for id, video in database.items()}
    chosen = dict(content) | {"database": database}
    if isinstance(names := content.get("classes"), list):
        chosen["classes"] = [name for name in names if not _is_one(name, drop_labels)]
    return chosen, {what: number for what, number in counts.items() if number}


def excluded_ids(texts: Iterable[str]) -> frozenset[str]:
    """The ids of all uses of --exclude, see `named_ids`."""
    return frozenset[str]().union(*map(named_ids, texts))


def named_ids(text: str) -> frozenset[str]:
    """The ids of a flag: those of a protocol, of a file with one a line, or of a list.

    In a file an id ends at a space, a comma or a semicolon.

    Args:
        text: a name of PROTOCOLS, a path, or ids with commas between.

    Raises:
        DataError: the file is not there, or cannot be read, or there is no such protocol.
    """
    if text in PROTOCOLS:
        return frozenset(PROTOCOLS[text])
    if text.startswith("thumos14-"):
        raise DataError(
            f"--exclude {text}: there is no such protocol; choose one of {', '.join(PROTOCOLS)}"
        )
    path = Path(text)
    if not _is_file(path) and (path.suffix in _SUFFIXES or "/" in text):
        raise DataError(f"--exclude {text}: there is no such file; correct it, or list ids")
    if not _is_file(path):
        return frozenset(nfc(name.strip()) for name in text.split(",") if name.strip())
    words = (re.split(r"[\s,;]+", line.strip(",; "))[0] for _, line in read_lines(path))
    return frozenset(word.strip('"') for word in words if word)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a list longer than a file name may be
        return False


def _check_labels(database: Mapping[str, Any], wanted: Set[str], place: Path) -> None:
    lists = (video.get("annotations") for video in database.values())
    found = {
        str(item.get("label"))
        for items in lists
        if isinstance(items, list)
        for item in items
        if isinstance(item, dict)
    }
    if found and found <= wanted:
        names = ", ".join(sorted(found))
        raise DataError(f"{place}: --drop-label leaves no class: the file has {names}; keep one")
    for name in sorted(wanted - found):
        near = difflib.get_close_matches(name, found, n=1) or sorted(found)[:8]
        raise DataError(
            f"{place}: no instance has the class {name!r} of --drop-label; there are "
            f"{', '.join(near)}"
        )


def _kept(video: dict[str, Any], drop_labels: Set[str], counts: Counter[str]) -> dict[str, Any]:
    """`video` without the instances of those classes."""
    items = video.get("annotations")
    if not isinstance(items, list):
        return video
    kept = [i for i in items if not (isinstance(i, dict) and _is_one(i.get("label"), drop_labels))]
    counts["instances of dropped classes"] += len(items) - len(kept)
    return video | {"annotations": kept}


def _is_one(label: Any, names: Set[str]) -> bool:
    """Whether `label`, which a file may hold in any type, is one of `names`."""
    return isinstance(label, str) and label in names
