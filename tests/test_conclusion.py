"""Which of the tested configurations is the recommended one."""

from __future__ import annotations

import pytest
from synthetic_study import SyntheticStudy

from ptal_ray.study.conclusion import better_name, conclusion
from ptal_ray.study.view import StudyView


@pytest.mark.parametrize(
    ("verdict", "number", "arms", "recommended"),
    [
        ("better", 3, ("best", "default"), "best"),
        ("better", 0, ("best", "default"), "best"),  # the defaults with tuned decoding
        ("", 0, ("best", "default"), "best"),  # likewise, of a policy without a verdict
        ("tie", 0, ("default",), "default"),
        ("", 0, ("default",), "default"),
    ],
)
def test_the_recommended_arm_is_the_best_one_that_was_tested(
    tmp_path, verdict, number, arms, recommended
):
    study = SyntheticStudy(tmp_path / "apn_demo-20260801-120000")
    study.begin()
    study.trials(2)
    study.append(
        "recommended", arm=number, trial=None, params={}, decode={}, verdict=verdict, difference={}
    )
    for arm in arms:
        study.final("test", arm, 0, 0.5)
    study.end()
    assert conclusion(StudyView.read(study.directory)).arm == recommended


def test_what_was_not_compared_is_not_called_worse(tmp_path):
    study = SyntheticStudy(tmp_path / "apn_demo-20260801-120000")
    study.begin()
    study.trials(2)
    study.append(
        "recommended", arm=0, trial=None, params={}, decode={}, verdict="tie",
        difference={"mean": 0.0, "low": -1.0, "high": 1.0, "cells": 0},
    )  # fmt: skip
    found = conclusion(StudyView.read(study.directory))
    assert found.found is None
    assert found.text == (
        "Recommended: the defaults; the search ended before another configuration was compared "
        "with the defaults."
    )


@pytest.mark.parametrize(
    ("trial", "name"),
    [(3, "the configuration of trial 3"), (None, "the defaults with tuned decoding")],
)
def test_the_sentence_names_what_the_terminal_names(tmp_path, trial, name):
    study = SyntheticStudy(tmp_path / "apn_demo-20260801-120000")
    study.begin()
    study.trials(2)
    study.append(
        "recommended", arm=1, trial=trial, params={}, decode={}, verdict="better",
        difference={"mean": 0.06, "low": 0.02, "high": 0.1, "cells": 4},
    )  # fmt: skip
    study.final("test", "best", 0, 0.5)
    study.end()
    found = conclusion(StudyView.read(study.directory))
    assert found.text == f"Recommended: {name}, better than the defaults by +6.0 [2.0, 10.0] mAP."
    assert name == better_name(trial)
