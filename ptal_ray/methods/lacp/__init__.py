"""LACP: learning action completeness from points (Lee and Byun, ICCV 2021)."""

from ptal_ray.methods.lacp.decode import decode, network, scores
from ptal_ray.methods.lacp.loss import loss
from ptal_ray.methods.lacp.model import build
from ptal_ray.methods.lacp.params import LacpDecode, LacpTrain
from ptal_ray.methods.lacp.refresh import label_segments, refresh
from ptal_ray.methods.lacp.rules import RULES
from ptal_ray.methods.method import Method

METHOD = Method(
    name="lacp",
    supervision="point",
    train_params=LacpTrain,
    decode_params=LacpDecode,
    build=build,
    loss=loss,
    scores=scores,
    network=network,
    decode=decode,
    refresh=refresh,
    label_segments=label_segments,
    rules=RULES,
)
