"""Rules for searches of LACP on the user's own data."""

from __future__ import annotations

from ptal_ray.methods.rules import batch, learning_rate, resampling, steps, width

RULES = (
    resampling(200),  # C, of ActivityNet
    batch(16, 32_000, whole=True),  # C: 16 whole videos of THUMOS14
    width("train.embed_dim", 128, 2048, 512),  # C: 2048, the number of features per snippet
    steps(200, 400, 20_000),  # C: 2,000 steps of 16 of 200 videos
    learning_rate(0.2),  # C: 1e-4, 2,000 steps
)
