"""The hyperparameters of every detector that learns from annotated instances."""

from __future__ import annotations

from dataclasses import dataclass

from ptal_ray.methods.method import Labelled, TrainParams, param

PRETRAINING, SUPERVISED, JOINT = range(3)  # the stages of training of APL
FOLD = "decides which videos are in the selection fold, so no search can compare its values"


@dataclass(frozen=True, kw_only=True)
class DetectorTrain(TrainParams):
    """Train-time parameters of any detector that learns from annotated instances."""

    refresh_every: int = param(
        10, doc="without effect: labels are made once", source="PROPOSED", allowed=(1, 100000),
        since=JOINT,
    )  # fmt: skip
    labelled_fraction: float = param(
        1.0, doc="share of the training videos whose annotations are read", source="P",
        allowed=(0.001, 1.0), fixed=FOLD,
    )  # fmt: skip
    snippet_s: float = param(
        0.0, doc="seconds from a snippet to the next that lengths and windows are for; data of "
        "another stride is refused; 0 for any", source="PROPOSED", allowed=(0.0, 60.0),
    )  # fmt: skip
    external_scores: str = param(
        "", doc="JSON file of video id -> class scores; they replace the detector's classes",
        source="C (ActivityNet)", since=SUPERVISED, file=True,
    )  # fmt: skip
    allow_external_scores: bool = param(
        False, doc="also where they leak labels: labelled_fraction below 1", source="PROPOSED",
        since=SUPERVISED,
    )  # fmt: skip
    labelled_seed: int = param(
        0, doc="which videos these are", source="PROPOSED", allowed=(0, 1000000), fixed=FOLD
    )

    def labelled(self) -> Labelled:
        """The annotated training videos."""
        return Labelled(self.labelled_fraction, self.labelled_seed)

    def remark(self) -> str:
        """The note that external scores add labels that are not counted."""
        if not self.external_scores:
            return ""
        return "with external video scores, from classifiers that may have seen all labels"
