"""The posterior of the scores of configurations, given a few noisy cells of each.

A cell is a configuration trained on all folds but one, with one seed, and scored on that fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Variances as multiples of that of the noise of one cell. The posterior averages over all of them,
# weighted by how likely they make the scores.
CONFIGURATION = (0.04, 0.25, 1.0, 4.0, 16.0, 64.0)
CELL = (0.25, 4.0, 64.0)  # effect of fold and seed on all configurations
INTERACTION = 0.25  # effect of a fold on one configuration
SMOOTH_SHARE, LENGTHS = 0.8, (0.5, 1.5)  # of the variance, and length scales per sqrt(dimension)
MEAN = 100.0  # variance of the common mean, which is not known beforehand
LEAST_ABOVE = 0.02  # of the best score over the median, where most scores are equal
LEAST_WEIGHT = 1e-9  # less likely variances are ignored


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The posterior for given variance ratios.

    Args:
        prior: (A, A) covariance of the configurations.
        arm: (N,) row of `prior`.
        lower: (N, N) Cholesky factor of the covariance of the scores.
        noise: variance of one cell.
    """

    prior: Floats
    arm: Ints
    lower: Floats
    noise: float

    def mean(self, y: Floats) -> Floats:
        """(A,) from the scores (N,)."""
        middle = y.mean()
        back = cho_solve((self.lower, True), y - middle, check_finite=False)
        found: Floats = middle + (self.prior[:, self.arm] + MEAN) @ back
        return found

    def covariance(self) -> Floats:
        """(A, A)"""
        wide = self.prior[self.arm] + MEAN
        gain = solve_triangular(self.lower, wide, lower=True, check_finite=False)
        found: Floats = self.noise * (self.prior + MEAN - gain.T @ gain)
        return found


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

    def lead(self, arm: int, other: int) -> float:
        """How many posterior standard deviations of their difference an arm is above another."""
        known = self.covariance
        variance = known[arm, arm] + known[other, other] - 2 * known[arm, other]
        return float((self.mean[arm] - self.mean[other]) / np.sqrt(max(variance, 1e-12)))

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
    priors = np.multiply.outer(CONFIGURATION, _kernels(coordinates))  # (variances, kernels, A, A)
    own = priors[..., arms[:, None], arms][:, :, None]
    shared = np.multiply.outer(CELL, same_cell) + rest + MEAN
    lower = np.linalg.cholesky((own + shared).reshape(-1, len(y), len(y)))
    noise, likelihood = _likelihood(y - y.mean(), lower)
    kept = np.flatnonzero(likelihood > likelihood.max() + np.log(LEAST_WEIGHT))
    weight = np.exp(likelihood[kept] - likelihood.max())
    weight /= weight.sum()
    priors = np.repeat(priors.reshape(-1, *priors.shape[2:]), len(CELL), axis=0)
    found = [_Part(prior=priors[k], arm=arms, lower=lower[k], noise=float(noise[k])) for k in kept]
    means = [part.mean(y) for part in found]
    return Belief(
        mean=weight @ np.stack(means),
        noise=float(weight @ noise[kept]) * (1 + INTERACTION),
        parts=tuple(zip(weight.tolist(), means, found, strict=True)),
    )


def _without_failures(y: Floats) -> Floats:
    middle = float(np.median(y))
    above = max(float(y.max()) - middle, LEAST_ABOVE)
    return np.clip(y, middle - 2 * above, None)


def _kernels(coordinates: Floats) -> Floats:
    """(K, A, A) correlations of configurations: independent, and two that decrease with
    distance."""
    own = np.eye(len(coordinates))
    apart = ((coordinates[:, None] - coordinates) ** 2).sum(-1) / max(coordinates.shape[1], 1)
    near = [np.exp(-apart / (2 * length**2)) for length in LENGTHS]
    return np.stack([own, *(SMOOTH_SHARE * one + (1 - SMOOTH_SHARE) * own for one in near)])


def _likelihood(y: Floats, lower: Floats) -> tuple[Floats, Floats]:
    """The noise variance and the logarithm of the likelihood, (V,) each, for (V, N, N) factors.

    The noise variance has a weak inverse gamma prior of one cell, at a hundredth of mAP.
    """
    half = np.empty(lower.shape[:2])
    for row, value in enumerate(y):  # y divided by all factors at once
        known = np.einsum("vk,vk->v", lower[:, row, :row], half[:, :row])
        half[:, row] = (value - known) / lower[:, row, row]
    noise: Floats = ((half**2).sum(axis=1) + 1e-4) / (len(y) + 1)
    logarithm = np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
    found: Floats = -0.5 * (len(y) + 1) * np.log(noise) - logarithm
    return noise, found
