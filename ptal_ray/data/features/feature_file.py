"""The features of a video as files hold them: a shape that costs little, and the numbers."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import TypeVar

import numpy as np

from ptal_ray.data.types import FloatArray
from ptal_ray.data.user_files import decoded, first_line, is_file
from ptal_ray.errors import DataError

T = TypeVar("T")
UNREADABLE = (  # what numpy and zipfile raise for a file that is damaged, or of a kind they lack
    OSError, ValueError, EOFError, KeyError, RuntimeError, TokenError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FeatureFile:
    """Where the features of a video come from.

    Args:
        file: what messages name.
        shape: of the features, from headers alone where a file has one; raises DataError.
        read: the features, (T, D); raises DataError.
        columns: the names of the D columns in a header; () without one.
    """

    file: Path
    shape: Callable[[], tuple[int, ...]]
    read: Callable[[], FloatArray]
    columns: Callable[[], tuple[str, ...]] = tuple


def npy(file: Path, *, transposed: bool = False) -> FeatureFile:
    """A .npy of shape (T, D), or of (D, T) where `transposed`."""

    def mapped() -> FloatArray:
        """The array, mapped into memory."""
        return _mapped(file)

    whole = FeatureFile(file=file, shape=lambda: mapped().shape, read=lambda: np.asarray(mapped()))
    return turned(whole) if transposed else whole


def turned(whole: FeatureFile) -> FeatureFile:
    """`whole`, whose file holds (D, T), as (T, D)."""
    return FeatureFile(
        file=whole.file, shape=lambda: whole.shape()[::-1], read=lambda: whole.read().T
    )


def npz(file: Path, key: str = "") -> FeatureFile:
    """The array `key` of a .npz; without a key the only one.

    Its shape comes from the header inside the archive.
    """

    def shape() -> tuple[int, ...]:
        """The shape in the header of the array."""
        with zipfile.ZipFile(file) as archive, archive.open(_member(file, archive, key)) as array:
            version = np.lib.format.read_magic(array)
            header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            found: tuple[int, ...] = header(array)[0]
        if not found:
            raise DataError(f"{file}: not an array of numbers")
        return found

    def read() -> FloatArray:
        """The array."""
        with zipfile.ZipFile(file) as archive, archive.open(_member(file, archive, key)) as array:
            return numbers(file, np.lib.format.read_array(array, allow_pickle=False))

    return FeatureFile(file=file, shape=_guarded(file, shape), read=_guarded(file, read))


def table(file: Path) -> FeatureFile:
    """A CSV of numbers, a line a snippet; a first line that is no row of numbers is a header."""

    def shape() -> tuple[int, ...]:
        """Rows and columns of the text."""
        first, *rest = decoded(file).splitlines() or [""]
        rows = sum(1 for line in rest if line.strip())
        return rows + (not _is_header(first)), len(first.split(_separator(first)))

    def read() -> FloatArray:
        """The array."""
        lines = decoded(file).splitlines()
        first = lines[0] if lines else ""
        found = np.loadtxt(
            lines, np.float32, delimiter=_separator(first), ndmin=2,
            skiprows=int(_is_header(first)), comments=None,
        )  # fmt: skip
        return numbers(file, found)

    def columns() -> tuple[str, ...]:
        """The names in the header."""
        if not is_file(file):
            return ()
        first = first_line(file)
        names = first.split(_separator(first)) if first and _is_header(first) else []
        return tuple(name.strip().strip('"') for name in names)

    return FeatureFile(
        file=file, shape=_guarded(file, shape), read=_guarded(file, read), columns=columns
    )


def sliced(whole: FeatureFile, step: int) -> FeatureFile:
    """Every `step`-th snippet of `whole`, from the first on."""

    def shape() -> tuple[int, ...]:
        """The shape after slicing."""
        length, *rest = whole.shape()
        return (-(-length // step), *rest)

    return FeatureFile(
        file=whole.file, shape=shape, read=lambda: whole.read()[::step], columns=whole.columns
    )


def side_by_side(parts: Sequence[FeatureFile]) -> FeatureFile:
    """Features of the same snippets in several files, e.g. rgb and flow: (T, sum of D)."""

    def shape() -> tuple[int, ...]:
        """(T, sum of D); all files must have the same T."""
        shapes = [part.shape() for part in parts]
        for part, found in zip(parts, shapes, strict=True):
            if len(found) != 2 or found[0] != shapes[0][0]:
                raise DataError(
                    f"{part.file}: shape {found}, but {parts[0].file} has {shapes[0]}; the same T "
                    "is needed: extract both again"
                )
        return shapes[0][0], sum(found[1] for found in shapes)

    def read() -> FloatArray:
        """The array."""
        shape()
        return np.concatenate([part.read() for part in parts], axis=1)

    return FeatureFile(file=parts[0].file, shape=shape, read=read)


def numbers(file: Path, array: object) -> FloatArray:
    """`array` where it is one of numbers, with at least one axis.

    Raises:
        DataError: it is not.
    """
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or not array.ndim:
        raise DataError(f"{file}: not an array of numbers")
    return array


def _mapped(file: Path) -> FloatArray:
    """A .npy, mapped; nothing pickled is ever loaded."""
    _exists(file)
    try:
        features = np.load(file, mmap_mode="r", allow_pickle=False)
    except UNREADABLE as error:
        raise DataError(
            f"{file}: not a whole .npy of numbers; extract it again or save it with numpy.save"
        ) from error
    return numbers(file, features)


def _exists(file: Path) -> None:
    if not is_file(file):
        raise DataError(
            f"{file}: feature file is missing; add it or leave the video out (--exclude)"
        )


def _guarded(file: Path, act: Callable[[], T]) -> Callable[[], T]:
    """`act` with a DataError that names the file in place of errors of numpy and zipfile."""

    def guarded() -> T:
        """Run `act`; its errors name the file."""
        _exists(file)
        try:
            return act()
        except UNREADABLE as error:
            raise DataError(
                f"{file}: not whole, or not numbers ({error}); correct it or make it again"
            ) from error

    return guarded


def _member(file: Path, archive: zipfile.ZipFile, key: str) -> str:
    """The name of an array in a .npz."""
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    if key in names or (not key and len(names) == 1):
        return f"{key or names[0]}.npy"
    wanted = f"no array {key!r}" if key else f"{len(names)} arrays"
    raise DataError(f"{file}: {wanted}; pass --key with one of {', '.join(names)}")


def _separator(line: str) -> str | None:
    """What separates the values of a line: the first of these that occurs, else white space."""
    return next((mark for mark in (";", "\t", ",") if mark in line), None)


def _is_header(line: str) -> bool:
    """Whether no value of a line is a number."""
    return not any(_is_number(value) for value in line.split(_separator(line)))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
