"""A pyramid of local-window transformers over time, as in ActionFormer.

Tensors are (B, T, H) and zero on padding. A level l has a position every 2^l snippets. Padding
directly after the end of a video affects its last positions; a video without padding ends at the
edge of the tensor, as in the released code. Callers that need the same scores for any padding
append at least one position of the coarsest level (`padded_length`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ptal_ray.ops.winograd import winograd, worthwhile

LAYER_SCALE = 1e-4  # of a branch at the start
PRIOR = 0.01  # class score at the start
POSITIONS_AT_ONCE = 4096  # per call of a block with `recompute`; limits memory


def padded_length(length: int, levels: int) -> int:
    """The smallest multiple of 2^levels with a full position of padding on every level."""
    coarsest: int = 2**levels
    return -(-length // coarsest) * coarsest + coarsest


def block_length(reach: int) -> int:
    """Number of queries per block of `local_attention`."""
    return max(2 * reach, 16)


def window_reach(window: int) -> int:
    """Largest distance in a window."""
    return max(window // 2, 1)


def traced_lengths(window: int, levels: int) -> tuple[int, int]:
    """(least, step) of the lengths for which a pyramid is one program: multiples of the coarsest
    position in which every level has two blocks of queries."""
    return block_length(window_reach(window)) * 2**levels, int(2**levels)


def padded(features: Tensor, mask: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """(B, T, D) and (B, T) padded at the end, so that no video's end depends on other videos."""
    behind = padded_length(mask.shape[1], levels) - mask.shape[1]
    return F.pad(features, (0, 0, 0, behind)), F.pad(mask, (0, behind))


def joined(levels: Sequence[Tensor], masks: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """All levels one after the other with gaps between, so that one call convolves them all.

    Args:
        levels: (B, T_l, H).
        masks: (B, T_l) bool.

    Returns:
        (B, N, H) and (B, N) with a gap of one position after each level, and (N,) True in gaps.
    """
    behind = [(item, torch.zeros_like(item[:, :1])) for item in levels]
    value = torch.cat([part for pair in behind for part in pair], dim=1)
    gaps = torch.cat([F.pad(torch.zeros_like(mask[0]), (0, 1), value=True) for mask in masks])
    return value, torch.cat([F.pad(mask, (0, 1)) for mask in masks], dim=1), gaps


def separated(value: Tensor, masks: Sequence[Tensor]) -> list[Tensor]:
    """(B, N, K) of `joined` levels -> (B, T_l, K) of each."""
    parts = torch.split(value, [mask.shape[1] + 1 for mask in masks], dim=1)
    return [part[:, :-1] for part in parts]


def drop_path(draw: Tensor, chance: float) -> Tensor:
    """(B, branches) uniform in [0, 1) -> factors of mean 1, 0 with a chance of `chance`."""
    return (draw < 1 - chance).float() / (1 - chance)


def level_masks(mask: Tensor, levels: int) -> list[Tensor]:
    """(B, T) bool -> (B, T / 2^l) for l = 0, ..., levels."""
    return [mask[:, :: 2**level] for level in range(levels + 1)]


def convolved(conv: nn.Conv1d, value: Tensor) -> Tensor:
    """(B, T, I) -> (B, T / stride, O): the convolution along T.

    In one dimension PyTorch has no channels-last layout and copies in both directions; an image of
    height 1 has this layout and is a fifth faster. Its gradients are slower, so it is used only in
    inference. The result must not be changed in place.
    """
    shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.bias)
    if shape == ((3,), (1,), (1,), (1,), 1, None) and worthwhile(value, conv.weight):
        return winograd(value, conv.weight)
    if torch.is_grad_enabled():
        made: Tensor = conv(value.mT).mT
        return made
    image = value[:, None].permute(0, 3, 1, 2)
    return F.conv2d(
        image, conv.weight[:, :, None], conv.bias, (1, conv.stride[0]), (0, int(conv.padding[0])),
        groups=conv.groups,
    )[:, :, 0].mT  # fmt: skip


class MaskedConv(nn.Module):
    """A convolution of width 3 whose output is zero on padding, (B, T, I) -> (B, T, O)."""

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, 3, padding=1, bias=bias)
        if bias:
            nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, value: Tensor, mask: Tensor) -> Tensor:
        """`mask` (B, T) bool."""
        return convolved(self.conv, value) * mask[..., None]


