"""Text, JSON and CSV files as users write them: any byte order mark, any Unicode form.

All text is converted to NFC, so that names from files of different systems can be compared.
"""

from __future__ import annotations

import codecs
import csv
import errno
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unicodedata import normalize

from ptal_ray.errors import DataError

SEPARATORS = ",;\t"
_SHOWN = 5  # names in one message


def nfc(text: str) -> str:
    """`text` in the Unicode form NFC; macOS writes file names in NFD."""
    return text if text.isascii() else normalize("NFC", text)


def is_file(path: Path) -> bool:
    """Whether `path` is a file; a name that is too long for the file system is of none.

    Raises:
        OSError: it cannot be found out.
    """
    try:
        return path.is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def decoded(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark; the mark is left out.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is in another encoding.
    """
    content = path.read_bytes()
    return content.decode(_encoding(content))


def first_line(path: Path) -> str:
    """The first line of a text file in NFC, without spaces around it.

    Bytes that are no text become U+FFFD.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        encoding = _encoding(file.read(2))
    with path.open(encoding=encoding, errors="replace") as lines:
        return nfc(lines.readline().strip())


def _encoding(start: bytes) -> str:
    """The encoding of a text that starts with these bytes."""
    wide = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return "utf-16" if wide else "utf-8-sig"


def read_text(path: Path) -> str:
    """As `decoded`, in NFC.

    Raises:
        DataError: it cannot be read, or is in another encoding.
    """
    try:
        return nfc(decoded(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read as text ({error}); save it as UTF-8") from error


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(line number, text without spaces around it) of each line that is not empty.

    Raises:
        DataError: the file cannot be read.
    """
    lines = enumerate(read_text(path).splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def read_json(path: Path) -> Any:
    """The content of a JSON file; all text in it is in NFC.

    Raises:
        DataError: unreadable, not JSON, or an object has a duplicate key.
    """
    try:
        text = decoded(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not JSON: {error}; save it as UTF-8") from error
    objects = _Objects(plain=text.isascii() and "\\u" not in text)
    try:
        content = objects.in_nfc(json.loads(text, object_pairs_hook=objects.build))
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    except RecursionError as error:
        raise DataError(f"{path}: cannot be read as JSON: it is nested too deeply") from error
    if objects.repeated:
        raise DataError(f"{path}: {objects.complaint(content)}")
    return content


def read_csv(
    path: Path, columns: Sequence[str] = ()
) -> tuple[tuple[str, ...], list[tuple[int, dict[str, str]]]]:
    """The columns of a CSV, and (line number, values by column) of its rows, in NFC.

    The separator is the most frequent one of `SEPARATORS` in the first line. Spaces around values
    are removed; empty rows are skipped, also before the header; a missing value is "".

    Args:
        path: the file.
        columns: column names of a CSV without a header line.

    Raises:
        DataError: it cannot be read, a quoted value does not end, or a row has more values than
            the first line has columns.
    """
    text = read_text(path)
    head = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(SEPARATORS, key=head.count)
    quoted = rf'("(?:[^"]|"")*")[ \t]+(?={separator}|[\r\n]|\Z)'  # with blanks behind it
    text = re.sub(quoted, r"\1", text)
    rows = _filled(path, csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    ))  # fmt: skip
    names = tuple(columns) or tuple(next(rows, (0, []))[1])
    return names, list(_named(path, rows, names))


def _filled(path: Path, rows: Any) -> Iterator[tuple[int, list[str]]]:
    """(line number, values without spaces around them) of each row that is not empty."""
    begin = 1
    try:
        for row in rows:
            values = [value.strip() for value in row]
            if any(values):
                yield rows.line_num, values
            begin = rows.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}:{begin}: cannot be read as CSV: {error}; a value needs a quote at both ends "
            "or none, and a quote in a value is written twice"
        ) from error


def _named(
    path: Path, rows: Iterable[tuple[int, list[str]]], columns: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, str]]]:
    for line, values in rows:
        if any(values[len(columns) :]):
            raise DataError(
                f"{path}:{line}: {len(values)} values for {len(columns)} columns; write numbers "
                "with a decimal point, and put text that contains the separator in quotes"
            )
        values += [""] * (len(columns) - len(values))
        yield line, dict(zip(columns, values, strict=False))


class _Objects:
    """Builds the objects of a JSON file, and remembers keys that one object has twice.

    Args:
        plain: whether all text of the file is in NFC in any case.
    """

    def __init__(self, *, plain: bool) -> None:
        self.plain = plain
        self.repeated: list[tuple[dict[str, Any], str, bool]] = []  # object, key, other form

    def build(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """A dict from the pairs of a JSON object; notes keys that occur twice."""
        found = pairs if self.plain else [(nfc(key), self.in_nfc(value)) for key, value in pairs]
        made = dict(found)
        if len(made) < len(pairs):
            self._remember(made, [key for key, _ in pairs])
        return made

    def in_nfc(self, value: Any) -> Any:
        """A value with its texts in Unicode form NFC."""
        if self.plain or not isinstance(value, str | list):
            return value
        return nfc(value) if isinstance(value, str) else [self.in_nfc(item) for item in value]

    def complaint(self, content: Any) -> str:
        """The duplicate key, as part of a message."""
        first, key, other_form = self.repeated[0]
        names = content.items() if isinstance(content, dict) else ()
        place = next((name for name, value in names if value is first), "")
        what = f"video {key}" if place in ("database", "results") else f"key {key!r}"
        forms = ", in two Unicode forms (NFC and NFD)" if other_form else ""
        rest = [k for _, k, _ in self.repeated[1:]]
        more = f" (and {len(rest)} more: {', '.join(rest[:_SHOWN])})" if rest else ""
        where = f'"{place}"' if place else "one object"
        return f"duplicate {what} in {where}{forms}{more}; keep one entry of each"

    def _remember(self, made: dict[str, Any], keys: list[str]) -> None:
        spelled: dict[str, list[str]] = {}
        for key in keys:
            spelled.setdefault(nfc(key), []).append(key)
        self.repeated += [
            (made, key, len(set(forms)) > 1) for key, forms in spelled.items() if len(forms) > 1
        ]
