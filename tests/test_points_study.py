"""A study on data that has points and not one annotated segment."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_store
from small_study import METHOD, small_space
from test_feasibility import copied
from test_trial import SMALL, config

from ptal_ray import ablate, train
from ptal_ray.backends.local import run_local
from ptal_ray.data.store import FeatureStore, StoreWriter
from ptal_ray.data.types import Points, Segments
from ptal_ray.errors import ConfigError, DataError
from ptal_ray.methods.method import load, names
from ptal_ray.policy.policies import make_policy
from ptal_ray.reporting.outcome import show_summary, summary
from ptal_ray.reporting.point_selection import candidates, judged
from ptal_ray.reporting.report import write_report
from ptal_ray.space.space import SearchSpace, parse_space
from ptal_ray.study.events import EventLog
from ptal_ray.study.feasibility import problems
from ptal_ray.study.study import Study, create_study
from ptal_ray.study.view import StudyView, summarise
from ptal_ray.training.config import TrialConfig
from ptal_ray.training.selection import (
    ByMap,
    ByPoints,
    held_out_points,
    length_guard,
    objective_of,
    points_score,
)
from ptal_ray.training.stages import start

pytestmark = pytest.mark.usefixtures("empty_plots")

POINTS = ("selection.metric=points", "budget.trials=3", "budget.max_steps=10", "final.seeds=1")


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("data") / "tiny", train=9)


@pytest.fixture(scope="module")
def bare(annotated: Path) -> Path:
    """The same videos and points, without a segment in any split; test videos have points."""
    store = FeatureStore.open(annotated)
    path = annotated.parent / "bare"
    with StoreWriter(
        path, name="bare", classes=store.info.classes, grid=store.info.grid, features="test",
        dtype="float32",
    ) as writer:  # fmt: skip
        for subset in ("train", "test"):
            for id in store.ids(subset):
                truth = store.annotations(id)
                middle = Points(time_s=(truth.start_s + truth.end_s) / 2, label=truth.label)
                writer.add(
                    id, subset=subset, features=store.video(id).features,
                    duration_s=store.duration_s(id), annotations=Segments.empty(), points=middle,
                )  # fmt: skip
    return path


def done(study: Study) -> StudyView:
    return run_local(study, make_policy(study))


def space_of(*overrides: str) -> SearchSpace:
    """A small space that selects by points, or as `overrides` say."""
    changed = {text.partition("=")[0] for text in overrides}
    kept = [text for text in POINTS if text.partition("=")[0] not in changed]
    made: SearchSpace = small_space(*kept, *overrides)
    return made


def begun(store: Path, folder: Path, *overrides: str) -> Study:
    opened = FeatureStore.open(store)
    return create_study(space_of(*overrides), opened, folder / "studies", seed=1)


@pytest.mark.parametrize("policy", ["simple", "race"])
def test_a_study_without_any_segment_ends_with_a_result(
    bare: Path, tmp_path: Path, policy: str
) -> None:
    study = begun(bare, tmp_path, f"policy={policy}")
    assert problems(study, FeatureStore.open(bare)) == []
    view = done(study)
    assert view.end is not None and view.end.state == "done"
    assert view.recommended is not None
    last = view.trials[0].reports[-1]
    assert last.objective == last.metrics["val/points_score"] > 0
    assert last.metrics["val/label_length_s"] > 0
    assert "default" in view.arms("test")
    for arm in view.arms("test"):
        found = summarise(view.runs("test", arm))
        assert 0 <= found["test/hit_mAP"].mean <= 1
        assert not [name for name in found if re_map(name)]
    report = write_report(study.directory, tmp_path / "reports")
    text = (report / "REPORT.md").read_text()
    assert "by its points, without annotated segments" in text
    assert "The test split has no annotated segment. Its figures are pure-hit mAP" in text
    assert "| configuration | seeds | pure-hit mAP |" in text
    assert re.search(r"no annotated segment in the \d videos of split 'val'\.", text)
    assert "test mAP" not in text
    shown = show_summary(summary(study, report, ()))
    assert "test pure-hit mAP, defaults" in shown
    value = view.runs("test", "default")[0].metrics["test/hit_mAP"]
    assert f"{100 * value:.1f}" in shown
    _check_difference(study, view, tmp_path)


def _check_difference(study: Study, view: StudyView, folder: Path) -> None:
    """Two configurations with test runs have a paired difference of what the runs measured."""
    log, runs = EventLog(study.events), view.runs("test", "default")
    for run in runs:
        higher = run.metrics | {"test/hit_mAP": run.metrics["test/hit_mAP"] + 0.1}
        log.append(replace(run, arm="best", metrics=higher, detections=""))
    assert view.end is not None
    log.append(view.end)
    report = write_report(study.directory, folder / "reports")
    found = json.loads((report / "result.json").read_text())["test_difference"]
    assert found["mean"] == pytest.approx(0.1) and found["over"] == "seeds"
    shown = show_summary(summary(study, report, ()))
    assert "test pure-hit mAP, difference   +10.0" in shown and "test mAP" not in shown
    assert "+10.00 points" in (report / "REPORT.md").read_text()


def re_map(name: str) -> bool:
    return name.split("/")[-1].startswith("mAP")


def test_test_videos_with_segments_are_judged_by_map(annotated: Path, tmp_path: Path) -> None:
    store = FeatureStore.open(annotated)
    half = copied(annotated, tmp_path / "half", unannotated=store.ids("train"))
    view = done(begun(half, tmp_path))
    found = summarise(view.runs("test", "best"))
    assert "test/mAP_avg" in found and "test/hit_mAP" not in found
    assert "val/points_score" in view.trials[0].reports[-1].metrics


def test_the_report_says_what_points_lost(annotated: Path, tmp_path: Path) -> None:
    searched = "decode.nms_tiou={uniform: [0.2, 0.8]}"
    study = begun(annotated, tmp_path, "selection.decode_settings=4", searched)
    view = done(study)
    found = list(candidates(view, study.directory))
    assert Counter(c.trial for c in found) == {t.number: 4 for t in view.trials}
    by_trial = {t.number: t.reports[-1] for t in view.trials}
    for number, report in by_trial.items():  # not cross-fitted: three videos
        own = [c for c in found if c.trial == number]
        assert max(c.points for c in own) == pytest.approx(report.objective)
    (proxy,) = judged(found).values()
    assert proxy.candidates == len(found)
    assert proxy.best == max(c.map for c in found)
    assert proxy.regret.value == pytest.approx(proxy.best - proxy.chosen)
    text = (write_report(study.directory, tmp_path / "reports") / "REPORT.md").read_text()
    assert "## Selection by points" in text
    assert f"| 3 | {len(found)} | {proxy.correlation.value:.2f} [" in text


def test_a_study_by_map_has_no_such_section(annotated: Path, tmp_path: Path) -> None:
    study = begun(annotated, tmp_path, "selection.metric=map", "budget.trials=1")
    done(study)
    text = (write_report(study.directory, tmp_path / "reports") / "REPORT.md").read_text()
    assert "Selection by points" not in text and "points alone" not in text


def test_no_annotation_is_read_before_the_test(
    annotated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FeatureStore, id: str) -> Segments:
        raise AssertionError(f"annotations of {id} were read")

    made = config(annotated, METHOD, metric="points", report_steps=(4,))
    monkeypatch.setattr(FeatureStore, "annotations", refuse)
    report = start(made).advance()
    assert report.objective == report.metrics["val/points_score"]


def test_training_is_the_same_whatever_selects(annotated: Path) -> None:
    losses = [
        start(config(annotated, METHOD, metric=metric)).train_until(4)["total"]
        for metric in ("map", "points")
    ]
    assert losses[0] == losses[1]
    trials = [start(config(annotated, METHOD, metric=m)) for m in ("map", "points")]
    for trial in trials:
        trial.advance()
    after = [trial.train_until(8)["total"] for trial in trials]
    assert after[0] == after[1]


@pytest.mark.parametrize("method", sorted(n for n in names() if load(n).supervision == "point"))
def test_every_method_of_points_has_a_length(annotated: Path, method: str) -> None:
    trial = start(config(annotated, method, metric="points", report_steps=(4,)))
    metrics = trial.advance().metrics
    assert metrics["val/label_length_s"] > 0
    ratio = metrics.get("val/length_ratio", math.nan)
    score = points_score(metrics["val/hit_mAP"], metrics["val/point_log_likelihood"], ratio)
    assert metrics["val/points_score"] == pytest.approx(score)


@pytest.mark.parametrize("method", sorted(n for n in SMALL if load(n).supervision != "point"))
def test_methods_of_annotations_select_by_map(method: str) -> None:
    text = (
        f"method: {method}\ndataset: tiny\nselection: {{metric: points}}\n"
        "budget: {trials: 2, min_steps: 4, max_steps: 8}\n"
    )
    with pytest.raises(ConfigError, match=r"x.yaml:3: selection.metric: 'points' is for methods"):
        parse_space(text, name="x", source="x.yaml")


def test_what_points_need(annotated: Path, bare: Path, tmp_path: Path) -> None:
    store = FeatureStore.open(bare)
    train, test = store.ids("train"), store.ids("test")
    study = begun(bare, tmp_path)

    def said(path: Path, *overrides: str) -> str:
        opened = FeatureStore.open(path)
        found = problems(replace(study, space=space_of(*overrides), store=path), opened)
        return "; ".join(map(str, found))

    no_test = copied(bare, tmp_path / "no_test", pointless=test)
    assert "no annotated instance and no point in the 3 videos of split 'test'" in said(no_test)
    assert "split 'test'; mAP needs some" in said(bare, "selection.metric=map")
    assert "select by their points (--set selection=points)" in said(bare, "selection.metric=map")
    nothing = copied(bare, tmp_path / "nothing", pointless=train)
    assert "no point in the 3 videos of split 'val'; selection.metric: points" in said(nothing)
    with pytest.raises(ConfigError, match="may not read the annotations of test video"):
        held_out_points(store, test, "val")
    with pytest.raises(DataError, match="no point in the 6 videos"):
        held_out_points(FeatureStore.open(nothing), train[:6], "val")
    assert len(held_out_points(store, test, "test")) == 3


def test_points_of_test_videos_stay_out_where_segments_judge(annotated: Path, bare: Path) -> None:
    store = FeatureStore.open(annotated)
    assert all(not len(store.points(id)) for id in store.ids("test"))
    assert all(len(FeatureStore.open(bare).points(id)) for id in store.ids("test"))


def test_lengths_far_from_those_of_the_labels_count_less(annotated: Path) -> None:
    ratios = [0.5, 1.0, 2.0, 0.25, 4.0, 0.0, math.nan]
    assert [length_guard(r) for r in ratios] == [1, 1, 1, 0.5, 0.5, 0, 1]
    own = {"a": Points(time_s=np.array([2.0, 6.0]), label=np.array([0, 0]))}
    found = {"a": Segments(start_s=np.array([1.0, 5.0]), end_s=np.array([3.0, 7.0]),
                           label=np.array([0, 0]), score=np.array([0.9, 0.8]))}  # fmt: skip
    by_points = ByPoints(points=own, num_classes=2, duration_s={"a": 10.0}, label_length_s=0.5)
    metrics = by_points.metrics(found)
    assert (metrics["hit_mAP"], metrics["length_ratio"]) == (1.0, 4.0)
    likelihood = metrics["point_log_likelihood"]
    # Two detections of 2 s that weigh 1 and 1/2, of 10 s and 2 classes.
    each = [math.log(0.1 + 0.9 * share * 10 * 2 / 2) for share in (2 / 3, 1 / 3)]
    assert likelihood == pytest.approx(np.mean(each))
    assert metrics["points_score"] == pytest.approx(0.5 * math.exp(0.2 * likelihood))
    unknown = replace(by_points, label_length_s=math.nan).metrics(found)
    assert unknown["points_score"] == pytest.approx(math.exp(0.2 * likelihood))
    assert "length_ratio" not in unknown
    none = by_points.metrics({"a": Segments.empty()})
    assert none["points_score"] == 0 and "length_ratio" not in none


def test_what_judges_follows_from_metric_and_split(annotated: Path, bare: Path) -> None:
    def kind(path: Path, split: str, metric: str) -> type[Any]:
        store = FeatureStore.open(path)
        ids = store.ids("test" if split == "test" else "train")
        return type(objective_of(store, ids, split, metric, lambda: 1.0))

    assert kind(annotated, "val", "map") is kind(annotated, "test", "map") is ByMap
    assert kind(annotated, "val", "points") is ByPoints
    assert kind(annotated, "test", "points") is ByMap
    assert kind(bare, "test", "points") is kind(bare, "val", "points") is ByPoints


def test_the_metric_survives_json(annotated: Path) -> None:
    made = config(annotated, METHOD, metric="points")
    assert TrialConfig.from_json(made.to_json()) == made


@pytest.mark.usefixtures("runs_here")
def test_other_commands_run_without_a_segment(
    bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = "".join(f"  {k}: {v}\n" for k, v in SMALL[METHOD].items())
    path = tmp_path / "space.yaml"
    path.write_text(
        f"method: {METHOD}\ndataset: {bare}\nselection: {{metric: points, val_fraction: 0.34}}\n"
        f"budget: {{trials: 1, min_steps: 4, max_steps: 8}}\ntrain:\n{fixed}"
    )
    for more, split in ((), "val"), (("--test",), "test"):
        words = [str(path), "--out", str(tmp_path / split), "--threads", "1", *more]
        assert train.main(words) == 0
        assert f"  {split} pure-hit mAP " in capsys.readouterr().out
    flags = ["--variant", "a:", "--variant", "b: train.lr=0.01", "--seeds", "1", "--jobs", "1"]
    assert ablate.main([str(path), *flags, "--out", str(tmp_path / "ablation")]) == 0
    said = capsys.readouterr().out
    assert "| variant | runs | val/hit_mAP | val/hit_mAP against the row above |" in said