class ConvStack(nn.Module):
    """Two masked convolutions, each followed by a norm over channels and a ReLU."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([MaskedConv(inputs, width), MaskedConv(width, width)])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in self.convs])

    def forward(self, value: Tensor, mask: Tensor, gaps: Tensor | None = None) -> Tensor:
        """(B, T, I) -> (B, T, H), zero in the `gaps`, like outside a tensor."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            normed = norm(conv(value, mask))
            if gaps is not None:
                normed.masked_fill_(gaps[:, None], 0)
            value = F.relu(normed, inplace=True)
        return value


class DepthwiseConv(nn.Module):
    """A depthwise convolution of width 3, (B, T, H) -> (B, T / stride, H), zero on padding."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv1d(width, width, 3, stride=stride, padding=1, groups=width, bias=False)

    def forward(self, value: Tensor, mask: Tensor) -> Tensor:
        """`mask` (B, T / stride) bool, of the output."""
        return convolved(self.conv, value) * mask[..., None]


def local_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, reach: int) -> Tensor:
    """Attention of each position to those at most `reach` away, in time and memory linear in T.

    Queries are processed in blocks; each block attends to the keys from `reach` before it to
    `reach` after it.

    Args:
        query, key, value: (B, T, heads, size).
        mask: (B, T) bool; only padding attends to padding.
        reach: largest distance, 1 or more.

    Returns:
        (B, T, heads, size).
    """
    videos, length, heads, size = query.shape
    if not torch.compiler.is_exporting():  # a traced length is at least a block
        reach = min(reach, length)  # blocks grow with the window, not beyond the video
    block = block_length(reach)
    number = -(-length // block)
    behind = number * block - length
    blocks = F.pad(query, (0, 0, 0, 0, 0, behind)).view(videos, number, block, heads, size)

    def windows(item: Tensor) -> Tensor:
        """(B, T, ...) -> (B, number, block + 2 reach, ...), the keys of each block."""
        edges = (0, 0) * (item.dim() - 2) + (reach, behind + reach)
        return F.pad(item, edges).unfold(1, block + 2 * reach, block).movedim(-1, 2)

    at = torch.arange(block, device=mask.device)
    other = torch.arange(block + 2 * reach, device=mask.device) - reach
    far = at[:, None] - other[None]  # (block, keys)
    allowed = (far.abs() <= reach) & windows(mask)[:, :, None] | (far == 0)
    inputs = [v.flatten(0, 1).transpose(1, 2) for v in (blocks, windows(key), windows(value))]
    allowed = allowed.flatten(0, 1)[:, None]
    made = F.scaled_dot_product_attention(inputs[0], inputs[1], inputs[2], attn_mask=allowed)
    return made.transpose(1, 2).reshape(videos, number * block, heads, size)[:, :length]


class LocalAttention(nn.Module):
    """Multi-head attention in a window, after short convolutions of queries, keys and values."""

    def __init__(self, width: int, heads: int, window: int, stride: int) -> None:
        super().__init__()
        self.heads, self.reach = heads, window_reach(window)
        self.convs = nn.ModuleList([DepthwiseConv(width, stride) for _ in range(3)])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3)])
        self.inputs = nn.ModuleList([nn.Linear(width, width) for _ in range(3)])
        self.output = nn.Linear(width, width)

    def forward(self, value: Tensor, mask: Tensor) -> Tensor:
        """(B, T, H) -> (B, T / stride, H), undefined on padding; `mask` is of the output."""
        layers = zip(self.convs, self.norms, self.inputs, strict=True)
        query, key, other = (
            linear(norm(conv(value, mask))).unflatten(2, (self.heads, -1))
            for conv, norm, linear in layers
        )
        made = local_attention(query, key, other, mask, self.reach).flatten(2)
        output: Tensor = self.output(made)
        return output


class TransformerBlock(nn.Module):
    """Local attention and a feed-forward net, each a scaled branch with a skip connection."""

    def __init__(self, width: int, heads: int, window: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = LocalAttention(width, heads, window, stride)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.scale1 = nn.Parameter(torch.full((width,), LAYER_SCALE))
        self.scale2 = nn.Parameter(torch.full((width,), LAYER_SCALE))

    def forward(self, value: Tensor, mask: Tensor, kept: Tensor) -> Tensor:
        """(B, T, H) -> (B, T / stride, H).

        Args:
            mask: (B, T / stride) bool.
            kept: (B, 2) factors of the two branches: 0 for a branch dropped by drop-path.
        """
        skip = pooled(value) if self.stride > 1 else value
        branch = self.attention(self.norm1(value), mask)
        value = torch.addcmul(skip, branch, self.scale1 * kept[:, :1, None]) * mask[..., None]
        branch = self.feed_forward(self.norm2(value))
        return torch.addcmul(value, branch, self.scale2 * kept[:, 1:, None]) * mask[..., None]


class ConvBlock(nn.Module):
    """Two convolutions with a skip connection: a level without attention."""

    def __init__(self, width: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.layers = ConvStack(width, width)

    def forward(self, value: Tensor, mask: Tensor, kept: Tensor) -> Tensor:
        """(B, T, H) -> (B, T / stride, H); `mask` is that of the output."""
        skip = pooled(value) if self.stride > 1 else value
        made: Tensor = (skip + self.layers(skip, mask) * kept[:, :1, None]) * mask[..., None]
        return made


def pooled(value: Tensor) -> Tensor:
    """(B, T, H) -> (B, T / 2, H): the maximum over three neighbours."""
    if torch.compiler.is_exporting():  # tracing fixes the length that max_pool1d takes
        image = value.mT[:, :, None]
        return F.max_pool2d(image, (1, 3), stride=(1, 2), padding=(0, 1))[:, :, 0].mT
    return F.max_pool1d(value.mT, 3, stride=2, padding=1).mT


class Pyramid(nn.Module):
    """Embedding, a stem at full resolution, then one block per level that halves it.

    Args:
        inputs: D.
        width: H.
        blocks: the blocks in order; those of the stem have stride 1, the others 2.
        recompute: whether backward recomputes each block instead of storing its activations, and
            long videos are processed one after the other.
        stem: blocks at full resolution, 1 or more; the last of them gives level 0.

    Source: ActionFormer; POTLoc code.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        blocks: Sequence[nn.Module],
        recompute: bool,
        stem: int = 2,
    ) -> None:
        super().__init__()
        self.recompute, self.stem = recompute, stem
        self.embedding = ConvStack(inputs, width)
        self.blocks = nn.ModuleList(blocks)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in blocks[stem - 1 :]])

    @property
    def branches(self) -> int:
        """Number of residual branches that drop-path may drop."""
        return 2 * len(self.blocks)

    def forward(
        self,
        features: Tensor,
        masks: list[Tensor],
        kept: Tensor,
        codes: Callable[[Tensor], Tensor] | None = None,
    ) -> list[Tensor]:
        """(B, T, D) -> (B, T / 2^l, H) of each level.

        Args:
            features: zero on padding; T a multiple of 2^L.
            masks: see `level_masks`.
            kept: (B, 2 blocks) factors of the branches.
            codes: of positions, (T, H) for an embedding (B, T, H), added to it.
        """
        value = self._run(self.embedding, features, masks[0])
        if codes is not None:
            value = value + codes(value) * masks[0][..., None]
        levels = []
        for k, block in enumerate(self.blocks):
            factors = kept[:, 2 * k : 2 * k + 2]
            inputs = (value, masks[max(k - self.stem + 1, 0)], factors)
            value = self._run(block, *inputs)
            if k >= self.stem - 1:
                levels.append(self.norms[k - self.stem + 1](value))
        return levels

    def _run(self, part: nn.Module, *inputs: Tensor) -> Tensor:
        """`part` on all videos, or on a few at a time with recomputation in the backward pass."""
        if not (self.recompute and torch.is_grad_enabled()):
            made: Tensor = part(*inputs)
            return made
        videos = max(1, POSITIONS_AT_ONCE // inputs[0].shape[1])
        rows = zip(*(torch.split(value, videos) for value in inputs), strict=True)
        return torch.cat([checkpoint(part, *row, use_reentrant=False) for row in rows])


class LevelHead(nn.Module):
    """A head shared by all levels: convolutions, then scores in [0, 1] of K classes."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.layers = ConvStack(width, width)
        self.scores = MaskedConv(width, outputs, bias=True)
        bias = torch.tensor(PRIOR / (1 - PRIOR)).log().item()
        nn.init.constant_(self.scores.conv.bias, bias)  # type: ignore[arg-type]

    def forward(self, value: Tensor, mask: Tensor, gaps: Tensor) -> Tensor:
        """(B, N, H) -> (B, N, K) scores of `joined` levels, zero on padding."""
        logit = self.scores(self.layers(value, mask, gaps), mask)
        return torch.sigmoid(logit.float()) * mask[..., None]
