"""The hyperparameters of APN."""

from __future__ import annotations

from dataclasses import dataclass

from ptal_ray.methods.method import DecodeParams, TrainParams, param

LOWEST_PEAK = 0.2  # lowest peak threshold of cached candidates


@dataclass(frozen=True, kw_only=True)
class ApnTrain(TrainParams):
    """Train-time parameters; changing one requires training again."""

    embed_dim: int = param(512, doc="D_e, channels of X", source="PROPOSED", allowed=(8, 4096))
    distance: str = param(
        "cosine", doc="d between snippets", source="PROPOSED", allowed=("cosine", "euclid")
    )
    kappa: float = param(
        1.0,
        doc="kappa, background is rejected below this times the mean intra-cluster distance",
        source="measured",
        allowed=(0.0, 10.0),
    )
    kmedoid_iterations: int = param(
        10, doc="at most so many boundary and medoid updates", source="PROPOSED", allowed=(1, 100)
    )
    update_medoids: bool = param(
        False, doc="move medoids off the points, which short actions lose", source="PROPOSED"
    )
    zone_ratio: float = param(
        0.1, doc="width of a boundary zone / instance length", source="BSN", allowed=(0.01, 1.0)
    )
    action_channel: bool = param(
        False, doc="also predict actionness, as BSN, with weight 2", source="BSN"
    )
    min_duration_t: int = param(
        1, doc="d_min, snippets of the shortest proposal", source="PROPOSED", allowed=(1, 1000)
    )
    duration_quantile: float = param(
        0.995,
        doc="d_max, as a quantile of pseudo-label lengths (resampled videos: no limit)",
        source="PROPOSED",
        allowed=(0.5, 1.0),
    )
    train_candidates: int = param(
        500, doc="best pairs of a video in training", source="BSN", allowed=(10, 5000)
    )
    score_candidates: int = param(
        1000, doc="best pairs of a video scored and cached", source="BSN", allowed=(10, 5000)
    )
    proposals_per_video: int = param(
        48, doc="proposals of a video in a training step", source="PROPOSED", allowed=(3, 1000)
    )
    num_samples: int = param(
        32, doc="N, points sampled in a proposal", source="P", allowed=(2, 256)
    )
    context_ratio: float = param(
        0.1, doc="context on either side / proposal length", source="P", allowed=(0.0, 1.0)
    )
    region_ratio: float = param(
        0.1,
        doc="half width of the regions of the contrast / instance length",
        source="P",
        allowed=(0.0, 1.0),
    )
    background_proposals: bool = param(
        False, doc="train on proposals without a point too, as background", source="PROPOSED"
    )
    class_target: str = param(
        "point",
        doc="a proposal is of the class of its point: always, or if its tIoU is at least 0.5",
        source="PROPOSED",
        allowed=("point", "complete"),
    )
    encoder_layers: int = param(2, doc="transformer layers", source="PROPOSED", allowed=(1, 12))
    encoder_width: int = param(
        512, doc="channels of the vision encoder", source="PROPOSED", allowed=(8, 2048)
    )
    dropout: float = param(0.1, doc="of residual branches", source="PROPOSED", allowed=(0.0, 0.9))
    pool: str = param(
        "mean", doc="what is matched with the text", source="PROPOSED", allowed=("mean", "cls")
    )
    text_encoder: str = param(
        "wordllama",
        doc="wordllama, a .npy of shape (C, d), open_clip:<model>:<weights file>, or learned",
        source="PROPOSED",
    )
    confidence: str = param(
        "sigmoid",
        doc="s from the cosine: sigmoid with learnt scale and bias, or (1 + cos) / 2",
        source="PROPOSED",
        allowed=("sigmoid", "linear"),
    )
    confidence_target: str = param(
        "tiou",
        doc="target of s: tIoU with the pseudo-label, or whether it is at least 0.5",
        source="PROPOSED",
        allowed=("tiou", "binary"),
    )
    pem_start_epochs: float = param(
        2.0, doc="epochs of boundary detection alone", source="PROPOSED", allowed=(0.0, 1000.0)
    )
    pem_weight: float = param(1.0, doc="lambda_1", source="P", allowed=(0.0, 100.0))
    text_weight: float = param(
        1.0, doc="of the text loss in L_PEM; 0: no text confidence", source="P",
        allowed=(0.0, 100.0),
    )  # fmt: skip
    contrast_weight: float = param(0.1, doc="lambda_2", source="P", allowed=(0.0, 100.0))
    contrast_temperature: float = param(0.1, doc="tau", source="P", allowed=(0.01, 10.0))

    def texts(self) -> str:
        """The text encoder, unless the class vectors are learned."""
        return "" if self.text_encoder == "learned" else self.text_encoder


@dataclass(frozen=True, kw_only=True)
class ApnDecode(DecodeParams):
    """Decode-time parameters; they act on cached scores."""

    peak_threshold: float = param(
        0.5, doc="candidates beside peaks: share of the maximum", source="BSN",
        allowed=(LOWEST_PEAK, 1.0),
    )  # fmt: skip
    max_candidates: int = param(
        1000, doc="best pairs kept before suppression", source="BSN", allowed=(1, 5000)
    )
    boundary_exponent: float = param(
        0.5, doc="of p_s p_e in the score", source="PROPOSED", allowed=(0.0, 4.0)
    )
    class_exponent: float = param(
        1.0, doc="of the class probability", source="PROPOSED", allowed=(0.0, 4.0)
    )
    text_exponent: float = param(
        1.0, doc="of the text confidence", source="PROPOSED", allowed=(0.0, 4.0)
    )
    top_classes: int = param(2, doc="classes of a proposal", source="PROPOSED", allowed=(1, 8))
    nms_kind: str = param("hard", doc="suppression", source="P", allowed=("hard", "soft"))
    nms_tiou: float = param(
        0.5, doc="tIoU at which a worse segment goes; sigma for soft", source="P",
        allowed=(0.05, 1.0),
    )  # fmt: skip
    max_detections: int = param(
        200, doc="detections of a video", source="PROPOSED", allowed=(1, 5000)
    )
