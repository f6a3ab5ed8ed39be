"""POTLoc: pseudo-label oriented transformer for point-supervised TAL (Vahdani and Tian)."""

from ptal_ray.methods.method import Method, Stage
from ptal_ray.methods.potloc.decode import decode, network, network_lengths, scores
from ptal_ray.methods.potloc.labels import label_segments, split_labels
from ptal_ray.methods.potloc.loss import loss
from ptal_ray.methods.potloc.model import build, check
from ptal_ray.methods.potloc.params import PotlocDecode, PotlocTrain, base_params
from ptal_ray.methods.potloc.rules import RULES

METHOD = Method(
    name="potloc",
    supervision="point",
    train_params=PotlocTrain,
    decode_params=PotlocDecode,
    build=build,
    loss=loss,
    scores=scores,
    network=network,
    network_lengths=network_lengths,
    decode=decode,
    label_segments=label_segments,
    stage=Stage(
        method="potloc.base",
        params=base_params,
        steps="base_steps",
    ),
    labels=split_labels,
    check=check,
    rules=RULES,
    paper_sizes={"max_snippets": 2304, "window": 19, "levels": 4, "batch_size": 3},
)
