"""The values of recommendations on the test split; only this module reads the sealed file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptal_ray.benchmarks.recording import TEST
from ptal_ray.benchmarks.table import Floats, Table, arranged, columns


def sealed_values(folder: Path, table: Table) -> Floats:
    """(C, J) test mAP of each configuration at each decode setting, the mean of its seeds.

    Args:
        folder: of the table.
        table: the table, without test values.

    Raises:
        DataError: the file is missing, damaged or of another table.
    """
    configurations, _, seeds, _, settings = table.objective.shape
    path = folder / TEST
    found = columns(path, ("configuration", "seed"))
    index = [found["configuration"], found["seed"]]
    filled = arranged(path, found, index, (configurations, seeds), settings)
    mean: Floats = np.asarray(filled["objective"].mean(axis=1))
    return mean
