"""Reports of copied studies, of studies of other versions, and of very long ones."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from small_study import begun, small_study
from synthetic_study import SyntheticStudy

from ptal_ray.report import main
from ptal_ray.reporting.report import write_report
from ptal_ray.study.flags import seconds

NAME = "apn_demo-20260801-120000"


def test_the_copy_of_a_study_does_not_replace_its_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, copy = SyntheticStudy(tmp_path / NAME), tmp_path / "copy"
    study.begin()
    shutil.copytree(study.directory, copy)
    again = study.directory.parent / "copy" / ".." / NAME
    dirs = [str(study.directory), str(again), str(copy)]
    assert main([*dirs, "--out", str(tmp_path / "reports"), "--json"]) == 3
    printed = json.loads(capsys.readouterr().out)
    assert len(printed["reports"]) == len(printed["leaderboard"]) == len(printed["errors"]) == 1
    assert f"{copy}: is study {NAME}, as is " in printed["errors"][0]


@pytest.mark.parametrize("section", ["budget", "selection", "final"])
def test_a_space_with_a_key_of_another_version_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], section: str
) -> None:
    study = SyntheticStudy(tmp_path / NAME)
    study.begin()
    log = study.directory / "events.jsonl"
    plain = json.loads(log.read_text())
    plain["space"][section]["new_key"] = 1
    log.write_text(json.dumps(plain) + "\n")
    assert main([str(study.directory), "--out", str(tmp_path / "reports")]) == 3
    error = capsys.readouterr().err
    assert f"the space of {NAME} is damaged or of another version" in error and "new_key" in error
    assert error.count("\n") == 1


def test_the_commands_repeat_a_long_time_exactly(tmp_path: Path) -> None:
    study = begun(small_study(tmp_path, time_budget_s=1_234_567.5))
    text = (write_report(study.directory, tmp_path) / "REPORT.md").read_text()
    (given,) = re.findall(r"--time-budget (\S+)", text)
    assert seconds(given) == 1_234_567.5
