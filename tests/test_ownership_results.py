"""What of a user's files a report, a run or an ablation may replace."""

from __future__ import annotations

import pytest
from conftest import make_store
from synthetic_study import SyntheticStudy
from test_ownership import NAME, tree

from ptal_ray import ablate, report, train
from ptal_ray.errors import DataError
from ptal_ray.reporting.report import check_report, write_report
from ptal_ray.study import ablation

pytestmark = pytest.mark.usefixtures("empty_plots")


@pytest.fixture
def study(tmp_path):
    made = SyntheticStudy(tmp_path / NAME)
    made.begin()
    made.trials(3)
    return tmp_path / NAME


def _notes_beside_a_report(folder):
    (folder / "notes.md").write_text("mine")


def _no_report(folder):
    (folder / "result.json").write_text("{}")


def _report_elsewhere(folder):
    folder.rename(folder.with_name("real"))
    folder.symlink_to("real")


@pytest.mark.parametrize("change", [_notes_beside_a_report, _no_report, _report_elsewhere])
def test_a_report_replaces_a_report_alone(change, study, tmp_path, capsys):
    folder = write_report(study, tmp_path / "reports")
    assert write_report(study, tmp_path / "reports") == folder
    change(folder)
    before = tree(tmp_path)
    assert report.main([str(study), "--out", str(tmp_path / "reports")]) == 3
    assert "is not replaced" in capsys.readouterr().err
    with pytest.raises(DataError, match="report of a study"):  # a resumed search asks first
        check_report(study, tmp_path / "reports")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["leaderboard.md", "leaderboard.json"])
def test_a_leaderboard_of_others_stays(name, study, tmp_path, capsys):
    root = tmp_path / "reports"
    words = [str(study), str(study), "--out", str(root)]
    assert [report.main(words), report.main(words)] == [0, 0]
    (root / name).write_text('["mine"]')
    assert report.main(words) == 2 and f"{name} there was not written by" in capsys.readouterr().err
    assert (root / name).read_text() == '["mine"]'


FAST = ["--set", "budget.max_steps=2", "--set", "budget.min_steps=1",
        "--set", "selection.decode_settings=1", "--threads", "1"]  # fmt: skip


@pytest.mark.parametrize("name", ["checkpoint.pt", "detections.json", "report.json",
                                  "label_quality.jsonl"])  # fmt: skip
def test_a_run_overwrites_only_a_run(name, tmp_path, capsys):
    words = ["lacp_watch", "--dataset", str(make_store(tmp_path / "tiny")), *FAST]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text('{"results": {}}')
    before = tree(tmp_path)
    assert train.main([*words, "--label-quality", "--out", str(tmp_path / "out")]) == 2
    assert (
        tree(tmp_path) == before and f"{name} there was not written by" in capsys.readouterr().err
    )


def test_a_run_is_repeated_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # earlier stages are kept there
    words = ["lacp_watch", "--dataset", str(make_store(tmp_path / "tiny")), *FAST]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    for _ in range(2):
        assert train.main([*words, "--out", str(tmp_path / "out"), "--json"]) == 0
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    study = ["--out", str(tmp_path / "no" / "folder"), "--set", "train.nothing=1"]
    assert train.main([*words, *study]) == 2 and not (tmp_path / "no").exists()


@pytest.mark.parametrize("name", ["REPORT.md", "result.json"])
def test_an_ablation_overwrites_only_an_ablation(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        ablation, "_run_all", lambda planned, jobs: iter([{"a": [{"metrics": {}}]}])
    )
    monkeypatch.setattr(ablation, "report", lambda *args: "# Variants of lacp\n")
    words = ["lacp_watch", "--dataset", str(make_store(tmp_path / "tiny")), "--variant", "a:",
             "--seeds", "1", "--out", str(tmp_path / "out")]  # fmt: skip
    assert [ablate.main(words), ablate.main(words)] == [0, 0]
    (tmp_path / "out" / name).write_text('{"study": {"metrics": 1}}')
    assert ablate.main(words) == 2 and f"{name} there was not written by" in capsys.readouterr().err
    assert (tmp_path / "out" / name).read_text() == '{"study": {"metrics": 1}}'


def test_a_trial_removes_only_what_a_killed_one_left_unfinished(tmp_path):
    from ptal_ray.study.job import unfinished

    for name in (".checkpoint.pt.12", ".report.json.3", ".DS_Store", ".notes"):
        (tmp_path / name).touch()
    assert sorted(p.name for p in unfinished(tmp_path)) == [".checkpoint.pt.12", ".report.json.3"]
