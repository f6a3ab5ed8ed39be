"""What the flags of the data command may say, for those who need no more of it."""

from __future__ import annotations

KINDS = ("gaussian", "uniform", "centre", "boundary")  # of simulated points
AUTO = "auto"  # float16 where it loses nothing that matters
DTYPES = (AUTO, "float16", "float32")  # of a store
