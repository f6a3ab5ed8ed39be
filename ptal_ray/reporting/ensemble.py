"""What averaging the scores of the best arms of a race would be worth, beside its report.

Where that passes a test, `best.yaml` names the members as a second offer.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ptal_ray.data.batching import stored_grid
from ptal_ray.data.datasets import protocol
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Scores
from ptal_ray.errors import DataError, PtalError
from ptal_ray.methods.method import load, with_values
from ptal_ray.policy.ensemble import Ensemble, common_cells, find_ensemble
from ptal_ray.reporting.study_store import store_of
from ptal_ray.reporting.text import study_metric
from ptal_ray.space.domain import Scalar
from ptal_ray.space.members import Member
from ptal_ray.space.space import SearchSpace
from ptal_ray.study.view import StudyView, TrialView, resolved_space
from ptal_ray.training.averaging import averaged
from ptal_ray.training.decoding import read_scores
from ptal_ray.training.selection import ByMap, ground_truth

MOST_ARMS, MOST_CELLS = 4, 4  # every one of them is decoded for each cell
NOT_READ = "not read on test"  # that split is read for what is recommended and the defaults alone


def ensemble_row(view: StudyView, study_dir: Path) -> dict[str, Any] | None:
    """The ensemble of a race by its out-of-fold scores; None for other studies.

    Returns:
        "members" (arm, trial, how often each, and its train parameters that differ from what is
        recommended), "offered" (whether it passed the test), "lacks" (why not), "validation" and
        "single" (mean objective over cells, of the ensemble and of what is recommended, both with
        the recommended decoding), "difference" (mean, low, high, cells; paired by cell, each with
        members that the other cells chose), "test" (`NOT_READ`), and "note": why there is none, or
        "".
    """
    if not view.recommended or not view.recommended.arms:
        return None
    try:
        scores = _Scores(view, study_dir)
        found = find_ensemble(scores.single, scores.arms, scores.cells, scores.judge)
    except (PtalError, ValueError) as error:
        return {
            "members": [], "offered": False, "lacks": "", "validation": None, "test": NOT_READ,
            "note": str(error),
        }  # fmt: skip
    return _row(scores, found)


def _row(scores: _Scores, found: Ensemble) -> dict[str, Any]:
    difference = {k: v for k, v in asdict(found.difference).items() if k != "p"}
    return {
        "members": [
            {
                "arm": arm,
                "trial": scores.trial(arm).number,
                "times": found.members.count(arm),
                "train": scores.apart(arm),
            }
            for arm in sorted(set(found.members))
        ],
        "offered": not found.lacks,
        "lacks": found.lacks,
        "validation": found.value,
        "single": found.value - found.difference.mean,
        "difference": difference,
        "test": NOT_READ,
        "note": "",
    }


class _Scores:
    """The cached scores of the best arms in the cells that they share.

    Raises:
        DataError: too few are left, or the data is not here.
    """

    def __init__(self, view: StudyView, study_dir: Path) -> None:
        if study_metric(view) == "points":
            raise DataError("an ensemble is judged by mAP, and this study selects by points")
        best = view.recommended
        assert best is not None
        self._trials: dict[tuple[int, int], TrialView] = {
            (t.arm, t.cell): t
            for t in view.trials
            if t.state == "complete" and _path(study_dir, t).exists()
        }
        order = [int(row["arm"]) for row in best.arms if row["mean"] is not None]
        cells = {arm: {c for a, c in self._trials if a == arm} for arm in order}
        self.single = best.arm
        cells.setdefault(self.single, set())
        self.arms, shared = common_cells(cells, self.single, MOST_ARMS)
        self.cells = shared[:MOST_CELLS]
        if len(self.cells) < 2 or len(self.arms) < 2:
            raise DataError("no two arms have scores in two cells or more on this machine")
        self._study_dir, self._store = study_dir, store_of(view, study_dir)
        self._space, self._best = resolved_space(view), best.params
        self._method = load(self._space.method)
        self._decode = with_values(
            self._method.decode_params, self._space.decode_defaults() | best.decode
        )
        self._read: dict[tuple[int, int], list[Scores]] = {}

    def trial(self, arm: int) -> TrialView:
        """The first trial of an arm."""
        own = (t for (a, _), t in self._trials.items() if a == arm)
        return min(own, key=lambda t: t.number)

    def apart(self, arm: int) -> dict[str, Scalar]:
        """The searched train parameters of an arm that are not as recommended."""
        params, base = self.trial(arm).params, self._space.resolve_train(self._best)
        return {k: v for k, v in self._space.resolve_train(params).items() if v != base[k]}

    def judge(self, members: tuple[int, ...], cell: int) -> float:
        """mAP of the averaged scores of arms in a cell."""
        scores = averaged([self._of(arm, cell) for arm in members])
        store, ids = self._store, tuple(s.id for s in scores)
        trial = self._trials[members[0], cell]
        resample_to = int(self._space.resolve_train(trial.params).get("resample_to", 0))
        found = {
            s.id: self._method.decode(
                s, stored_grid(store, s.id, resample_to), store.duration_s(s.id), self._decode
            )
            for s in scores
        }
        return _map(store, ids, self._method.supervision).metrics(found)[ByMap.name]

    def _of(self, arm: int, cell: int) -> list[Scores]:
        if (arm, cell) not in self._read:
            path = _path(self._study_dir, self._trials[arm, cell])
            self._read[arm, cell] = read_scores(path)
        return self._read[arm, cell]


def _map(store: FeatureStore, ids: tuple[str, ...], supervision: str) -> ByMap:
    rules = protocol(store.info.name, supervision)
    truth = ground_truth(store, ids, "val")
    return ByMap(truth=truth, num_classes=store.info.num_classes, protocol=rules)


def _path(study_dir: Path, trial: TrialView) -> Path:
    return study_dir / "trials" / f"{trial.number:05d}" / "scores.npz"


def with_members(space: SearchSpace, row: dict[str, Any] | None) -> SearchSpace:
    """A recommended configuration with the members of the ensemble that is offered beside it."""
    if row is None or not row["offered"]:
        return space
    members = tuple(Member(times=m["times"], train=m["train"]) for m in row["members"])
    return replace(space, ensemble=members)


def best_head(row: dict[str, Any] | None) -> str:
    """The comment at the top of best.yaml."""
    head = "# The best configuration of this study. Run: python -m ptal_ray.train best.yaml\n"
    if row is None or not row["offered"]:
        return head
    return (
        f"{head}# It is what the study recommends. ensemble: names models whose averaged scores "
        f"were better on held-out\n# folds, {NOT_READ}: "
        f"{_members(row)}, decoded as below. Run: python -m ptal_ray.train best.yaml --ensemble\n"
    )


def ensemble_section(row: dict[str, Any] | None, train: str) -> tuple[str, ...]:
    """The section of a report on a row of `ensemble_row`; none without one.

    Args:
        row: the row.
        train: the command that trains the recommended configuration.
    """
    if row is None:
        return ()
    if row["note"]:
        return (f"## Ensemble\n\nNo ensemble was judged: {row['note']}.",)
    said = (
        f"## Ensemble\n\nScores averaged before decoding: {_members(row)}. Validation mAP "
        f"{100 * row['validation']:.1f}, what is recommended {100 * row['single']:.1f}; difference "
        f"{_difference(row)}, each with members chosen on the others. Test mAP: {NOT_READ}. "
    )
    if not row["offered"]:
        return (f"{said}It is not offered: {row['lacks']}.",)
    return (
        f"{said}The difference is beyond the noise. The test split is read only for the single "
        "configuration, which is what is recommended, and for the defaults. `best.yaml` names the "
        "members; this command reads the test split once more:\n\n"
        f"```\n{train} --ensemble --out runs/ensemble\n```",
    )


def ensemble_lines(row: dict[str, Any] | None, train: str) -> list[str]:
    """What a person reads of an ensemble that is offered, at the end of a search.

    Args:
        row, train: as for `ensemble_section`.
    """
    if row is None or not row.get("offered"):
        return []
    return [
        f"ensemble {_members(row)}: {_difference(row)} to what is recommended; {NOT_READ}",
        f"        {train} --ensemble --out runs/ensemble",
    ]


def _members(row: dict[str, Any]) -> str:
    return ", ".join(f"trial {m['trial']} x {m['times']}" for m in row["members"])


def _difference(row: dict[str, Any]) -> str:
    apart = row["difference"]
    low, high = 100 * apart["low"], 100 * apart["high"]
    return f"{100 * apart['mean']:+.1f} mAP [{low:.1f}, {high:.1f}] over {apart['cells']} cells"
