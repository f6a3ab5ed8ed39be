"""BMN with full supervision, and as a detector of APL."""

from __future__ import annotations

import torch
from torch import Tensor

from ptal_ray.methods.apl.apl_params import AplBmnTrain
from ptal_ray.methods.apl.bmn_decode import decode, network, network_lengths, scores
from ptal_ray.methods.apl.bmn_loss import losses
from ptal_ray.methods.apl.bmn_network import Bmn, BmnOutput, build, check
from ptal_ray.methods.apl.bmn_params import BmnDecode, BmnTrain
from ptal_ray.methods.apl.detector import Detector, Unlabelled
from ptal_ray.methods.apl.instances import CENTRE_T, annotated, instances
from ptal_ray.methods.apl.rules import BMN
from ptal_ray.methods.method import Batch, Method, Pseudo, Step
from ptal_ray.methods.rules import steps


def run(model: Bmn, batch: Batch, step: Step) -> BmnOutput:
    """The outputs of a training batch."""
    output: BmnOutput = model(batch.features, batch.mask)
    return output


def terms(
    model: Bmn,
    output: BmnOutput,
    batch: Batch,
    own: Pseudo,
    hp: BmnTrain,
    step: Step,
    unlabelled: Unlabelled | None = None,
) -> dict[str, Tensor]:
    """The terms of `bmn_loss.losses` from the instances of the crops."""
    segments = own | {name: own[name] + CENTRE_T for name in ("start_t", "end_t")}
    if unlabelled is None:  # only annotations; none is ignored
        segments.pop("ignored")
    draw = step.rand(len(batch.mask), 2, output.maps.shape[2])
    return losses(output, segments, batch.mask, hp, draw, step, unlabelled)


def loss(model: Bmn, batch: Batch, hp: BmnTrain, step: Step) -> dict[str, Tensor]:
    """Weighted terms, see `bmn_loss.losses`."""
    output = run(model, batch, step)
    with torch.autocast(batch.mask.device.type, enabled=False):
        return terms(model, output, batch, instances(batch), hp, step)


PAPER_SIZES = {"resample_to": 0, "max_snippets": 128, "window": 128, "longest": 64}
DETECTOR = Detector(
    train_params=AplBmnTrain,
    decode_params=BmnDecode,
    build=build,
    check=check,
    run=run,
    levels=lambda output: [output.base],
    represent=lambda model, batch, step: [model.base(batch.features, batch.mask)],
    terms=terms,
    scores=scores,
    decode=decode,
    network=network,
    network_lengths=network_lengths,
    label_rules=lambda hp: BmnDecode(video_classes=hp.label_classes),
    rules=BMN,
)
METHOD = Method(
    name="apl.bmn",
    supervision="full",
    train_params=BmnTrain,
    decode_params=BmnDecode,
    build=build,
    check=check,
    loss=loss,
    scores=scores,
    decode=decode,
    network=network,
    network_lengths=network_lengths,
    labels=annotated,
    rules=(*BMN, steps(100, 300, 6000)),
    paper_sizes=PAPER_SIZES,
)
