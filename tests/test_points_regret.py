"""The measurement of what selecting by points loses."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import make_store
from test_trial import SMALL

from ptal_ray.benchmarks import points_regret
from ptal_ray.benchmarks.__main__ import main
from ptal_ray.benchmarks.points_regret import STAND_INS, measured, planned, proxies, report
from ptal_ray.errors import NoTrialFinished
from ptal_ray.space.space import load_space
from ptal_ray.training.selection import points_score

METHOD = "lacp"


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PTAL_DATA", str(tmp_path))
    make_store(tmp_path / "tiny", train=8)
    fixed = "".join(f"  {k}: {v}\n" for k, v in SMALL[METHOD].items() if k != "lr")
    path = tmp_path / "small.yaml"
    path.write_text(
        f"method: {METHOD}\ndataset: tiny\nselection: {{val_fraction: 0.34, decode_settings: 3}}\n"
        f"budget: {{trials: 2, min_steps: 3, max_steps: 9}}\ntrain:\n{fixed}"
        "  lr: {loguniform: [1e-3, 1e-2]}\ndecode: {nms_tiou: {uniform: [0.2, 0.8]}}\n"
    )
    return path


def row(configuration: int, true: float, points: float, hits: float) -> dict[str, object]:
    return {
        "method": "m", "dataset": "d", "configuration": configuration, "step": 1, "setting": 0,
        "mAP": true, "points_score": points, "hit_mAP": hits, "point_log_likelihood": -points,
    }  # fmt: skip


def test_every_candidate_is_judged_twice(space: Path) -> None:
    runs = planned([load_space(space, ["selection.metric=points"])], ["tiny"], 2, seed=0)
    assert [run.number for run in runs] == [0, 1]
    assert runs[0].config.train["lr"] != runs[1].config.train["lr"]
    rows = measured(runs[1])
    assert [(r["step"], r["setting"]) for r in rows] == [(s, k) for s in (3, 9) for k in range(3)]
    for found in rows:
        ratio = found.get("length_ratio", float("nan"))
        score = points_score(found["hit_mAP"], found["point_log_likelihood"], ratio)
        assert found["points_score"] == pytest.approx(score)
        assert 0 <= found["mAP"] <= 1
    assert len({found["mAP"] for found in rows}) > 1


def test_without_any_report_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(NoTrialFinished, match="no training reached a report"):
        points_regret.write([], tmp_path / "out", "command")
    assert not (tmp_path / "out").exists()


def test_the_report_names_what_misses_the_goal() -> None:
    rows = [row(0, 0.50, 0.9, 0.1), row(1, 0.52, 0.8, 0.2), row(2, 0.30, 0.1, 0.3)]
    found = proxies(rows)
    own = found["d", "m"]
    assert own["points score"].regret.value == pytest.approx(0.02)
    assert own["hits"].regret.value == pytest.approx(0.22)
    assert own["hits"].correlation.value == pytest.approx(-0.5)
    text = report(found, "the command")
    assert "at most 1.5 mAP regret; missed by m on d (2.0)" in text
    assert "| d | m | 3 | 0.50 [" in text
    assert "| hits | -0.50 | -0.50 | 22.0 | 22.0 | 0 of 1 |" in text
    rows[1]["mAP"] = 0.51
    assert "met by all" in report(proxies(rows), "")


@pytest.mark.slow
def test_the_command_writes_its_files(
    space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = ["points", str(space), "--configurations", "2", "--workers", "1", "--out", str(out)]
    assert main(flags) == 0
    monkeypatch.setattr(points_regret, "process_pool", ThreadPoolExecutor)  # starts at once
    assert main(flags) == 0  # its own files give way
    rows = pq.read_table(out / "rows.parquet")
    assert len(rows) == 2 * 2 * 3
    (pair,) = json.loads((out / "result.json").read_text())["pairs"]
    assert (pair["dataset"], pair["method"]) == ("tiny", METHOD)
    assert pair["stand_ins"].keys() == STAND_INS.keys()
    assert (out / "REPORT.md").read_text().startswith("# Selection by points alone\n")
    (out / "REPORT.md").write_text("mine")
    capsys.readouterr()
    assert main(flags) == 2
    assert "REPORT.md there was not written by this command" in capsys.readouterr().err
    assert main([*flags, "--configurations", "0"]) == 2
    assert main([*flags[:-1], str(tmp_path / "other"), "--dataset", "none"]) == 3
