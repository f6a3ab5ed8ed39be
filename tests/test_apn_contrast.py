"""The contrastive loss against sums written out one at a time, and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from reference_apn import slow_contrast
from torch import Tensor

from ptal_ray.methods.apn.contrast import contrast_loss

Actions = list[tuple[int, int, set[int]]]
Spans = list[tuple[int, int]]


def random_labels(rng: np.random.Generator, length: int, classes: int) -> tuple[Actions, Spans]:
    """Disjoint actions of one or two classes with background between some of them."""
    edges = sorted(rng.choice(length, min(length, 14), replace=False).tolist())
    actions: Actions = []
    background: Spans = []
    for first, behind in zip(edges, edges[1:], strict=False):
        if rng.random() < 0.6:
            labels = {int(c) for c in rng.integers(0, classes, rng.integers(1, 3))}
            actions.append((first, behind - 1, labels))
        elif rng.random() < 0.8:
            background.append((first, behind - 1))
    return actions, background


def inputs(
    videos: list[np.ndarray], labels: list[tuple[Actions, Spans]], classes: int, extra: int = 3
) -> dict[str, Tensor]:
    """Keyword arguments of the loss, with pads and rubbish behind the videos."""
    rows, longest = len(videos), max(map(len, videos)) + extra
    most = max(max(len(a), len(b)) for a, b in labels) + extra
    made: dict[str, Tensor] = {
        "embedding": torch.full((rows, longest, videos[0].shape[1]), 9.0, dtype=torch.float64),
        "mask": torch.zeros(rows, longest, dtype=torch.bool),
        "label": torch.zeros(rows, most, classes),
    }
    for name in ("start_t", "end_t", "background_start_t", "background_end_t"):
        made[name] = torch.full((rows, most), -1)
    for row, (x, (actions, background)) in enumerate(zip(videos, labels, strict=True)):
        made["embedding"][row, : len(x)] = torch.from_numpy(x)
        made["mask"][row, : len(x)] = True
        for i, (first, last, own) in enumerate(actions):
            made["start_t"][row, i], made["end_t"][row, i] = first, last
            made["label"][row, i, list(own)] = 1
        for i, (first, last) in enumerate(background):
            made["background_start_t"][row, i], made["background_end_t"][row, i] = first, last
    return made


def random_inputs(seed: int, count: int = 5) -> tuple[dict[str, Tensor], Any]:
    rng = np.random.default_rng(seed)
    videos = [rng.standard_normal((int(rng.integers(2, 70)), 6)) for _ in range(count)]
    labels = [random_labels(rng, len(x), 3) for x in videos]
    return inputs(videos, labels, 3), (videos, labels)


@pytest.mark.parametrize("seed", range(12))
def test_equals_the_written_out_sums(seed: int) -> None:
    tau, context = [0.05, 0.1, 0.5][seed % 3], [0.0, 0.1, 0.3, 0.5][seed % 4]
    made, (videos, labels) = random_inputs(seed)
    loss, number = contrast_loss(**made, tau=tau, context_ratio=context)
    single = contrast_loss(
        **{**made, "embedding": made["embedding"].float()}, tau=tau, context_ratio=context
    )
    expected = [
        slow_contrast(x, actions, background, tau, context)
        for x, (actions, background) in zip(videos, labels, strict=True)
    ]
    assert loss.shape == number.shape == ()
    assert int(number) == sum(n for _, n in expected)
    assert float(loss) == pytest.approx(sum(value for value, _ in expected), rel=1e-9)
    assert single[0].dtype == torch.float32
    assert float(single[0]) == pytest.approx(float(loss), rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_gradient(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = ([(0, 2, {0}), (4, 5, {0, 1}), (7, 7, {0})], [(3, 3), (6, 6), (8, 9)])
    made = inputs([rng.standard_normal((10, 3))], [labels], 2, extra=1)
    embedding = made.pop("embedding").requires_grad_()

    def call(x: Tensor) -> Tensor:
        return contrast_loss(x, **made, tau=0.2, context_ratio=0.3)[0]

    assert torch.autograd.gradcheck(call, (embedding,))  # type: ignore[no-untyped-call]


def test_regions_lie_around_the_first_and_the_last_snippet() -> None:
    """Two instances of length 5, 0.1 either way: one snippet to each side; shorter: none."""
    labels = ([(2, 6, {0}), (11, 15, {0}), (20, 23, {1}), (27, 30, {1})], [(17, 18)])
    made = inputs([np.random.default_rng(0).standard_normal((32, 4))], [labels], 2, extra=0)
    made["embedding"].requires_grad_()
    contrast_loss(**made, tau=0.1, context_ratio=0.1)[0].backward()
    gradient = made["embedding"].grad
    assert gradient is not None
    touched = gradient[0].abs().sum(dim=1).nonzero()[:, 0].tolist()
    regions = [1, 2, 3, 5, 6, 7, 10, 11, 12, 14, 15, 16, 17, 18, 20, 23, 27, 30]
    assert touched == regions


def test_a_shift_in_time_changes_nothing() -> None:
    """Regions round alike wherever they lie, as they must for crops to agree."""
    x = np.random.default_rng(0).standard_normal((40, 4))
    losses = []
    for shift in range(4):
        actions = [(first + shift, last + shift, {0}) for first, last in ((3, 7), (14, 18))]
        background = [(9 + shift, 11 + shift), (22 + shift, 30 + shift)]
        moved = np.concatenate([np.ones((shift, 4)), x])
        made = inputs([moved], [(actions, background)], 1)
        losses.append(float(contrast_loss(**made, tau=0.1, context_ratio=0.1)[0]))
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-12)


@pytest.mark.parametrize(
    "labels",
    [
        ([], []),
        ([(0, 2, {0}), (4, 5, {0})], []),  # no background
        ([(0, 2, {0}), (4, 5, {1})], [(3, 3)]),  # no class twice
        ([(0, 2, {0})], [(3, 9)]),
    ],
)
def test_no_terms(labels: tuple[Actions, Spans]) -> None:
    made = inputs([np.ones((10, 3))], [labels], 2)
    made["embedding"].requires_grad_()
    loss, number = contrast_loss(**made, tau=0.1, context_ratio=0.1)
    loss.backward()
    assert loss.item() == number.item() == 0
    assert made["embedding"].grad is not None and not made["embedding"].grad.any()


def test_instance_without_a_class_takes_no_part() -> None:
    labels = ([(0, 2, {0}), (4, 5, {0}), (7, 8, set())], [(6, 6)])
    made = inputs([np.random.default_rng(0).standard_normal((10, 3))], [labels], 2)
    with_it = contrast_loss(**made, tau=0.1, context_ratio=0.1)
    made["start_t"][0, 2] = made["end_t"][0, 2] = -1
    without = contrast_loss(**made, tau=0.1, context_ratio=0.1)
    made["label"][0, 2, 0] = 1  # a label on a pad
    padded = contrast_loss(**made, tau=0.1, context_ratio=0.1)
    assert with_it == without == padded


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-7, 1e4])
@pytest.mark.parametrize("tau", [0.01, 0.1])
def test_finite_gradient_in_single_precision(scale: float, tau: float) -> None:
    made, _ = random_inputs(2)
    x = made["embedding"].float() * scale
    x[:, ::3] = 0  # what a dead unit leaves
    x.requires_grad_()
    loss, number = contrast_loss(**{**made, "embedding": x}, tau=tau, context_ratio=0.1)
    loss.backward()
    assert number.item() > 0 and loss.isfinite()
    assert x.grad is not None and x.grad.isfinite().all() and float(x.grad.abs().max()) < 1e8


def test_loss_falls_when_boundaries_agree() -> None:
    rng = np.random.default_rng(0)
    x = 0.1 * rng.standard_normal((20, 3)) + [0, 0, 1]
    labels = ([(2, 5, {0}), (10, 14, {0})], [(0, 1), (6, 9), (15, 19)])
    before, _ = contrast_loss(**inputs([x], [labels], 1), tau=0.1, context_ratio=0.1)
    x[[2, 10]] += [5, 0, 0]
    x[[5, 14]] += [0, 5, 0]
    after, _ = contrast_loss(**inputs([x], [labels], 1), tau=0.1, context_ratio=0.1)
    assert float(after) < 0.2 * float(before)
