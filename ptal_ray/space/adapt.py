"""Rules that compute values of a search space from the data, for the user's own data.

Such a space has no `dataset:`. Values that neither its file nor `--set` states are computed by the
rules of the method (`Method.rules`) and by those here, which apply to every method.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch

from ptal_ray.data.facts import Facts, facts
from ptal_ray.data.splits import labelled
from ptal_ray.data.store import FeatureStore
from ptal_ray.methods.method import AnyMethod, with_values
from ptal_ray.methods.rules import Found, Rule, Values, bounded, selected

CROSS_FITTED = 200  # with fewer selection videos, decode settings are cross-fitted


@dataclass(frozen=True, kw_only=True)
class Derived:
    """A value of a search space that was computed from its data.

    Args:
        key: "section.key", or "section.key.default" of a searched parameter.
        value: as in the space.
        why: the reason, with its inputs.
    """

    key: str
    value: bool | int | float
    why: str


def val_fraction(facts: Facts, values: Values) -> Found:
    """Number of selection videos: 0.6 V^0.8, so 5 of 14, 41 of 200, a thousand of ten thousand.

    The error of their mAP falls with the root of their number, and more training videos help less
    the more there are. So the fraction falls and the number rises with V. There are at most as many
    folds as groups.
    """
    number = selected(facts.videos, 0.6 * facts.videos**-0.2)
    share = bounded(round(number / facts.videos, 4), 0.01, 0.5)
    folds = max(2, round(1 / share))
    why = f"0.6 V^0.8 = {number} of V = {facts.videos} training videos for selection, {folds} folds"
    if not facts.groups or folds <= facts.groups:
        return Found(share, why)
    why += f"; only {facts.groups} here, because folds split none of the {facts.groups} groups"
    return Found(round(1 / facts.groups, 4), why)


def cross_fit(facts: Facts, values: Values) -> Found:
    """On few videos, decode settings tuned on the same videos give optimistic results."""
    number = selected(facts.videos, float(values["selection.val_fraction"]))
    why = (
        f"{number} videos select; below {CROSS_FITTED} decoding is tuned on the other half of them"
    )
    return Found(number < CROSS_FITTED, why)


def decode_settings(facts: Facts, values: Values) -> Found:
    """A report decodes all selection videos once per setting: at most 6,400 decodings."""
    number = selected(facts.videos, float(values["selection.val_fraction"]))
    value = int(bounded(6400 // max(number, 1), 16, 64))
    return Found(value, f"6400 decodings per report of {number} videos, in [16, 64]")


def gpus_per_worker(facts: Facts, values: Values) -> Found:
    """Two trials share a GPU, because with one trial it waits for the CPU at every report."""
    here = "has a GPU, which two trials share" if facts.gpu else "has no GPU that PyTorch can use"
    return Found(0.5 if facts.gpu else 0.0, f"this machine {here}")


def min_steps(facts: Facts, values: Values) -> Found:
    """The first report is early enough for two more rungs."""
    most, eta = int(values["budget.max_steps"]), int(values["budget.eta"])
    return Found(-(-most // eta**2), f"{most} steps / {eta}^2, rounded up")


BEFORE = (
    Rule(key="selection.val_fraction", find=val_fraction),
    Rule(key="selection.cross_fit", find=cross_fit),
    Rule(key="selection.decode_settings", find=decode_settings),
    Rule(key="resources.gpus_per_worker", find=gpus_per_worker),
)
AFTER = (Rule(key="budget.min_steps", find=min_steps),)


def rules_of(method: AnyMethod) -> tuple[Rule, ...]:
    """All rules of a method, in the order in which they apply."""
    return (*BEFORE, *method.rules, *AFTER)


def known_of(method: AnyMethod, store: FeatureStore, values: Values) -> Facts:
    """The facts about a dataset that a method may use.

    Args:
        method: a method that learns from points uses no annotations, other methods those of their
            annotated videos.
        store: the dataset.
        values: of the search space, with the method's defaults; they determine which videos.

    Raises:
        DataError: it learns from annotations, and no training video is annotated.
    """
    annotated: tuple[str, ...] = ()
    if method.supervision != "point":
        train = {k.removeprefix("train."): v for k, v in values.items() if k.startswith("train.")}
        own = with_values(method.train_params, train).labelled()
        annotated = labelled(store, *own) if own else ()
    return facts(store, annotated, torch.cuda.is_available())


def derive(
    method: AnyMethod, facts: Facts, values: Values, wanted: Collection[str]
) -> tuple[Derived, ...]:
    """The values that are computed from the data.

    Args:
        method: the method.
        facts: of the dataset.
        values: of the search space by "section.key"; values that are not stated have their
            defaults.
        wanted: keys that the rules may set.

    Returns:
        One for each rule whose key is wanted, in the order in which they apply.
    """
    known, found = dict(values), []
    for rule in rules_of(method):
        if rule.key in wanted:
            value, why = rule.find(facts, known)
            known[rule.key] = value
            found.append(Derived(key=rule.key, value=value, why=why))
    return tuple(found)
