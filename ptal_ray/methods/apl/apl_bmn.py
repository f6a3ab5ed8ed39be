"""APL on BMN."""

from dataclasses import replace

from ptal_ray.methods.apl.bmn import DETECTOR, PAPER_SIZES
from ptal_ray.methods.apl.joint import joint

METHOD = replace(joint(DETECTOR, "apl.apl_bmn", "apl.bmn_supervised"), paper_sizes=PAPER_SIZES)
