"""The second stage of APL: trains detector and discriminator on only the labelled videos."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from ptal_ray.methods.apl.actionformer import DETECTOR
from ptal_ray.methods.apl.apl_params import AplBmnTrain, AplStages, AplT, AplTrain, early_params
from ptal_ray.methods.apl.contrast import batch_contrast
from ptal_ray.methods.apl.detector import Detector
from ptal_ray.methods.apl.detector_params import PRETRAINING
from ptal_ray.methods.apl.icd import Discriminator, discriminator_loss, memory, places
from ptal_ray.methods.apl.instances import annotated, instances
from ptal_ray.methods.apl.pretrain import build
from ptal_ray.methods.method import Batch, DecodeT, Known, Method, Pseudo, Stage, Step


def loss(
    detector: Detector[AplT, DecodeT], model: nn.Module, batch: Batch, hp: AplT, step: Step
) -> dict[str, Tensor]:
    """The detector's terms, "contrast" with annotations, and the discriminator's "icd"."""
    output = detector.run(model, batch, step)
    with torch.autocast(batch.mask.device.type, enabled=False):
        own = instances(batch)
        terms = detector.terms(model, output, batch, own, hp, step, None)
        terms |= contrast_term(detector.levels(output), batch, own, hp, step)
        icd = cast(Discriminator, model.get_submodule("icd"))
        return terms | {"icd": discriminator_loss(icd, batch, hp, step)}


def contrast_term(
    levels: list[Tensor],
    batch: Batch,
    own: Pseudo,
    hp: AplStages,
    step: Step,
    kinds: Sequence[tuple[Tensor, float]] = (),
) -> dict[str, Tensor]:
    """The weighted "contrast" of labelled snippets; empty if its weight is 0.

    See `batch_contrast`.
    """
    if not hp.contrast_weight:
        return {}
    length = batch.mask.sum(dim=1)
    found = batch_contrast(levels, batch.features, length, own, hp, step, kinds)
    return {"contrast": hp.contrast_weight * found}


def labels(known: Known, hp: AplTrain | AplBmnTrain) -> Pseudo:
    """The annotations, and the index of each in the memory of the discriminator."""
    made = annotated(known, hp)
    return made | {"instance": places(made["label"])}


def supervised(detector: Detector[AplT, DecodeT], name: str, before: str) -> Method[AplT, DecodeT]:
    """This stage of a detector as the method `name`, after the stage `before`."""
    return Method(
        name=name,
        supervision="full",
        train_params=detector.train_params,
        decode_params=detector.decode_params,
        build=partial(build, detector),
        check=detector.check,
        loss=partial(loss, detector),
        scores=detector.scores,
        decode=detector.decode,
        labels=labels,
        memory=memory,
        stage=Stage(
            method=before,
            params=partial(early_params, stage=PRETRAINING),
            steps="pretrain_steps",
            scored=False,
            starts=True,
        ),
    )


METHOD = supervised(DETECTOR, "apl.supervised", "apl.pretrain")
