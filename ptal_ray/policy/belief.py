"""What to believe of configurations from a few noisy cells each: a posterior, never a maximum.

A cell is a configuration trained on all folds but one, with one seed, and scored on that fold.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Variances as multiples of that of the noise of one cell. The posterior averages over all of them,
# weighted by how likely they make the scores.
CONFIGURATION = (0.04, 0.25, 1.0, 4.0, 16.0, 64.0)
CELL = (0.25, 4.0)  # what fold and seed add to the score of every configuration
INTERACTION = 0.25  # what a fold adds to one configuration
SMOOTH_SHARE, LENGTHS = 0.8, (0.5, 1.5)  # of the variance, and length scales per sqrt(dimension)
MEAN = 100.0  # variance of the common mean: it is not known beforehand


@dataclass(frozen=True, kw_only=True)
class Belief:
    """The posterior of the scores of configurations, averaged over folds and seeds.

    Args:
        mean: (A,) fractions of mAP.
        covariance: (A, A).
        noise: variance of one cell around the score of its configuration, the part that all
            configurations share in a cell left out.
    """

    mean: Floats
    covariance: Floats
    noise: float

    @property
    def sd(self) -> Floats:
        """(A,) posterior standard deviations."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))


def believe(
    score: Sequence[float],
    arm: Sequence[int],
    cell: Sequence[int],
    fold: Sequence[int],
    coordinates: Floats,
) -> Belief:
    """The posterior given scores: mean + configuration + cell + (configuration x fold) + noise.

    The configuration's part is a Gaussian process over `coordinates` plus a part of its own. Scores
    far below all others are moved up, so that one that failed does not make the rest look alike.

    Args:
        score: (N,) of the cells.
        arm: (N,) row of `coordinates`.
        cell, fold: (N,) which cell, and its fold; the same for several arms.
        coordinates: (A, D) places of the configurations, see `place`.

    Source: empirical Bayes with the variances integrated over a grid; Rasmussen & Williams 2006,
    Eq. 2.25 and 5.8.
    """
    y = _without_failures(np.asarray(score, float))
    arms, cells, folds = (np.asarray(v, np.int64) for v in (arm, cell, fold))
    same_cell = (cells[:, None] == cells).astype(float)
    same_run = (arms[:, None] == arms) & (folds[:, None] == folds)
    rest = INTERACTION * same_run + np.eye(len(y))
    found = [
        _posterior(y, arms, variance * kernel, between * same_cell + rest)
        for variance, kernel, between in itertools.product(
            CONFIGURATION, _kernels(coordinates), CELL
        )
    ]
    likelihood = np.array([f[0] for f in found])
    weight = np.exp(likelihood - likelihood.max())
    weight /= weight.sum()
    means = np.stack([f[1] for f in found])
    mean = weight @ means
    covariance = sum(
        w * (f[2] + np.outer(f[1] - mean, f[1] - mean)) for w, f in zip(weight, found, strict=True)
    )
    noise = float(weight @ np.array([f[3] for f in found])) * (1 + INTERACTION)
    return Belief(mean=mean, covariance=np.asarray(covariance), noise=noise)


def _without_failures(y: Floats) -> Floats:
    middle = float(np.median(y))
    return np.clip(y, middle - 2 * (float(y.max()) - middle), None)


def _kernels(coordinates: Floats) -> Iterator[Floats]:
    """Correlations (A, A) of configurations: none, and two that fall with their distance."""
    own = np.eye(len(coordinates))
    yield own
    apart = ((coordinates[:, None] - coordinates) ** 2).sum(-1) / max(coordinates.shape[1], 1)
    for length in LENGTHS:
        yield SMOOTH_SHARE * np.exp(-apart / (2 * length**2)) + (1 - SMOOTH_SHARE) * own


def _posterior(
    y: Floats, arm: Ints, prior: Floats, rest: Floats
) -> tuple[float, Floats, Floats, float]:
    """(log likelihood, mean (A,), covariance (A, A), noise variance) for given variance ratios.

    The noise variance has a weak inverse gamma prior of one cell, at a hundredth of mAP.
    """
    covariance = prior[np.ix_(arm, arm)] + rest + MEAN
    lower = np.linalg.cholesky(covariance)
    middle = y.mean()
    half = np.linalg.solve(lower, y - middle)
    noise = float((half @ half + 1e-4) / (len(y) + 1))
    likelihood = -0.5 * (len(y) + 1) * np.log(noise) - np.log(np.diag(lower)).sum()
    gain = np.linalg.solve(lower, prior[arm] + MEAN)  # (N, A)
    mean = middle + gain.T @ half
    return float(likelihood), mean, noise * (prior + MEAN - gain.T @ gain), noise
