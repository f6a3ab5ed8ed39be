"""Values of a search space that follow from the data: what a rule is, and those that many share.

A rule is a pure function of the facts of a dataset and of the values known so far. It gives a value
and says what it follows from, in the words that `--dry-run` prints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ptal_ray.data.facts import Facts

Values = Mapping[str, Any]  # "section.key" -> value; of a searched parameter one of its values


class Found(NamedTuple):
    """What a rule gives.

    Args:
        value: of its key.
        why: what it follows from, with its inputs.
    """

    value: bool | int | float
    why: str


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One value that follows from the data.

    Args:
        key: "section.key" of a search space, or "section.key.default" of a searched parameter, for
            spaces that search it and state no default.
        find: (facts, values) -> the value and its reason. Has `values` of every other key of the
            method and of the rules before.
    """

    key: str
    find: Callable[[Facts, Values], Found]


def power_of_two(value: float) -> int:
    """The greatest power of two that is not above `value`, at least 1."""
    return int(2 ** math.floor(math.log2(max(value, 1))))


def bounded(value: float, least: float, most: float) -> float:
    """`value`, or the bound that it passes."""
    return min(max(value, least), most)


def selected(videos: int, fraction: float) -> int:
    """Videos of the training split that select, as `data.splits.fold` counts them."""
    return min(max(round(fraction * videos), 1), videos - 1) if videos > 1 else 0


def fitted(facts: Facts, values: Values, every: bool = False) -> int:
    """Videos that a trial trains on: those that do not select, and of these the annotated share.

    Args:
        facts, values: of the dataset and the search space.
        every: those without annotations too, of a training that needs none.
    """
    rest = facts.videos - selected(facts.videos, float(values["selection.val_fraction"]))
    share = 1.0 if every else float(values.get("train.labelled_fraction", 1.0))
    return max(round(rest * share), 1)


def length_t(facts: Facts, values: Values, whole: bool = False) -> int:
    """Snippets of a long video as training sees it: resampled, or cropped.

    Args:
        facts, values: of the dataset and the search space.
        whole: of a training that does not crop.
    """
    if resampled := int(values["train.resample_to"]):
        return resampled
    return facts.long_t if whole else min(facts.long_t, int(values["train.max_snippets"]))


def resampling(to: int) -> Rule:
    """Videos with few, long actions are resampled; others keep their length.

    With at most three actions a video, as on ActivityNet, an action takes much of its video, so
    that a coarse grid loses nothing and batches are not mostly padding.

    Args:
        to: most snippets after it.
    """

    def find(facts: Facts, values: Values) -> Found:
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
        most: videos; twice as many from 1,000 training videos on, where passes are long.
        snippets: that a batch of long videos may hold, which bounds memory.
        share: so many batches in a pass, at least, where there are enough videos.
        key: what it sets.
        whole: whether that training does not crop.
    """

    def find(facts: Facts, values: Values) -> Found:
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
        least: steps, as a model that starts from nothing needs some on the smallest data too.
        most: steps, as no published recipe takes more however large its data are.
        size: the key that says the videos of a batch.
        key: what it sets.
        every: whether videos without annotations count in a pass.
    """

    def find(facts: Facts, values: Values) -> Found:
        videos, many = fitted(facts, values, every), int(values[size])
        value = round(bounded(epochs * videos / many, least, most))
        why = f"{epochs} passes over {videos} videos, {many} a batch, in [{least}, {most}]"
        return Found(value, why)

    return Rule(key=key, find=find)


def width(key: str, least: int, most: int, most_cpu: int, share: int = 1) -> Rule:
    """Channels: a power of two near the numbers of a snippet.

    Args:
        key: what it sets.
        least: channels, a power of two.
        most, most_cpu: channels on a GPU and without one, where time grows with their square.
        share: a channel for so many numbers.
    """

    def find(facts: Facts, values: Values) -> Found:
        limit = most if facts.gpu else most_cpu
        near = 2 ** math.ceil(math.log2(max(facts.dim / share, 1)))
        part = f"D = {facts.dim}" if share == 1 else f"D / {share}, D = {facts.dim}"
        why = f"power of two from {part}, in [{least}, {limit}] on a {device(facts)}"
        return Found(int(bounded(near, least, limit)), why)

    return Rule(key=key, find=find)


def part(key: str, of: str, share: float, least: int, most: int) -> Rule:
    """Channels in proportion to others.

    Args:
        key: what it sets.
        of: the key of the others.
        share: channels for each of them.
        least, most: bounds.
    """

    def find(facts: Facts, values: Values) -> Found:
        value = int(bounded(int(values[of]) * share, least, most))
        return Found(value, f"{share:g} x {of}, in [{least}, {most}]")

    return Rule(key=key, find=find)


def by_device(key: str, cpu: int, gpu: int) -> Rule:
    """A size that costs time alone: smaller without a GPU."""

    def find(facts: Facts, values: Values) -> Found:
        return Found(gpu if facts.gpu else cpu, f"{cpu} on a CPU, {gpu} on a GPU")

    return Rule(key=key, find=find)


def window(least: int, most: int) -> Rule:
    """Positions that attention spans: an odd number, a twentieth of a video.

    Args:
        least, most: bounds, odd.
    """

    def find(facts: Facts, values: Values) -> Found:
        length = int(values["train.resample_to"]) or facts.median_t
        value = int(bounded(length // 20, least, most)) // 2 * 2 + 1
        why = f"odd, a twentieth of {length} snippets, in [{least}, {most}]"
        return Found(value, why)

    return Rule(key="train.window", find=find)


def learning_rate(
    product: float, *, key: str = "train.lr.default", size: str = "budget.max_steps"
) -> Rule:
    """A learning rate by which rate times steps is what was published: fewer steps, larger ones.

    Args:
        product: rate times steps.
        key: what it sets.
        size: the key of the steps.
    """

    def find(facts: Facts, values: Values) -> Found:
        number = int(values[size])
        value = float(f"{bounded(product / max(number, 1), 1e-4, 1e-3):.3g}")
        return Found(value, f"{product:g} / {number} steps, in [1e-4, 1e-3]")

    return Rule(key=key, find=find)


def device(facts: Facts) -> str:
    """ "GPU" or "CPU"."""
    return "GPU" if facts.gpu else "CPU"
