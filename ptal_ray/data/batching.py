"""Batches of a split: on the device as a whole where it fits, else through one staging buffer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptal_ray.data.snippet_sampling import sampled_places
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Grid, Points

RESIDENT_SHARE = 0.4  # of the free device memory that a split may take


def resampled_grid(grid: Grid, length: int, resample_to: int) -> Grid:
    """The grid of a video of `length` snippets after resampling to `resample_to` (0: unchanged)."""
    if not resample_to:
        return grid
    return Grid(stride_s=grid.stride_s * length / resample_to, offset_s=grid.offset_s)


def stored_grid(store: FeatureStore, id: str, resample_to: int) -> Grid:
    """The grid of a video of `store` after resampling to `resample_to` snippets (0: unchanged)."""
    return resampled_grid(store.grid(id), store.length(id), resample_to)


def resample(features: Tensor, lengths: Tensor, resample_to: int) -> Tensor:
    """Linear interpolation of each video at the centres of `resample_to` equal cells.

    Args:
        features: (B, T, D), padded behind `lengths`.
        lengths: (B,) int64, snippets of each video.

    Returns:
        (B, resample_to, D).
    """
    cell = torch.arange(resample_to, device=features.device) + 0.5
    position = cell[None] * lengths[:, None] / resample_to - 0.5  # (B, R)
    position = torch.minimum(position.clamp(min=0), (lengths - 1)[:, None].to(position.dtype))
    left = position.floor().long()
    right = torch.minimum(left + 1, (lengths - 1)[:, None])
    weight = (position - left)[..., None].to(features.dtype)
    index = torch.arange(len(features), device=features.device)[:, None]
    return torch.lerp(features[index, left], features[index, right], weight)


def cropped(
    features: Tensor, start_t: NDArray[np.int64], kept: NDArray[np.int64], length: int
) -> Tensor:
    """(B, T, D) -> (B, length, D): `kept` snippets of each row from `start_t` on, then zero."""
    first, size = (torch.from_numpy(v).to(features.device)[:, None] for v in (start_t, kept))
    t = torch.arange(length, device=features.device)
    index = (first + t).clamp(max=features.shape[1] - 1)
    rows = torch.arange(len(features), device=features.device)[:, None]
    return features[rows, index] * (t < size)[..., None]


def snippet_points(
    points: Points, grid: Grid, length: int, num_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Annotated snippets of a video, ascending and unique, with their multi-hot classes.

    Returns:
        (P,) snippet indices, clamped into the video, and (P, C) multi-hot classes.
    """
    snippet = np.clip(np.floor(grid.snippets(points.time_s)), 0, length - 1).astype(np.int64)
    unique, inverse = np.unique(snippet, return_inverse=True)
    label = np.zeros((len(unique), num_classes), np.uint8)
    label[inverse, points.label] = 1
    return unique, label


