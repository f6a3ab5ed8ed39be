from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import make_store, shared

from ptal_ray.data import commands
from ptal_ray.data.__main__ import main
from ptal_ray.data.datasets import find
from ptal_ray.data.points import no_points
from ptal_ray.data.store import FeatureStore, StoreWriter
from ptal_ray.data.types import Grid, Segments

pytestmark = pytest.mark.usefixtures("data_folder")


def gtea_scores():
    folder = shared("data/gtea_scores")
    return [
        "gtea_scores", "--features", folder / "features", "--annotations", folder / "gt.json",
        "--points", folder / "point_labels_15fps_frames.csv", "--point-fps", "15",
        "--fps", "3", "--stride", "1",
    ]  # fmt: skip


def run(*words):
    return main([str(word) for word in words])


def test_gtea_scores_is_one_command(capsys):
    assert run("import", *gtea_scores()) == 0
    store = find("gtea_scores")
    assert (len(store.ids("train")), len(store.ids("test"))) == (16, 5)
    assert sum(len(store.points(id)) for id in store.ids("train")) == 280
    every = store.ids("train") + store.ids("test")
    assert sum(len(store.annotations(id)) for id in every) == 375
    assert store.info.classes == ("stir", "open", "put", "close", "take", "pour", "scoop")
    assert store.info.feature_dim == 33 and "trained with full labels" in store.info.note
    for id in store.ids("train"):  # each published point lies in an instance of its class
        points, found = store.points(id), store.annotations(id)
        inside = (points.time_s[:, None] >= found.start_s - 0.1) & (
            points.time_s[:, None] <= found.end_s
        )
        assert (inside & (points.label[:, None] == found.label)).any(axis=1).all()
    text = capsys.readouterr().out
    assert "16 videos" in text and "reach beyond their video, kept as annotated: 1" in text


def test_salads50_scores_is_one_command(capsys):
    folder = shared("data/salads50_scores")
    assert run(
        "import", "salads50_scores", "--features", folder / "features", "--annotations",
        folder / "gt.json", "--simulate-points", "gaussian", "--seed", 0, "--fps", 1, "--stride", 1,
    ) == 0  # fmt: skip
    store = find("salads50_scores")
    assert (len(store.ids("train")), len(store.ids("test"))) == (40, 10)
    every = store.ids("train") + store.ids("test")
    assert sum(len(store.annotations(id)) for id in every) == 760
    assert store.info.feature_dim == 112 and store.info.num_classes == 9
    assert "points simulated: gaussian, seed 0" in capsys.readouterr().out


def test_a_second_import_needs_replace_and_validate_accepts_both(capsys):
    words = gtea_scores()
    assert run("validate", *words) == 0
    assert run("import", *words) == 0
    assert run("import", *words) == 3
    assert capsys.readouterr().err.count("already exists; pass --replace") == 1
    assert run("import", *words, "--replace", "--dtype", "float32") == 0
    assert find("gtea_scores").dtype == "float32"
    assert run("validate", "gtea_scores") == 0
    assert find("gtea_scores").info.content_hash in capsys.readouterr().out


def test_a_wrong_rate_is_found(capsys, data_folder):
    words = gtea_scores()
    words[words.index("--point-fps") + 1] = "3"
    assert run("import", *words) == 3
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert "outside video" in error and "more: run validate" in error
    assert run("validate", *words) == 3
    told = capsys.readouterr()
    assert "PROBLEM points outside their video: 227\n" in told.out and "and 217 more" in told.out
    assert told.err.count("\n") == 1 and "228 problems (points outside their " in told.err
    assert not data_folder.exists()


