"""Removes checkpoints: only running trials and the best complete ones keep theirs."""

from __future__ import annotations

from ptal_ray.study.run_folder import CHECKPOINT
from ptal_ray.study.study import Study
from ptal_ray.study.view import StudyView, TrialView


class Retention:
    """Removes the checkpoints that a study does not keep, on this machine and in its remote
    storage.

    Args:
        study: determines how many complete trials keep theirs.
        view: its events so far; checkpoints that a killed driver did not remove are removed now.

    Raises:
        StorageError: the storage cannot be reached.
    """

    def __init__(self, study: Study, view: StudyView) -> None:
        self._study = study
        self._most = study.keep_checkpoints or study.space.final.top
        self._kept: list[tuple[float, int]] = []
        ended = [t for t in view.trials if t.state != "running"]
        dropped = [self._dropped_by(t.number, _objective(t)) for t in ended]
        there = set((study.place / "trials").names()) if study.remote else set()
        for number in dropped:
            if number is not None and (study.remote == "" or f"{number:05d}/{CHECKPOINT}" in there):
                study.run_folder(number).forget()

    def ended(self, number: int, objective: float | None) -> None:
        """Take the end of a trial; `objective` is its last one, or None if it is not complete.

        Raises:
            StorageError: the storage cannot be reached.
        """
        dropped = self._dropped_by(number, objective)
        if dropped is not None:
            self._study.run_folder(dropped).forget()

    def _dropped_by(self, number: int, objective: float | None) -> int | None:
        """The trial that loses its checkpoint when this one ends."""
        if objective is None:
            return number
        self._kept = sorted([*self._kept, (-objective, number)])
        return self._kept.pop()[1] if len(self._kept) > self._most else None


def _objective(trial: TrialView) -> float | None:
    return trial.objective if trial.state == "complete" and trial.finite else None
