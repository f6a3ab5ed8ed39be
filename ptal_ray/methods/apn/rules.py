"""Rules for searches of APN on the user's own data."""

from __future__ import annotations

from ptal_ray.methods.rules import batch, by_device, learning_rate, part, resampling, steps, width

RULES = (
    resampling(100),  # P, of ActivityNet
    batch(16, 24_000),
    width("train.embed_dim", 128, 512, 256),
    part("train.encoder_width", "train.embed_dim", 1 / 2, 64, 512),
    by_device("train.encoder_layers", 1, 2),
    by_device("train.num_samples", 16, 32),
    by_device("train.proposals_per_video", 24, 48),
    steps(150, 150, 18_800),  # longer training overfits small data
    learning_rate(0.2),  # ours: 1e-4, 1,800 steps on THUMOS14
)
