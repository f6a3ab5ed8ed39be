"""What tables, the terminal and MLflow call the configurations of a study and its test split."""

from __future__ import annotations

from ptal_ray.study.conclusion import NUM_VIDEOS, recommended
from ptal_ray.study.paper_compat import VALIDATED
from ptal_ray.study.view import StudyView

_NAMES = {"best": "recommended", VALIDATED: "chosen by validation", "default": "defaults"}


def arm_label(view: StudyView, arm: str) -> str:
    """What tables call an arm of the final runs, such as "recommended (trial 4)"."""
    return with_trial(_NAMES.get(arm, arm), view, arm)


def with_trial(name: str, view: StudyView, arm: str) -> str:
    """A name of an arm of the final runs, with the number of its trial where it has one."""
    number = trial_of(view, arm)
    return name if number is None else f"{name} (trial {number})"


def trial_of(view: StudyView, arm: str) -> int | None:
    """Number of the recommended trial for arm "best"; None for other arms, for the defaults with
    tuned decoding, and for a log without a recommendation."""
    found = recommended(view) if arm == "best" else None
    return found.trial if found else None


def num_test_videos(view: StudyView) -> int | None:
    """Number of test videos, according to the test runs or else to the start of the study; None in
    logs of earlier versions without a test run."""
    runs = (run.metrics for run in view.finals if run.role == "test")
    found = (int(own[NUM_VIDEOS]) for own in runs if NUM_VIDEOS in own)
    return next(found, view.start.test_videos if view.start else None)


def of_videos(view: StudyView) -> str:
    """The number of test videos, as " of 210 videos"; "" where the log does not say."""
    number = num_test_videos(view)
    return "" if number is None else f" of {number} videos"
