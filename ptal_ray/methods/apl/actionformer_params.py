"""The hyperparameters of ActionFormer."""

from __future__ import annotations

from dataclasses import dataclass

from ptal_ray.methods.apl.detector_params import SUPERVISED, DetectorTrain
from ptal_ray.methods.method import DecodeParams, param


@dataclass(frozen=True, kw_only=True)
class ActionFormerTrain(DetectorTrain):
    """Train-time parameters of ActionFormer."""

    weight_decay: float = param(
        0.05, doc="AdamW weight decay", source="C (APL: 1e-4)", allowed=(0.0, 1.0)
    )
    batch_size: int = param(
        2, doc="videos per global batch, of each kind", source="P", allowed=(1, 4096)
    )
    max_snippets: int = param(
        2304, doc="T_max, longer videos are randomly cropped in training", source="C",
        allowed=(8, 100000),
    )  # fmt: skip
    crop_shortest: float = param(
        0.9, doc="a crop is at least this share of a video's length", source="C",
        allowed=(0.1, 1.0),
    )  # fmt: skip
    optimizer: str = param(
        "adamw", doc="adamw decays no biases, norms and scales", source="C",
        allowed=("adam", "adamw"),
    )  # fmt: skip
    warmup: float = param(
        0.143, doc="share of the steps in which lr rises linearly from 0", source="C (5 of 35)",
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
    width: int = param(
        512, doc="channels, a multiple of heads", source="C (ActivityNet: 256)", allowed=(8, 4096)
    )
    heads: int = param(4, doc="attention heads", source="C", allowed=(1, 64))
    window: int = param(
        19, doc="positions attended to, 2 (w // 2) + 1", source="C (ActivityNet: 7)",
        allowed=(2, 100001),
    )  # fmt: skip
    levels: int = param(5, doc="levels above level 0", source="C", allowed=(0, 8))
    stem: int = param(2, doc="blocks at full resolution", source="C", allowed=(1, 8))
    positions: bool = param(
        False, doc="sinusoids of the position are added to the embedding",
        source="C (ActivityNet: true)",
    )  # fmt: skip
    drop_path: float = param(
        0.1, doc="chance that a branch is skipped", source="C", allowed=(0.0, 0.9)
    )
    recompute: bool = param(
        False, doc="less memory for a fifth more time: backward computes blocks again",
        source="PROPOSED",
    )  # fmt: skip
    first_range: float = param(
        4.0, doc="longest reach of an instance that level 0 regresses, snippets; doubles by level",
        source="C", allowed=(0.5, 1000.0), since=SUPERVISED,
    )  # fmt: skip
    center_radius: float = param(
        1.5, doc="positives lie this many positions around the centre", source="C",
        allowed=(0.1, 100.0), since=SUPERVISED,
    )  # fmt: skip
    regression_weight: float = param(
        1.0, doc="lambda_reg", source="C (ActivityNet: 2)", allowed=(0.0, 100.0), since=SUPERVISED
    )
    label_smoothing: float = param(
        0.0, doc="share of a target spread over all classes", source="C (ActivityNet: 0.1)",
        allowed=(0.0, 0.9), since=SUPERVISED,
    )  # fmt: skip
    first_positives: float = param(
        100.0, doc="positives a batch is taken to have before the first", source="C "
        "(ActivityNet: 200)", allowed=(1.0, 100000.0), since=SUPERVISED,
    )  # fmt: skip
    alqa: str = param(
        "none", doc="what heads predict of the quality of edges, and scale class scores by: "
        "nothing, tIoU, tIoU - tND, or both apart", source="APL (P, Table 3)",
        allowed=("none", "tiou", "diou", "both"),
    )  # fmt: skip
    quality_weight: float = param(
        0.1,
        doc="lambda_locq, of the two heads",
        source="P",
        allowed=(0.0, 100.0),
        since=SUPERVISED,
    )
    quality_loss: str = param(
        "bce", doc="of the heads: cross entropy, or the divergence of their distributions over "
        "the positives of a video", source="P (Table S1)", allowed=("bce", "kl"),
        since=SUPERVISED,
    )  # fmt: skip
    quality_floor: float = param(
        1e-3,
        doc="eps, the least tIoU - tND",
        source="PROPOSED",
        allowed=(1e-8, 0.5),
        since=SUPERVISED,
    )
    focal: str = param(
        "sigmoid", doc="soft focal loss with tIoU heads: sigmoid, or quality (|y - p|^2 BCE)",
        source="P", allowed=("sigmoid", "quality"), since=SUPERVISED,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ActionFormerDecode(DecodeParams):
    """Decode-time parameters of ActionFormer."""

    score_floor: float = param(
        1e-3, doc="scores not above it are no candidates", source="C", allowed=(0.0, 1.0)
    )
    candidates: int = param(
        2000, doc="best candidates kept of each level", source="C", allowed=(1, 100000)
    )
    shortest_t: float = param(
        0.05, doc="candidates not longer than this are dropped, snippets",
        source="C (ActivityNet: 1e-3)", allowed=(0.0, 1000.0),
    )  # fmt: skip
    soft: bool = param(True, doc="Gaussian suppression; off: hard, at nms_tiou", source="C")
    sigma: float = param(
        0.5, doc="width of the Gaussian", source="C (ActivityNet: 0.75)", allowed=(0.01, 10.0)
    )
    nms_tiou: float = param(
        0.1, doc="tIoU above which hard suppression drops", source="C", allowed=(0.0, 1.0)
    )
    min_score: float = param(
        1e-3, doc="decayed scores below it are dropped", source="C", allowed=(0.0, 1.0)
    )
    voting_tiou: float = param(
        0.7, doc="edges are averaged over candidates of this tIoU; 0 for none",
        source="C (ActivityNet: 0.9)", allowed=(0.0, 1.0),
    )  # fmt: skip
    multiclass: bool = param(True, doc="classes are suppressed apart", source="C")
    most: int = param(
        200, doc="detections of a video", source="C (ActivityNet: 100)", allowed=(1, 100000)
    )
