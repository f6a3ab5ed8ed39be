"""Rules that compute values of a search space from the data: their type, and shared rules.

A rule is a pure function of the facts of a dataset and of the values known so far. It returns a
value and its reason, as printed by `--dry-run`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ptal_ray.data.facts import Facts

Values = Mapping[str, Any]  # "section.key" -> value; for a searched parameter one of its values


class Found(NamedTuple):
    """The result of a rule.

    Args:
        value: the value.
        why: the reason, with its inputs.
    """

    value: bool | int | float
    why: str


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One value that is computed from the data.

    Args:
        key: "section.key" of a search space, or "section.key.default" of a searched parameter, for
            spaces that search it and state no default.
        find: (facts, values) -> the value and its reason. Has `values` of every other key of the
            method and of the rules before.
    """

    key: str
    find: Callable[[Facts, Values], Found]


def power_of_two(value: float) -> int:
    """The largest power of two not above `value`, at least 1."""
    return int(2 ** math.floor(math.log2(max(value, 1))))


def bounded(value: float, least: float, most: float) -> float:
    """`value`, limited to the bounds."""
    return min(max(value, least), most)


def selected(videos: int, fraction: float) -> int:
    """Number of selection videos of the training split, as in `data.splits.fold`."""
    return min(max(round(fraction * videos), 1), videos - 1) if videos > 1 else 0


def fitted(facts: Facts, values: Values, every: bool = False) -> int:
    """Number of training videos of a trial: without the selection fold, and only the annotated
    ones.

    Args:
        facts, values: of the dataset and the search space.
        every: whether to count videos without annotations too.
    """
    rest = facts.videos - selected(facts.videos, float(values["selection.val_fraction"]))
    share = 1.0 if every else float(values.get("train.labelled_fraction", 1.0))
    return max(round(rest * share), 1)


def length_t(facts: Facts, values: Values, whole: bool = False) -> int:
    """Snippets of a long video in training: resampled, or cropped.

    Args:
        facts, values: of the dataset and the search space.
        whole: whether training does not crop.
    """
    if resampled := int(values["train.resample_to"]):
        return resampled
    return facts.long_t if whole else min(facts.long_t, int(values["train.max_snippets"]))


def resampling(to: int) -> Rule:
    """Videos with few, long actions are resampled; others keep their length.

    With at most three actions per video, as on ActivityNet, an action covers much of its video, so
    a coarse grid loses nothing and batches are not mostly padding.

    Args:
        to: maximal number of snippets afterwards.
    """

    def find(facts: Facts, values: Values) -> Found:
        """The value that follows from the data and from earlier values, and why."""
        number = f"{facts.points_a_video:.1f} actions a video"
        if facts.points_a_video > 3:
            return Found(0, f"{number}, more than 3: every video keeps its length")
        why = f"{number}, at most 3; the median of {facts.median_t} snippets in [32, {to}]"
        return Found(int(bounded(facts.median_t, 32, to)), why)

    return Rule(key="train.resample_to", find=find)


def batch(
    most: int, snippets: int, share: int = 1, *, key: str = "train.batch_size", whole: bool = False
) -> Rule:
    """Videos of a batch: a power of two that the training videos and memory allow.

    Args:
        most: videos; twice as many from 1,000 training videos on, because epochs are long.
        snippets: maximal number in a batch of long videos, to limit memory.
        share: minimal number of batches per epoch, if there are enough videos.
        key: the key to set.
        whole: whether this training does not crop.
    """

    def find(facts: Facts, values: Values) -> Found:
        """The value that follows from the data and from earlier values, and why."""
        videos, length = fitted(facts, values), length_t(facts, values, whole)
        limit = most * (2 if videos >= 1000 else 1)
        wanted = min(videos, max(videos / share, 2))
        of = f"{videos} videos" + (f" / {share}" if share > 1 else "")
        why = f"power of two from {of}, at most {limit} and {snippets} snippets, {length} a video"
        return Found(power_of_two(min(wanted, limit, snippets / length)), why)

    return Rule(key=key, find=find)


