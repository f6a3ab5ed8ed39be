"""Rules for searches of POTLoc on the user's own data."""

from __future__ import annotations

import math

from ptal_ray.data.facts import Facts
from ptal_ray.methods.rules import (
    Found,
    Rule,
    Values,
    batch,
    bounded,
    learning_rate,
    resampling,
    steps,
    width,
    window,
)


def levels(facts: Facts, values: Values) -> Found:
    """Levels whose range is the distance between points, since no action is longer.

    Level 0 covers six snippets, and each further level twice as many.
    """
    length = int(values["train.resample_to"]) or facts.median_t
    gap = length / max(facts.points_a_video, 1)
    value = round(bounded(math.log2(max(gap, 1) / 6), 1, 4))
    return Found(value, f"{gap:.0f} snippets a point, 6 x 2^levels of them, in [1, 4]")


RULES = (
    resampling(192),  # P, of ActivityNet
    batch(16, 32_000, key="train.base_batch_size", whole=True),
    width("train.base_embed_dim", 128, 2048, 512),
    steps(200, 400, 4000, size="train.base_batch_size", key="train.base_steps"),
    learning_rate(0.4, key="train.base_lr", size="train.base_steps"),  # C: 4,000 steps at 1e-4
    batch(32, 32_000, 36),  # C: 4 of THUMOS14, 64 of ActivityNet
    width("train.width", 64, 512, 128, share=2),
    Rule(key="train.levels", find=levels),
    window(5, 19),
    steps(60, 300, 4000),  # C: 50 passes
    learning_rate(0.2),  # C: 1e-4, 2,000 steps
)
