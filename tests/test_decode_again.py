"""`python -m ptal_ray.decode`: decode parameters tuned again on the scores of a study."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest
from small_study import small_study

from ptal_ray.backends.local import run_local
from ptal_ray.decode import main
from ptal_ray.policy.policies import make_policy
from ptal_ray.reporting.decode_again import decode_again
from ptal_ray.reporting.report import write_report
from ptal_ray.study.view import StudyView

DOMAINS = (
    "decode.peak_threshold={uniform: [0.2, 0.9]}",
    "decode.nms_tiou={uniform: [0.3, 0.9]}",
    "decode.nms_kind={choice: [hard, soft]}",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    made = small_study(tmp_path_factory.mktemp("study"), "budget.trials=2", "budget.max_steps=20",
                       "selection.decode_settings=4", *DOMAINS, method="apn")  # fmt: skip
    run_local(made, make_policy(made))
    return made


def test_it_finds_a_setting_that_is_as_good_as_the_defaults(study, tmp_path, capsys):
    page = tmp_path / "decode.html"
    assert main([str(study.directory), "--settings", "24", "--out", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"] == 24
    assert found["best"] >= found["default"]
    view = StudyView.read(study.directory)
    recommended = view.recommended.arm
    assert found["trials"] == [t.number for t in view.trials if t.arm == recommended]
    assert set(found["searched"]) == {"peak_threshold", "nms_tiou", "nms_kind"}
    text = page.read_text()
    assert '"type": "heatmap"' in text and "cross-fitted" in text
    assert main([str(study.directory), "--settings", "4", "--out", str(page)]) == 0  # replaced
    said = capsys.readouterr().out
    assert "--set decode.nms_tiou=" in said and "settings, " in said
    page.write_text("mine")
    assert main([str(study.directory), "--settings", "4", "--out", str(page)]) == 2


def test_the_landscape_is_the_objective_around_the_best_setting(study):
    found = decode_again(study.directory, None, 8)
    own = found.landscape
    assert own is not None and own.names == found.searched[:2]
    table = np.array(own.objective)
    assert table.shape == (len(own.values[1]), len(own.values[0]))
    assert table.max() >= 0 and np.isfinite(table).all()


def test_one_trial_can_be_chosen_and_a_wrong_one_is_said(study, capsys):
    assert decode_again(study.directory, 1, 2).trials == (1,)
    assert main([str(study.directory), "--trial", "9"]) == 2
    assert "--trial 9: has no scores; trials that have: 0, 1" in capsys.readouterr().err
    assert main([str(study.directory), "--settings", "1"]) == 2
    assert "--settings 1: must be at least 2" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_said_before_the_work(
    study, tmp_path, capsys, monkeypatch
):
    (tmp_path / "file").write_text("")
    (tmp_path / "mine.html").write_text("mine")
    monkeypatch.setattr("ptal_ray.reporting.decode_again.decode_again", lambda *_: pytest.fail())
    for out in ("file/decode.html", "mine.html"):
        assert main([str(study.directory), "--out", str(tmp_path / out)]) == 2
        assert "error: --out " in capsys.readouterr().err


def test_a_study_without_scores_or_data_is_exit_3(study, tmp_path, capsys):
    assert main([str(tmp_path)]) == 3
    assert "no such file" in capsys.readouterr().err


def test_forty_settings_a_second_of_one_core(study):
    began = time.process_time()
    found = decode_again(study.directory, 0, 64)
    settings = found.settings + sum(len(row) for row in found.landscape.objective)
    assert settings / (time.process_time() - began) > 40


def test_a_study_with_a_parameter_of_another_version_is_named(study, tmp_path, capsys):
    copy = tmp_path / study.name
    shutil.copytree(study.directory, copy)
    lines = [json.loads(line) for line in (copy / "events.jsonl").read_text().splitlines()]
    for line in lines:
        if line["event"] == "study":
            line["defaults"]["decode"]["former"] = 1
        if line["event"] in ("recommended", "report"):
            line["decode"]["former"] = 1
    (copy / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main([str(copy), "--settings", "4", "--out", str(tmp_path / "decode.html")]) == 3
    assert "error: 'former' is no parameter of " in capsys.readouterr().err
    assert (write_report(copy, tmp_path / "reports") / "REPORT.md").exists()