def steps(
    epochs: int, least: int, most: int, *, size: str = "train.batch_size",
    key: str = "budget.max_steps", every: bool = False,
) -> Rule:  # fmt: skip
    """Optimiser steps: passes over the training videos, within bounds.

    Args:
        epochs: passes.
        least: steps; a model needs some even on the smallest data.
        most: steps; no published recipe has more, even for large data.
        size: the key of the batch size.
        key: the key to set.
        every: whether videos without annotations count in an epoch.
    """

    def find(facts: Facts, values: Values) -> Found:
        """The value that follows from the data and from earlier values, and why."""
        videos, many = fitted(facts, values, every), int(values[size])
        value = round(bounded(epochs * videos / many, least, most))
        why = f"{epochs} passes over {videos} videos, {many} a batch, in [{least}, {most}]"
        return Found(value, why)

    return Rule(key=key, find=find)


def width(key: str, least: int, most: int, most_cpu: int, share: int = 1) -> Rule:
    """Channels: a power of two near the number of features of a snippet.

    Args:
        key: the key to set.
        least: channels, a power of two.
        most, most_cpu: channels with and without a GPU; time grows with their square.
        share: number of features per channel.
    """

    def find(facts: Facts, values: Values) -> Found:
        """The value that follows from the data and from earlier values, and why."""
        limit = most if facts.gpu else most_cpu
        near = 2 ** math.ceil(math.log2(max(facts.dim / share, 1)))
        part = f"D = {facts.dim}" if share == 1 else f"D / {share}, D = {facts.dim}"
        why = f"power of two from {part}, in [{least}, {limit}] on a {device(facts)}"
        return Found(int(bounded(near, least, limit)), why)

    return Rule(key=key, find=find)


def part(key: str, of: str, share: float, least: int, most: int) -> Rule:
    """Channels in proportion to others.

    Args:
        key: the key to set.
        of: the key of the others.
        share: channels per channel of the others.
        least, most: bounds.
    """

    def find(facts: Facts, values: Values) -> Found:
        """The value that follows from the data and from earlier values, and why."""
        value = int(bounded(int(values[of]) * share, least, most))
        return Found(value, f"{share:g} x {of}, in [{least}, {most}]")

    return Rule(key=key, find=find)


def by_device(key: str, cpu: int, gpu: int) -> Rule:
    """A size that only affects time: smaller without a GPU."""

    def find(facts: Facts, values: Values) -> Found:
        """The value that follows from the data and from earlier values, and why."""
        return Found(gpu if facts.gpu else cpu, f"{cpu} on a CPU, {gpu} on a GPU")

    return Rule(key=key, find=find)


def window(least: int, most: int) -> Rule:
    """Number of positions of an attention window: odd, a twentieth of a video.

    Args:
        least, most: bounds, odd.
    """

    def find(facts: Facts, values: Values) -> Found:
        """The value that follows from the data and from earlier values, and why."""
        length = int(values["train.resample_to"]) or facts.median_t
        value = int(bounded(length // 20, least, most)) // 2 * 2 + 1
        why = f"odd, a twentieth of {length} snippets, in [{least}, {most}]"
        return Found(value, why)

    return Rule(key="train.window", find=find)


def learning_rate(
    product: float, *, key: str = "train.lr.default", size: str = "budget.max_steps"
) -> Rule:
    """A learning rate such that rate times steps equals the published product.

    Args:
        product: rate times steps.
        key: the key to set.
        size: the key of the steps.
    """

    def find(facts: Facts, values: Values) -> Found:
        """The value that follows from the data and from earlier values, and why."""
        number = int(values[size])
        value = float(f"{bounded(product / max(number, 1), 1e-4, 1e-3):.3g}")
        return Found(value, f"{product:g} / {number} steps, in [1e-4, 1e-3]")

    return Rule(key=key, find=find)


def device(facts: Facts) -> str:
    """ "GPU" or "CPU"."""
    return "GPU" if facts.gpu else "CPU"
