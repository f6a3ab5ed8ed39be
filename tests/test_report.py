"""Reports: what they hold, that they are the same every time, and that they say what is missing."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import make_store
from mlflow_service import fresh_database
from small_study import begun, small_study
from synthetic_study import SyntheticStudy

from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import DataError
from ptal_ray.policy.importance import param_importance
from ptal_ray.report import main
from ptal_ray.reporting.leaderboard import leaderboard
from ptal_ray.reporting.report import report_name, write_report
from ptal_ray.space.space import load_space
from ptal_ray.study.events import loads
from ptal_ray.study.view import StudyView, resolved_space
from ptal_ray.tracking.tracker import MlflowTracker

pytestmark = pytest.mark.usefixtures("empty_plots")

NAME = "apn_demo-20260801-120000"
SIMULATED = "simulated-v1 D=16 standard seed=0"
PICTURES = ("optimisation_history", "importance", "per_threshold", "timeline")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return FeatureStore.open(make_store(tmp_path_factory.mktemp("data") / "store"))


@pytest.fixture(scope="module")
def study_dir(tmp_path_factory, store):
    """A finished study on simulated features."""
    study = SyntheticStudy(tmp_path_factory.mktemp("studies") / NAME, store, features=SIMULATED)
    return study.whole(16)


@pytest.fixture(scope="module")
def report(tmp_path_factory, study_dir):
    return write_report(study_dir, tmp_path_factory.mktemp("reports"))


@pytest.fixture(scope="module")
def again(tmp_path_factory, study_dir):
    return write_report(study_dir, tmp_path_factory.mktemp("again"))


def test_its_files_are_complete_and_small(report):
    assert re.fullmatch(rf"{NAME}_2cpu_\d{{4}}-\d\d-\d\d", report.name)
    pictures = {f"{name}.{kind}" for name in PICTURES for kind in ("png", "svg")}
    texts = {"REPORT.md", "report.html", "result.json", "trials.parquet", "best.yaml", "space.yaml"}
    assert {p.name for p in report.iterdir()} == texts | pictures
    for path in report.iterdir():
        most = 7_000_000 if path.name == "report.html" else 150_000  # plotly.js is 5 MB
        assert 0 < path.stat().st_size < most, path.name
    assert [p.name for p in report.parent.iterdir()] == [report.name]


def test_the_numbers_of_the_tables(report):
    text = (report / "REPORT.md").read_text()
    assert "over seeds, test mAP in % of 210 videos" in text
    columns = "| @0.1 | @0.2 | @0.3 | @0.4 | @0.5 | @0.6 | @0.7 | 0.10-0.70 |"
    assert f"| configuration | seeds {columns}" in text
    best = [f"{100 * 0.56 * (1.2 - k / 10):.2f} ± {1.2 - k / 10:.2f}" for k in range(1, 8)]
    assert f"| recommended | 3 | {' | '.join(best)} | 44.80 ± 0.80 |" in text
    assert "44.80 ± 0.80 % mAP, the defaults 32.80 ± 0.80 %: +12.00 points" in text
    for seed, value in enumerate(("44.00", "44.80", "45.60")):
        assert re.search(rf"\| recommended \| {seed} \|.* {value} \|", text)
    assert "| candidate1 | 3 of 3 | 48.80 ± 0.80 |" in text
    assert "| `train.lr` | 0.01 | 0.0001 | loguniform [0.0001, 0.1] |" in text
    assert "| complete | 7 |" in text and "| pruned | 8 |" in text and "| failed | 1 |" in text
    assert "trial 4 failed: train/loss_total: nan by step 30" in text
    for name in PICTURES:
        assert f"({name}.png)" in text


def test_the_setting_and_where_it_ran(report, study_dir):
    text = (report / "REPORT.md").read_text()
    assert "Made up for a test." in text
    assert "Test CPU @ 2 GHz" in text and "torch 2.13.0" in text and "f" * 40 in text
    assert "seeds: 7 for the search, 8 to 10 for the runs after it" in text
    assert f"python -m ptal_ray.search reports/{report.name}/space.yaml --seed 7" in text
    assert f"python -m ptal_ray.train reports/{report.name}/best.yaml --test --seed 8" in text
    assert str(study_dir.parent) not in text


def test_every_table_says_that_features_are_simulated(report):
    lines = (report / "REPORT.md").read_text().splitlines()
    tables = [k for k, line in enumerate(lines) if line.startswith("| --- ")]
    assert len(tables) == 6
    for k in tables:
        before = [line for line in lines[: k - 1] if line and not line.startswith("|")][-1]
        assert SIMULATED in before, lines[k - 1]


def test_the_yamls_can_be_loaded(report):
    best = load_space(report / "best.yaml")
    assert best.train_fixed["lr"] == 0.01 and best.decode_fixed["nms_tiou"] == 0.45
    assert not best.train and not best.decode
    space = load_space(report / "space.yaml")
    assert set(space.train) == {"lr", "refresh_every"} and set(space.decode) == {"nms_tiou"}


def test_the_yamls_hold_the_budget_that_was_run(tmp_path):
    study = begun(small_study(tmp_path, num_trials=3))  # its space says 4
    assert resolved_space(StudyView.read(study.directory)).budget.trials == 3


def test_the_commands_repeat_every_limit_of_the_search(tmp_path):
    limits = {"num_trials": 3, "max_concurrent": 2, "gpu_hours": 0.5, "time_budget_s": 90.0}
    study = begun(small_study(tmp_path, points="human:seed=0", **limits))
    text = (write_report(study.directory, tmp_path) / "REPORT.md").read_text()
    (line,) = [line for line in text.splitlines() if "ptal_ray.search" in line]
    for words in ("--num-trials 3", "--max-concurrent 2", "--gpu-hours 0.5", "--time-budget 90s"):
        assert words in line
    assert "--points human:seed=0" in line


def test_result_json_holds_everything(report, study_dir):
    result = loads((report / "result.json").read_text())
    view = StudyView.read(study_dir)
    assert result["counts"] == view.counts
    assert result["best"]["train"]["lr"] == 0.01
    assert result["test"]["best"]["test/mAP_0.50"]["mean"] == pytest.approx(0.56 * 0.7)
    assert len(result["trials"]) == 16 and len(result["runs"]) == 12
    assert result["trials"][3]["reports"][0]["objective"] == view.trials[3].reports[0].objective
    assert sum(result["importance"].values()) == pytest.approx(1)
    assert result["study"]["features"] == SIMULATED


def test_trials_as_parquet(report, study_dir):
    rows = pq.read_table(report / "trials.parquet").to_pylist()
    view = StudyView.read(study_dir)
    expected = [(t.number, r.step, r.objective) for t in view.trials for r in t.reports]
    assert [(r["trial"], r["step"], r["objective"]) for r in rows] == expected
    assert rows[0]["train.lr"] == view.trials[0].params["lr"]
    assert rows[0]["val/mAP_0.50"] == view.trials[0].reports[0].metrics["val/mAP_0.50"]
    assert rows[0]["decode.nms_tiou"] == 0.3


def test_the_same_study_gives_the_same_bytes(report, again):
    for path in sorted(report.iterdir()):
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_an_earlier_report_is_replaced_and_a_failure_leaves_it(study_dir, tmp_path, monkeypatch):
    folder = write_report(study_dir, tmp_path)
    stale = folder / "importance.png"
    stale.write_text("old")
    assert write_report(study_dir, tmp_path) == folder
    assert not stale.exists() or stale.read_bytes() != b"old"
    monkeypatch.setattr("ptal_ray.reporting.report.trial_table", lambda view: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(study_dir, tmp_path)
    assert (folder / "REPORT.md").exists()
    assert list(tmp_path.iterdir()) == [folder]


def test_an_unfinished_study_says_what_is_missing(tmp_path):
    study = SyntheticStudy(tmp_path / NAME)
    study.begin()
    study.trials(3)
    study.start(3)
    study.end("interrupted")
    folder = write_report(study.directory, tmp_path / "reports")
    text = (folder / "REPORT.md").read_text()
    assert "not finished: interrupted" in text
    assert "No final run has finished." in text
    assert "No hyperparameter importance: 3 trials reported; 8 with different objectives" in text
    assert "No timeline: no final run has finished." in text
    assert "features: real." in text and "simulated" not in text
    rows = pq.read_table(folder / "trials.parquet").to_pylist()
    assert (rows[-1]["trial"], rows[-1]["state"], rows[-1]["step"]) == (3, "running", None)


def test_a_run_that_was_not_started_again_is_not_called_restarted(tmp_path):
    study = SyntheticStudy(tmp_path / NAME)
    study.begin()
    study.trials(2)
    study.append("restart", run="trials/00001", reason="it died")
    study.append("restart", run="final/best_seed0", reason="failed 3 times", again=False)
    study.end()
    text = (write_report(study.directory, tmp_path / "reports") / "REPORT.md").read_text()
    assert "`trials/00001` was restarted: it died" in text
    assert "`final/best_seed0` failed 3 times. `--resume` retries it" in text


def test_a_study_in_which_nothing_happened(tmp_path):
    study = SyntheticStudy(tmp_path / NAME)
    with pytest.raises(DataError, match="no such file"):
        write_report(study.directory, tmp_path / "reports")
    study.append("restart", run="trials/00000", reason="it died")
    with pytest.raises(DataError, match="its log has no study"):
        write_report(study.directory, tmp_path / "reports")
    study.begin()
    folder = write_report(study.directory, tmp_path / "reports")
    assert not (folder / "best.yaml").exists()


def test_diverged_seeds_are_named_and_left_out_of_the_mean(tmp_path):
    study = SyntheticStudy(tmp_path / NAME)
    study.begin()
    study.trials(2)
    study.final("test", "best", 0, 0.5)
    study.append(
        "final_report", arm="best", role="test", seed=1, params={}, decode={}, step=90,
        metrics={}, detections="", message="train/loss_total: nan | lower lr",
    )  # fmt: skip
    study.end()
    text = (write_report(study.directory, tmp_path / "reports") / "REPORT.md").read_text()
    assert "| recommended | 1 of 2 | 55.00 |" in text
    assert "diverged: train/loss_total: nan \\| lower lr" in text


@pytest.mark.parametrize(
    "harm, reason",
    [
        ("detections", "detections.json of the final run cannot be read"),
        ("store", "the feature store [^ ]*none is not on this machine"),
        ("hash", "the feature store [^ ]*other has changed since the study"),
    ],
)
def test_a_timeline_that_cannot_be_drawn_says_why(study_dir, tmp_path, store, harm, reason):
    copy = tmp_path / NAME
    shutil.copytree(study_dir, copy)
    if harm == "detections":
        (copy / "final/best_seed0/detections.json").unlink()
    else:
        other = make_store(tmp_path / "other", seed=1) if harm == "hash" else tmp_path / "none"
        plain = json.loads((copy / "study.json").read_text()) | {"store": str(other)}
        (copy / "study.json").write_text(json.dumps(plain))
    text = (write_report(copy, tmp_path / "reports") / "REPORT.md").read_text()
    assert re.search(rf"No timeline: {reason}\.", text)


def test_importance_leaves_out_values_outside_their_domain(study_dir):
    view = StudyView.read(study_dir)
    shares = param_importance(view)
    odd = replace(view.trials[0], number=99, params=view.trials[0].params | {"lr": 1e9})
    assert param_importance(replace(view, trials=(*view.trials, odd))) == shares


def test_importance_finds_the_parameter_that_matters(study_dir):
    shares = param_importance(StudyView.read(study_dir))
    assert list(shares) == ["lr", "refresh_every"]
    assert shares["lr"] > 0.8


@pytest.mark.parametrize(
    ("objectives", "same"),
    [
        ([0.3, 0.1 + 0.2], False),
        ([0.3, 0.3 + 1e-9, 0.3 - 1e-9], False),
        ([0.1, 0.2, 0.3], True),
        ([math.nan], False),
        ([math.nan, 0.3], False),
        ([math.inf, 0.0], False),
    ],
)
def test_a_report_without_anything_to_explain(tmp_path, objectives, same):
    study = SyntheticStudy(tmp_path / NAME)
    study.begin()
    for number in range(16):
        lr = 0.01 if same else 0.001 * (1 + number)
        value = objectives[number % len(objectives)]
        params = {"lr": lr, "refresh_every": 5}
        study.append("trial_start", trial=number, params=params, from_step=0)
        study.append("report", trial=number, step=90, objective=value,
                     metrics={"val/mAP_avg": value}, decode={}, seconds=1.0)  # fmt: skip
        study.append("trial_end", trial=number, state="complete", message="")
    study.end()
    folder = write_report(study.directory, tmp_path / "reports")
    assert json.loads((folder / "result.json").read_text())["importance"] == {}
    assert "No hyperparameter importance: 16 trials reported" in (folder / "REPORT.md").read_text()


@pytest.mark.parametrize("count", [0, 1])
def test_a_report_of_hardly_any_trial(tmp_path, count):
    study = SyntheticStudy(tmp_path / NAME)
    study.begin()
    study.trials(count)
    study.end()
    text = (write_report(study.directory, tmp_path / "reports") / "REPORT.md").read_text()
    assert f"No hyperparameter importance: {count} trials reported" in text


def test_a_gpu_names_the_report(study_dir):
    view = StudyView.read(study_dir)
    view.study.hardware["gpus"] = ["NVIDIA H200", "NVIDIA H200"]
    assert report_name(view).startswith(f"{NAME}_2xNVIDIA-H200_20")


def test_a_study_that_recommends_the_defaults_has_their_test_runs(tmp_path):
    study = SyntheticStudy(tmp_path / NAME)
    study.begin()
    study.trials(2)
    for seed in range(3):
        study.final("test", "default", seed, 0.4 + 0.01 * seed)
    study.end()
    (row,) = leaderboard([StudyView.read(study.directory)])
    assert row["mAP"] == row["default_mAP"] == pytest.approx(0.328)
    assert row["seeds"] == 3 and row["average"] == "0.10-0.70"


def test_several_studies_make_a_leaderboard(study_dir, tmp_path, capsys):
    weak = SyntheticStudy(tmp_path / "apn_demo-20260801-130000", features=SIMULATED)
    weak.begin()
    weak.trials(2)
    root = tmp_path / "reports"
    dirs = [str(weak.directory), str(study_dir)]
    assert main([*dirs, "--out", str(root), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    rows = json.loads((root / "leaderboard.json").read_text())
    assert printed["leaderboard"] == rows
    assert [r["study"] for r in rows] == [NAME, weak.directory.name]
    assert rows[0]["mAP"] == pytest.approx(0.448) and rows[0]["default_mAP"] == pytest.approx(0.328)
    assert rows[1]["mAP"] is None
    assert [r["average"] for r in rows] == ["0.10-0.70", ""]
    table = (root / "leaderboard.md").read_text()
    row = f"| demo | {SIMULATED} | 0.10-0.70 | apn | points | {NAME} | 16 | 3 | 210 | 6 |"
    assert f"{row} 44.80 ± 0.80 | 32.80 ± 0.80 |" in table
    assert main([*dirs, "--out", str(root)]) == 0
    assert "44.80 ± 0.80" in capsys.readouterr().out
    assert leaderboard([]) == []


@pytest.mark.parametrize("harm", ["", '{"event": "study", "time": 1.0}\n'])
def test_one_study_without_a_report_does_not_keep_the_others_from_theirs(
    study_dir, tmp_path, capsys, harm
):
    bad, named = tmp_path / "bad", SyntheticStudy(tmp_path / "a (1)+b-20260801-130000")
    bad.mkdir()
    (bad / "events.jsonl").write_text(harm)
    named.whole(2)
    root = tmp_path / "reports"
    dirs = [str(study_dir), str(bad), str(tmp_path / "none"), str(named.directory)]
    assert main([*dirs, "--out", str(root), "--json"]) == 3
    told = capsys.readouterr()
    printed = json.loads(told.out)
    assert [error for error in told.err.splitlines() if error.startswith("error: ")] == [
        f"error: {error}" for error in printed["errors"]
    ]
    assert str(bad) in printed["errors"][0] and "none" in printed["errors"][1]
    assert len(printed["errors"]) == 2
    names = sorted(path.name for path in root.iterdir() if path.is_dir())
    assert len(names) == 2
    assert names[0].startswith("a_1_b-20260801-130000_") and names[1].startswith(NAME)
    assert [r["study"] for r in printed["leaderboard"]]
    assert len(json.loads((root / "leaderboard.json").read_text())) == 2


def test_a_wrong_directory_is_one_line_and_exit_3(tmp_path, capsys):
    assert main([str(tmp_path), "--out", str(tmp_path / "reports")]) == 3
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


def test_log_sends_mlflow_what_it_lacks(study_dir, tmp_path, monkeypatch, capsys):
    copy = tmp_path / NAME
    shutil.copytree(study_dir, copy)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(fresh_database())
    assert main([str(copy), "--log"]) == 0
    state = json.loads((copy / "mlflow_state.json").read_text())
    assert state["offset"] == (copy / "events.jsonl").stat().st_size
    assert state["waiting"] == []
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    names = {a.path for a in client.list_artifacts(state["runs"]["study"], "report")}
    assert {"report/REPORT.md", "report/best.yaml", "report/timeline.png"} <= names
    run = state["runs"]["study"]
    place = Path(client.download_artifacts(run, "report/REPORT.md", str(tmp_path)))
    address = f"http://127.0.0.1:5000/get-artifact?path=report%2Ftimeline.png&run_uuid={run}"
    assert f"![timeline]({address})" in place.read_text()
    close = MlflowTracker.close
    monkeypatch.setattr(MlflowTracker, "close", lambda *args: (*close(*args), "2 events missing"))
    assert main([str(copy), "--log"]) == 2
    assert "2 events missing" in capsys.readouterr().err
