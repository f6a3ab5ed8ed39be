"""Selection on the test split, as in tables of papers, and by how much it raises results.

A trial of such a study trains as usual and is scored twice at every report: on its selection fold
and on the test split. The search maximises the mAP on the test split, with the decode parameters
that are best there. The configuration that the selection fold would have chosen is tested too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ptal_ray.errors import ConfigError
from ptal_ray.space.domain import Scalar
from ptal_ray.space.space import SearchSpace
from ptal_ray.study.choices import PAPER_COMPAT, PROTOCOLS
from ptal_ray.study.conclusion import Interval, difference
from ptal_ray.study.view import StudyView, TrialView
from ptal_ray.training.config import DECODE_SETTING, TEST_AS_VALIDATED
from ptal_ray.training.decoding import decode_settings

VALIDATED = "validated"  # arm of the test runs of the configuration that validation would choose


@dataclass(frozen=True, kw_only=True)
class SelectionGain:
    """The gain from selecting on the test split; fractions of test mAP.

    Args:
        chosen, validated: the trials selected by the test split and by the selection fold.
        read: test mAP of `chosen` with the decode parameters that are best on the test split.
        honest: test mAP of `validated` with those that are best on the selection fold.
        tested: `chosen` minus `validated` in their test runs; None before both have some.
    """

    chosen: int
    validated: int
    read: float
    honest: float
    tested: Interval | None

    @property
    def text(self) -> str:
        """One sentence."""
        said = (
            f"Selected on the test split: trial {self.chosen} has {100 * self.read:.1f} % mAP "
            f"there; trial {self.validated}, which validation selects in the same study, has "
            f"{100 * self.honest:.1f} %; the difference is {100 * (self.read - self.honest):+.1f}"
        )
        return said + (f", and {self.tested} in the test runs." if self.tested else ".")


def check_protocol(space: SearchSpace, protocol: str) -> None:
    """Check that the space and the flag agree on whether the test split is sealed.

    Raises:
        ConfigError: only one of them opens it, or the policy compares on folds.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"--protocol {protocol}: unknown; allowed are {', '.join(PROTOCOLS)}")
    on_test = space.selection.metric == "test"
    if on_test and protocol != PAPER_COMPAT:
        raise ConfigError(
            f"{space.name}: selection.metric: test selects on the test split, which is sealed; "
            f"pass --set selection.metric=map, or pass --protocol {PAPER_COMPAT}; then every table "
            "states it"
        )
    if not on_test and protocol == PAPER_COMPAT:
        raise ConfigError(
            f"--protocol {PAPER_COMPAT}: selects on the test split, but {space.name} has "
            f"selection.metric: {space.selection.metric}; add --set selection=test"
        )
    if on_test and space.policy != "simple":
        raise ConfigError(
            f"--protocol {PAPER_COMPAT}: not possible with policy: {space.policy}, which compares "
            "on folds; pass --policy simple"
        )


def on_test(view: StudyView) -> bool:
    """Whether a study selected on the test split."""
    return view.start is not None and view.start.protocol == PAPER_COMPAT


def validated(view: StudyView) -> TrialView | None:
    """The complete trial that is best on the selection fold; None before there is one."""
    done = view.complete
    return max(done, key=lambda t: (t.reports[-1].metrics["val/mAP_avg"], -t.number), default=None)


def validated_decode(space: SearchSpace, trial: TrialView) -> dict[str, Scalar]:
    """All decode parameters that the selection fold chose in the last report of a trial."""
    start: Any = space.decode_params()
    own = space.selection
    tried = decode_settings(start, space.decode, own.decode_settings, own.fold_seed)
    return dict(vars(tried[int(trial.reports[-1].metrics[DECODE_SETTING])]))


def selection_gain(view: StudyView) -> SelectionGain | None:
    """The gain in a study; None with a sealed test split, or without enough results."""
    honest = validated(view) if on_test(view) else None
    if honest is None:
        return None
    best = max(view.complete, key=lambda t: (t.reports[-1].objective, -t.number))
    return SelectionGain(
        chosen=best.number,
        validated=honest.number,
        read=best.reports[-1].objective,
        honest=honest.reports[-1].metrics[TEST_AS_VALIDATED],
        tested=difference(view, "best", VALIDATED),
    )


def remark(view: StudyView) -> str:
    """The note for every table of a study; "" for a sealed test split."""
    return "selected on the test split" if on_test(view) else ""