@pytest.mark.parametrize(
    ("flag", "value", "fits", "allow", "remark"),
    [
        ("--fps", "2.5", "--fps 2.5 given for 3?", "--allow-length", "(worst 1.20 times): 21"),
        ("--point-fps", "30", "pass --point-fps 15 ", "--allow-points", "(17.9 % lie in one"),
    ],
)
def test_lengths_and_points_that_disagree_need_a_flag(capsys, flag, value, fits, allow, remark):
    words = gtea_scores()
    words[words.index(flag) + 1] = value
    for command in ("import", "validate"):
        assert run(command, *words) == 3
        told = capsys.readouterr()
        assert told.err.count("\n") == 1
        shown = told.err if command == "import" else told.out
        assert fits in shown and allow in shown
        assert run(command, *words, allow) == 0
        assert remark in capsys.readouterr().out


def test_simulate_compares_points_too(capsys):
    folder = shared("data/annotations/GTEA")
    words = [
        "simulate", "gtea", "--annotations", folder / "gt_full.json", "--dim", 1, "--workers", 1,
        "--points", folder / "point_labels/point_gaussian.csv", "--point-fps",
    ]  # fmt: skip
    assert run(*words, 30) == 3
    assert "the frame rate is not 30: pass --point-fps json" in capsys.readouterr().err
    assert run(*words, "json") == 0
    assert "points in no" not in capsys.readouterr().out
    assert run(*words, 30, "--allow-points", "--replace") == 0
    assert "points in no instance of their class (16.6 % lie in one" in capsys.readouterr().out


PLAIN = ["import", "x", "--features", "f", "--annotations", "g"]
RATES = ["--fps", "1", "--stride", "1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required"),
        (["import", "x"], "--features"),
        ([*PLAIN, "--fps", "0", "--stride", "1"], "a positive number"),
        ([*PLAIN, "--fps", "a", "--stride", "1"], "invalid value 'a': allowed are json, a"),
        ([*PLAIN, "--fps", "1", "--points", "p"], "--stride is needed"),
        ([*PLAIN, *RATES, "--points", "p", "--point-fps", "nan"], "invalid value 'nan'"),
        ([*PLAIN, *RATES], "pass --points CSV or --simulate-points"),
        ([*PLAIN, *RATES, "--points", "p", "--train-list", "l"], "must be given together"),
        (["validate", "x", "--features", "f"], "--annotations is needed"),
        (["points", "x", "--kind", "middle", "--out", "o"], "invalid choice"),
        (["points", "x", "--kind", "uniform", "--seed", "-1", "--out", "o"], "of 0 or more"),
        ([*PLAIN, *RATES, "--simulate-points", "uniform", "--seed", "-1"], "of 0 or more"),
        (["simulate", "x", "--annotations", "g", "--dim", "0"], "of 1 or more"),
    ],
)
def test_wrong_flags_exit_with_2(words, message, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*words)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_info_as_text_and_as_json(tmp_path, capsys):
    path = make_store(tmp_path / "tiny")
    assert run("info", path) == 0
    text = capsys.readouterr().out
    assert "ClassA, ClassB, ClassC (3)" in text and "6 videos" in text
    assert run("info", path, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["subsets"]["test"]["videos"] == 3 and facts["subsets"]["test"]["points"] == 0
    assert facts["content_hash"] == FeatureStore.open(path).info.content_hash
    assert run("info", "anet13") == 3
    assert "python -m ptal_ray.search SPACE --dataset watch" in capsys.readouterr().err


def simulated(folder, *more):
    return ["--features", folder / "features", "--annotations", folder / "gt.json", "--fps", 1,
            "--stride", 1, "--point-kind", "human", *more]  # fmt: skip


def test_noise_of_simulated_points_is_in_the_note(tmp_path, capsys):
    folder = shared("data/salads50_scores")
    noise = ["--point-jitter", 2.5, "--point-dropout", 0.2, "--point-label-noise", 0.1]
    assert run("import", "noisy", *simulated(folder, *noise)) == 0
    assert run("import", "clean", *simulated(folder)) == 0
    assert find("clean").info.note == "points simulated: human, seed 0"
    assert find("noisy").info.note == (
        "points simulated: human, seed 0, dropout 0.2, jitter 2.5 s, label noise 0.1"
    )
    counts = [sum(len(find(n).points(i)) for i in find(n).ids("train")) for n in ("clean", "noisy")]
    assert 0.7 < counts[1] / counts[0] < 0.9
    csv = ["--out", tmp_path / "points.csv", "--kind", "centre", "--point-dropout", 0.5]
    assert run("points", "clean", *csv) == 0
    assert len((tmp_path / "points.csv").read_text().splitlines()) < 0.6 * counts[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--point-jitter", -1], "--point-jitter -1: allowed are 0 or more seconds"),
        (["--point-jitter", "nan"], "--point-jitter nan: allowed are 0 or more seconds"),
        (["--point-dropout", 1], "--point-dropout 1: allowed is a fraction in [0, 1)"),
        (["--point-label-noise", 1.1], "--point-label-noise 1.1: allowed is a fraction in [0, 1]"),
    ],
)
def test_noise_out_of_range(flags, message, capsys, tmp_path):
    assert run("import", "x", *simulated(tmp_path, *flags)) == 2
    assert message in capsys.readouterr().err


