"""APN: proposal-based temporal action localization from points (Yin et al., BMVC 2023)."""

from ptal_ray.methods.apn.decode import decode, scores
from ptal_ray.methods.apn.loss import loss
from ptal_ray.methods.apn.model import build, check
from ptal_ray.methods.apn.params import ApnDecode, ApnTrain
from ptal_ray.methods.apn.refresh import label_segments, refresh
from ptal_ray.methods.apn.rules import RULES
from ptal_ray.methods.method import Method

METHOD = Method(
    name="apn",
    supervision="point",
    train_params=ApnTrain,
    decode_params=ApnDecode,
    build=build,
    check=check,
    loss=loss,
    scores=scores,
    decode=decode,
    refresh=refresh,
    label_segments=label_segments,
    rules=RULES,
    paper_sizes={"embed_dim": 2048},
)
