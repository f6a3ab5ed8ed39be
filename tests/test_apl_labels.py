"""APL: which annotations and files it may see, and which videos are annotated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_store
from test_trial import config

from ptal_ray import search
from ptal_ray.data.splits import centres, labelled
from ptal_ray.data.store import FeatureStore, StoreWriter
from ptal_ray.data.types import Grid, Segments
from ptal_ray.errors import ConfigError, DataError
from ptal_ray.methods.apl.apl_params import AplTrain
from ptal_ray.methods.apl.external import video_scores
from ptal_ray.methods.method import load
from ptal_ray.space.space import load_space
from ptal_ray.study.start_end import study_event
from ptal_ray.study.study import create_study, trial_config
from ptal_ray.training.stages import start
from ptal_ray.training.supervision import annotated_ids, fold, split_ids, visible_ids
from ptal_ray.training.trial import Trial


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("data") / "tiny", train=10)


def changed(store: Path, path: Path, ids: set[str]) -> Path:
    """A copy whose videos `ids` have other annotations and points, of the same classes."""
    source = FeatureStore.open(store)
    info = source.info
    with StoreWriter(
        path, name=info.name, classes=info.classes, grid=info.grid, features="test", dtype="float32"
    ) as writer:
        for subset in ("train", "test"):
            for id in source.ids(subset):
                own = source.annotations(id)
                if id in ids:
                    own = Segments(
                        start_s=own.start_s + 0.3, end_s=own.end_s + 0.4, label=own.label,
                        score=own.score,
                    )  # fmt: skip
                writer.add(
                    id, subset=subset, features=source.video(id).features,
                    duration_s=source.duration_s(id), annotations=own,
                    points=centres([id], {id: own})[0],
                )  # fmt: skip
    return path


@pytest.mark.parametrize("method", ["apl", "apl.apl_bmn"])
def test_annotations_of_unlabelled_videos_change_nothing(
    store: Path, tmp_path: Path, method: str
) -> None:
    every = {"tau_neg": 0.0}  # some predictions become labels
    first = start(config(store, method, train=every))
    kind = first.batches.labels.tables["kind"].numpy()  # type: ignore[index]
    free = {id for id, k in zip(first.batches.split.ids, kind, strict=True) if k != 0}
    assert free and set(kind) >= {0, 1}
    other = start(config(changed(store, tmp_path / "changed", free), method, train=every))
    known = {id for id, k in zip(first.batches.split.ids, kind, strict=True) if k == 0}
    third = start(config(changed(store, tmp_path / "known", known), method, train=every))
    for _ in range(3):
        mine, same, not_same = (t.train_step()["total"].item() for t in (first, other, third))
        assert mine == same != not_same
    for a, b in zip(
        first.learner.model.parameters(), other.learner.model.parameters(), strict=True
    ):
        assert torch.equal(a, b)


def test_labelled_videos_are_seeded_and_hold_every_class(store: Path) -> None:
    source = FeatureStore.open(store)
    ids = source.ids("train")
    chosen = labelled(source, 0.4, 0)
    assert len(chosen) == 4 and labelled(source, 0.4, 0) == chosen
    assert any(labelled(source, 0.4, seed) != chosen for seed in range(1, 5))
    assert labelled(source, 1.0, 0) == ids
    assert len(labelled(source, 0.001, 0)) == 1
    seen = {int(c) for id in chosen for c in source.annotations(id).label}
    assert seen == {int(c) for id in ids for c in source.annotations(id).label}


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_the_search_trains_on_the_same_share_of_labels_as_final_runs(
    store: Path, share: float
) -> None:
    source = FeatureStore.open(store)
    for seed in range(6):
        hp = AplTrain(labelled_fraction=share, labelled_seed=seed)
        every = annotated_ids(source, hp)
        fit, val = fold(source, hp, 0.3, seed)
        own = [id for id in fit if id in every]
        assert (len(fit), len(val)) == (7, 3)
        assert len(own) == len(every) - min(round(0.3 * len(every)), len(every) - 1) > 0
        ids, seen = visible_ids(source, fit, load("apl"), hp)
        assert ids == fit and seen == tuple(own)


def test_a_class_of_one_video_is_labelled_first(tmp_path: Path) -> None:
    grid = Grid(stride_s=1.0)
    with StoreWriter(
        tmp_path / "rare", name="rare", classes=("a", "b"), grid=grid, features="test",
        dtype="float32",
    ) as writer:  # fmt: skip
        for k in range(20):
            own = Segments(
                start_s=np.array([1.0]), end_s=np.array([3.0]), label=np.array([int(k == 7)]),
                score=np.ones(1),
            )  # fmt: skip
            writer.add(
                f"v{k}", subset="train", features=np.zeros((5, 3), np.float32), duration_s=5.0,
                annotations=own, points=centres(["v"], {"v": own})[0],
            )  # fmt: skip
    source = FeatureStore.open(tmp_path / "rare")
    assert all("v7" in labelled(source, 0.1, seed) for seed in range(10))


def test_videos_without_annotations_are_an_error(tmp_path: Path, store: Path) -> None:
    source = FeatureStore.open(store)
    video = source.video(source.ids("train")[0])
    with StoreWriter(
        tmp_path / "none", name="none", classes=("a",), grid=source.info.grid, features="test",
        dtype="float32",
    ) as writer:  # fmt: skip
        writer.add(
            "v", subset="train", features=video.features, duration_s=20.0,
            annotations=Segments.empty(), points=centres(["v"], {})[0],
        )  # fmt: skip
    with pytest.raises(DataError, match="none of the 1 training videos has an annotated instance"):
        labelled(FeatureStore.open(tmp_path / "none"), 0.5, 0)


def test_detectors_alone_train_on_their_share_of_the_videos(store: Path) -> None:
    for method in ("apl.actionformer", "apl.bmn"):
        part = start(config(store, method, train={"labelled_fraction": 0.5}))
        task, made = part.task, part.task.config
        fit, _ = fold(task.store, task.hp, made.val_fraction, made.fold_seed)
        half = labelled(task.store, 0.5, 0)
        assert task.ids == task.annotated == tuple(id for id in fit if id in half)
        assert len(half) == 5 > len(task.annotated) > 2


def test_without_any_label_training_goes_on_with_the_annotated_videos(store: Path) -> None:
    trial = start(config(store, "apl", train={"tau_neg": 1.0}))
    assert len(trial.batches.plan.groups) == 1
    assert {trial.batches.split.ids[row] for row in trial.batches.plan.groups[0]} == {
        id
        for id, k in zip(trial.batches.split.ids, trial.batches.labels.tables["kind"], strict=True)
        if k == 0  # type: ignore[index]
    }
    assert torch.isfinite(trial.train_step()["total"])


@pytest.mark.parametrize("method", ["apl.actionformer", "apl.bmn"])
def test_external_scores_are_refused_where_they_leak_and_else_used(
    store: Path, tmp_path: Path, method: str
) -> None:
    source, path = FeatureStore.open(store), tmp_path / "scores.json"
    every = [id for subset in ("train", "test") for id in source.ids(subset)]

    def trial(**train: Any) -> Trial:
        video_scores.cache_clear()
        return start(config(store, method, train={"external_scores": str(path)} | train))

    with pytest.raises(DataError, match=r"no JSON object of video id -> list"):
        trial()
    path.write_text(json.dumps({every[0]: [0.9, 0.1, 0.2]}))
    with pytest.raises(DataError, match=r"no scores of 12 of 13 videos, video1 among them"):
        trial()
    path.write_text(json.dumps(dict.fromkeys(every, [0.9, 0.1])))
    with pytest.raises(DataError, match=r"video video0: needed are 3 scores from 0 to 1"):
        trial()
    path.write_text(json.dumps(dict.fromkeys(every, [-2.0, -1.0, 0.5])))
    with pytest.raises(DataError, match=r"of logits, take the softmax or sigmoid"):
        trial()
    path.write_text(json.dumps(dict.fromkeys(every, [0.05, 0.9, 0.2])))
    with pytest.raises(ConfigError, match=r"leak them where only 0\.5 of the videos"):
        trial(labelled_fraction=0.5)
    trial(labelled_fraction=0.5, allow_external_scores=True)
    made = trial()
    made.advance()
    assert {int(c) for found in made.detections.values() for c in found.label} == {1, 2}
    assert "external video scores" in made.task.hp.remark()
    assert load(method).train_params().remark() == ""


def test_a_study_records_which_videos_are_labelled(store: Path, tmp_path: Path) -> None:
    space = load_space("apl_watch", ["train.labelled_fraction=0.5"])
    source = FeatureStore.open(store)
    for policy in ("simple", "race"):
        study = create_study(replace(space, policy=policy), source, tmp_path)
        known = study_event(study).annotated
        assert known["final"] == list(labelled(source, 0.5, 0))
        folds = range(study.num_folds) if policy == "race" else (None,)
        read: set[str] = set()
        for number in folds:
            config = trial_config(study, {}, fold=number)
            read |= set(split_ids(source, config, space.train_params())[0]) & set(known["final"])
        assert set(known["search"]) == read
    assert len(known["final"]) == 5
    points = load_space("apn_watch", [])
    assert study_event(create_study(points, source, tmp_path)).annotated == {}


def test_how_much_is_labelled_is_not_searched(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PTAL_DATA", str(store.parent))
    setting = "train.labelled_fraction={choice: [0.2, 0.5]}"
    assert search.main(["apl_watch", "--dataset", store.name, "--set", setting, "--dry-run"]) == 2
    assert "train.labelled_fraction: decides which videos" in capsys.readouterr().err


def test_a_space_that_may_use_external_scores_says_so() -> None:
    searched = "train.external_scores={choice: [one.json, two.json]}"
    assert "external video scores" in load_space("actionformer_watch", [searched]).remark()
    assert load_space("actionformer_watch", []).remark() == ""
