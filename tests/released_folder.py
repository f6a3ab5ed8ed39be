"""Small folders of released layouts, imported: what tests of the readers share."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ptal_ray.data.__main__ import main
from ptal_ray.data.datasets import find

RNG = np.random.default_rng(0)
SEGMENTS = {"a": [(1, 3, "open"), (5, 9, "close")], "b": [(2, 4, "close")], "c": [(0, 4, "open")]}
SUBSETS = {"a": "training", "b": "training", "c": "validation"}
POINTS = "class,video_id,point\nopen,a,20\nclose,a,70\nclose,b,30\n"  # frames at 10 fps


def imported(*words):
    assert main(["import", "tiny", "--dtype", "float32", *map(str, words)]) == 0
    return find("tiny")


def refused(capsys, *words, code=3):
    assert main(["import", "tiny", "--replace", *map(str, words)]) == code
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def save(path, array=None, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        np.save(path, array)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def features(snippets=20, dim=4):
    return RNG.random((snippets, dim)).astype(np.float32)


def database(**more):
    return {
        id: {"subset": SUBSETS[id], "duration": 10.0, "annotations": annotations(id)} | more
        for id in SEGMENTS
    }


def annotations(id):
    return [{"segment": [s, e], "label": label} for s, e, label in SEGMENTS[id]]


def is_the_small_one(store, dim=4, stride_s=0.5, offset_s=0.0, length=20):
    assert (store.ids("train"), store.ids("test")) == (("a", "b"), ("c",))
    assert sorted(store.info.classes) == ["close", "open"] and store.info.feature_dim == dim
    for id, segments in SEGMENTS.items():
        found, grid = store.annotations(id), store.grid(id)
        names = [store.info.classes[label] for label in found.label]
        rows = zip(found.start_s, found.end_s, names, strict=True)
        assert [(round(s, 6), round(e, 6), n) for s, e, n in rows] == segments
        assert store.length(id) == length
        assert (grid.stride_s, grid.offset_s) == pytest.approx((stride_s, offset_s))
    return store


def frames_release(root, *, suffix=".npz", prefix="", names=SEGMENTS, **more):
    write(root / "annotations" / "set.json", json.dumps({"database": database(**more)}))
    for id in names:
        array = features(18)
        save(root / "i3d_features" / f"{prefix}{id}{suffix}", array, feats=array)
    return ["--layout", "actionformer", root, "--stride", 5, "--window", 15,
            "--simulate-points", "centre"]  # fmt: skip
