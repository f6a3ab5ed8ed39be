"""A directory that is written atomically and replaces only a directory of the same kind.

While `NAME` is written, `.NAME.partial` next to it contains the lock of the writer and the new
directory. The lock is released when the process ends. The next writer of the same name, or in the
same folder, removes the files of a killed process.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ptal_ray.errors import DataError
from ptal_ray.storage.flush import flush
from ptal_ray.storage.lock import locked
from ptal_ray.storage.ownership import Kind, check_target, foreign
from ptal_ray.storage.whole import folder_made

_LOCK, _NEW, _PARTIAL = "lock", "new", ".partial"
_AT_CWD, _EXCHANGE = -100, 2  # constants of Linux


@contextmanager
def staged(path: Path, kind: Kind, *, replace: bool, wait: bool) -> Iterator[Path]:
    """A hidden directory next to `path` to write into; renamed to `path` if the block succeeds.

    It is removed if the block raises. Only one process can write at a time.

    Args:
        path: the new directory.
        kind: of directory. A directory of another kind at `path` is never replaced.
        replace: whether to replace an existing directory at `path`, atomically if the system can.
        wait: whether to wait for another writer; otherwise it is an error.

    Raises:
        DataError: `path` exists and is not replaced, another process writes it, or it cannot be
            written: its parent is not a folder, is not writable, or the disk is full.
    """
    with _told(path), _staged(_named(path), kind, replace, wait) as work:
        yield work


def check_place(path: Path, kind: Kind, *, replace: bool) -> None:
    """Checks early whether `staged` can write to `path`.

    Raises:
        DataError: it cannot.
    """
    with _told(path):
        check_target(_named(path), kind, replace=replace)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}); choose another "
            "place or free some space"
        ) from error


@contextmanager
def _staged(path: Path, kind: Kind, replace: bool, wait: bool) -> Iterator[Path]:
    with folder_made(path.parent), _claimed(path, kind, wait) as partial:
        check_target(path, kind, replace=replace)
        _sweep(path.parent, partial, kind)
        work = partial / _NEW
        work.mkdir()
        yield work
        flush(work)
        check_target(path, kind, replace=replace)  # others may have written there meanwhile
        _put(work, path)


def _named(path: Path) -> Path:
    """`path` with a last part that is a name, where `.` and `a/..` have none."""
    named = path if path.name not in ("", "..") else path.resolve()
    if not named.name:
        raise DataError(f"{path}: is the root of the file system; choose another place")
    return named


@contextmanager
def _claimed(path: Path, kind: Kind, wait: bool) -> Iterator[Path]:
    """The empty `.NAME.partial` of `path`, held by this process and removed at the end."""
    partial = path.with_name(f".{path.name}{_PARTIAL}")
    _check_ours(partial, kind)
    with ExitStack() as held:
        if not _hold(held, partial, wait):
            raise DataError(f"{path}: another process is writing it; wait for it")
        try:
            _tidy(partial, kind)
            yield partial
        finally:
            with suppress(OSError):  # the next writer tries again
                _tidy(partial, kind)
                (partial / _LOCK).unlink()  # while it is held; who waits for it finds it gone
                partial.rmdir()


def _hold(stack: ExitStack, partial: Path, wait: bool) -> bool:
    """Holds the lock in `partial`, which is made where it is missing; False: another has it."""
    while True:
        partial.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # its writer has just removed the folder
            return stack.enter_context(locked(partial / _LOCK, wait=wait))


def _target(partial: Path) -> Path:
    return partial.with_name(partial.name[1:].removesuffix(_PARTIAL))


def _old(path: Path) -> Path:
    """Where a directory lies between two renames, on a system that cannot exchange two."""
    return path.with_name(f".{path.name}.old")


def _tidy(partial: Path, kind: Kind) -> None:
    """Removes what a writer left, and undoes its replacement where that was not finished."""
    path = _target(partial)
    old = _old(path)
    if old.is_dir() and not foreign(old, kind):
        if not os.path.lexists(path):
            os.rename(old, path)
        else:
            _remove(old, kind)
    _remove(partial / _NEW, kind)
    for file in _files(partial, kind):
        file.unlink()


def _check_ours(partial: Path, kind: Kind) -> None:
    """Finds out whether a folder of this name is what a writer left.

    Raises:
        DataError: there are files of others in it.
    """
    if not os.path.lexists(partial):
        return
    if partial.is_symlink() or not partial.is_dir():
        raise DataError(f"{partial}: is not a folder written by this program; move it elsewhere")
    places = [folder for folder in (partial, partial / _NEW) if folder.is_dir()]
    ours = {file for folder in places for file in _files(folder, kind)}
    ours |= {partial / _LOCK, partial / _NEW}
    others = sorted({entry for folder in places for entry in folder.iterdir()} - ours)
    if others:
        raise DataError(
            f"{others[0]}: was not written by this program; move it elsewhere to continue"
        )


def _sweep(folder: Path, mine: Path, kind: Kind) -> None:
    """Removes from `folder` what killed writers of other names left there."""
    for lock in folder.glob(f".*{_PARTIAL}/{_LOCK}"):
        partial = lock.parent
        if partial == mine or partial.is_symlink() or lock.is_symlink() or lock.stat().st_size:
            continue
        # Skipped: a writer that lives, what this process may not remove, and files of others.
        with suppress(DataError, OSError), _claimed(_target(partial), kind, wait=False):
            continue


def _remove(folder: Path, kind: Kind) -> None:
    """Removes the files of a directory of `kind`, and it where nothing else is left."""
    if folder.is_dir() and not folder.is_symlink():
        for file in _files(folder, kind):
            file.unlink()
        with suppress(OSError):  # it holds files of others, which stay
            folder.rmdir()


def _files(folder: Path, kind: Kind) -> list[Path]:
    """The files of a directory of `kind`, and what a killed process wrote beside them."""
    found = []
    for entry in folder.iterdir():
        beside = entry.name[1:].rpartition(".")[0] if entry.name.startswith(".") else ""
        if (kind.has(entry.name) or kind.has(beside)) and not entry.is_dir():
            found.append(entry)
    return found


def _put(work: Path, path: Path) -> None:
    """Renames `work` to `path`; what lay there goes to where `work` was."""
    if not os.path.lexists(path):
        os.rename(work, path)
    elif not _exchange(work, path):
        os.rename(path, _old(path))
        os.rename(work, path)


def _exchange(one: Path, other: Path) -> bool:
    """Gives each of two directories the other's name in one step; False where that cannot be."""
    call = getattr(ctypes.CDLL(None), "renameat2", None)
    if call is None:
        return False
    first, second = os.fsencode(one), os.fsencode(other)
    return bool(call(_AT_CWD, first, _AT_CWD, second, _EXCHANGE) == 0)
