"""The diagnosis of pseudo-labels with training annotations."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from test_trial import SMALL, config

from ptal_ray import train
from ptal_ray.data.batching import PackedSplit
from ptal_ray.errors import ConfigError
from ptal_ray.methods.method import load, names
from ptal_ray.training.label_quality import label_length_s, label_quality
from ptal_ray.training.stages import start

WITH_LABELS = sorted(n for n in names() if load(n).label_segments is not None)


def test_true_labels_are_perfect_and_half_of_them_half(store: Path) -> None:
    trial = start(config(store, "apn"))
    grid = trial.task.store.info.grid

    def truth(_: object, batch: object) -> list[np.ndarray]:
        found = []
        for name in batch.ids:  # type: ignore[attr-defined]
            real = trial.task.store.annotations(name)
            first, last = grid.snippets(real.start_s), grid.snippets(real.end_s) - 1
            found.append(np.column_stack([first, last, real.label]).round().astype(np.int64))
        return found

    def quality(change: object) -> dict[str, float]:
        method = dataclasses.replace(trial.task.method, label_segments=change)
        task = dataclasses.replace(trial.task, method=method)
        return label_quality(task, trial.learner.model, trial.batches.split)

    perfect = quality(truth)
    assert perfect.pop("number") == sum(
        len(trial.task.store.annotations(i)) for i in trial.batches.split.ids
    )
    assert all(value == pytest.approx(1) for value in perfect.values())
    shorter = quality(lambda p, b: [v // [1, 1, 1] - [0, 1, 0] for v in truth(p, b)])
    assert shorter["mAP_0.10"] == pytest.approx(1)
    assert shorter["mAP_0.70"] < 1 and shorter["mean_tiou"] < 1
    assert shorter["class_accuracy"] == 1
    other = quality(lambda p, b: [v * [1, 1, 0] for v in truth(p, b)])
    share = (
        np.concatenate([trial.task.store.annotations(i).label for i in trial.batches.split.ids])
        == 0
    )
    assert other["class_accuracy"] == other["positive_accuracy"] == pytest.approx(share.mean())
    nothing = quality(lambda p, b: [v[:0] for v in truth(p, b)])
    assert nothing["number"] == 0 and "mean_tiou" not in nothing


@pytest.mark.parametrize("method", WITH_LABELS)
def test_methods_state_the_labels_they_train_on(store: Path, method: str) -> None:
    semi = load(method).supervision == "semi"
    trial = start(config(store, method, train={"tau_neg": 0.0} if semi else {}))
    before = {k: v.clone() for k, v in trial.learner.model.state_dict().items()}
    found = label_quality(trial.task, trial.learner.model, trial.batches.split, trial.made_labels)
    if trial.task.method.supervision == "point":  # points alone say where about the actions are
        assert found["mAP_0.10"] > 0.5
    assert 0 < found["mean_tiou"] < 1 and found["number"] > 0
    assert all((v == before[k]).all() for k, v in trial.learner.model.state_dict().items())
    assert trial.batches.labels.tables is trial.made_labels


def test_test_videos_stay_sealed(store: Path) -> None:
    trial = start(config(store, "apn"))
    split = PackedSplit(trial.task.store, trial.task.store.ids("test"), trial.worker.device)
    with pytest.raises(ConfigError, match="may not read the annotations of test video"):
        label_quality(trial.task, trial.learner.model, split)


def test_train_prints_and_keeps_it(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    space = tmp_path / "space.yaml"
    fixed = "".join(f"  {k}: {v}\n" for k, v in SMALL["apn"].items())
    space.write_text(
        "method: apn\ndataset: tiny\nselection: {val_fraction: 0.34}\n"
        f"budget: {{trials: 1, min_steps: 4, max_steps: 8}}\ntrain:\n{fixed}"
    )
    monkeypatch.setenv("PTAL_DATA", str(store.parent))
    arguments = [str(space), "--label-quality", "--reports", "4", "--threads", "1"]
    arguments += ["--out", str(tmp_path / "out")]
    assert train.main(arguments) == 0
    lines = (tmp_path / "out" / "label_quality.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 2, 4, 6, 8]
    assert capsys.readouterr().out.count("pseudo-labels  mAP") == 5
    blocked = tmp_path / "file"
    blocked.touch()
    for flag, value, message in (
        ("--reports", "9", "--reports 9: allowed are 1 to 8"),
        ("--reports", "0", "--reports 0: allowed are 1 to 8"),
        ("--threads", "0", "--threads 0: allowed is 1 or more"),
        ("--out", str(blocked), f"--out {blocked}: not a folder"),
    ):
        assert train.main([*arguments, flag, value]) == 2
        assert message in capsys.readouterr().err


def test_the_mean_length_is_at_most_the_time_for_each_point(store: Path) -> None:
    trial = start(config(store, "apn"))
    model, split, opened = trial.learner.model, trial.batches.split, trial.task.store

    def length(label_segments: object) -> float:
        method = dataclasses.replace(trial.task.method, label_segments=label_segments)
        return label_length_s(dataclasses.replace(trial.task, method=method), model, split)

    def stated(snippets: int, number: int = 2) -> object:
        rows = np.array([[3, 2 + snippets, 0]] * number).reshape(-1, 3)
        return lambda pseudo, batch: [rows] * len(batch.ids)

    assert length(stated(4)) == pytest.approx(4 * opened.info.grid.stride_s)
    time_s = sum(opened.duration_s(i) for i in split.ids)
    assert length(stated(40)) == pytest.approx(
        time_s / sum(len(opened.points(i)) for i in split.ids)
    )
    assert np.isnan(length(stated(4, number=0)))
    assert np.isnan(length(None))
