"""Rules for searches of ActionFormer, BMN or APL on the user's own data."""

from __future__ import annotations

import math

from ptal_ray.data.facts import Facts
from ptal_ray.methods.rules import (
    Found,
    Rule,
    Values,
    batch,
    bounded,
    device,
    learning_rate,
    part,
    resampling,
    steps,
    width,
    window,
)


def levels(facts: Facts, values: Values) -> Found:
    """Levels such that the last regresses the longest action and still has a few positions."""
    length = int(values["train.resample_to"]) or facts.median_t
    longest, first = min(facts.longest_action_t, length), float(values["train.first_range"])
    wanted = math.ceil(math.log2(max(longest / first, 1)))
    most = int(bounded(math.log2(max(length / 8, 1)), 1, 6))
    why = f"{first:g} x 2^levels holds the longest action, {longest:.0f} snippets, in [1, {most}]"
    return Found(int(bounded(wanted, 1, most)), why)


def bmn_window(facts: Facts, values: Values) -> Found:
    """Windows twice as long as the longest action, so that it is completely in one of the windows
    that overlap by half. Time and memory grow with their square."""
    if values["train.resample_to"]:
        return Found(0, "the resampled video")
    longest, most = max(facts.longest_action_t, 1.0), 256 if facts.gpu else 128
    value = int(bounded(2 ** math.ceil(math.log2(2 * longest)), 64, most))
    why = f"power of two from twice the longest action, {longest:.0f} snippets, in [64, {most}]"
    return Found(value, f"{why} on a {device(facts)}")


def bmn_crop(facts: Facts, values: Values) -> Found:
    """A training video is cropped to one window."""
    crop = int(values["train.window"]) or int(values["train.max_snippets"])
    return Found(crop, "a window; without effect on resampled videos")


def bmn_longest(facts: Facts, values: Values) -> Found:
    """Proposals as long as half a window, or as the resampled video."""
    whole = int(values["train.resample_to"])
    half = int(values["train.window"]) // 2
    return Found(whole or half, "the resampled video" if whole else "half a window")


ACTIONFORMER = (
    resampling(192),  # C, of ActivityNet
    batch(8, 36_000, 80),  # C: 2 of THUMOS14, 16 of ActivityNet
    width("train.width", 64, 512, 128, share=2),
    Rule(key="train.levels", find=levels),
    window(7, 19),
)
BMN = (
    resampling(100),  # C, of ActivityNet
    Rule(key="train.window", find=bmn_window),
    Rule(key="train.max_snippets", find=bmn_crop),
    Rule(key="train.longest", find=bmn_longest),
    batch(16, 2048),  # C: 16 windows of 128
    width("train.base_dim", 64, 256, 128),
    part("train.sample_dim", "train.base_dim", 2, 128, 512),
    part("train.map_dim", "train.base_dim", 1 / 2, 32, 128),
)
STAGES = (  # of APL on either detector
    steps(15, 60, 9400, key="train.pretrain_steps", every=True),  # P: 15 passes
    steps(150, 200, 5000, key="train.supervised_steps"),
    learning_rate(0.2, key="train.early_lr", size="train.supervised_steps"),  # P: 1e-4, 2,000 steps
    steps(60, 300, 10_000, every=True),
)
