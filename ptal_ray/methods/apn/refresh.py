"""Pseudo-labels of APN: constrained k-medoids around the points, then background mining.

There is one cluster per point. With fixed medoids m, a cut between neighbouring clusters depends
only on the snippets between their two points, so all cuts of all videos are moved at once. The
forward and the backward pass of the paper differ only in their choice among equal minima.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ptal_ray.methods.apn.params import ApnTrain
from ptal_ray.methods.method import Batch, Pseudo

MIN_GAP = 3  # minimal number of snippets between two points to search background
TIE = 1e-6  # sums of n distances are equal if they differ by less than n times this
TILE = 128  # snippets multiplied at once on a CPU
MAX_PAIRS = 1 << 24  # pairwise distances in memory at once


def refresh(model: Any, batch: Batch, hp: ApnTrain) -> Pseudo:
    """Pseudo-labels of whole videos from the current embedding.

    Returns:
        See `cluster_points`.
    """
    return cluster_points(
        model.embed(batch.features, batch.mask),
        batch.mask,
        batch.point_t,
        distance=hp.distance,
        kappa=hp.kappa,
        iterations=hp.kmedoid_iterations if hp.update_medoids else 0,
    )


def label_segments(pseudo: Pseudo, batch: Batch) -> list[NDArray[np.int64]]:
    """(K, 3) first snippet, last snippet and class of each video's action instances."""
    instance = torch.stack([pseudo["start_t"], pseudo["end_t"]], dim=2).cpu().numpy()
    labelled = ((batch.point_label > 0) & pseudo["valid"][..., None]).cpu().numpy()
    found = []
    for edges, classes in zip(instance, labelled, strict=True):
        row, label = np.nonzero(classes)
        found.append(np.column_stack([edges[row], label]))
    return found


