"""The posterior of the scores of configurations, given a few noisy cells of each.

A cell is a configuration trained on all folds but one, with one seed, and scored on that fold.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Variances as multiples of that of the noise of one cell. The posterior averages over all of them,
# weighted by how likely they make the scores.
CONFIGURATION = (0.04, 0.25, 1.0, 4.0, 16.0, 64.0)
CELL = (0.25, 4.0)  # effect of fold and seed on all configurations
INTERACTION = 0.25  # effect of a fold on one configuration
SMOOTH_SHARE, LENGTHS = 0.8, (0.5, 1.5)  # of the variance, and length scales per sqrt(dimension)
MEAN = 100.0  # variance of the common mean, which is not known beforehand
LEAST_WEIGHT = 1e-9  # less likely variances are ignored


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The posterior for given variance ratios.

    Args:
        likelihood: logarithm.
        prior: (A, A) covariance of the configurations.
        arm: (N,) row of `prior`.
        lower: (N, N) Cholesky factor of the covariance of the scores.
        half: (N,) the scores without their mean, divided by `lower`.
        noise: variance of one cell.
    """

    likelihood: float
    prior: Floats
    arm: Ints
    lower: Floats
    half: Floats
    noise: float

    @cached_property
    def _gain(self) -> Floats:
        """(N, A)"""
        wide = self.prior[self.arm] + MEAN
        found: Floats = solve_triangular(self.lower, wide, lower=True, check_finite=False)
        return found

    def mean(self, middle: float) -> Floats:
        """(A,)"""
        back = solve_triangular(self.lower, self.half, lower=True, trans="T", check_finite=False)
        found: Floats = middle + (self.prior[:, self.arm] + MEAN) @ back
        return found

    def covariance(self) -> Floats:
        """(A, A)"""
        return self.noise * (self.prior + MEAN - self._gain.T @ self._gain)


@dataclass(frozen=True, kw_only=True)
class Belief:
    """The posterior of the scores of configurations, averaged over folds and seeds.

    Args:
        mean: (A,) fractions of mAP.
        noise: variance of one cell around the score of its configuration, without the part that all
            configurations share in a cell.
        parts: posteriors for given variances: their weight, mean (A,) and the rest.
    """

    mean: Floats
    noise: float
    parts: tuple[tuple[float, Floats, _Part], ...]

    @cached_property
    def covariance(self) -> Floats:
        """(A, A)"""
        found = np.zeros((len(self.mean), len(self.mean)))
        for weight, mean, part in self.parts:
            apart = mean - self.mean
            found += weight * (part.covariance() + np.outer(apart, apart))
        return found

    @cached_property
    def _factor(self) -> Floats:
        """(A, A) whose product with its transpose is the covariance."""
        values, vectors = np.linalg.eigh(self.covariance)
        found: Floats = vectors * np.sqrt(np.maximum(values, 0.0))
        return found

    def draw(self, rng: np.random.Generator) -> Floats:
        """(A,) scores drawn from the posterior."""
        return self.mean + self._factor @ rng.standard_normal(len(self.mean))

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

    The part of a configuration is a Gaussian process over `coordinates` plus an independent part.
    Scores far below all others are raised, so that a failed one does not hide the differences of
    the rest.

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
    best = max(part.likelihood for part in found)
    found = [part for part in found if part.likelihood > best + np.log(LEAST_WEIGHT)]
    weight = np.exp([part.likelihood - best for part in found])
    weight /= weight.sum()
    means = [part.mean(float(y.mean())) for part in found]
    noise = float(weight @ np.array([part.noise for part in found])) * (1 + INTERACTION)
    return Belief(
        mean=weight @ np.stack(means),
        noise=noise,
        parts=tuple(zip(weight.tolist(), means, found, strict=True)),
    )


def _without_failures(y: Floats) -> Floats:
    middle = float(np.median(y))
    return np.clip(y, middle - 2 * (float(y.max()) - middle), None)


def _kernels(coordinates: Floats) -> Iterator[Floats]:
    """Correlations (A, A) of configurations: independent, and two that decrease with distance."""
    own = np.eye(len(coordinates))
    yield own
    apart = ((coordinates[:, None] - coordinates) ** 2).sum(-1) / max(coordinates.shape[1], 1)
    for length in LENGTHS:
        yield SMOOTH_SHARE * np.exp(-apart / (2 * length**2)) + (1 - SMOOTH_SHARE) * own


def _posterior(y: Floats, arm: Ints, prior: Floats, rest: Floats) -> _Part:
    """The posterior for given variance ratios.

    The noise variance has a weak inverse gamma prior of one cell, at a hundredth of mAP.
    """
    covariance = prior[np.ix_(arm, arm)] + rest + MEAN
    lower = np.asarray(np.linalg.cholesky(covariance), np.float64)
    half = solve_triangular(lower, y - y.mean(), lower=True, check_finite=False)
    noise = float((half @ half + 1e-4) / (len(y) + 1))
    likelihood = -0.5 * (len(y) + 1) * np.log(noise) - np.log(np.diag(lower)).sum()
    return _Part(
        likelihood=float(likelihood), prior=prior, arm=arm, lower=lower, half=half, noise=noise
    )
