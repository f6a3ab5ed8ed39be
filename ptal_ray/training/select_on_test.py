"""The second scoring of a trial that selects on the test split, see `study.paper_compat`."""

from __future__ import annotations

from dataclasses import asdict, replace

from ptal_ray.data.types import Scores
from ptal_ray.methods.method import DecodeParams
from ptal_ray.training.config import DECODE_SETTING, TEST_AS_VALIDATED
from ptal_ray.training.decoding import DecodeResult
from ptal_ray.training.scoring import best_decoding
from ptal_ray.training.task import Task


def with_test(
    task: Task, val: DecodeResult[DecodeParams], scores: list[Scores]
) -> DecodeResult[DecodeParams]:
    """The decode search on the selection fold, with objective and decode parameters of the test
    split.

    Args:
        task: with the data and the searched parameters.
        val: the decode search on the selection fold.
        scores: of all test videos.

    Returns:
        The detections and metrics of `val`; the rest is from the decode search on the test split.
        `on_test` has its metrics, the setting that `val` chose and the objective of that setting on
        the test split.
    """
    config = replace(task.config, score_on="test", cross_fit=False)
    ids = tuple(own.id for own in scores)
    test = best_decoding(replace(task, config=config, score_ids=ids), scores, lambda: 0.0)
    setting = [tried for tried, _ in val.table].index(asdict(val.params))
    said = {f"test/{name}": value for name, value in test.metrics.items()}
    said |= {DECODE_SETTING: float(setting), TEST_AS_VALIDATED: test.table[setting][1]}
    return replace(
        val, params=test.params, objective=test.objective, table=test.table, on_test=said
    )
