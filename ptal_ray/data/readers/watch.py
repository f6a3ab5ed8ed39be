"""`watch`: real smartwatch recordings on an assembled timeline, an embedded dataset.

The package seglearn ships 140 recordings of the Shoulder Physiotherapy Activity Recognition data
(Burns et al., 2018): 10 subjects, 2 arms, 7 exercises, 6 channels at 50 Hz, one exercise each.
A session joins bouts of one subject and arm into one continuous recording: four exercises are
actions, three are background. Signals are real; the timeline is assembled.
"""

from __future__ import annotations

import hashlib
import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.features.windows import window_features
from ptal_ray.data.points import no_points, simulate_points
from ptal_ray.data.store import StoreWriter
from ptal_ray.data.types import Grid, Segments
from ptal_ray.errors import DataError

NOTE = "real smartwatch signals, assembled timeline"
RATE = 50  # samples per second
WINDOW, STRIDE = 50, 25  # samples: a snippet sees 1 s, snippets are 0.5 s apart
ACTIONS = {
    "PEN": "Pendulum",
    "ABD": "Abduction",
    "FEL": "ForwardElevation",
    "IR": "InternalRotation",
}  # external rotation, trapezius extension and row are the background
BOUTS = 3  # of each exercise in a session
BOUT_S = (3.0, 10.0)
TEST_SUBJECTS = (3, 6, 9)
SEED = 0
SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"  # of the recordings

Floats = NDArray[np.float64]


def assemble(path: Path) -> None:
    """Writes the store to `path`, unless another process does so at the same time.

    Raises:
        DataError: seglearn is not installed.
    """
    recordings = _recordings()
    sessions = sorted({(subject, side) for subject, side, _ in recordings})
    # A cell of the grid is the middle half of the window that its snippet sees.
    grid = Grid(stride_s=STRIDE / RATE, offset_s=(WINDOW - STRIDE) / 2 / RATE)
    writer = StoreWriter(
        path, name="watch", classes=tuple(ACTIONS.values()), grid=grid, features="real",
        note=NOTE, dtype="float32", wait=True,
    )  # fmt: skip
    try:
        with writer:
            for subject, side in sessions:
                rng = np.random.default_rng([SEED, subject, side])
                own = {e: x for (s, a, e), x in recordings.items() if (s, a) == (subject, side)}
                signal, segments = _session(own, rng)
                test = subject in TEST_SUBJECTS
                writer.add(
                    f"subject{subject:02d}_{'left' if side == 0 else 'right'}",
                    subset="test" if test else "train",
                    features=snippet_features(signal).astype(np.float32),
                    duration_s=len(signal) / RATE,
                    annotations=segments,
                    points=no_points() if test else simulate_points(segments, rng),
                    group=f"subject{subject:02d}",
                )
    except DataError:
        if not (path / "store.json").exists():  # else another process has just assembled it
            raise


def snippet_features(signal: Floats) -> Floats:
    """Statistics of each window, standardised over the session.

    Args:
        signal: (S, 6) samples at 50 Hz.

    Returns:
        (T, 87): those of `window_features`; a window of 1 s has magnitudes at 1-6 Hz.
    """
    features = window_features(signal, WINDOW, STRIDE)
    scaled: Floats = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-9)
    return scaled


def _recordings() -> dict[tuple[int, int, str], Floats]:
    """(subject, side, exercise) -> (S, 6) samples."""
    spec = find_spec("seglearn")  # found, not imported: importing it takes seconds
    if spec is None or spec.origin is None:
        raise DataError(
            "dataset 'watch' is made from recordings in the package seglearn, which is not "
            "installed; pip install seglearn"
        )
    path = Path(spec.origin).parent / "data" / "watch_dataset.npy"
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise DataError(f"{path}: not the recordings of seglearn 1.2; pip install seglearn==1.2.5")
    # A pickled dictionary: loaded because the hash of these very bytes is that of the known file.
    data: dict[str, Any] = np.load(io.BytesIO(content), allow_pickle=True).item()
    names = data["y_labels"]
    keys = zip(data["subject"], data["side"], data["y"], strict=True)
    return {
        (int(subject), int(side), names[label]): np.asarray(samples, np.float64)
        for (subject, side, label), samples in zip(keys, data["X"], strict=True)
    }


def _session(recordings: dict[str, Floats], rng: np.random.Generator) -> tuple[Floats, Segments]:
    """One timeline from the recordings of a subject and arm, and its action instances."""
    bouts = [(name, bout) for name in sorted(recordings) for bout in _bouts(recordings[name], rng)]
    order = rng.permutation(len(bouts))
    while any(bouts[a][0] == bouts[b][0] for a, b in zip(order, order[1:], strict=False)):
        order = rng.permutation(len(bouts))  # neighbours of one exercise would be one instance
    edges = np.cumsum([0, *(len(bouts[k][1]) for k in order)]) / RATE
    classes = list(ACTIONS)
    found = [
        (edges[at], edges[at + 1], classes.index(bouts[k][0]))
        for at, k in enumerate(order)
        if bouts[k][0] in ACTIONS
    ]
    segments = Segments(
        start_s=np.array([s for s, _, _ in found]),
        end_s=np.array([e for _, e, _ in found]),
        label=np.array([c for _, _, c in found], np.int64),
        score=np.ones(len(found)),
    )
    return np.concatenate([bouts[k][1] for k in order]), segments


def _bouts(recording: Floats, rng: np.random.Generator) -> list[Floats]:
    """BOUTS disjoint stretches of a recording, in random places."""
    while True:
        lengths = np.round(rng.uniform(*BOUT_S, BOUTS) * RATE).astype(int)
        slack = len(recording) - lengths.sum()
        if slack >= 0:
            break
    gaps = np.sort(rng.integers(0, slack + 1, BOUTS))
    starts = gaps + np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return [recording[s : s + n] for s, n in zip(starts, lengths, strict=True)]
