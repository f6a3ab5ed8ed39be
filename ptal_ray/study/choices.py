"""The allowed values of flags of a search, for modules that need nothing else of a study."""

from __future__ import annotations

SEARCHERS = ("tpe", "random", "grid", "gp", "cmaes")
SCHEDULERS = ("asha", "none")
PAPER_COMPAT = "paper-compat"  # selects on the test split
PROTOCOLS = ("sealed", PAPER_COMPAT)
DEFAULT_STORAGE = "studies"
