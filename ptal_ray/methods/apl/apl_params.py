"""The hyperparameters of APL on either detector, and those of its earlier stages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

from ptal_ray.methods.apl.actionformer_params import ActionFormerTrain
from ptal_ray.methods.apl.bmn_params import BmnTrain
from ptal_ray.methods.apl.detector_params import FOLD, JOINT, SUPERVISED
from ptal_ray.methods.method import param, seen_by


@dataclass(frozen=True, kw_only=True)
class AplStages:
    """Train-time parameters of APL on any detector; early_ is for the stages before the last."""

    labelled_fraction: float = param(
        0.1, doc="share of the training videos whose annotations are read", source="P",
        allowed=(0.001, 1.0), fixed=FOLD,
    )  # fmt: skip
    contrast_weight: float = param(
        0.1,
        doc="lambda_acp, after pre-training",
        source="P",
        allowed=(0.0, 100.0),
        since=SUPERVISED,
    )
    contrast: str = param(
        "both", doc="action and background apart in a video, classes apart in a batch, or both",
        source="P (Table 5)", allowed=("coarse", "fine", "both"),
    )  # fmt: skip
    contrast_videos: str = param(
        "all", doc="whose snippets the last stage contrasts: of all videos, or of labelled ones",
        source="P (Table S4)", allowed=("all", "labelled"), since=JOINT,
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
        allowed=(1, 1000), since=SUPERVISED,
    )  # fmt: skip
    unlabelled_weight: float = param(
        2.0, doc="beta, weight of unlabelled videos", source="P", allowed=(0.0, 100.0), since=JOINT
    )
    adaptive: bool = param(
        True, doc="positives lie above mean + k deviations; off: all above tau_neg are positive",
        source="P", since=JOINT,
    )  # fmt: skip
    tau_neg: float = param(
        0.15, doc="predictions not above are dropped", source="P", allowed=(0.0, 1.0), since=JOINT
    )
    tau_pos_k: float = param(
        1.0, doc="k of tau_pos, standard deviations above the mean", source="PROPOSED",
        allowed=(-3.0, 5.0), since=JOINT,
    )  # fmt: skip
    tau_pos_scope: str = param(
        "all", doc="mean and deviation over all unlabelled videos, or by class or video",
        source="PROPOSED", allowed=("all", "class", "video"), since=JOINT,
    )  # fmt: skip
    ignore_candidates: bool = param(
        True,
        doc="other candidates teach nothing; off: they teach background",
        source="PROPOSED",
        since=JOINT,
    )
    eliminate: bool = param(
        True, doc="EAP: positives unlike their class are dropped", source="P", since=JOINT
    )
    tau_icd: float = param(
        0.3, doc="likeness to the class below which a positive is dropped", source="P",
        allowed=(0.0, 1.0), since=JOINT,
    )  # fmt: skip
    mine: bool = param(
        True, doc="MPP: candidates like their class become positives", source="P", since=JOINT
    )
    promote_icd: float = param(
        0.7, doc="varsigma_icd, likeness from which a candidate is promoted", source="P",
        allowed=(0.0, 1.0), since=JOINT,
    )  # fmt: skip
    pretrain_steps: int = param(
        1500, doc="optimiser steps without labels; 0 for none", source="P (15 epochs)",
        allowed=(0, 1000000), since=SUPERVISED,
    )  # fmt: skip
    supervised_steps: int = param(
        2000, doc="optimiser steps on the labelled videos", source="PROPOSED",
        allowed=(1, 1000000), since=JOINT,
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

    lr: float = param(1e-4, doc="AdamW learning rate", source="P", allowed=(1e-6, 1.0), since=JOINT)
    weight_decay: float = param(
        1e-4, doc="AdamW weight decay", source="P", allowed=(0.0, 1.0), since=JOINT
    )
    alqa: str = param(
        "both", doc="what heads predict of the quality of edges, and scale class scores by",
        source="P (Table 3)", allowed=("none", "tiou", "diou", "both"),
    )  # fmt: skip
    label_multiclass: bool = param(
        True,
        doc="classes are suppressed apart in that",
        source="C (ActivityNet: false)",
        since=JOINT,
    )
    label_voting: float = param(
        0.7, doc="tIoU of its voting, without effect where classes are apart",
        source="C (ActivityNet: 0.9)", allowed=(0.0, 1.0), since=JOINT,
    )  # fmt: skip
    label_most: int = param(
        200, doc="predictions of a video after it", source="C (ActivityNet: 100)",
        allowed=(1, 100000), since=JOINT,
    )  # fmt: skip
    label_sigma: float = param(
        0.5, doc="sigma of the suppression of predictions that become labels", source="C",
        allowed=(0.01, 10.0), since=JOINT,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AplBmnTrain(AplStages, BmnTrain):
    """Train-time parameters of APL on BMN."""

    lr: float = param(1e-3, doc="Adam learning rate", source="C", allowed=(1e-6, 1.0), since=JOINT)
    weight_decay: float = param(
        1e-4, doc="Adam weight decay", source="C", allowed=(0.0, 1.0), since=JOINT
    )
    tnd: bool = param(True, doc="a third map predicts tND", source="PROPOSED")
    joint: bool = param(True, doc="score and soft target tIoU - tND; needs tnd", source="PROPOSED")
    label_classes: int = param(
        2, doc="classes of a video that its predictions may have", source="C (ActivityNet: 1)",
        allowed=(1, 100), since=JOINT,
    )  # fmt: skip


AplT = TypeVar("AplT", AplTrain, AplBmnTrain)


def early_params(hp: AplT, stage: int) -> AplT:
    """`hp` for a stage before the last one, with its own learning rate and decay."""
    return replace(seen_by(hp, stage), lr=hp.early_lr, weight_decay=hp.early_weight_decay)
