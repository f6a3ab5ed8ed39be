"""What the flags of the data command may say, for those who need no more of it."""

from __future__ import annotations

KINDS = ("gaussian", "uniform", "human", "centre", "boundary")  # of simulated points
AUTO = "auto"  # float16 where it loses nothing that matters
DTYPES = (AUTO, "float16", "float32")  # of a store
POINTS = (
    "simulate new points for the training videos from their instances: KIND is one of "
    f"{', '.join(KINDS)}; NAME is one of jitter (seconds), dropout, label_noise (fractions), seed "
    "(default: 0, whatever --seed is)"
)
