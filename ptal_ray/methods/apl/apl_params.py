"""The hyperparameters of APL on either detector, and what its earlier stages see of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar

from ptal_ray.methods.apl.actionformer_params import ActionFormerTrain
from ptal_ray.methods.apl.bmn_params import BmnTrain
from ptal_ray.methods.method import param

Params = TypeVar("Params")


@dataclass(frozen=True, kw_only=True)
class AplStages:
    """Train-time parameters of APL on any detector; early_ ones: of the stages before the last."""

    labelled_fraction: float = param(
        0.1, doc="share of the training videos whose annotations are read", source="P",
        allowed=(0.001, 1.0),
    )  # fmt: skip
    contrast_weight: float = param(
        0.1, doc="lambda_acp, after pre-training", source="P", allowed=(0.0, 100.0)
    )
    contrast: str = param(
        "both", doc="action and background apart in a video, classes apart in a batch, or both",
        source="P (Table 5)", allowed=("coarse", "fine", "both"),
    )  # fmt: skip
    contrast_videos: str = param(
        "all", doc="whose snippets the last stage contrasts: of all videos, or of labelled ones",
        source="P (Table S4)", allowed=("all", "labelled"),
    )  # fmt: skip
    clusters: int = param(
        4, doc="B, clusters of a batch in pre-training", source="P (ActivityNet: 2)",
        allowed=(2, 64),
    )  # fmt: skip
    sampled: int = param(
        100, doc="N, snippets of a video that are contrasted", source="PROPOSED", allowed=(2, 2000)
    )
    temperature: float = param(
        0.1, doc="zeta of the contrast", source="PROPOSED", allowed=(0.01, 1.0)
    )
    icd_hidden: int = param(
        128, doc="channels of the discriminator", source="derived from P", allowed=(1, 4096)
    )
    icd_partners: int = param(
        10, doc="partners of the same and of another class of each instance", source="P",
        allowed=(1, 1000),
    )  # fmt: skip
    unlabelled_weight: float = param(
        2.0, doc="beta, weight of unlabelled videos", source="P", allowed=(0.0, 100.0)
    )
    adaptive: bool = param(
        True, doc="positives lie above mean + k deviations; off: all above tau_neg are positive",
        source="P",
    )  # fmt: skip
    tau_neg: float = param(
        0.15, doc="predictions not above are dropped", source="P", allowed=(0.0, 1.0)
    )
    tau_pos_k: float = param(
        1.0, doc="k of tau_pos, standard deviations above the mean", source="PROPOSED",
        allowed=(-3.0, 5.0),
    )  # fmt: skip
    tau_pos_scope: str = param(
        "all", doc="mean and deviation over all unlabelled videos, or by class or video",
        source="PROPOSED", allowed=("all", "class", "video"),
    )  # fmt: skip
    ignore_candidates: bool = param(
        True, doc="other candidates teach nothing; off: they teach background", source="PROPOSED"
    )
    eliminate: bool = param(True, doc="EAP: positives unlike their class are dropped", source="P")
    tau_icd: float = param(
        0.3, doc="likeness to the class below which a positive is dropped", source="P",
        allowed=(0.0, 1.0),
    )  # fmt: skip
    mine: bool = param(True, doc="MPP: candidates like their class become positives", source="P")
    promote_icd: float = param(
        0.7, doc="varsigma_icd, likeness from which a candidate is promoted", source="P",
        allowed=(0.0, 1.0),
    )  # fmt: skip
    pretrain_steps: int = param(
        1500, doc="optimiser steps without labels; 0 for none", source="P (15 epochs)",
        allowed=(0, 1000000),
    )  # fmt: skip
    supervised_steps: int = param(
        2000, doc="optimiser steps on the labelled videos", source="PROPOSED",
        allowed=(1, 1000000),
    )  # fmt: skip
    early_lr: float = param(
        1e-4, doc="learning rate of these two stages", source="P (ActivityNet: 1e-3)",
        allowed=(1e-6, 1.0),
    )  # fmt: skip
    early_weight_decay: float = param(
        1e-4, doc="weight decay of these two stages", source="P", allowed=(0.0, 1.0)
    )


@dataclass(frozen=True, kw_only=True)
class AplTrain(AplStages, ActionFormerTrain):
    """Train-time parameters of APL on ActionFormer."""

    weight_decay: float = param(1e-4, doc="AdamW weight decay", source="P", allowed=(0.0, 1.0))
    alqa: str = param(
        "both", doc="what heads predict of the quality of edges, and scale class scores by",
        source="P (Table 3)", allowed=("none", "tiou", "diou", "both"),
    )  # fmt: skip
    label_multiclass: bool = param(
        True, doc="classes are suppressed apart in that", source="C (ActivityNet: false)"
    )
    label_voting: float = param(
        0.7, doc="tIoU of its voting, without effect where classes are apart",
        source="C (ActivityNet: 0.9)", allowed=(0.0, 1.0),
    )  # fmt: skip
    label_most: int = param(
        200, doc="predictions of a video after it", source="C (ActivityNet: 100)",
        allowed=(1, 100000),
    )  # fmt: skip
    label_sigma: float = param(
        0.5, doc="sigma of the suppression of predictions that become labels", source="C",
        allowed=(0.01, 10.0),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AplBmnTrain(AplStages, BmnTrain):
    """Train-time parameters of APL on BMN."""

    tnd: bool = param(True, doc="a third map predicts tND", source="PROPOSED")
    joint: bool = param(True, doc="score and soft target tIoU - tND; needs tnd", source="PROPOSED")
    label_classes: int = param(
        2, doc="classes of a video that its predictions may have", source="C (ActivityNet: 1)",
        allowed=(1, 100),
    )  # fmt: skip


# What the last stage alone sees; a parameter that is missing here makes an earlier stage anew.
LAST = {
    "lr", "weight_decay", "unlabelled_weight", "adaptive", "tau_neg", "tau_pos_k",
    "tau_pos_scope", "eliminate", "tau_icd", "mine", "promote_icd", "ignore_candidates",
    "label_sigma", "label_multiclass", "label_voting", "label_most", "label_classes",
    "supervised_steps", "refresh_every", "contrast_videos",
}  # fmt: skip
# What pre-training, which sees no labels, does not see either. Which videos are labelled decides
# which are in the fold.
LABELS = LAST | {
    "external_scores", "allow_external_scores",
    "first_range", "center_radius", "regression_weight",
    "label_smoothing", "first_positives", "quality_weight", "quality_floor", "quality_loss",
    "focal",
    "contrast_weight", "icd_partners", "pretrain_steps", "boundary_weight",
    "classification_weight", "tnd_weight", "eps", "video_weight",
}  # fmt: skip


def early_params(hp: Params, unseen: set[str]) -> Params:
    """`hp` as an earlier stage sees it: `unseen` at their defaults, its own rate and decay."""
    values: Any = hp
    seen = {f.name: getattr(hp, f.name) for f in fields(values) if f.name not in unseen}
    own = {"lr": values.early_lr, "weight_decay": values.early_weight_decay}
    return type(hp)(**seen | own)