def label_pairs(
    point_t: NDArray[np.int64], point_label: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The same points as one entry per snippet and class.

    Args:
        point_t: (V, P) ascending, -1 pads.
        point_label: (V, P, C) multi-hot.

    Returns:
        (V, Q) snippets, ascending, and (V, Q) classes; -1 pads, Q >= 1.
    """
    row, column, label = np.nonzero(point_label)
    number = np.bincount(row, minlength=len(point_t))
    shape = (len(point_t), max(1, int(number.max(initial=0))))
    place = np.arange(len(row)) - np.repeat(np.cumsum(number) - number, number)
    pair_t, pair_class = np.full(shape, -1, np.int64), np.full(shape, -1, np.int64)
    pair_t[row, place], pair_class[row, place] = point_t[row, column], label
    return pair_t, pair_class


class PackedSplit:
    """The videos of one split, ready to be gathered into padded batches.

    On a GPU with room the features stay there, packed end to end, and a batch is one gather.
    Otherwise a batch is copied from the memory-mapped store into one (pinned) staging buffer.

    Args:
        store: where the features lie.
        ids: V video ids, in the order of the rows used below.
        device: where batches go.
        resample_to: snippets every video is resampled to; 0 keeps lengths.
        sampling: how: "linear" interpolation, "uniform" or "random" snippets (`sampled_places`).
        points: the point labels of each video; None for a split that is only scored.
    """

    def __init__(
        self,
        store: FeatureStore,
        ids: Sequence[str],
        device: torch.device,
        *,
        points: Sequence[Points] | None = None,
        resample_to: int = 0,
        sampling: str = "linear",
    ) -> None:
        self.store, self.ids, self.device, self.resample_to = store, tuple(ids), device, resample_to
        self.sampling = sampling
        self._stored = np.array([store.length(i) for i in self.ids], np.int64)
        self.lengths = np.full_like(self._stored, resample_to) if resample_to else self._stored
        self.grids = [stored_grid(store, id, resample_to) for id in self.ids]
        self.point_t, self.point_label = self._snippet_points(points or ())
        self.pair_t, self.pair_class = label_pairs(self.point_t, self.point_label)
        self._first_t = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        self._packed = self._pack() if self._fits() else None
        self._staging: Tensor | None = None
        self._copied: torch.cuda.Event | None = None

    def features(
        self,
        rows: NDArray[np.int64],
        start_t: NDArray[np.int64],
        kept: NDArray[np.int64],
        length: int,
        draw: NDArray[np.float64] | None = None,
    ) -> Tensor:
        """(B, length, D) float32: `kept` snippets of each row from `start_t` on, then zero.

        `draw` (B, resample_to), uniform in [0, 1), picks the snippets of a random sampling; without
        it they are those of a uniform one.
        """
        if self._packed is not None:
            return self._gather(rows, start_t, kept, length)
        if self.resample_to:
            stored = self._stored[rows]
            whole = self._stage(rows, np.zeros_like(rows), stored, int(stored.max()))
            lengths = torch.from_numpy(stored).to(self.device, non_blocking=True)
            return cropped(self._resampled(whole.float(), lengths, draw), start_t, kept, length)
        return self._stage(rows, start_t, kept, length).float()

    def _fits(self) -> bool:
        if self.device.type != "cuda":  # the page cache already shares the mapped file
            return False
        if self.resample_to and self.sampling == "random":  # every step picks other snippets
            return False
        size = int(self.lengths.sum()) * self.store.info.feature_dim * 4
        free, _ = torch.cuda.mem_get_info(self.device)
        return size < RESIDENT_SHARE * free

    def _pack(self) -> Tensor:
        """(sum of lengths + 1, D); the last row is zero, for padding."""
        dim = self.store.info.feature_dim
        dtype = torch.from_numpy(self.store.video(self.ids[0]).features[:0].copy()).dtype
        packed = torch.zeros((int(self.lengths.sum()) + 1, dim), dtype=dtype, device=self.device)
        for row, first in enumerate(self._first_t):
            video = torch.tensor(self.store.video(self.ids[row]).features, device=self.device)
            if self.resample_to:
                length = torch.tensor([len(video)], device=self.device)
                video = self._resampled(video[None].float(), length, None)[0]
            packed[first : first + len(video)] = video.to(dtype)
        return packed

    def _resampled(
        self, features: Tensor, lengths: Tensor, draw: NDArray[np.float64] | None
    ) -> Tensor:
        """(B, T, D) of stored videos -> (B, resample_to, D)."""
        if self.sampling == "linear":
            return resample(features, lengths, self.resample_to)
        chance = None if draw is None else torch.from_numpy(draw).to(self.device)
        place = sampled_places(lengths, self.resample_to, chance)
        return features[torch.arange(len(features), device=features.device)[:, None], place]

    def _gather(
        self,
        rows: NDArray[np.int64],
        start_t: NDArray[np.int64],
        kept: NDArray[np.int64],
        length: int,
    ) -> Tensor:
        assert self._packed is not None
        snippet = np.arange(length)[None]
        first = (self._first_t[rows] + start_t)[:, None]
        index = np.where(snippet < kept[:, None], first + snippet, -1)
        on_device = torch.from_numpy(index % len(self._packed)).to(self.device, non_blocking=True)
        return self._packed[on_device].float()

    def _stage(
        self,
        rows: NDArray[np.int64],
        start_t: NDArray[np.int64],
        kept: NDArray[np.int64],
        length: int,
    ) -> Tensor:
        shape = (len(rows), length, self.store.info.feature_dim)
        if self.device.type != "cuda":
            return self._filled(torch.empty(shape), rows, start_t, kept)
        if self._copied is not None:
            self._copied.synchronize()  # the last copy out of the buffer, long done
        buffer = self._filled(self._buffer(shape), rows, start_t, kept)
        staged = buffer.to(self.device, non_blocking=True)
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._copied.record()
        return staged

    def _filled(
        self,
        buffer: Tensor,
        rows: NDArray[np.int64],
        start_t: NDArray[np.int64],
        kept: NDArray[np.int64],
    ) -> Tensor:
        for slot, (row, start, size) in enumerate(zip(rows, start_t, kept, strict=True)):
            video = self.store.video(self.ids[row]).features[start : start + size]
            buffer[slot, :size] = torch.from_numpy(np.array(video))
            buffer[slot, size:] = 0
        return buffer

    def _buffer(self, shape: tuple[int, int, int]) -> Tensor:
        size = shape[0] * shape[1] * shape[2]
        if self._staging is None or self._staging.numel() < size:
            dtype = torch.from_numpy(self.store.video(self.ids[0]).features[:0].copy()).dtype
            pinned = self.device.type == "cuda"
            self._staging = torch.empty(size, dtype=dtype, pin_memory=pinned)
        return self._staging[:size].view(shape)

    def _snippet_points(
        self, points: Sequence[Points]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """(V, P) snippets, -1 pads, and (V, P, C) multi-hot classes; P >= 1."""
        num_classes = self.store.info.num_classes
        found = [
            snippet_points(own, grid, int(length), num_classes)
            for own, grid, length in zip(points, self.grids, self.lengths, strict=False)
        ]
        most = max([1, *(len(t) for t, _ in found)])
        point_t = np.full((len(self.ids), most), -1, np.int64)
        point_label = np.zeros((len(self.ids), most, num_classes), np.uint8)
        for row, (snippet, label) in enumerate(found):
            point_t[row, : len(snippet)] = snippet
            point_label[row, : len(snippet)] = label
        return point_t, point_label
