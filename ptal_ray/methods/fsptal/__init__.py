"""FS-PTAL: fine-grained separation of action and background from points (anonymous, ICLR)."""

from ptal_ray.methods.fsptal.decode import decode, network, scores
from ptal_ray.methods.fsptal.loss import loss
from ptal_ray.methods.fsptal.model import build
from ptal_ray.methods.fsptal.params import FsptalDecode, FsptalTrain
from ptal_ray.methods.fsptal.refresh import label_segments, refresh
from ptal_ray.methods.fsptal.rules import RULES
from ptal_ray.methods.method import Method

METHOD = Method(
    name="fsptal",
    supervision="point",
    train_params=FsptalTrain,
    decode_params=FsptalDecode,
    build=build,
    loss=loss,
    scores=scores,
    network=network,
    decode=decode,
    refresh=refresh,
    label_segments=label_segments,
    rules=RULES,
)
