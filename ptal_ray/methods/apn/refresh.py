"""Pseudo-labels of APN: constrained k-medoids around the points, then background mining.

One cluster a point. With the medoids m fixed, a boundary between neighbouring clusters only
weighs the snippets between their two points, so all boundaries of all videos move at once; the
forward and the backward pass of the paper differ in which of several equal minima they take.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ptal_ray.methods.method import Batch, Pseudo

MIN_GAP = 3  # snippets between two points for background to be looked for
KEEP_POINT = 1e-6  # a medoid must be this much better than the point itself


def refresh(model: Any, batch: Batch, hp: Any) -> Pseudo:
    """Pseudo-labels of whole videos from the present embedding.

    Returns:
        "start_t", "end_t" (B, P): action instances, both ends included, aligned with the points;
        "valid" (B, P); "background_start_t", "background_end_t" (B, P + 1): background before,
        between and after the actions; "background_valid" (B, P + 1).
    """
    return cluster_points(
        model.embed(batch.features, batch.mask),
        batch.mask,
        batch.point_t,
        distance=hp.distance,
        kappa=hp.kappa,
        iterations=hp.kmedoid_iterations if hp.update_medoids else 0,
    )


def cluster_points(
    embedding: Tensor,
    mask: Tensor,
    point_t: Tensor,
    *,
    distance: str = "cosine",
    kappa: float = 1.0,
    iterations: int = 10,
) -> Pseudo:
    """Clusters snippets around points, then takes background out of the clusters.

    Args:
        embedding: (B, T, D).
        mask: (B, T), True on real snippets, which come first.
        point_t: (B, P) ascending, -1 behind the last.
        distance: "cosine" or "euclid".
        kappa: background whose mean distance to the nearer medoid is below kappa times the mean
            distance of the video's snippets to their medoids is rejected.
        iterations: at most so many updates of cuts and medoids; with 0 the points stay the
            medoids and the cuts are placed once.

    Source: APN section 3.1; the algorithm is PROPOSED, as the supplementary is not public.
    """
    space = _Space(embedding, distance)
    points = _Points(point_t, mask)
    cut, medoid = _kmedoids(space, points, iterations)
    return _mine_background(space, points, cut, medoid, kappa)


class _Space:
    """Distances between snippets of B videos."""

    def __init__(self, embedding: Tensor, distance: str) -> None:
        self.cosine = distance == "cosine"
        self.x = F.normalize(embedding.float(), dim=-1) if self.cosine else embedding.float()
        self._pairwise: Tensor | None = None

    def to(self, index: Tensor) -> Tensor:
        """(B, K, T): distance of every snippet to the snippets `index` (B, K)."""
        chosen = self.x.gather(1, index[..., None].expand(-1, -1, self.x.shape[-1]))
        if self.cosine:
            return 1 - chosen @ self.x.mT
        return torch.cdist(chosen, self.x, compute_mode="donot_use_mm_for_euclid_dist")

    def summed(self, members: Tensor) -> Tensor:
        """(B, K, T): summed distance of every snippet to the snippets of K sets (B, K, T)."""
        members = members.to(self.x.dtype)
        if self.cosine:
            return members.sum(dim=2, keepdim=True) - (members @ self.x) @ self.x.mT
        if self._pairwise is None:
            self._pairwise = torch.cdist(
                self.x, self.x, compute_mode="donot_use_mm_for_euclid_dist"
            )
        return members @ self._pairwise

    def take(self, rows: Tensor) -> _Space:
        """The same distances for some of the videos."""
        part = _Space.__new__(_Space)
        part.cosine, part.x = self.cosine, self.x[rows]
        part._pairwise = None if self._pairwise is None else self._pairwise[rows]
        return part


class _Points:
    """Where the points lie, and which gap between points each snippet is in.

    Gap 0 is before the first point; gap j holds [t_{j-1}, t_j); gap N is from the last point on.
    """

    def __init__(self, point_t: Tensor, mask: Tensor) -> None:
        self.mask = mask
        self.valid = point_t >= 0  # (B, P)
        self.number = self.valid.sum(dim=1)  # (B,)
        self.length = mask.sum(dim=1)  # (B,)
        self.t = torch.arange(mask.shape[1], device=mask.device)  # (T,)
        self.point_t = torch.where(self.valid, point_t, self.length[:, None])  # pads: the end
        self.gap = torch.searchsorted(
            self.point_t.contiguous(), self.t.expand(mask.shape).contiguous(), right=True
        )  # (B, T); snippets behind the video are in gaps of pads
        self.gap = torch.minimum(self.gap, self.number[:, None])
        nothing = torch.zeros_like(self.number)[:, None]
        self.after = torch.cat([nothing, self.point_t + 1], dim=1)  # (B, P+1) first behind a point
        self.before = torch.cat([self.point_t, self.length[:, None]], dim=1)  # next point
        index = torch.arange(self.point_t.shape[1] + 1, device=mask.device)
        self.inner = (index > 0) & (index[None] < self.number[:, None])  # (B, P+1)

    def take(self, rows: Tensor) -> _Points:
        """The points of some of the videos."""
        part = _Points.__new__(_Points)
        for name, value in vars(self).items():
            setattr(part, name, value if name == "t" else value[rows])
        return part

    def first_cut(self) -> Tensor:
        """(B, P+1): ceil of the middle between neighbouring points; 0 and T outside."""
        previous = self.after - 1
        middle = (previous + self.before + 1) // 2
        return self.outer(middle)

    def outer(self, cut: Tensor) -> Tensor:
        """`cut` where a gap lies between two points; 0 before the first, the end after the last."""
        first = torch.arange(cut.shape[1], device=cut.device)[None] == 0
        return torch.where(self.inner, cut, torch.where(first, 0, self.length[:, None]))

    def cluster(self, cut: Tensor) -> Tensor:
        """(B, T): the cluster of each snippet when gap j is cut at cut[j]; -1 without points."""
        behind = self.t[None] >= cut.gather(1, self.gap)
        return self.gap - 1 + behind.long()


def _kmedoids(space: _Space, points: _Points, iterations: int) -> tuple[Tensor, Tensor]:
    """Cuts (B, P+1) and medoids (B, P); a video stops when its cuts stop."""
    cut = points.first_cut()
    first_cluster = points.cluster(cut)
    medoid = points.point_t.clamp(max=points.mask.shape[1] - 1)
    if not iterations:
        return _cuts(space, points, medoid), medoid
    rows = torch.arange(len(cut), device=cut.device)
    for _ in range(iterations):
        part, active = space.take(rows), points.take(rows)
        moved = _cuts(part, active, medoid[rows])
        changed = (moved != cut[rows]).any(dim=1)
        cut[rows] = moved
        medoid[rows] = _medoids(part, active, moved, first_cluster[rows])
        rows = rows[changed]
        if not len(rows):
            break
    return cut, medoid


def _cuts(space: _Space, points: _Points, medoid: Tensor) -> Tensor:
    """Where the summed distance to the two medoids of a gap is least: between first and last."""
    near = space.to(medoid)  # (B, P, T)
    behind, ahead = _of_gap(near, points.gap)
    total = (behind - ahead).double().cumsum(dim=1)
    inside = points.mask & points.inner.gather(1, points.gap)
    first, last = _least(total, points.gap, inside, points.inner.shape[1])
    return points.outer((first + 1 + last + 1) // 2)


def _medoids(space: _Space, points: _Points, cut: Tensor, first_cluster: Tensor) -> Tensor:
    """The snippet of each cluster with the least summed distance to its middle part."""
    num_points = points.valid.shape[1]
    cluster = points.cluster(cut)
    label = torch.arange(num_points, device=cut.device)[None, :, None]
    member = (cluster[:, None] == label) & points.mask[:, None] & points.valid[..., None]
    middle = member & (first_cluster == cluster)[:, None]
    summed = space.summed(middle).masked_fill(~member, torch.inf)  # (B, P, T)
    least, best = summed.min(dim=2)  # the first of several equal ones
    own = points.point_t.clamp(max=points.mask.shape[1] - 1)
    keep = summed.gather(2, own[..., None])[..., 0] <= least + KEEP_POINT
    return torch.where(keep | ~points.valid, own, best)


def _mine_background(
    space: _Space, points: _Points, cut: Tensor, medoid: Tensor, kappa: float
) -> Pseudo:
    """Takes the background around the farthest snippet of each gap out of the clusters."""
    near = space.to(medoid)
    behind, ahead = _of_gap(near, points.gap)
    nearer = torch.minimum(
        behind.masked_fill(points.gap == 0, torch.inf),
        ahead.masked_fill(points.gap == points.number[:, None], torch.inf),
    )
    num_gaps = cut.shape[1]
    between = points.mask & (points.t[None] >= points.after.gather(1, points.gap))
    farthest, _ = _least(-nearer.double(), points.gap, between, num_gaps)
    room = points.before - points.after
    exists = points.number[:, None] >= torch.arange(num_gaps, device=cut.device)[None]
    wanted = exists & (room >= torch.where(points.inner, MIN_GAP, 1)) & (points.number > 0)[:, None]
    start, end = _background_ends(space, points, farthest, behind, ahead)
    own = near.gather(1, points.cluster(cut).clamp(0, near.shape[1] - 1)[:, None])[:, 0]
    typical = (own * points.mask).sum(dim=1) / points.length.clamp(min=1)
    kept = wanted & _far_enough(points, nearer, start, end, kappa * typical)
    # Where no background is kept the actions meet at the cut, or reach the end of the video.
    start, end = torch.where(kept, start, cut), torch.where(kept, end, cut - 1)
    return {
        "start_t": torch.where(points.valid, end[:, :-1] + 1, -1),
        "end_t": torch.where(points.valid, _next(start, points), -1),
        "valid": points.valid,
        "background_start_t": torch.where(kept, start, -1),
        "background_end_t": torch.where(kept, end, -1),
        "background_valid": kept,
    }


def _next(start: Tensor, points: _Points) -> Tensor:
    """(B, P): last snippet of each action, in front of the gap behind its point."""
    return start[:, 1:] - 1


def _background_ends(
    space: _Space, points: _Points, farthest: Tensor, behind: Tensor, ahead: Tensor
) -> tuple[Tensor, Tensor]:
    """First and last snippet of the background around the farthest snippet z of each gap."""
    num_gaps = farthest.shape[1]
    z = farthest.clamp(0, points.mask.shape[1] - 1)
    to_z = space.to(z).gather(1, points.gap[:, None])[:, 0]
    z_of = z.gather(1, points.gap)
    left = points.mask & (points.gap > 0) & (points.t[None] < z_of)
    action_end, _ = _least(
        (behind - to_z).masked_fill(~left, 0).double().cumsum(dim=1), points.gap, left, num_gaps
    )
    right = points.mask & (points.gap < points.number[:, None]) & (points.t[None] >= z_of)
    _, last = _least(
        (to_z - ahead).masked_fill(~right, 0).double().cumsum(dim=1), points.gap, right, num_gaps
    )
    first = torch.arange(num_gaps, device=z.device)[None] == 0
    after_last = torch.arange(num_gaps, device=z.device)[None] == points.number[:, None]
    start = torch.where(first, 0, action_end + 1)
    end = torch.where(after_last, points.length[:, None] - 1, last)
    return start, end


def _far_enough(
    points: _Points, nearer: Tensor, start: Tensor, end: Tensor, least: Tensor
) -> Tensor:
    """(B, P+1): whether background is on average at least `least` (B,) from the nearer medoid."""
    inside = (
        points.mask
        & (points.t[None] >= start.gather(1, points.gap))
        & (points.t[None] <= end.gather(1, points.gap))
    )
    total = torch.zeros_like(start, dtype=torch.float64)
    far = torch.where(inside, nearer, 0).double()
    total = total.scatter_add(1, points.gap, far)
    count = torch.zeros_like(start).scatter_add(1, points.gap, inside.long())
    return (count > 0) & (total >= least[:, None] * count)


def _of_gap(near: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T) distances of each snippet to the medoids behind and ahead of it, from (B, P, T)."""
    most = near.shape[1] - 1
    behind = near.gather(1, (gap - 1).clamp(0, most)[:, None])[:, 0]
    ahead = near.gather(1, gap.clamp(max=most)[:, None])[:, 0]
    return behind, ahead


def _least(value: Tensor, group: Tensor, allowed: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """(B, num_groups): the first and the last snippet where a group's allowed value is least.

    Groups without an allowed snippet give (T, -1).
    """
    value = value.masked_fill(~allowed, torch.inf)
    least = value.new_full((len(value), num_groups), torch.inf)
    least = least.scatter_reduce(1, group, value, "amin")
    hit = allowed & (value == least.gather(1, group))
    t = torch.arange(value.shape[1], device=value.device).expand(value.shape)
    most = value.shape[1]
    first = torch.full_like(least, most, dtype=torch.int64)
    first = first.scatter_reduce(1, group, t.masked_fill(~hit, most), "amin")
    last = torch.full_like(first, -1)
    last = last.scatter_reduce(1, group, t.masked_fill(~hit, -1), "amax")
    return first, last
