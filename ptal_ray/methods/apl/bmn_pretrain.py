"""The first stage of APL on BMN."""

from ptal_ray.methods.apl.bmn import DETECTOR
from ptal_ray.methods.apl.pretrain import pretraining

METHOD = pretraining(DETECTOR, "apl.bmn_pretrain")
