"""Which snippets of a video stand for it where videos are sampled to a common number of them."""

from __future__ import annotations

import torch
from torch import Tensor


def sampled_places(lengths: Tensor, number: int, draw: Tensor | None = None) -> Tensor:
    """One snippet for each of `number` equal parts of a video; they repeat in a shorter one.

    Args:
        lengths: (B,) int64, snippets of each video.
        number: N.
        draw: (B, N) uniform in [0, 1): a random snippet from the first of a part to the first of
            the next, both included. None for the first of each part. A video of N snippets is
            taken as it is.

    Returns:
        (B, N) int64, ascending but where two parts share an end.

    Source: LACP code; golden lacp_sampling.
    """
    part = torch.arange(number + 1, device=lengths.device)
    edge = torch.minimum(part * lengths[:, None] // number, lengths[:, None] - 1)
    first, last = edge[:, :-1], edge[:, 1:]
    if draw is None:
        return first
    moved = torch.minimum(first + (draw * (last - first + 1)).long(), last)
    return torch.where((lengths == number)[:, None], first, moved)