@torch.no_grad()
def cluster_points(
    embedding: Tensor,
    mask: Tensor,
    point_t: Tensor,
    *,
    distance: str = "cosine",
    kappa: float = 1.0,
    iterations: int = 10,
) -> Pseudo:
    """Cluster snippets around points, then remove background from the clusters.

    Args:
        embedding: (B, T, D).
        mask: (B, T), True on real snippets, which come first.
        point_t: (B, P) ascending, one entry per snippet, -1 after the last.
        distance: "cosine" or "euclid".
        kappa: background whose mean distance to the nearer medoid is below kappa times the mean
            distance of the video's snippets to their medoids is rejected.
        iterations: maximal number of updates of cuts and medoids; with 0 the points stay the
            medoids and the cuts are computed once.

    Returns:
        "start_t", "end_t" (B, P): action instances, both ends included, aligned with the points;
        "valid" (B, P); "background_start_t", "background_end_t" (B, P + 1): background before,
        between and after the actions; "background_valid" (B, P + 1). -1 if not valid.

    Source: APN section 3.3; the algorithm is PROPOSED, as the supplementary is not public.
    """
    if embedding.dtype != torch.float64:
        embedding = embedding.float()
    at_once = len(mask)
    if distance == "euclid":
        at_once = max(1, MAX_PAIRS // mask.shape[1] ** 2)
    parts = []
    for x, real, at in zip(
        *(torch.split(v, at_once) for v in (embedding, mask, point_t)), strict=True
    ):
        points = _Points(at, real)
        space = _Cosine(x, points) if distance == "cosine" else _Euclid(x, real)
        cut, medoid = _kmedoids(space, points, iterations)
        parts.append(_mine_background(space, points, cut, medoid, kappa))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


class _Points:
    """The positions of the points, and the gap between points of each snippet.

    Gap 0 is before the first point; gap j holds [t_{j-1}, t_j); gap N is from the last point on.
    """

    def __init__(self, point_t: Tensor, mask: Tensor) -> None:
        self.mask = mask
        self.valid = point_t >= 0  # (B, P)
        self.number = self.valid.sum(dim=1, keepdim=True)  # (B, 1)
        self.length = mask.sum(dim=1, keepdim=True)  # (B, 1)
        self.t = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)  # (B, T)
        self.point_t = torch.where(self.valid, point_t, self.length)  # pads: the end
        gap = torch.searchsorted(self.point_t.contiguous(), self.t.contiguous(), right=True)
        self.gap = torch.minimum(gap, self.number)  # (B, T)
        self.own = self.point_t.clamp(max=mask.shape[1] - 1)
        self.previous = F.pad(self.point_t, (1, 0), value=-1)  # (B, P+1) point before a gap
        self.next = torch.cat([self.point_t, self.length], dim=1)  # (B, P+1) point after it
        index = torch.arange(self.next.shape[1], device=mask.device)[None]
        self.first, self.last = index == 0, index >= self.number  # (B, P+1)
        self.exists = (index <= self.number) & (self.number > 0)
        self.middle = self.outer((self.previous + self.next + 1) // 2)

    def outer(self, cut: Tensor) -> Tensor:
        """`cut` (B, P+1) for gaps between two points, else an end of the video."""
        return torch.where(self.first, 0, torch.where(self.last, self.length, cut))

    def cluster(self, cut: Tensor) -> Tensor:
        """(B, T): the cluster, below P, of each snippet if gap j is cut at cut[j]."""
        cluster = self.gap - 1 + (self.t >= cut.gather(1, self.gap)).long()
        return cluster.clamp(0, self.valid.shape[1] - 1)  # after the video: the last

    def take(self, rows: Tensor) -> _Points:
        """The points of some of the videos."""
        return _Points(torch.where(self.valid, self.point_t, -1)[rows], self.mask[rows])


class _Cosine:
    """1 - cos between snippets.

    A snippet is compared only with vectors of its own gap or cluster. So a block of snippets is
    multiplied with only the few vectors of its gaps, for any number of points.
    """

    def __init__(self, embedding: Tensor, points: _Points) -> None:
        self.x = embedding.contiguous()
        norm = torch.linalg.vector_norm(self.x, dim=2)
        self.inverse = 1 / norm.clamp(min=1e-12)  # (B, T)
        length, most = points.gap.shape[1], points.next.shape[1]
        on_cpu = embedding.device.type == "cpu"
        tile = TILE if on_cpu else length
        self.tiles: list[tuple[slice, Tensor, Tensor]] = []  # snippets, first vector, all vectors
        for start in range(0, length, tile):
            gap = points.gap[:, start : start + tile]
            # Reading the number of gaps from a GPU would be a synchronisation.
            width = int((gap[:, -1] - gap[:, 0]).max()) + 2 if on_cpu else most + 1
            first = gap[:, :1] - 1  # a snippet needs the vector of its gap or the one before
            index = first + torch.arange(width, device=gap.device)
            self.tiles.append((slice(start, start + tile), first, index))

    def to(self, snippet: Tensor, *columns: Tensor) -> list[Tensor]:
        """(B, T) each: distance of snippet t to snippet[column[t]]; column is gap or gap - 1."""
        video = _rows(snippet)
        unit = self.x[video, snippet] * self.inverse[video, snippet][..., None]
        return [1 - cosine for cosine in self._products(unit, *columns)]

    def summed(self, cluster: Tensor, first: Tensor, behind: Tensor) -> Tensor:
        """(B, T): summed distance of each snippet to [first, behind) (B, P) of its cluster."""
        videos, length, dim = self.x.shape
        # Bags of consecutive snippets: the spans, and the rest between them. The first span starts
        # at snippet 0.
        bags = torch.stack([first, behind], dim=2) + (_rows(first) * length)[..., None]
        sums = F.embedding_bag(
            torch.arange(videos * length, device=first.device),
            self.x.view(-1, dim),
            bags.flatten(),
            mode="sum",
            per_sample_weights=self.inverse.flatten(),
        )
        (product,) = self._products(sums.view(videos, -1, 2, dim)[:, :, 0], cluster)
        return (behind - first).gather(1, cluster) - product

    def take(self, rows: Tensor) -> _Cosine:
        """The same distances for some of the videos."""
        part = _Cosine.__new__(_Cosine)
        part.x, part.inverse = self.x[rows], self.inverse[rows]
        part.tiles = [(tile, base[rows], index[rows]) for tile, base, index in self.tiles]
        return part

    def _products(self, vectors: Tensor, *columns: Tensor) -> list[Tensor]:
        """(B, T) each: product of each normalised snippet with vectors[column], (B, K, D)."""
        video, most = _rows(vectors), vectors.shape[1] - 1
        found: list[list[Tensor]] = [[] for _ in columns]
        for tile, base, index in self.tiles:
            product = torch.bmm(self.x[:, tile], vectors[video, index.clamp(0, most)].mT)
            for parts, column in zip(found, columns, strict=True):
                parts.append(product.gather(2, (column[:, tile] - base)[..., None])[..., 0])
        # A diverged embedding gives meaningless labels, not an index out of range.
        return [torch.nan_to_num(torch.cat(parts, dim=1) * self.inverse) for parts in found]


class _Euclid:
    """Euclidean distance between snippets, in units of their spread in the video.

    All pairs are computed once, because there is no faster way to sums of these distances.
    """

    def __init__(self, embedding: Tensor, mask: Tensor) -> None:
        real = mask[..., None]
        number = mask.sum(dim=1).clamp(min=1)[:, None, None]
        x = embedding - (embedding * real).sum(dim=1, keepdim=True) / number
        square = (x * x).sum(dim=2, keepdim=True)  # (B, T, 1)
        pair = square + square.mT
        # The difference of equal snippets is rounding.
        noise = 8 * torch.finfo(x.dtype).eps * pair
        pair = torch.baddbmm(pair, x, x.mT, alpha=-2)
        spread = ((square * real).sum(dim=1, keepdim=True) / number).sqrt().clamp(min=1e-12)
        pair = pair.masked_fill_(pair < noise, 0).sqrt_().div_(spread)
        self.pairs = torch.nan_to_num(pair)

    def to(self, snippet: Tensor, *columns: Tensor) -> list[Tensor]:
        """As `_Cosine.to`."""
        most = snippet.shape[1] - 1
        other = [snippet.gather(1, column.clamp(0, most)) for column in columns]
        return [self.pairs.gather(2, o[..., None])[..., 0] for o in other]

    def summed(self, cluster: Tensor, first: Tensor, behind: Tensor) -> Tensor:
        """As `_Cosine.summed`."""
        t = torch.arange(cluster.shape[1], device=cluster.device)[None]
        inside = (t >= first.gather(1, cluster)) & (t < behind.gather(1, cluster))
        same = cluster[:, :, None] == cluster.masked_fill(~inside, -1)[:, None]
        return (self.pairs * same).sum(dim=2)

    def take(self, rows: Tensor) -> _Euclid:
        """The same distances for some of the videos."""
        part = _Euclid.__new__(_Euclid)
        part.pairs = self.pairs[rows]
        return part


_Space = _Cosine | _Euclid


def _kmedoids(space: _Space, points: _Points, iterations: int) -> tuple[Tensor, Tensor]:
    """Cuts (B, P+1) and medoids (B, P)."""
    cut = _cuts(space, points, points.own)
    if not iterations:
        return cut, points.own
    moving = (cut != points.middle).any(dim=1, keepdim=True)
    return _settle(space, points, cut, _medoids(space, points, cut), moving, iterations - 1)


def _settle(
    space: _Space, points: _Points, cut: Tensor, medoid: Tensor, moving: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Update cuts and medoids alternately; a video stops when its cuts stop, (B, 1) `moving`."""
    for left in range(iterations, 0, -1):
        moved = torch.where(moving, _cuts(space, points, medoid), cut)
        moving = (moved != cut).any(dim=1, keepdim=True)
        cut = moved
        if cut.device.type == "cpu":  # reading values from a GPU would be a synchronisation
            rows = moving[:, 0].nonzero()[:, 0]
            if 4 * len(rows) <= 3 * len(cut):  # faster without the converged videos
                if len(rows):
                    part = space.take(rows), points.take(rows)
                    found = _medoids(*part, cut[rows])
                    cut[rows], medoid[rows] = _settle(
                        *part, cut[rows], found, moving[rows], left - 1
                    )
                break
        medoid = torch.where(moving, _medoids(space, points, cut), medoid)
    return cut, medoid


def _cuts(space: _Space, points: _Points, medoid: Tensor) -> Tensor:
    """The cut between first and last with the smallest summed distance to the medoids of a gap."""
    behind, ahead = space.to(medoid, points.gap - 1, points.gap)
    total = (behind - ahead).double().cumsum(dim=1)
    inside = points.mask & ~(points.first | points.last).gather(1, points.gap)
    first, last = _least(total, points.gap, inside, TIE * (points.next - points.previous))
    return points.outer((first + 1 + last + 1) // 2)


def _medoids(space: _Space, points: _Points, cut: Tensor) -> Tensor:
    """The snippet of each cluster with the smallest summed distance to its middle part."""
    cluster = points.cluster(cut)
    first = torch.maximum(cut, points.middle)[:, :-1]  # (B, P)
    behind = torch.minimum(cut, points.middle)[:, 1:]
    summed = space.summed(cluster, first, behind).double()
    own = summed.gather(1, points.own)
    real = points.mask & (points.number > 0)
    tie = TIE * (behind - first)
    best, _ = _least(summed, cluster, real, tie)
    least = summed.gather(1, best.clamp(max=summed.shape[1] - 1))
    return torch.where((own <= least + tie) | ~points.valid, points.own, best)


def _mine_background(
    space: _Space, points: _Points, cut: Tensor, medoid: Tensor, kappa: float
) -> Pseudo:
    """Remove the background around the farthest snippet of each gap from the clusters."""
    gap, mask = points.gap, points.mask
    behind, ahead = space.to(medoid, gap - 1, gap)
    nearer = torch.minimum(
        behind.masked_fill(gap == 0, torch.inf), ahead.masked_fill(gap == points.number, torch.inf)
    ).double()
    between = mask & (points.number > 0) & (points.t > points.previous.gather(1, gap))
    farthest, _ = _least(-nearer, gap, between, torch.full_like(cut, TIE, dtype=nearer.dtype))
    start, end = _background_ends(space, points, farthest, behind, ahead)
    own = torch.where(points.cluster(cut) < gap, behind, ahead)
    typical = (own * mask).sum(dim=1, keepdim=True) / points.length.clamp(min=1)  # (B, 1)
    total = F.pad(nearer.masked_fill(~between, 0).cumsum(dim=1), (1, 0))
    most = mask.shape[1]
    total = total.gather(1, (end + 1).clamp(0, most)) - total.gather(1, start.clamp(0, most))
    mean = total / (end + 1 - start).clamp(min=1)
    room = points.next - points.previous - 1
    outside = points.first | points.last
    wanted = points.exists & (room >= torch.where(outside, 1, MIN_GAP))
    kept = wanted & (mean >= kappa * typical - TIE)
    # Without background the actions meet at the cut, or extend to an end of the video.
    return {
        "start_t": torch.where(points.valid, torch.where(kept, end + 1, cut)[:, :-1], -1),
        "end_t": torch.where(points.valid, torch.where(kept, start, cut)[:, 1:] - 1, -1),
        "valid": points.valid,
        "background_start_t": torch.where(kept, start, -1),
        "background_end_t": torch.where(kept, end, -1),
        "background_valid": kept,
    }


def _background_ends(
    space: _Space, points: _Points, farthest: Tensor, behind: Tensor, ahead: Tensor
) -> tuple[Tensor, Tensor]:
    """First and last snippet (B, P+1) of the background around the farthest snippet of a gap."""
    gap, mask = points.gap, points.mask
    z = farthest.clamp(0, mask.shape[1] - 1)
    (to_z,) = space.to(z, gap)
    before_z = points.t < z.gather(1, gap)
    tie = TIE * (points.next - points.previous)
    left = mask & (gap > 0) & before_z
    action_end, _ = _least((behind - to_z).double().cumsum(dim=1), gap, left, tie)
    right = mask & (gap < points.number) & ~before_z
    _, last = _least((to_z - ahead).double().cumsum(dim=1), gap, right, tie)
    return (
        torch.where(points.first, 0, action_end + 1),
        torch.where(points.last, points.length - 1, last),
    )


def _rows(value: Tensor) -> Tensor:
    """(B, 1) indices of the videos."""
    return torch.arange(len(value), device=value.device)[:, None]


def _least(value: Tensor, group: Tensor, allowed: Tensor, tie: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the last snippet with the smallest allowed value of a group.

    Args:
        value: (B, T) float64.
        group: (B, T), from 0 to K - 1.
        allowed: (B, T) bool.
        tie: (B, K), largest difference of values that count as equal.

    Returns:
        Two (B, K); T and -1 for groups without an allowed snippet.
    """
    value = value.masked_fill(~allowed, torch.inf)
    least = torch.full(tie.shape, torch.inf, dtype=value.dtype, device=value.device)
    least = least.scatter_reduce(1, group, value, "amin")
    hit = allowed & (value <= (least + tie).gather(1, group))
    most = value.shape[1]
    t = torch.arange(most, device=value.device).expand(value.shape)
    first = torch.full(tie.shape, most, device=value.device)
    first = first.scatter_reduce(1, group, t.masked_fill(~hit, most), "amin")
    last = torch.full(tie.shape, -1, device=value.device)
    last = last.scatter_reduce(1, group, t.masked_fill(~hit, -1), "amax")
    return first, last
