"""Rules for searches of FS-PTAL on the user's own data."""

from __future__ import annotations

from ptal_ray.methods.rules import batch, learning_rate, part, resampling, steps, width

RULES = (
    resampling(200),  # as in LACP, which it extends
    batch(16, 32_000, whole=True),
    width("train.embed_dim", 128, 2048, 512),
    part("train.separation_hidden", "train.embed_dim", 1 / 4, 64, 512),
    part("train.separation_dim", "train.embed_dim", 1 / 16, 32, 128),
    steps(200, 400, 20_000),
    learning_rate(0.2),
)
