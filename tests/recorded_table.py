"""A recorded search made by hand, whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

STEPS = (1, 3, 9)
SPACE = {
    "budget": {"eta": 3},
    "final": {"top": 2, "seeds": 2},
    "train": {"lr": {"loguniform": [1e-4, 1e-2]}, "kind": {"choice": ["a", "b"]}, "fixed": 3},
}


def made_table(
    folder: Path,
    truth,
    *,
    noise: float = 0.0,
    folds: int = 4,
    seeds: int = 3,
    settings: tuple[float, ...] = (0.0, -0.02, 0.01),
    test_minus_val: float = -0.1,
) -> Path:
    """A table in which configuration k is worth `truth`[k], and each setting as much more.

    A report before the last is a hundredth lower for each step that is missing; a fold adds its
    number times 0.03 to all configurations.
    """
    rng = np.random.default_rng(0)
    folder.mkdir()
    params = [{"lr": float(v), "kind": "b"} for v in np.geomspace(1e-4, 1e-2, len(truth) - 1)]
    (folder / "table.json").write_text(json.dumps({
        "version": 1, "steps": STEPS, "settings": [{}] * len(settings), "folds": folds,
        "seeds": seeds, "configurations": [{}, *params], "space": SPACE,
        "defaults": {"lr": 1e-3, "kind": "a", "fixed": 3, "refresh_every": 2},
    }))  # fmt: skip
    cells, test = [], []
    for row, value in enumerate(truth):
        for seed in range(seeds):
            for fold in range(folds):
                cell = value + 0.03 * fold + noise * rng.standard_normal()
                for step in STEPS:
                    scores = [cell + s - 0.01 * (STEPS[-1] - step) for s in settings]
                    cells.append({
                        "configuration": row, "fold": fold, "seed": seed, "step": step,
                        "objective": scores, "cross_fitted": scores[0], "seconds": 0.5 * step,
                    })  # fmt: skip
            test.append({
                "configuration": row, "fold": -1, "seed": seed, "step": STEPS[-1],
                "objective": [value + test_minus_val + s for s in settings],
                "cross_fitted": 0.0, "seconds": 4.5,
            })  # fmt: skip
    for name, rows in (("cells", cells), ("test", test)):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return folder
