"""Features of many videos at once, as a pipeline of Ray Data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ptal_ray.backends.ray.spread import spread
from ptal_ray.video.extractor import Extractor, Outcome
from ptal_ray.video.settings import Settings


def extract_spread(
    videos: Mapping[str, Path],
    settings: Settings,
    out: Path,
    *,
    device: str,
    workers: int,
    address: str | None,
) -> Iterator[Outcome]:
    """Extract videos with several processes, which write the features themselves.

    Args:
        videos: id -> file, at the same path on every node.
        settings: settings that determine the features.
        out: the folder that `Manifest.begun` made, the same on every node.
        device: of the computation.
        workers: processes; each has a GPU, or a fraction of one, if `device` is "cuda".
        address: of a running Ray cluster; None starts Ray on this machine.

    Yields:
        The outcome of each video, in the order of completion.

    Raises:
        ConfigError: no cluster answers, or the workers do not fit on it.
    """
    rows = [{"video": video, "file": str(file)} for video, file in videos.items()]
    for row in spread(
        rows, _Worker, (settings, out, device), device=device, workers=workers, address=address
    ):
        yield Outcome(**row)


class _Worker:
    """An extractor in its own process."""

    def __init__(self, settings: Settings, out: Path, device: str, threads: int) -> None:
        self._extract = Extractor(settings, out, device, threads)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return asdict(self._extract(row["video"], Path(row["file"])))
