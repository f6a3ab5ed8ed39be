"""The boundary-matching layer: features sampled in and around every segment of a grid.

A cell (i, j), i <= j, is the segment from the left edge of snippet i to the right edge of snippet
j. N points are sampled in it and its surroundings, each the mean of a few linear interpolations.
The samples of all cells are a linear map of the T snippets. It is stored as its non-zero weights,
about three for each sample of a cell, not as a T x N T T matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

BLOCK = 256  # columns processed at once on a CPU, so that a block of the table stays in its cache


@dataclass(frozen=True, kw_only=True)
class SampleWeights:
    """The non-zero weights of all samples, sorted by cell, sample and snippet.

    Args:
        start, end: (K,) int64, the cells i <= j, row by row.
        cell: (M,) int64, number of the cell.
        sample: (M,) int64, number of the sample in the cell.
        snippet: (M,) int64.
        weight: (M,) float64.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    cell: NDArray[np.int64]
    sample: NDArray[np.int64]
    snippet: NDArray[np.int64]
    weight: NDArray[np.float64]


def cells(length: int, longest: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(K,) first and last snippets of the cells of at most `longest` snippets (0: no limit)."""
    start, end = np.triu_indices(length)
    fits = end - start < (longest or length)
    return start[fits], end[fits]


@lru_cache(maxsize=8)
def cells_on(device: torch.device, length: int, longest: int = 0) -> tuple[Tensor, Tensor]:
    """As `cells`, cached on a device."""
    first, last = (torch.from_numpy(edge).to(device) for edge in cells(length, longest))
    return first, last


def sample_weights(
    length: int, num_sample: int, per_bin: int, ratio: float, longest: int = 0
) -> SampleWeights:
    """The weight of each snippet in each sample of each cell.

    The samples of a cell with S = j + 1 - i spread evenly over [i - ratio (S + 1), j + 1 + ratio (S
    + 1)]; snippet t is at t. Positions outside [0, T) are ignored, except (-1, 0), which counts as
    snippet 0, because the released code truncates towards 0.

    Args:
        length: T.
        num_sample: N.
        per_bin: number of interpolations that a sample averages.
        ratio: context on either side / length of the segment.
        longest: maximal snippets of a cell; 0 for no limit.

    Source: BMN code; golden bmn masks.
    """
    start, end = cells(length, longest)
    context = (end - start + 2) * ratio
    low, number = start - context, num_sample * per_bin
    step = (end + 1 + context - low) / (number - 1)
    place = (low[:, None] + step[:, None] * np.arange(number)).ravel()
    below = np.trunc(place)
    share = place - below
    snippet = np.concatenate([below, np.ceil(place)]).astype(np.int64)
    weight = np.concatenate([1 - share, share]) / per_bin
    row = np.tile(np.arange(len(start) * number) // per_bin, 2)  # cell * N + sample
    inside = (snippet >= 0) & (snippet < length) & (weight != 0)
    key, back = np.unique(row[inside] * length + snippet[inside], return_inverse=True)
    total = np.zeros(len(key))
    np.add.at(total, back, weight[inside])
    row = key // length
    return SampleWeights(
        start=start,
        end=end,
        cell=row // num_sample,
        sample=row % num_sample,
        snippet=key % length,
        weight=total,
    )


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """A sparse matrix by rows: the start of each row, the columns and the weights."""

    begin: Tensor
    column: Tensor
    weight: Tensor

    def mixed(self, table: Tensor) -> Tensor:
        """The product with a (columns, H) table, in single precision."""
        if table.device.type != "cpu":
            return self._bags(table)
        made = table.new_empty((len(self.begin), table.shape[1]))
        for first in range(0, table.shape[1], BLOCK):
            block = slice(first, first + BLOCK)
            made[:, block] = self._bags(table[:, block].contiguous())
        return made

    def _bags(self, table: Tensor) -> Tensor:
        return F.embedding_bag(
            self.column, table, self.begin, mode="sum", per_sample_weights=self.weight
        )


def _rows(
    row: NDArray[np.int64], column: NDArray[np.int64], weight: NDArray[np.float64], number: int,
    device: torch.device,
) -> _Rows:  # fmt: skip
    order = np.argsort(row, kind="stable")
    begin = np.searchsorted(row[order], np.arange(number))
    parts = (begin, column[order], weight[order].astype(np.float32))
    begin_, column_, weight_ = (torch.from_numpy(part).to(device) for part in parts)
    return _Rows(begin=begin_, column=column_, weight=weight_)


@lru_cache(maxsize=8)
def _both_ways(
    length: int, num_sample: int, per_bin: int, ratio: float, longest: int, device: torch.device
) -> tuple[_Rows, _Rows]:
    """The map from (N T) sampled sources to cells, and its transpose."""
    found = sample_weights(length, num_sample, per_bin, ratio, longest)
    source = found.sample * length + found.snippet
    forward = _rows(found.cell, source, found.weight, len(found.start), device)
    return forward, _rows(source, found.cell, found.weight, num_sample * length, device)


class _Mix(torch.autograd.Function):
    """The product of a constant sparse matrix with a table; backward uses the transpose."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, ahead: _Rows, back: _Rows) -> Tensor:
        """Mix the rows of `table` by the sparse weights `ahead`."""
        ctx.back = back
        return ahead.mixed(table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Mix the gradient by the transposed weights."""
        return ctx.back.mixed(grad.contiguous()), None, None


class BoundaryMatching(nn.Module):
    """Samples of every cell and a convolution over them: all of BMN's branch before its ReLU.

    Both are linear, so the channels are contracted first: with N weights (C, O), there are N T rows
    per video instead of N K, and every cell then sums about 3 N of them. At T = 100 with C = 256, O
    = 512 and N = 32 that is 0.4 + 0.25 instead of 21 billion products per video. The lower bound of
    the layer is the memory traffic of the sums.

    Args:
        inputs: C.
        outputs: O.
        num_sample, per_bin, ratio, longest: see `sample_weights`.

    Source: BMN.
    """

    def __init__(
        self, inputs: int, outputs: int, num_sample: int, per_bin: int, ratio: float, longest: int
    ) -> None:
        super().__init__()
        self.sampling = (num_sample, per_bin, ratio, longest)
        bound = (inputs * num_sample) ** -0.5  # initialised like torch's convolutions
        self.weight = nn.Parameter(torch.empty(num_sample, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))

    def forward(self, value: Tensor) -> Tensor:
        """(B, T, C), zero on padding -> (K, B, O) of the cells that `cells` lists, in its order."""
        videos, length = value.shape[:2]
        flat = value.transpose(0, 1).reshape(length * videos, -1)
        table = torch.matmul(flat, self.weight)  # (N, T B, O)
        table = table.float().reshape(len(self.weight) * length, -1)  # (N T, B O)
        maps = _both_ways(length, *self.sampling, value.device)
        mixed: Tensor = _Mix.apply(table, *maps)  # type: ignore[no-untyped-call]
        return mixed.view(len(mixed), videos, -1) + self.bias
