"""ActionFormer with full supervision, and as a detector of APL."""

from __future__ import annotations

from ptal_ray.methods.apl.actionformer_decode import decode, network, network_lengths, scores
from ptal_ray.methods.apl.actionformer_losses import loss, represent, run, terms
from ptal_ray.methods.apl.actionformer_network import build, check
from ptal_ray.methods.apl.actionformer_params import ActionFormerDecode, ActionFormerTrain
from ptal_ray.methods.apl.apl_params import AplTrain
from ptal_ray.methods.apl.detector import Detector
from ptal_ray.methods.apl.instances import annotated
from ptal_ray.methods.apl.rules import ACTIONFORMER
from ptal_ray.methods.method import Method
from ptal_ray.methods.rules import learning_rate, steps


def label_rules(hp: AplTrain) -> ActionFormerDecode:
    """The decode parameters of predictions that may become labels."""
    return ActionFormerDecode(
        sigma=hp.label_sigma,
        multiclass=hp.label_multiclass,
        voting_tiou=hp.label_voting,
        most=hp.label_most,
    )


RATE = learning_rate(0.4)  # C: 1e-4, 4,000 steps
DETECTOR = Detector(
    train_params=AplTrain,
    decode_params=ActionFormerDecode,
    build=build,
    check=check,
    run=run,
    levels=lambda output: output.levels,
    represent=represent,
    terms=terms,
    scores=scores,
    decode=decode,
    network=network,
    network_lengths=network_lengths,
    label_rules=label_rules,
    rules=ACTIONFORMER,
    rates=(RATE,),
)
METHOD = Method(
    name="apl.actionformer",
    supervision="full",
    train_params=ActionFormerTrain,
    decode_params=ActionFormerDecode,
    build=build,
    check=check,
    loss=loss,
    scores=scores,
    network=network,
    network_lengths=network_lengths,
    decode=decode,
    labels=annotated,
    rules=(*ACTIONFORMER, steps(60, 300, 10_000), RATE),
)
