"""APL: adaptive pseudo-labels for semi-supervised TAL (Zhou, Williams and Rahmani, 2024)."""

from ptal_ray.methods.apl.actionformer import DETECTOR
from ptal_ray.methods.apl.joint import joint

VARIANTS = ("actionformer", "apl_bmn", "bmn")

METHOD = joint(DETECTOR, "apl", "apl.supervised")
