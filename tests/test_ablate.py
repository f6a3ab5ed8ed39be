"""Variants side by side: what is run, what the table says, and bad input."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import make_store
from test_trial import SMALL

from ptal_ray import ablate
from ptal_ray.errors import ConfigError, DataError, DivergedError
from ptal_ray.study import ablation
from ptal_ray.study.ablation import parse_variant, table
from ptal_ray.training.config import TrialConfig


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_store(tmp_path / "tiny", train=9)
    monkeypatch.setenv("PTAL_DATA", str(tmp_path))
    fixed = "".join(f"  {k}: {v}\n" for k, v in SMALL["lacp"].items())
    path = tmp_path / "small.yaml"
    path.write_text(
        "method: lacp\ndataset: tiny\nselection: {val_fraction: 0.34}\n"
        f"budget: {{trials: 1, min_steps: 4, max_steps: 8}}\ntrain:\n{fixed}"
    )
    return path


def test_variants_share_seeds_and_folds(space: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = [str(space), "--seeds", "2", "--jobs", "2", "--out", str(out)]
    variants = [
        "--variant",
        "base: train.feature_weight=0",
        "--variant",
        "same: train.feature_weight=0",
    ]
    assert ablate.main([*arguments, *variants, "--variant", "all:"]) == 0
    rows = json.loads((out / "result.json").read_text())
    assert [len(runs) for runs in rows.values()] == [2, 2, 2]
    base, same, full = ([r["metrics"] for r in runs] for runs in rows.values())
    assert base == same
    assert base != full
    assert base[0] != base[1]
    text = (out / "REPORT.md").read_text()
    assert "features: test" in text and "The test split was not read" in text
    assert "| same | 2 |" in text and "| +0.0 ± 0.0 |" in text
    assert str(space) in text


def test_table_pairs_runs_of_one_seed() -> None:
    rows = {
        "a": [{"metrics": {"val/mAP_avg": 0.1}}, {"metrics": {"val/mAP_avg": 0.5}}],
        "b": [{"metrics": {"val/mAP_avg": 0.2}}, {"metrics": {"val/mAP_avg": 0.6}}],
        "c": [{"diverged": "nan"}, {"metrics": {"val/mAP_avg": 0.7}}],
    }
    lines = table(rows, ["val/mAP_avg"]).splitlines()
    assert lines[2] == "| a | 2 | 30.0 ± 28.3 |  |"
    assert lines[3] == "| b | 2 | 40.0 ± 28.3 | +10.0 ± 0.0 |"
    assert lines[4] == "| c | 1 | 70.0 | +10.0 |"


def test_what_is_done_is_kept_when_a_later_variant_fails(
    space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_all(planned: object, jobs: int) -> Iterator[dict[str, list[dict[str, object]]]]:
        yield {"a": [{"metrics": {"val/mAP_avg": 0.5}}]}
        raise DataError("gone")

    monkeypatch.setattr(ablation, "_run_all", run_all)
    variants = ["--variant", "a:", "--variant", "b: train.feature_weight=0"]
    code = ablate.main([str(space), *variants, "--out", str(tmp_path)])
    assert code == DataError.exit_code
    assert list(json.loads((tmp_path / "result.json").read_text())) == ["a"]
    assert "| a | 1 | 50.0 |" in (tmp_path / "REPORT.md").read_text()


def test_a_run_whose_earlier_stage_diverges_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def trial(config: object) -> None:
        raise DivergedError("train/loss_contrast: nan by step 3; lower lr")

    monkeypatch.setattr(ablation, "start", trial)
    config = TrialConfig(
        method="apl", store="none", train={}, decode={}, decode_domains={}, decode_settings=1,
        cross_fit=False, seed=0, report_steps=(1,),
    )  # fmt: skip
    made = ablation.run(config)
    assert made == {"diverged": "train/loss_contrast: nan by step 3; lower lr"}


@pytest.mark.parametrize("text", ["no colon", ": train.lr=1", "name: lr"])
def test_bad_variants(text: str) -> None:
    with pytest.raises(ConfigError, match="write 'NAME: SECTION.KEY=VALUE"):
        parse_variant(text)


def test_an_open_quote_is_named() -> None:
    with pytest.raises(ConfigError, match="No closing quotation; close the quote"):
        parse_variant("x: train.optimizer='adam")


def test_variants_of_other_data_are_refused(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(tmp_path / "other", train=9)
    out = tmp_path / "out"
    variants = ["--variant", "x:", "--variant", "y: dataset=other"]
    assert ablate.main([str(space), *variants, "--out", str(out)]) == 2
    assert "--variant 'y': lacp on other, but 'x' is lacp on tiny" in capsys.readouterr().err
    assert not out.exists()


def test_nothing_runs_where_the_report_cannot_be_written(
    space: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ablation, "_run_all", lambda planned, jobs: pytest.fail("a run started"))
    assert ablate.main([str(space), "--variant", "x:", "--out", str(space)]) == 2
    assert f"--out {space}: {space} cannot be written" in capsys.readouterr().err


def test_the_report_names_every_number_of_steps(space: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    variants = ["--variant", "short: budget.max_steps=4", "--variant", "long: budget.max_steps=5"]
    arguments = ["--seeds", "1", "--jobs", "1", "--out", str(out)]
    assert ablate.main([str(space), *arguments, *variants]) == 0
    assert "4 or 5 steps a run" in (out / "REPORT.md").read_text()


def test_two_variants_of_one_name_are_refused(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = ["--variant", "x: train.lr=1e-3", "--variant", "x: train.lr=1e-2"]
    assert ablate.main([str(space), *same, "--out", str(tmp_path / "out")]) == 2
    assert "--variant 'x': duplicate name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_runs_where_a_setting_is_wrong(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code = ablate.main([str(space), "--variant", "x: train.typo=1", "--out", str(out)])
    assert code == 2
    assert "typo" in capsys.readouterr().err
    assert not out.exists()
