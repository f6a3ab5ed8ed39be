"""The hyperparameters of POTLoc: of its main model, of its base model and of the labels between."""

from __future__ import annotations

from dataclasses import dataclass

from ptal_ray.methods.method import DecodeParams, TrainParams, param


@dataclass(frozen=True, kw_only=True)
class BaseTrain(TrainParams):
    """Train-time parameters of the base model."""

    weight_decay: float = param(5e-4, doc="Adam weight decay", source="C", allowed=(0.0, 1.0))
    max_snippets: int = param(
        100000, doc="longer videos are randomly cropped in training", source="C (whole videos)",
        allowed=(8, 100000),
    )  # fmt: skip
    embed_dim: int = param(2048, doc="channels", source="C", allowed=(8, 4096))
    kernel: int = param(3, doc="width of the convolution", source="C", allowed=(1, 31))
    dropout: float = param(0.7, doc="on the way to the classifier", source="C", allowed=(0.0, 0.95))
    r_act: int = param(
        8, doc="a video's score is the mean of its T // r_act best", source="C", allowed=(1, 1000)
    )
    video_weight: float = param(1.0, doc="lambda_MIL", source="C", allowed=(0.0, 100.0))
    point_weight: float = param(0.5, doc="lambda_Act", source="C", allowed=(0.0, 100.0))
    background_weight: float = param(1.0, doc="lambda_BG", source="C", allowed=(0.0, 100.0))
    focal_gamma: int = param(2, doc="focal exponent", source="C", allowed=(0, 5))
    background_threshold: float = param(0.95, doc="th_bg", source="C", allowed=(0.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class BaseDecode(DecodeParams):
    """Decode parameters of the base model's proposals."""

    class_threshold: float = param(
        0.65, doc="video score from which a class is kept", source="C", allowed=(0.0, 1.0)
    )
    score_stop: float = param(
        0.2, doc="thresholds of fused scores: 0 to this, by 0.025", source="C", allowed=(0.01, 1.0)
    )
    action_start: float = param(
        0.3, doc="thresholds of 1 - b: from this to 1, by 0.025", source="C", allowed=(0.0, 0.99)
    )
    scale: int = param(8, doc="samples a snippet", source="C", allowed=(1, 64))
    outer_ratio: float = param(
        0.2, doc="lambda, width of surroundings / length", source="C", allowed=(0.01, 2.0)
    )
    video_weight: float = param(
        0.25, doc="gamma, weight of the video score", source="C", allowed=(0.0, 10.0)
    )
    nms_tiou: float = param(
        0.6, doc="tIoU at which a worse proposal goes", source="C", allowed=(0.05, 1.0)
    )
    nms_plus_one_second: bool = param(
        False, doc="count lengths and overlaps with one second more, as the released code",
        source="PROPOSED (C: true)",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PotlocTrain(TrainParams):
    """Train-time parameters; base_ is for the base model, pseudo_ for the labels."""

    weight_decay: float = param(0.05, doc="AdamW weight decay", source="C", allowed=(0.0, 1.0))
    batch_size: int = param(4, doc="videos per global batch", source="C (P: 3)", allowed=(1, 4096))
    refresh_every: int = param(
        10, doc="without effect: labels are made once", source="PROPOSED", allowed=(1, 100000)
    )
    max_snippets: int = param(
        768, doc="T_max, longer videos are randomly cropped in training", source="C (P: 2304)",
        allowed=(8, 100000),
    )  # fmt: skip
    crop_shortest: float = param(
        0.9, doc="a crop is at least this share of a video's length", source="C",
        allowed=(0.1, 1.0),
    )  # fmt: skip
    crop_points: float = param(
        0.7, doc="more than this share of a video's points lies in a crop, if 500 draws find one",
        source="C", allowed=(0.0, 1.0),
    )  # fmt: skip
    optimizer: str = param(
        "adamw", doc="adamw decays no biases, norms and scales", source="C (P: Adam)",
        allowed=("adam", "adamw"),
    )  # fmt: skip
    warmup: float = param(
        0.2, doc="share of the steps in which lr rises linearly from 0", source="C (10 of 50)",
        allowed=(0.0, 1.0),
    )  # fmt: skip
    cosine: bool = param(True, doc="lr falls to 0 along a cosine after that", source="C")
    grad_clip: float = param(
        1.0, doc="greatest norm of a gradient; 0 for any", source="C", allowed=(0.0, 1000.0)
    )
    ema: float = param(
        0.999,
        doc="decay of the averaged weights used for scoring; 0: score the weights themselves",
        source="C", allowed=(0.0, 0.99999),
    )  # fmt: skip
    backbone: str = param(
        "transformer", doc="blocks of the pyramid", source="P",
        allowed=("transformer", "convolution"),
    )  # fmt: skip
    width: int = param(512, doc="channels, a multiple of heads", source="C", allowed=(8, 4096))
    snippet_s: float = param(
        0.0, doc="seconds from a snippet to the next that lengths and windows are for; data of "
        "another stride is refused; 0 for any", source="PROPOSED", allowed=(0.0, 60.0),
    )  # fmt: skip
    heads: int = param(4, doc="attention heads", source="C", allowed=(1, 64))
    window: int = param(
        12, doc="positions attended to, 2 (w // 2) + 1", source="C (P: 19; ActivityNet 7)",
        allowed=(2, 1001),
    )  # fmt: skip
    levels: int = param(2, doc="l, levels above level 0", source="C (P: 4)", allowed=(0, 8))
    drop_path: float = param(
        0.1, doc="chance that a branch is skipped", source="C", allowed=(0.0, 0.9)
    )
    recompute: bool = param(
        True, doc="less memory for a fifth more time: backward computes blocks again",
        source="PROPOSED",
    )  # fmt: skip
    supervision: str = param(
        "labels",
        doc="what teaches: labels, the proposals they come from, bare points, or annotations "
        "(full supervision, to compare with)",
        source="P (Table 2)", allowed=("labels", "proposals", "points", "annotations"),
    )  # fmt: skip
    sampling: bool = param(
        True, doc="positives near the point alone; off: all of the segment", source="P"
    )
    radius: float = param(
        2.0,
        doc="r, reach of positives around the point, positions",
        source="P",
        allowed=(0.1, 100.0),
    )
    r_act: int = param(
        8, doc="a video's score is the mean of its T // r_act best", source="C", allowed=(1, 1000)
    )
    video_weight: float = param(1.0, doc="lambda_MIL", source="C", allowed=(0.0, 100.0))
    action_weight: float = param(0.5, doc="lambda_Act", source="C", allowed=(0.0, 100.0))
    background_weight: float = param(1.0, doc="lambda_BG", source="C", allowed=(0.0, 100.0))
    focal_gamma: int = param(2, doc="focal exponent gamma", source="C", allowed=(0, 5))
    background_threshold: float = param(0.95, doc="th_bg", source="C", allowed=(0.0, 1.0))
    reference_faults: bool = param(
        False,
        doc="as the released code: background normalised over the batch, video scores over padding",
        source="PROPOSED (C: true)",
    )
    base_steps: int = param(
        4000, doc="optimiser steps of the base model", source="C", allowed=(1, 1000000)
    )
    base_lr: float = param(1e-4, doc="its Adam learning rate", source="C", allowed=(1e-6, 1.0))
    base_weight_decay: float = param(
        5e-4, doc="its Adam weight decay", source="C", allowed=(0.0, 1.0)
    )
    base_batch_size: int = param(16, doc="its videos per batch", source="C", allowed=(1, 4096))
    base_embed_dim: int = param(2048, doc="its channels", source="C", allowed=(8, 4096))
    base_dropout: float = param(0.7, doc="its dropout", source="C", allowed=(0.0, 0.95))
    base_background_threshold: float = param(0.95, doc="its th_bg", source="C", allowed=(0.0, 1.0))
    pseudo_split: str = param(
        "midpoint",
        doc="a proposal on several points: cut halfway between them, or dropped",
        source="C (P: paper)", allowed=("midpoint", "paper"),
    )  # fmt: skip
    pseudo_class_threshold: float = param(
        0.65, doc="video score from which the base model's class is kept", source="C",
        allowed=(0.0, 1.0),
    )  # fmt: skip
    pseudo_score_stop: float = param(
        0.2, doc="its thresholds of fused scores: 0 to this, by 0.025", source="C",
        allowed=(0.01, 1.0),
    )  # fmt: skip
    pseudo_action_start: float = param(
        0.3,
        doc="its thresholds of 1 - b: from this to 1, by 0.025",
        source="C",
        allowed=(0.0, 0.99),
    )
    pseudo_scale: int = param(8, doc="its samples a snippet", source="C", allowed=(1, 64))
    pseudo_outer_ratio: float = param(
        0.2, doc="its lambda, width of surroundings / length", source="C", allowed=(0.01, 2.0)
    )
    pseudo_video_weight: float = param(
        0.25, doc="its gamma, weight of the video score", source="C", allowed=(0.0, 10.0)
    )
    pseudo_nms_tiou: float = param(
        0.6, doc="tIoU at which its worse proposal goes", source="C", allowed=(0.05, 1.0)
    )
    pseudo_plus_one_second: bool = param(
        False, doc="count lengths of its proposals with one second more, as the released code",
        source="PROPOSED (C: true)",
    )  # fmt: skip


def base_params(hp: PotlocTrain) -> BaseTrain:
    """The train parameters of the base model."""
    return BaseTrain(
        lr=hp.base_lr,
        weight_decay=hp.base_weight_decay,
        batch_size=hp.base_batch_size,
        embed_dim=hp.base_embed_dim,
        dropout=hp.base_dropout,
        background_threshold=hp.base_background_threshold,
        resample_to=hp.resample_to,
        resampling=hp.resampling,
    )


def base_decode(hp: PotlocTrain) -> BaseDecode:
    """Decode parameters of the base model's proposals."""
    return BaseDecode(
        class_threshold=hp.pseudo_class_threshold,
        score_stop=hp.pseudo_score_stop,
        action_start=hp.pseudo_action_start,
        scale=hp.pseudo_scale,
        outer_ratio=hp.pseudo_outer_ratio,
        video_weight=hp.pseudo_video_weight,
        nms_tiou=hp.pseudo_nms_tiou,
        nms_plus_one_second=hp.pseudo_plus_one_second,
    )


@dataclass(frozen=True, kw_only=True)
class PotlocDecode(DecodeParams):
    """Decode-time parameters; they act on cached scores."""

    class_threshold: float = param(
        0.7, doc="video score of a level from which a class is kept", source="C", allowed=(0.0, 1.0)
    )
    score_start: float = param(
        0.4, doc="first threshold of fused scores", source="C", allowed=(0.0, 1.0)
    )
    score_stop: float = param(
        0.425, doc="they end before this; the first counts always", source="C", allowed=(0.01, 1.0)
    )
    score_step: float = param(0.025, doc="their distance", source="C", allowed=(0.005, 1.0))
    action_start: float = param(0.1, doc="first threshold of 1 - b", source="C", allowed=(0.0, 1.0))
    action_stop: float = param(
        0.95, doc="thresholds of 1 - b end before this", source="C", allowed=(0.0, 1.0)
    )
    action_step: float = param(0.025, doc="their distance", source="C", allowed=(0.005, 1.0))
    scale: int = param(
        4, doc="samples a snippet, interpolated linearly", source="C", allowed=(1, 64)
    )
    outer_ratio: float = param(
        0.1, doc="lambda, width of a proposal's surroundings / its length", source="C",
        allowed=(0.01, 2.0),
    )  # fmt: skip
    video_weight: float = param(
        0.0, doc="gamma, weight of the video score in a proposal's", source="C", allowed=(0.0, 10.0)
    )
    nms_tiou: float = param(
        0.45, doc="tIoU at which a worse segment goes", source="C", allowed=(0.05, 1.0)
    )
    nms_plus_one_second: bool = param(
        False, doc="count lengths and overlaps with one second more, as the released code",
        source="PROPOSED (C: true)",
    )  # fmt: skip