def test_published_points_get_no_noise(capsys, tmp_path):
    path = make_store(tmp_path / "tiny")
    words = [*PLAIN, *RATES, "--points", "p.csv", "--point-dropout", 0.1]
    assert run(*words) == 2
    assert "only to simulated points; pass --simulate-points KIND" in capsys.readouterr().err
    assert run("points", path, "--out", tmp_path / "p.csv", "--point-jitter", 1) == 2
    assert "pass --kind KIND, or remove them" in capsys.readouterr().err


def test_info_of_a_store_without_a_test_split(tmp_path, capsys):
    path = make_store(tmp_path / "tiny", test=0)
    assert run("info", path) == 0
    said = "no videos; a search reports cross-validated numbers; no test set is kept apart"
    assert f"test      {said}" in capsys.readouterr().out


def test_info_gives_the_range_of_grids_that_differ(tmp_path, capsys):
    path = tmp_path / "own"
    with StoreWriter(path, name="own", classes=("x",), grid=None, features="test") as writer:
        for id, stride_s in (("a", 0.5), ("b", 0.64), ("c", 0.5)):
            writer.add(
                id, subset="train", features=np.ones((4, 2)), duration_s=4.0,
                annotations=Segments.empty(), points=no_points(), grid=Grid(stride_s=stride_s),
            )  # fmt: skip
    assert run("info", path) == 0
    assert "a snippet every 0.5 to 0.64 s from 0 s" in capsys.readouterr().out
    assert run("info", path, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["stride_s"], facts["offset_s"]) == ([0.5, 0.64], 0.0)


def test_points_are_written_and_can_be_simulated_anew(tmp_path, capsys):
    from ptal_ray.data.points import point_rows

    def read() -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for row in point_rows(out, store.info.classes)[0]:
            found.setdefault(row.video, []).append(row.value)
        return found

    store = FeatureStore.open(make_store(tmp_path / "tiny"))
    out = tmp_path / "p.csv"
    assert run("points", store.path, "--out", out) == 0
    found = read()
    for id in store.ids("train"):
        np.testing.assert_array_equal(found[id], store.points(id).time_s)
    assert (
        run("points", store.path, "--kind", "uniform", "--seed", 1, "--out", out, "--replace") == 0
    )
    again = read()
    assert list(again) == list(store.ids("train"))
    assert any(again[id] != found[id] for id in again)


def test_it_runs_as_a_module(tmp_path):
    path = make_store(tmp_path / "tiny")
    done = subprocess.run(
        [sys.executable, "-m", "ptal_ray.data", "validate", str(path)],
        env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "sound" in done.stdout


def test_progress_is_a_bar_on_a_terminal_and_few_lines_elsewhere(monkeypatch, capsys):
    for done in range(201):
        commands._progress(done, 200)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10 and lines[0] == "10 % (20 of 200 videos)"
    for done in range(21):
        commands._progress(done, 20)
    assert not capsys.readouterr().err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    commands._progress(50, 200)
    assert capsys.readouterr().err == f"\r[{10 * '#'}{30 * '.'}] 50/200 videos"
