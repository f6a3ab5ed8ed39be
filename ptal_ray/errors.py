"""Every error a user can cause or meet.

PtalError
 ├── ConfigError      a YAML key, a flag or a value is wrong            exit 2
 │    └── TrackingError   the MLflow server does not answer             exit 2
 ├── DataError        a file, a feature array or an annotation is wrong exit 3
 ├── NoTrialFinished  the search ended without one finished trial       exit 4
 ├── StorageError     the storage of a study is full or unreachable     exit 1
 └── DivergedError    a loss or a score became NaN or infinite          (fails one trial)

A message is one line: place, value, what is allowed, what to do.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT}


class PtalError(Exception):
    """Base of all errors of this package; `exit_code` is what a CLI returns."""

    exit_code = 1


class ConfigError(PtalError):
    """A search space, a flag or a value is wrong."""

    exit_code = 2


class TrackingError(ConfigError):
    """The tracking server cannot be reached when a study starts."""


class DataError(PtalError):
    """A feature store, a feature file, an annotation or a point is wrong or missing."""

    exit_code = 3


class NoTrialFinished(PtalError):
    """A search ended and no trial reached its last report."""

    exit_code = 4


class DivergedError(PtalError):
    """A loss or a score is not finite; the trial is recorded as failed."""


class StorageError(PtalError):
    """A storage is full or unreachable; finished work is kept, and a study can be resumed."""


@contextmanager
def full_storage_named(
    place: Path, advice: str = "free space and continue with --resume"
) -> Iterator[None]:
    """Convert the error of a full disk or an exceeded quota in this block to a StorageError.

    Args:
        place: the written path, for the message.
        advice: what to do.

    Raises:
        StorageError: the disk is full or the quota is exceeded.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageError(f"storage full: {place} ({error.strerror}); {advice}") from error
