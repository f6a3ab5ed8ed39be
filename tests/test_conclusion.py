"""Which of the tested configurations is the recommended one."""

from __future__ import annotations

import pytest
from synthetic_study import SyntheticStudy

from ptal_ray.study.conclusion import conclusion
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
