"""The first stage of APL: contrast of clustered snippets, without labels."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from ptal_ray.data.store import FeatureStore
from ptal_ray.methods.apl.actionformer import DETECTOR
from ptal_ray.methods.apl.apl_params import AplT
from ptal_ray.methods.apl.contrast import batch_contrast
from ptal_ray.methods.apl.detector import Detector
from ptal_ray.methods.apl.icd import Discriminator
from ptal_ray.methods.method import Batch, DecodeT, Method, Step


def build(detector: Detector[AplT, DecodeT], store: FeatureStore, hp: AplT) -> nn.Module:
    """The detector with the discriminator as "icd".

    Raises:
        ConfigError: sizes do not match.
    """
    model = detector.build(store, hp)
    model.add_module("icd", Discriminator(store.info.feature_dim, hp.icd_hidden))
    return model


def loss(
    detector: Detector[AplT, DecodeT], model: nn.Module, batch: Batch, hp: AplT, step: Step
) -> dict[str, Tensor]:
    """Only the contrast; heads are not trained.

    Source: APL section 3.4.
    """
    levels = detector.represent(model, batch, step)
    with torch.autocast(batch.mask.device.type, enabled=False):
        length = batch.mask.sum(dim=1)
        return {"contrast": batch_contrast(levels, batch.features, length, None, hp, step)}


def pretraining(detector: Detector[AplT, DecodeT], name: str) -> Method[AplT, DecodeT]:
    """This stage of a detector as the method `name`."""
    return Method(
        name=name,
        supervision="semi",
        train_params=detector.train_params,
        decode_params=detector.decode_params,
        build=partial(build, detector),
        check=detector.check,
        loss=partial(loss, detector),
        scores=detector.scores,
        decode=detector.decode,
    )


METHOD = pretraining(DETECTOR, "apl.pretrain")
