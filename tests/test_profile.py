"""`python -m ptal_ray.profile` of a method: what its flags change, and which it rejects."""

from __future__ import annotations

import pytest

from ptal_ray import profile
from ptal_ray.benchmarks import timings
from ptal_ray.benchmarks.flags import OTHERS
from ptal_ray.training.trial import Trial

SMALL = "apn --dim 8 --classes 2 --points 1 --snippets 20 --batch 2 --repeats 1"


def test_a_parameter_may_be_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[Trial] = []
    monkeypatch.setattr(timings, "_time_trial", lambda trial, _: timed.append(trial) or {"ms": {}})
    more = ["--set", "train.optimizer=adamw", "--set", "train.lr=1e-3"]
    assert profile.main([*SMALL.split(), *more]) == 0
    hp = timed[0].task.hp
    assert (hp.optimizer, hp.lr) == ("adamw", 1e-3)


@pytest.mark.parametrize(
    "setting, said",
    [
        (
            "train.optimizr=adamw",
            "train.optimizr: 'optimizr' is not a key in train:; did you mean 'optimizer'?",
        ),
        ("train.optimizer=sgd", "train.optimizer: "),
        ("train.lr={loguniform: [1e-5, 1e-3]}", "--set train.lr: must be one value"),
        ("train.lr", "--set train.lr: write section.key=value"),
        ("budget.trials=3", "--set budget.trials=3: only train.KEY=VALUE can be set here"),
    ],
)
def test_a_wrong_setting_is_one_line(
    capsys: pytest.CaptureFixture[str], setting: str, said: str
) -> None:
    assert profile.main([*SMALL.split(), "--set", setting]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line


def test_an_unknown_target_is_named_with_those_that_are_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert profile.main(["apm"]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in (*OTHERS, "apn"))


@pytest.mark.parametrize(
    "flag", ["--dim", "--snippets", "--batch", "--repeats", "--threads", "--classes", "--trials"]
)
def test_a_number_below_one_is_one_line(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    with pytest.raises(SystemExit) as ended:
        profile.main(["apn", flag, "0"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert f"{flag}: 0: must be an integer of 1 or more" in error and error.count("\n") == 1


def test_an_unknown_device_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert profile.main([*SMALL.split(), "--device", "gpu"]) == 2
    assert "--device gpu: not usable here" in capsys.readouterr().err
