"""How far the clusters of APL's pre-training follow actions, classes or just the video.

    python reports/apl_ladders/clusters.py STORE ...

For up to 120 training videos of each feature store: 100 snippets a video, as in training. Two
clusters of a video are compared with action and background, four clusters of two videos with the
classes and with the videos. NMI: mutual information over the mean of both entropies (geometric).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ptal_ray.data.store import FeatureStore
from ptal_ray.methods.apl.contrast import kmeans, snippets

RAND = torch.Generator().manual_seed(0)


def entropy(share: NDArray) -> float:
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())


def nmi(first: NDArray, second: NDArray) -> float:
    one, two = (np.unique(x, return_inverse=True)[1] for x in (first, second))
    joint = np.zeros((one.max() + 1, two.max() + 1))
    np.add.at(joint, (one, two), 1 / len(one))
    a, b = entropy(joint.sum(1)), entropy(joint.sum(0))
    return (a + b - entropy(joint.ravel())) / np.sqrt(a * b) if a and b else float("nan")


def clusters(value: torch.Tensor, number: int) -> NDArray:
    counted = torch.ones((1, len(value)), dtype=torch.bool)
    return kmeans(value[None], counted, number, torch.rand(1, number, generator=RAND))[0].numpy()


def sampled(store: FeatureStore, id: str) -> tuple[torch.Tensor, NDArray]:
    """Features of the snippets, and the class of each, -1 on background."""
    features = torch.tensor(np.asarray(store.video(id).features, np.float32))
    at, counted = snippets(torch.tensor([len(features)]), 100, torch.rand(1, 100, generator=RAND))
    at = at[counted]
    time = (at.numpy() + 0.5) * store.duration_s(id) / len(features)
    label, found = np.full(len(at), -1), store.annotations(id)
    for start, end, action in zip(found.start_s, found.end_s, found.label, strict=True):
        label[(time >= start) & (time <= end)] = action
    return features[at], label


def main(paths: list[str]) -> None:
    for path in paths:
        store = FeatureStore.open(Path(path))
        videos = [sampled(store, id) for id in store.ids("train")[:120]]
        coarse = []
        for value, label in videos:
            same = (clusters(value, 2) == (label >= 0)).mean()
            guess = (label >= 0).mean()
            coarse.append((max(same, 1 - same), max(guess, 1 - guess)))
        fine = []
        for (a, ours), (b, theirs) in zip(videos[::2], videos[1::2], strict=False):
            found = clusters(torch.cat([a, b]), 4)
            video = np.repeat([0, 1], [len(ours), len(theirs)])
            fine.append((nmi(found, np.concatenate([ours, theirs])), nmi(found, video)))
        (right, guess), (by_class, by_video) = np.nanmean(coarse, 0), np.nanmean(fine, 0)
        print(
            f"| {store.info.name} | {len(videos)} | {100 * right:.1f} | {100 * guess:.1f} "
            f"| {by_class:.2f} | {by_video:.2f} |", flush=True,
        )  # fmt: skip


main(sys.argv[1:])
