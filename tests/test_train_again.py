"""A run of `python -m ptal_ray.train` in the folder of an earlier one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import make_store
from small_study import METHOD
from test_trial import SMALL

from ptal_ray.errors import DataError
from ptal_ray.prediction.found_model import find_model
from ptal_ray.train import main
from ptal_ray.training.config import TrialReport
from ptal_ray.training.trial import Trial


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The flags of a small run with two reports, in the folder "run"."""
    make_store(tmp_path / "tiny", train=9)
    monkeypatch.setenv("PTAL_DATA", str(tmp_path))
    values = "".join(f"  {k}: {v}\n" for k, v in SMALL[METHOD].items())
    (tmp_path / "small.yaml").write_text(
        f"method: {METHOD}\ndataset: tiny\nbudget: {{trials: 1, min_steps: 4, max_steps: 8}}\n"
        f"selection: {{val_fraction: 0.34}}\ntrain:\n{values}"
    )
    return [str(tmp_path / "small.yaml"), "--out", str(tmp_path / "run"), "--threads", "1"]


def test_an_interrupted_run_does_not_keep_the_model_of_an_earlier_one(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    assert main(words) == 0
    assert find_model(str(out)) == out / "model.pt"
    advance = Trial.advance

    def once(trial: Trial) -> TrialReport:
        """The first report; Ctrl-C comes before the second."""
        if trial.step:
            raise KeyboardInterrupt
        return advance(trial)

    monkeypatch.setattr(Trial, "advance", once)
    assert main([*words, "--seed", "1"]) == 130
    assert json.loads((out / "report.json").read_text())["step"] == 4
    with pytest.raises(DataError, match=r"a run that has not finished \(train --resume"):
        find_model(str(out))
    monkeypatch.setattr(Trial, "advance", advance)
    assert main([*words, "--seed", "1", "--resume"]) == 0
    assert find_model(str(out)) == out / "model.pt"
