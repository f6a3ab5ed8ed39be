"""Scores of whole videos from a classifier that has seen the labels of all training videos.

    python reports/apl_ladders/external_scores.py STORE OUT.json

One logistic regression a class (needs scikit-learn) on the mean of a video's features and the mean
of the largest eighth of each. What leaderboards use with BMN is such a classifier, too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ptal_ray.data.store import FeatureStore


def pooled(store: FeatureStore, id: str) -> NDArray[np.float32]:
    features = np.array(store.video(id).features, np.float32)
    largest = np.sort(features, axis=0)[-max(1, len(features) // 8) :]
    return np.concatenate([features.mean(0), largest.mean(0)])


def main(path: str, out: str) -> None:
    store = FeatureStore.open(Path(path))
    ids = store.ids("train")
    there = np.zeros((len(ids), store.info.num_classes), int)
    for row, id in enumerate(ids):
        there[row, store.annotations(id).label] = 1
    regression = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=500))
    model = OneVsRestClassifier(regression).fit(np.stack([pooled(store, i) for i in ids]), there)
    every = (*ids, *store.ids("test"))
    scores = model.predict_proba(np.stack([pooled(store, i) for i in every]))
    plain = {i: [round(float(v), 4) for v in row] for i, row in zip(every, scores, strict=True)}
    Path(out).write_text(json.dumps(plain))


main(*sys.argv[1:])
