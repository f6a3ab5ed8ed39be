"""What the flags of a search may say, for those who need no more of a study."""

from __future__ import annotations

SEARCHERS = ("tpe", "random", "grid", "gp", "cmaes")
SCHEDULERS = ("asha", "none")
PAPER_COMPAT = "paper-compat"  # selects on the test split
PROTOCOLS = ("sealed", PAPER_COMPAT)
DEFAULT_STORAGE = "studies"
