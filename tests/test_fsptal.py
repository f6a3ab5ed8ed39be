"""FS-PTAL against golden values of its parts and against slow references of its rules."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from conftest import golden_names, shared
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ptal_ray.data.batching import label_pairs
from ptal_ray.methods.fsptal.extension import extend, interpolate, positions
from ptal_ray.methods.fsptal.loss import (
    compared,
    loss,
    point_loss,
    score_loss,
    segment_numbers,
    separation_loss,
)
from ptal_ray.methods.fsptal.mining import mine
from ptal_ray.methods.fsptal.model import Fsptal, foreground_logits
from ptal_ray.methods.fsptal.params import FsptalTrain
from ptal_ray.methods.fsptal.refresh import refresh
from ptal_ray.methods.method import Batch, Step
from ptal_ray.ops import mil


def batch_of(length: int, points: list[tuple[int, int]], classes: int = 3) -> Batch:
    """One video whose features at snippet t are (t, t^2)."""
    snippets = sorted({t for t, _ in points})
    label = np.zeros((1, max(1, len(snippets)), classes), np.uint8)
    point_t = np.full((1, max(1, len(snippets))), -1, np.int64)
    point_t[0, : len(snippets)] = snippets
    for t, c in points:
        label[0, snippets.index(t), c] = 1
    pair_t, pair_class = label_pairs(point_t, label)
    t = torch.arange(length, dtype=torch.float32)
    return Batch(
        ids=("v",), features=torch.stack([t, t**2], dim=1)[None],
        mask=torch.ones(1, length, dtype=torch.bool), point_t=torch.from_numpy(point_t),
        point_label=torch.from_numpy(label).float(), pair_t=torch.from_numpy(pair_t),
        pair_class=torch.from_numpy(pair_class), most_pairs=int((pair_t >= 0).sum()),
        crop_t=torch.zeros(1, dtype=torch.int64),
    )  # fmt: skip


def test_sampling_by_weights() -> None:
    for case in json.loads(shared("golden/dynamic_sampling/cases.json").read_text())["cases"]:
        weight = torch.tensor(case["weights"], dtype=torch.float64)[None]
        mask = torch.ones(weight.shape, dtype=torch.bool)
        place, exists = positions(weight, mask, case["T_new"] + 4)
        features = torch.tensor(case["feature"], dtype=torch.float64)[None]
        made = interpolate(features, mask, place)[0, exists[0]]
        np.testing.assert_allclose(made, case["sampled"], atol=1e-5)


def test_extension_weighs_points_and_their_neighbours() -> None:
    for case in json.loads(shared("golden/dynamic_sampling/cases.json").read_text())["cases"]:
        if case["T_ori"] == 1:
            continue  # the reference rescales the weights of a single snippet
        batch = batch_of(case["T_ori"], [(t, 0) for t in case["points"]])
        made = extend(batch, tau1=case["tau1"], tau2=case["tau2"], reach=0.5)
        assert made.mask.sum() == case["T_new"]


def test_extension_spreads_labels_around_each_point() -> None:
    made = extend(batch_of(20, [(5, 0), (6, 1), (15, 2)]), tau1=2.5, tau2=1.67, reach=0.5)
    place, label = made.position[0], made.label[0]
    for c, t in ((0, 5), (1, 6), (2, 15)):
        carried = label[:, c].nonzero()[:, 0]
        assert (carried.diff() == 1).all() and 2 <= len(carried) <= 3
        assert ((place[carried] - t).abs() <= 0.5).all()
    features = made.features[0, made.mask[0]]
    torch.testing.assert_close(features[:, 0], place[made.mask[0]].float())


def test_no_extension_changes_nothing() -> None:
    batch = batch_of(12, [(0, 0), (7, 1), (11, 2)])
    made = extend(batch, tau1=1.0, tau2=1.0, reach=0.5)
    torch.testing.assert_close(made.features, batch.features)
    assert made.first_t.tolist() == [[0, 7, 11]]
    assert made.label[0].nonzero().tolist() == [[0, 0], [7, 1], [11, 2]]


@pytest.mark.parametrize("name", golden_names("facnet/cases.json"))
def test_foreground_branch(name: str) -> None:
    with np.load(shared("golden/facnet/cases.npz")) as file:
        case = {k.removeprefix(f"{name}/"): torch.from_numpy(file[k]) for k in file.files
                if k.startswith(f"{name}/")}  # fmt: skip
    embedded = case["x"]
    for layer in ("0", "3"):
        weight, bias = (
            case[f"state/feature_embedding.process.{layer}.{p}"] for p in ("weight", "bias")
        )
        embedded = torch.relu(embedded @ weight.mT + bias)
    mask = torch.ones(embedded.shape[:2], dtype=torch.bool)
    centers = case["state/ac_center"], case["state/fg_center"][0]
    made = foreground_logits(embedded, mask, *centers, [1.0, 2.0, 5.0], 5.0).softmax(dim=1)
    np.testing.assert_allclose(made, case["cw_vid_pred"], atol=1e-5)
    padded = torch.nn.functional.pad(embedded, (0, 0, 0, 9), value=3.0)
    longer = torch.nn.functional.pad(mask, (0, 9))
    again = foreground_logits(padded, longer, *centers, [1.0, 2.0, 5.0], 5.0).softmax(dim=1)
    torch.testing.assert_close(again, made)


def slow_mine(
    fused: np.ndarray, label: np.ndarray, above: float, below: float
) -> tuple[np.ndarray, np.ndarray]:
    """Algorithm 2 for one video, snippet by snippet."""
    length, b = len(fused), fused[:, -1]
    points = list(np.flatnonzero(label.any(axis=1)))
    background, action = np.zeros(length, bool), label.copy()
    if not points:
        return background, action
    for left, right in pairwise([-1, *points, length]):
        gap = range(left + 1, right)
        if not len(gap):
            continue
        high = [t for t in gap if b[t] > above] or [max(gap, key=lambda t: (b[t], -t))]
        background[high[0] : high[-1] + 1] = True
    for t in range(length):
        if b[t] > below or background[t] or t in points:
            continue
        best = fused[t, :-1].argmax()
        left = max((p for p in points if p < t), default=None)
        right = min((p for p in points if p > t), default=None)
        if left is not None and not background[left:t].any() and label[left, best]:
            action[t, best] = 1
        if right is not None and not background[t:right].any() and label[right, best]:
            action[t, best] = 1
    return background, action


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(0, 6))
@settings(deadline=None, max_examples=80)
def test_mining(seed: int, length: int, points: int) -> None:
    rng = np.random.default_rng(seed)
    fused = rng.random((2, length, 4)).astype(np.float32)
    label = np.zeros((2, length, 3), np.float32)
    label[0, rng.integers(0, length, points), rng.integers(0, 3, points)] = 1
    label[1, rng.integers(0, length), 1] = 1
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[1, max(1, length // 2) :] = False
    label[1, max(1, length // 2) :] = 0
    mined, action = mine(
        torch.from_numpy(fused), mask, torch.from_numpy(label), background_above=0.8,
        action_below=0.5,
    )  # fmt: skip
    for row in range(2):
        real = int(mask[row].sum())
        expected = slow_mine(fused[row, :real], label[row, :real], 0.8, 0.5)
        np.testing.assert_array_equal(mined[row, :real], expected[0])
        np.testing.assert_array_equal(action[row, :real], expected[1])
        assert not mined[row, real:].any() and not action[row, real:].any()


def test_point_loss() -> None:
    fused = torch.tensor([[[0.6, 0.1, 0.2], [0.2, 0.3, 0.9], [0.5, 0.5, 0.1]]])
    action = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    mined = torch.tensor([[False, True, False]])
    acted = 0.4**2 * -np.log(0.6) + 0.1**2 * -np.log(0.9) + 0.2**2 * -np.log(0.8)
    rested = 0.2**2 * -np.log(0.8) + 0.3**2 * -np.log(0.7) + 0.1**2 * -np.log(0.9)
    assert point_loss(fused, mined, action).item() == pytest.approx(acted + rested, rel=1e-5)


def test_score_loss_clips_at_neighbours() -> None:
    score = torch.zeros(1, 20, 2)
    score[0, 4:8, 0], score[0, 9:13, 0] = 0.9, 0.8
    length = torch.tensor([20])
    runs = mil.runs_from_actions(
        torch.tensor([[4, 9]]), torch.tensor([[7, 12]]), torch.tensor([[0, 0]]), length
    )
    hp = FsptalTrain(delta=0.5, clipped="both")
    made = score_loss(score, runs, length, hp).item()  # both surroundings hold zeros alone
    assert made == pytest.approx((1 - 0.85) ** 2, rel=1e-5)
    reaching = score_loss(score, runs, length, FsptalTrain(delta=0.5)).item()
    assert reaching > made


def test_a_segment_over_the_whole_video_has_a_score_loss() -> None:
    torch.manual_seed(0)
    hp = FsptalTrain(
        embed_dim=16, separation_hidden=8, separation_dim=4, dropout=0.0, refresh_every=1,
        separation_weight=0.0, tau1=1.0, tau2=1.0,
    )  # fmt: skip
    batch, model = batch_of(2, [(0, 0), (1, 0), (1, 2)]), Fsptal(2, 3, hp)
    with torch.no_grad():
        pseudo = refresh(model, batch, hp)
        score = mil.fuse(model(batch.features)[1])[0]
    assert pseudo["start_t"].tolist() == [[0, -1, 1]]  # of class 0: both snippets
    whole, part = 1 - score[:, 0].mean(), 1 - (score[1, 2] - score[0, 2])
    step = Step(index=1, epoch=0.0, generator=torch.Generator())
    made = loss(model, dataclasses.replace(batch, pseudo=pseudo), hp, step)["score"]
    assert made.item() == pytest.approx(((whole**2 + part**2) / 2).item(), rel=1e-5)


def test_segments_are_numbered() -> None:
    mask = torch.ones(1, 10, dtype=torch.bool)
    mask[0, 9] = False
    made = segment_numbers(torch.tensor([[2, 6, -1]]), torch.tensor([[3, 6, -1]]), mask)[0]
    groups = [made[:2], made[2:4], made[4:6], made[6:7], made[7:9]]
    assert all(len(g.unique()) == 1 for g in groups)
    assert len({int(g[0]) for g in groups}) == 5
    assert made[9] == -1 and (made[:9] >= 0).all()


def slow_separation(e: np.ndarray, mined: np.ndarray, action: np.ndarray, hp: Any) -> float:
    similar = e @ e.T
    rest, acted = np.flatnonzero(mined), np.flatnonzero(action.any(axis=1))
    total = 0.0
    if len(rest) > 1:
        total += np.mean([
            max(hp.psi_same - min(similar[i, j] for j in rest if j != i), 0) for i in rest
        ])  # fmt: skip
    terms = []
    for i in acted:
        across = hp.separation_pairs == "all"
        partners = [j for j in acted if j != i and (across or (action[i] * action[j]).any())]
        if partners:
            terms.append(max(hp.psi_same - min(similar[i, j] for j in partners), 0))
    total += np.mean(terms) if terms else 0.0
    if len(rest) and len(acted):
        total += np.mean([max(max(similar[i, j] for j in rest) - hp.psi_diff, 0) for i in acted])
    return float(total)


@pytest.mark.parametrize("pairs", ["all", "class"])
@given(st.integers(0, 2**32 - 1), st.integers(1, 25))
@settings(deadline=None, max_examples=40)
def test_separation(pairs: str, seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    e = rng.standard_normal((1, length, 5))
    e /= np.linalg.norm(e, axis=2, keepdims=True)
    kind = rng.integers(0, 5, length)  # 0: background, 1 to 3: a class, 4: neither
    action = np.stack([kind == c for c in (1, 2, 3)], axis=1).astype(np.float32)[None]
    hp = FsptalTrain(psi_same=0.8, psi_diff=0.1, separation_pairs=pairs)
    draw = torch.rand(1, length)
    rest, is_rest = compared(torch.from_numpy(kind == 0)[None], draw, 256)
    acted, is_acted = compared(torch.from_numpy(action.any(axis=2)), draw, 256)
    made = separation_loss(
        torch.from_numpy(e)[:, torch.cat([rest, acted], dim=1)[0]], is_rest, is_acted,
        torch.from_numpy(action)[:, acted[0]], hp,
    )  # fmt: skip
    assert made.item() == pytest.approx(slow_separation(e[0], kind == 0, action[0], hp), abs=1e-6)


def test_separation_compares_in_single_precision() -> None:
    """Cosines of about psi_same, under the autocast of the training."""
    angle = torch.linspace(0, 0.5, 12)
    apart = torch.stack([angle.cos(), angle.sin()], dim=1).repeat(2, 1)[None]
    some, label = torch.ones(1, 12, dtype=torch.bool), torch.ones(1, 12, 1)
    hp = FsptalTrain()
    plain = separation_loss(apart, some, some, label, hp)
    with torch.autocast("cpu", torch.bfloat16):
        made = separation_loss(apart, some, some, label, hp)
    assert made.dtype == torch.float32 and torch.equal(made, plain)


def slow_attention(model: Fsptal, embedded: Tensor, segment: list[int]) -> Tensor:
    """E (T, D_ebd) of one video, snippet by snippet."""
    hidden = torch.relu(model.separate(embedded.T[None]))[0].T
    made = []
    for i, number in enumerate(segment):
        keys = [j for j, other in enumerate(segment) if other == number >= 0 or j == i]
        cosine = torch.stack([torch.cosine_similarity(hidden[i], hidden[j], dim=0) for j in keys])
        attended = (cosine / 0.1).softmax(dim=0) @ hidden[keys]
        made.append(model.project(hidden[i] + attended))
    return torch.nn.functional.normalize(torch.stack(made), dim=1)


def test_attention_at_chosen_snippets_is_that_of_every_snippet() -> None:
    model = Fsptal(6, 2, FsptalTrain(embed_dim=16, separation_hidden=8, separation_dim=4))
    torch.manual_seed(0)
    embedded = torch.rand(1, 12, 16)
    segment = [0, 0, 0, 1, 1, 2, 3, 3, 3, 3, -1, -1]
    at = torch.tensor([[7, 0, 5, 11, 3]])
    mask = torch.ones(1, 12, dtype=torch.bool)
    made = model.separation(embedded, mask, torch.tensor([segment]), at)
    assert torch.allclose(made[0], slow_attention(model, embedded[0], segment)[at[0]], atol=1e-5)


def test_at_most_some_members_are_compared() -> None:
    member = torch.arange(8)[None] % 2 == 0
    draw = torch.tensor([[0.1, 0.9, 0.8, 0.9, 0.3, 0.9, 0.6, 0.9]])
    index, exists = compared(member, draw, 3)
    assert index.tolist() == [[2, 6, 4]] and exists.all()
    assert compared(member, draw, 100)[1].sum() == 4


def test_attention_stays_inside_segments() -> None:
    hp = FsptalTrain(embed_dim=16, separation_hidden=8, separation_dim=4)
    torch.manual_seed(0)
    model = Fsptal(6, 2, hp)
    segment = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, -1, -1]])
    mask = torch.ones(1, 12, dtype=torch.bool)
    embedded: Tensor = torch.rand(1, 12, 16)
    at = torch.arange(12)[None]
    made = model.separation(embedded, mask, segment, at)
    changed = embedded.clone()
    changed[0, 8] += 5
    moved = (model.separation(changed, mask, segment, at) - made).abs().amax(dim=2)[0] > 1e-6
    assert moved[6:10].all()  # the whole segment
    assert not moved[:6].any() and not moved[10:].any()


def test_separation_compares_annotated_snippets_or_mined_ones_too() -> None:
    torch.manual_seed(0)
    batch = batch_of(30, [(6, 0), (20, 0)], classes=1)
    batch = dataclasses.replace(batch, features=torch.randn(1, 30, 2))
    found = {}
    for actions, threshold in (("points", 0.0), ("points", 1.0), ("mined", 0.0), ("mined", 1.0)):
        hp = FsptalTrain(
            embed_dim=16, separation_hidden=8, separation_dim=4, dropout=0.0, refresh_every=1,
            background_threshold=1.0, action_threshold=threshold, separation_actions=actions,
        )  # fmt: skip
        torch.manual_seed(1)
        model = Fsptal(2, 1, hp)
        none = torch.full_like(batch.pair_t, -1)
        pseudo = {"start_t": none, "end_t": none, "label": batch.pair_class}
        taught = dataclasses.replace(batch, pseudo=pseudo)
        step = Step(index=1, epoch=0.0, generator=torch.Generator())
        found[actions, threshold] = loss(model, taught, hp, step)["separation"].item()
    assert found["points", 0.0] == found["points", 1.0] == found["mined", 0.0]
    assert found["mined", 1.0] != found["mined", 0.0]
