"""The hyperparameters of the detector BMN."""

from __future__ import annotations

from dataclasses import dataclass

from ptal_ray.methods.apl.detector_params import SUPERVISED, DetectorTrain
from ptal_ray.methods.method import DecodeParams, param


@dataclass(frozen=True, kw_only=True)
class BmnTrain(DetectorTrain):
    """Train-time parameters; changing one requires training again.

    The defaults are those for ActivityNet. For THUMOS14: resample_to 0, max_snippets and window
    128, longest 64.
    """

    lr: float = param(1e-3, doc="Adam learning rate", source="C", allowed=(1e-6, 1.0))
    weight_decay: float = param(1e-4, doc="Adam weight decay", source="C", allowed=(0.0, 1.0))
    resample_to: int = param(
        100, doc="T, snippets every video is linearly resampled to; 0 keeps its length",
        source="C (THUMOS14: 0)", allowed=(0, 1000),
    )  # fmt: skip
    window: int = param(
        0, doc="snippets of a window, overlapping by half when scored; 0: the resampled video",
        source="C (THUMOS14: 128)", allowed=(0, 1000),
    )  # fmt: skip
    longest: int = param(
        1000, doc="D, most snippets of a proposal", source="C (THUMOS14: 64)", allowed=(1, 1000)
    )
    base_dim: int = param(
        256, doc="channels of the base features, a multiple of 4", source="C", allowed=(4, 4096)
    )
    sample_dim: int = param(
        512, doc="channels of a cell after sampling", source="C", allowed=(4, 4096)
    )
    map_dim: int = param(128, doc="channels of the maps", source="C", allowed=(4, 4096))
    num_sample: int = param(32, doc="N, samples of a proposal", source="C", allowed=(2, 256))
    per_bin: int = param(
        3, doc="interpolations a sample is the mean of", source="C", allowed=(1, 16)
    )
    context: float = param(
        0.5, doc="context on either side / proposal length", source="C", allowed=(0.0, 2.0)
    )
    boundary_weight: float = param(
        1.0, doc="weight of the boundary loss", source="C", allowed=(0.0, 100.0), since=SUPERVISED
    )
    regression_weight: float = param(
        10.0,
        doc="weight of the tIoU regression",
        source="C",
        allowed=(0.0, 100.0),
        since=SUPERVISED,
    )
    classification_weight: float = param(
        1.0,
        doc="weight of the tIoU classification",
        source="C",
        allowed=(0.0, 100.0),
        since=SUPERVISED,
    )
    tnd: bool = param(False, doc="a third map predicts tND, as APL", source="PROPOSED")
    tnd_weight: float = param(
        0.1,
        doc="lambda_locq, weight of its loss",
        source="P",
        allowed=(0.0, 100.0),
        since=SUPERVISED,
    )
    joint: bool = param(
        False, doc="score and soft target tIoU - tND, as APL; needs tnd", source="PROPOSED"
    )
    eps: float = param(
        1e-3, doc="least tIoU - tND", source="PROPOSED", allowed=(1e-6, 0.1), since=SUPERVISED
    )
    video_weight: float = param(
        1.0, doc="weight of the classification of the video", source="PROPOSED",
        allowed=(0.0, 100.0), since=SUPERVISED,
    )  # fmt: skip
    r_act: int = param(
        8, doc="a video's score is the mean of its T // r_act best", source="PROPOSED",
        allowed=(1, 1000),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BmnDecode(DecodeParams):
    """Decode-time parameters; they act on cached scores."""

    nms_alpha: float = param(0.4, doc="width of the Gaussian", source="C", allowed=(0.05, 5.0))
    nms_low: float = param(
        0.5, doc="tIoU from which the shortest proposal decays others", source="C",
        allowed=(0.0, 1.0),
    )  # fmt: skip
    nms_high: float = param(
        0.9, doc="the same of one as long as the video", source="C", allowed=(0.0, 1.0)
    )
    most: int = param(100, doc="proposals of a video", source="C", allowed=(1, 5000))
    video_classes: int = param(
        2, doc="classes of a video, each of them for every proposal",
        source="C (THUMOS14; ActivityNet 1)", allowed=(1, 100),
    )  # fmt: skip
