"""The hyperparameters of FS-PTAL."""

from __future__ import annotations

from dataclasses import dataclass

from ptal_ray.methods.method import DecodeParams, TrainParams, param

WHOLE = 100000  # snippets; longer than any video


@dataclass(frozen=True, kw_only=True)
class FsptalTrain(TrainParams):
    """Train-time parameters; changing one requires training again."""

    weight_decay: float = param(5e-4, doc="Adam weight decay", source="LACP", allowed=(0.0, 1.0))
    refresh_every: int = param(
        10, doc="steps after which segments are stale", source="LACP", allowed=(1, 100000)
    )
    max_snippets: int = param(
        WHOLE, doc="videos are never cropped", source="LACP", allowed=(WHOLE, WHOLE)
    )
    embed_dim: int = param(2048, doc="channels of F", source="LACP", allowed=(8, 4096))
    dropout: float = param(
        0.7, doc="of F on its way to the classifier", source="LACP", allowed=(0.0, 0.95)
    )
    r_act: int = param(
        8, doc="a video's score is the mean of its T // r_act best", source="LACP",
        allowed=(1, 1000),
    )  # fmt: skip
    tau1: float = param(
        2.5, doc="new snippets per annotated one; 1, with tau2 = 1, extends nothing", source="P",
        allowed=(1.0, 10.0),
    )  # fmt: skip
    tau2: float = param(
        1.67, doc="new snippets per neighbour of an annotated one", source="P", allowed=(1.0, 10.0)
    )
    label_reach: float = param(
        0.5, doc="vartheta, old snippets a label spreads over", source="PROPOSED",
        allowed=(0.0, 10.0),
    )  # fmt: skip
    mining: bool = param(
        True, doc="mine action snippets; off: background only, one snippet a gap", source="P"
    )
    background_threshold: float = param(0.85, doc="gamma_bkg", source="P", allowed=(0.0, 1.0))
    action_threshold: float = param(0.25, doc="gamma_act", source="P", allowed=(0.0, 1.0))
    delta: float = param(
        0.25, doc="width of a segment's surroundings / its length", source="P", allowed=(0.01, 2.0)
    )
    clipped: str = param(
        "none", doc="where surroundings end at neighbouring segments (Eq. 8): search and loss",
        source="measured (P: clipped)", allowed=("both", "loss", "none"),
    )  # fmt: skip
    segments: str = param(
        "search", doc="the best sequence, or mined points stretched over quarters of their gaps",
        source="PROPOSED", allowed=("search", "splice"),
    )  # fmt: skip
    temperatures: str = param(
        "1,2,5", doc="of the foreground branch, averaged", source="FAC-Net",
        allowed=("1,2,5", "1,2", "2,5", "1", "2", "5"),
    )  # fmt: skip
    cosine_scale: float = param(
        5.0, doc="of the foreground branch's cosines", source="FAC-Net", allowed=(0.1, 100.0)
    )
    foreground_output: str = param(
        "auto", doc="softmax, or sigmoid for videos of several classes (auto)", source="PROPOSED",
        allowed=("auto", "softmax", "sigmoid"),
    )  # fmt: skip
    reduction: str = param(
        "mean", doc="of the video loss over classes", source="PROPOSED", allowed=("mean", "sum")
    )
    video_weight: float = param(1.0, doc="lambda_1", source="P", allowed=(0.0, 100.0))
    point_weight: float = param(1.0, doc="lambda_2", source="P", allowed=(0.0, 100.0))
    score_weight: float = param(1.0, doc="lambda_3", source="P", allowed=(0.0, 100.0))
    separation_weight: float = param(1.0, doc="lambda_4", source="P", allowed=(0.0, 100.0))
    psi_same: float = param(
        0.95, doc="least similarity of snippets of one kind", source="P (its sweep; text: 0.9)",
        allowed=(-1.0, 1.0),
    )  # fmt: skip
    psi_diff: float = param(
        0.1, doc="greatest similarity of action and background", source="P", allowed=(-1.0, 1.0)
    )
    separation_hidden: int = param(
        512, doc="channels inside the separation", source="PROPOSED", allowed=(8, 4096)
    )
    separation_dim: int = param(
        128, doc="D_ebd, channels of E", source="PROPOSED", allowed=(8, 4096)
    )
    separation_actions: str = param(
        "points", doc="action snippets of Eq. 12 and 13: annotated ones, or mined ones too",
        source="P (Eq. 12: P_act)", allowed=("points", "mined"),
    )  # fmt: skip
    separation_pairs: str = param(
        "all", doc="action snippets that Eq. 12 asks to be alike: all of a video, or of a class",
        source="P (Eq. 12 names no class)", allowed=("all", "class"),
    )  # fmt: skip
    separation_points: int = param(
        256, doc="random action, and background, snippets of a video that are compared",
        source="PROPOSED", allowed=(2, 4096),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FsptalDecode(DecodeParams):
    """Decode-time parameters; they act on cached scores."""

    class_threshold: float = param(
        0.25, doc="theta_vid, video score from which a class is kept", source="P",
        allowed=(0.0, 1.0),
    )  # fmt: skip
    score_stop: float = param(
        0.25, doc="thresholds of fused scores end before this", source="LACP", allowed=(0.01, 1.0)
    )
    score_step: float = param(
        0.025, doc="their distance; the first is 0", source="LACP", allowed=(0.005, 1.0)
    )
    action_start: float = param(
        0.5, doc="first threshold of 1 - b", source="LACP", allowed=(0.0, 1.0)
    )
    action_stop: float = param(
        0.725, doc="thresholds of 1 - b end before this", source="LACP", allowed=(0.0, 1.0)
    )
    action_step: float = param(0.025, doc="their distance", source="LACP", allowed=(0.005, 1.0))
    scale: int = param(
        24, doc="samples a snippet, interpolated linearly", source="LACP", allowed=(1, 64)
    )
    outer_ratio: float = param(
        0.25, doc="delta, width of a proposal's surroundings / its length", source="P",
        allowed=(0.01, 2.0),
    )  # fmt: skip
    clipped: bool = param(
        False, doc="surroundings end at the next proposal of the same threshold", source="PROPOSED"
    )
    video_weight: float = param(
        0.2, doc="gamma, weight of the video score in a proposal's", source="LACP",
        allowed=(0.0, 10.0),
    )  # fmt: skip
    nms_tiou: float = param(
        0.7, doc="tIoU at which a worse segment goes", source="P", allowed=(0.05, 1.0)
    )
