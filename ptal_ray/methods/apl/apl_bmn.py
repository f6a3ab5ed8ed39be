"""APL on BMN."""

from ptal_ray.methods.apl.bmn import DETECTOR
from ptal_ray.methods.apl.joint import joint

METHOD = joint(DETECTOR, "apl.apl_bmn", "apl.bmn_supervised")
