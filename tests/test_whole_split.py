"""Final runs see each video as often as the trials that chose their configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import make_store
from test_trial import config

from ptal_ray.data.store import FeatureStore
from ptal_ray.methods.method import load
from ptal_ray.training.supervision import annotated_ids, fold
from ptal_ray.training.trial import Trial
from ptal_ray.training.whole_split import on_whole_split, steps_on


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("data") / "tiny", train=10)


def parts(path: Path, method: str, **train: Any) -> tuple[Any, FeatureStore, int, int]:
    """A configuration, its store, and the videos in the fold and in all."""
    made = config(path, method, report_steps=(30, 120), train={"batch_size": 2, **train})
    store = FeatureStore.open(path)
    hp = load(method).train_params(**made.train)
    fit, _ = fold(store, hp, made.val_fraction, made.fold_seed)
    return made, store, len(fit), len(store.ids("train"))


def test_steps_follow_the_videos(path: Path) -> None:
    made, store, fit, whole = parts(path, "lacp")
    assert fit < whole == 10
    final = on_whole_split(made, store)
    assert final.report_steps == (round(120 * whole / fit),)
    assert (final.fit_on, final.train, final.seed) == ("train", made.train, made.seed)


def test_a_video_is_seen_as_often(path: Path) -> None:
    made, store, _, _ = parts(path, "lacp")
    final = on_whole_split(made, store)
    seen = []
    for own in (made, final):
        trial = Trial(own)
        seen.append(own.report_steps[-1] * trial.plan.batch_size / len(trial.split.ids))
    assert seen[0] == pytest.approx(seen[1], rel=0.01)


def test_a_batch_that_grows_with_the_split_counts(path: Path) -> None:
    made, store, fit, whole = parts(path, "lacp", batch_size=8)
    assert fit < 8 <= whole  # the fold has batches of 4
    final = on_whole_split(made, store)
    assert final.report_steps == (round(120 * (whole / 8) / (fit / 4)),)


def test_the_base_model_of_potloc_follows_too(path: Path) -> None:
    made, store, fit, whole = parts(path, "potloc", base_steps=40, base_batch_size=2)
    final = on_whole_split(made, store)
    assert final.train["base_steps"] == round(40 * whole / fit)
    assert final.train | {"base_steps": 40} == made.train


def test_stages_of_apl_follow_the_videos_that_they_train_on(path: Path) -> None:
    given = {"labelled_fraction": 0.5, "pretrain_steps": 60, "supervised_steps": 80}
    made, store, fit, whole = parts(path, "apl", **given)
    hp = load("apl").train_params(**made.train)
    labelled = set(annotated_ids(store, hp))
    ids, _ = fold(store, hp, made.val_fraction, made.fold_seed)
    own = len(labelled.intersection(ids))
    assert 0 < own < len(labelled) and own < fit
    final = on_whole_split(made, store)
    assert final.train["pretrain_steps"] == round(60 * whole / fit)
    assert final.train["supervised_steps"] == round(80 * len(labelled) / own)
    assert final.report_steps == (round(120 * (whole - len(labelled)) / (fit - own)),)


def test_a_stage_that_is_left_out_stays_out(path: Path) -> None:
    made, store, _, _ = parts(path, "apl", labelled_fraction=0.5, pretrain_steps=0)
    assert on_whole_split(made, store).train["pretrain_steps"] == 0


def test_as_many_videos_take_as_many_steps(path: Path) -> None:
    made, store, _, _ = parts(path, "lacp")
    hp = load("lacp").train_params(**made.train)
    ids = store.ids("train")
    assert steps_on(77, load("lacp"), hp, store, ids, ids) == 77
