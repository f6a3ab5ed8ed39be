"""The second stage of APL on BMN."""

from ptal_ray.methods.apl.bmn import DETECTOR
from ptal_ray.methods.apl.supervised import supervised

METHOD = supervised(DETECTOR, "apl.bmn_supervised", "apl.bmn_pretrain")
