"""The hyperparameters of LACP."""

from __future__ import annotations

from dataclasses import dataclass

from ptal_ray.methods.method import DecodeParams, TrainParams, param


@dataclass(frozen=True, kw_only=True)
class LacpTrain(TrainParams):
    """Train-time parameters; changing one requires training again."""

    weight_decay: float = param(5e-4, doc="Adam weight decay", source="C", allowed=(0.0, 1.0))
    refresh_every: int = param(
        10, doc="steps after which a sequence is stale", source="C", allowed=(1, 100000)
    )
    max_snippets: int = param(
        100000,
        doc="longer videos are randomly cropped in training",
        source="C (whole videos)",
        allowed=(8, 100000),
    )
    embed_dim: int = param(2048, doc="channels of F", source="C", allowed=(8, 4096))
    kernel: int = param(3, doc="width of the convolution", source="C", allowed=(1, 31))
    dropout: float = param(
        0.7, doc="of F on its way to the classifier", source="C", allowed=(0.0, 0.95)
    )
    r_act: int = param(
        8, doc="a video's score is the mean of its T // r_act best", source="C", allowed=(1, 1000)
    )
    video_weight: float = param(1.0, doc="lambda_vid", source="C", allowed=(0.0, 100.0))
    point_weight: float = param(0.5, doc="lambda_pt", source="C", allowed=(0.0, 100.0))
    background_weight: float = param(1.0, doc="lambda_bg", source="C", allowed=(0.0, 100.0))
    score_weight: float = param(1.0, doc="lambda_score", source="C", allowed=(0.0, 100.0))
    feature_weight: float = param(1.0, doc="lambda_feat", source="C", allowed=(0.0, 100.0))
    focal_gamma: int = param(
        2, doc="focal exponent of the point losses", source="C", allowed=(0, 5)
    )
    background_threshold: float = param(0.95, doc="th_bg", source="C", allowed=(0.0, 1.0))
    action_threshold: float = param(0.1, doc="th_act", source="C", allowed=(0.0, 1.0))
    delta: float = param(
        0.25, doc="width of a run's surroundings / its length", source="C", allowed=(0.01, 2.0)
    )
    pseudo_search: str = param(
        "exact", doc="search of the sequence: the optimum, or the released code's beam",
        source="PROPOSED (C: beam)", allowed=("exact", "beam"),
    )  # fmt: skip
    beam_budget: int = param(25, doc="hypotheses of the beam", source="C", allowed=(1, 10000))
    beam_prune: float = param(
        0.1, doc="lowest score of a hypothesis of the beam", source="C", allowed=(0.0, 1.0)
    )
    feature_temperature: float = param(0.1, doc="tau", source="C", allowed=(0.01, 10.0))
    reference_faults: bool = param(
        False,
        doc="as the released code: runs end before the last snippet, and only the last class of "
        "a video has a feature loss",
        source="PROPOSED (C: true)",
    )
    feature_samples: int = param(3, doc="snippets of a run's feature", source="C", allowed=(1, 32))


@dataclass(frozen=True, kw_only=True)
class LacpDecode(DecodeParams):
    """Decode-time parameters; they act on cached scores."""

    class_threshold: float = param(
        0.5, doc="video score from which a class is kept", source="C", allowed=(0.0, 1.0)
    )
    score_stop: float = param(
        0.25, doc="thresholds of fused scores end before this", source="C", allowed=(0.01, 1.0)
    )
    score_step: float = param(
        0.025, doc="their distance; the first is 0", source="C", allowed=(0.005, 1.0)
    )
    action_start: float = param(0.5, doc="first threshold of 1 - b", source="C", allowed=(0.0, 1.0))
    action_stop: float = param(
        0.725, doc="thresholds of 1 - b end before this", source="C", allowed=(0.0, 1.0)
    )
    action_step: float = param(0.025, doc="their distance", source="C", allowed=(0.005, 1.0))
    scale: int = param(
        24, doc="samples a snippet, interpolated linearly", source="C", allowed=(1, 64)
    )
    outer_ratio: float = param(
        0.25, doc="lambda, width of a proposal's surroundings / its length", source="C",
        allowed=(0.01, 2.0),
    )  # fmt: skip
    video_weight: float = param(
        0.2, doc="gamma, weight of the video score in a proposal's", source="C", allowed=(0.0, 10.0)
    )
    nms_tiou: float = param(
        0.7, doc="tIoU at which a worse segment goes", source="C", allowed=(0.05, 1.0)
    )
    nms_plus_one_second: bool = param(
        False, doc="count lengths and overlaps with one second more, as the released code",
        source="PROPOSED (C: true)",
    )  # fmt: skip
