"""The policy with one fold: all configurations on one fold, the best again with several seeds."""

from __future__ import annotations

from ptal_ray.policy.halving import Halving
from ptal_ray.policy.optuna_searcher import OptunaSearcher
from ptal_ray.space.domain import Scalar
from ptal_ray.study.event_types import Recommendation, TrialEnd
from ptal_ray.study.finals import candidates
from ptal_ray.study.policy import Suggestion
from ptal_ray.study.study import Study
from ptal_ray.study.view import StudyView, TrialView, in_order, summarise
from ptal_ray.training.selection import objective_name


class SimplePolicy:
    """A trial is a configuration on the fold of the space, with the seed of the study; the defaults
    are trial 0. Successive halving stops trials, except the defaults.

    It does not compare with the defaults: it recommends the best configuration, by chance or not.

    Args:
        study: the study.
    """

    def __init__(self, study: Study) -> None:
        self._study, self._searcher = study, OptunaSearcher(study)
        self.reselects = study.space.selection.metric != "test"  # nothing left to check
        self._halving = Halving(study.space.budget.eta) if study.scheduler == "asha" else None

    def restore(self, view: StudyView) -> set[int]:
        """Take the trials of an interrupted run; see `Policy`."""
        self._searcher.restore(view.trials)
        stop = {}
        for trial, report in in_order(view.trials):
            if report:
                stop[trial.number] = self._stops(trial.number, report.step, report.objective)
        return {t.number for t in view.trials if t.state == "running" and stop.get(t.number)}

    def spend(self, share: float) -> None:
        """Does nothing: the budget is the number of trials."""

    def suggest(self, number: int) -> Suggestion | None:
        """Trial `number`, up to the number of trials of the study."""
        if number >= self._study.num_trials:
            return None
        params = self._searcher.suggest(number)
        if params is None:
            return None
        return Suggestion(params=params, arm=number, seed=self._study.seed)

    def report(self, number: int, step: int, objective: float) -> bool:
        """Whether successive halving stops the trial."""
        self._searcher.report(number, step, objective)
        return self._stops(number, step, objective)

    def _stops(self, number: int, step: int, objective: float) -> bool:
        if self._halving is None or step >= self._study.space.budget.max_steps:
            return False
        low = self._halving.take(number, step, objective)
        return low and (number > 0 or self._study.searcher == "grid")

    def finish(self, end: TrialEnd, settings: tuple[float, ...], step: int) -> None:
        """Take the end of a trial."""
        self._searcher.finish(end.trial, end.state)

    def annotate(self, number: int, **attributes: Scalar) -> None:
        """Record facts in the journal."""
        self._searcher.annotate(number, **attributes)

    def recommend(self, view: StudyView) -> Recommendation | None:
        """The candidate with the best reselect runs, else the best trial."""
        if not view.best:
            return None
        best = _winner(self._study, view)
        decode = best.reports[-1].decode
        resolve = self._study.space.resolve_train
        trial = None if resolve(best.params) == resolve({}) else best.number
        return Recommendation(
            arm=best.arm, trial=trial, params=best.params, decode=decode, difference={}
        )


def _winner(study: Study, view: StudyView) -> TrialView:
    top = candidates(study, view)
    figure = f"val/{objective_name(study.space.selection.metric)}"
    means = [
        summarise(view.runs("reselect", f"candidate{k}")).get(figure)
        for k in range(1, len(top) + 1)
    ]
    judged = [(m.mean, -k) for k, m in enumerate(means) if m is not None]
    return top[-max(judged)[1]] if judged else top[0]
