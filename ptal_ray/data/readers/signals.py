"""`signals`: raw channels of sensors, a .npy (S, channels) or a CSV for each recording."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from ptal_ray.data.features.feature_file import FeatureFile
from ptal_ray.data.features.windows import channel_names, windowed
from ptal_ray.data.importing.groups import PERSON
from ptal_ray.data.readers.release import Given, Release, database, feature_file
from ptal_ray.data.readers.segment_table import annotated_by, one_rate
from ptal_ray.data.user_files import nfc
from ptal_ray.errors import ConfigError


def read(given: Given) -> Release:
    """Window features of the recordings; stride and window count samples.

    Raises:
        ConfigError: rate, window or stride is missing or impossible.
        DataError: the annotations cannot be read.
    """
    if given.fps is None:
        raise ConfigError("pass --rate: samples per second of the recordings")
    window, stride = (_samples(n, getattr(given, n)) for n in ("window", "stride"))
    if window < 2:
        raise ConfigError(f"--window {window}: must be at least 2 samples")
    folder = given.folder("signals", "features", ".")
    annotations = given.file("annotations.json", "gt.json", "segments.csv")
    points = given.points or given.inside("points*.csv", "clicks.csv")
    if annotations.suffix == ".csv":
        tables = {path.resolve() for path in (annotations, points) if path}
        signals = {id: feature_file([folder], id, given) for id in _ids(folder, given, tables)}
        for own in signals.values():
            _check_not_turned(own, window)
        content = annotated_by(annotations, points, signals, one_rate(given.fps))
    else:
        content, videos = database(annotations)
        signals = {id: feature_file([folder], id, given) for id in videos}
    names = channel_names(signals.values())
    return Release(
        annotations=annotations,
        folder=folder,
        content=content,
        files={id: windowed(own, window, stride, names) for id, own in signals.items()},
        fps=given.fps,
        stride=stride,
        window=window,
        points=points,
        of_recordings=True,
        channels=names,
        group=PERSON if all(PERSON.search(id) for id in signals) else None,
    )


def _ids(folder: Path, given: Given, tables: Container[Path]) -> list[str]:
    """The recordings of a folder, which may hold other tables too."""
    suffixes = (given.suffix,) if given.suffix else (".npy", ".csv")
    names = [
        nfc(file.name)
        for file in folder.iterdir()
        if file.resolve() not in tables
        and file.name.startswith(given.prefix)
        and file.name[0] != "."
    ]
    ends = ((name, end) for name in names for end in suffixes if name.endswith(end))
    return sorted({name.removeprefix(given.prefix).removesuffix(end) for name, end in ends})


def _check_not_turned(signal: FeatureFile, window: int) -> None:
    """Checks, before its duration follows from its samples, that a recording has more of them.

    Raises:
        DataError: it looks like (channels, samples), or cannot be read.
    """
    shape = signal.shape()
    if len(shape) == 2 and 0 < shape[0] < min(shape[1], window):
        windowed(signal, window, 1).shape()  # its error says what to do


def _samples(name: str, value: float) -> int:
    if not value:
        raise ConfigError(f"pass --{name}: a number of samples, as 50 for one second at 50 Hz")
    if value != int(value):
        raise ConfigError(f"--{name} {value:g}: must be a whole number of samples")
    return int(value)
