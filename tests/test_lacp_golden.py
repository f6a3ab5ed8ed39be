"""LACP against values of its released code."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import material, shared
from torch import Tensor

from ptal_ray.data.batching import label_pairs
from ptal_ray.data.types import Grid, Scores, Segments
from ptal_ray.methods.lacp.decode import decode
from ptal_ray.methods.lacp.loss import cut_short, sequence_losses
from ptal_ray.methods.lacp.model import Lacp
from ptal_ray.methods.lacp.params import LacpDecode, LacpTrain
from ptal_ray.methods.lacp.refresh import _seeds
from ptal_ray.methods.method import Batch
from ptal_ray.ops import mil
from ptal_ray.ops.nms import hard_nms
from ptal_ray.ops.point_losses import snippet_losses
from ptal_ray.ops.score_runs import upsample
from ptal_ray.ops.seeds import extend_points, mine_background
from ptal_ray.ops.sequence_search import (
    action_runs,
    beam_search,
    class_windows,
    contrast,
    exact_search,
    sequence_score,
)

COMPATIBLE = LacpDecode(nms_plus_one_second=True)


def cases(folder: str, file: str = "cases") -> list[Any]:
    path = material(f"golden/{folder}/{file}.json")
    found: list[Any] = json.loads(path.read_text())["cases"] if path.exists() else []
    return found


def named(folder: str, file: str = "cases") -> Any:
    found = cases(folder, file)
    if not found:
        return pytest.mark.parametrize("case", [None], ids=["absent"])
    return pytest.mark.parametrize("case", found, ids=[c["name"] for c in found])


def arrays(folder: str, case: Any) -> dict[str, np.ndarray]:
    path: Path = shared(f"golden/{folder}/cases.npz")
    with np.load(path) as file:
        prefix = f"{case['name']}/"
        return {k.removeprefix(prefix): file[k] for k in file.files if k.startswith(prefix)}


def points_of(annotated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B, T, C) -> (B, P) snippets and (B, P, C) labels."""
    found = [np.flatnonzero(video.any(axis=1)) for video in annotated]
    most = max(map(len, found))
    point_t = np.full((len(found), most), -1, np.int64)
    label = np.zeros((len(found), most, annotated.shape[2]), np.uint8)
    for row, snippet in enumerate(found):
        point_t[row, : len(snippet)] = snippet
        label[row, : len(snippet)] = annotated[row, snippet]
    return point_t, label


def batch_of(annotated: np.ndarray, features: Tensor) -> Batch:
    point_t, label = points_of(annotated)
    pair_t, pair_class = label_pairs(point_t, label)
    return Batch(
        ids=tuple(map(str, range(len(annotated)))), features=features,
        mask=torch.ones(annotated.shape[:2], dtype=torch.bool),
        point_t=torch.from_numpy(point_t), point_label=torch.from_numpy(label).float(),
        pair_t=torch.from_numpy(pair_t), pair_class=torch.from_numpy(pair_class),
        most_pairs=pair_t.shape[1], crop_t=torch.zeros(len(annotated), dtype=torch.int64),
    )  # fmt: skip


def seeds_of(score: Tensor, point_t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mask = torch.ones(score.shape[:2], dtype=torch.bool)
    mined = mine_background(score[..., -1], mask, point_t, 0.95)
    return mined, *extend_points(score[..., -1], mined, mask, point_t, 0.1)


@named("lacp_seeds")
def test_seeds(case: Any) -> None:
    given = arrays("lacp_seeds", case)
    point_t, label = points_of(given["point_anno"])
    mined, first, last = seeds_of(
        torch.from_numpy(given["cas_sigmoid_fuse"]), torch.from_numpy(point_t)
    )
    np.testing.assert_array_equal(mined.numpy(), given["bkg_seed"])
    made = np.zeros_like(given["act_seed"])
    for row, column in zip(*np.nonzero(point_t >= 0), strict=True):
        made[row, first[row, column] : last[row, column] + 1] = label[row, column]
    np.testing.assert_array_equal(made, given["act_seed"])


def searched(
    score: np.ndarray, annotated: np.ndarray, label: int, search: Any
) -> tuple[np.ndarray, float, float]:
    """0-1 labels of a class, their score, and the score of the true optimum."""
    point_t, own = points_of(annotated[None])
    mined, first, last = seeds_of(torch.from_numpy(score)[None], torch.from_numpy(point_t))
    seeds = _seeds(first[0].numpy(), last[0].numpy(), own[0] > 0, len(score))
    others = np.delete(seeds, label, axis=1).any(axis=1)
    states = class_windows(seeds[:, label], mined[0].numpy() | others)
    sums = np.concatenate([[0.0], np.cumsum(score[:, label].astype(np.float64))])
    starts = search(sums, states)
    made = np.zeros(len(score), np.int8)
    for begin, end in zip(*action_runs(starts, states, len(score)), strict=True):
        made[begin : end + 1] = 1
    best = exact_search(sums, states, 0.25)
    return (
        made,
        sequence_score(sums, starts, states.action_first, 0.25),
        sequence_score(sums, best, states.action_first, 0.25),
    )


@named("lacp_search")
def test_beam(case: Any) -> None:
    given = arrays("lacp_search", case)
    score, annotated = given["cas_sigmoid_fuse"], given["point_anno"]
    budgets = {25: given["pseudo_labels"]} | {
        int(k.removeprefix("labels_budget")): v
        for k, v in given.items()
        if k.startswith("labels_budget")
    }
    for budget, expected in budgets.items():
        for label in map(int, case["per_class_score"]):
            made, value, optimum = searched(
                score, annotated, label,
                lambda s, w, b=budget: beam_search(s, w, 0.25, budget=b, prune=0.1),
            )  # fmt: skip
            np.testing.assert_array_equal(made, expected[:, label])
            assert value <= optimum + 1e-12
            if budget == 25:
                assert value == pytest.approx(case["per_class_score"][str(label)], abs=1e-5)


@named("lacp_search")
def test_exact_has_the_labels_of_an_optimal_beam_and_a_higher_score_elsewhere(case: Any) -> None:
    given = arrays("lacp_search", case)
    for label, reference in case["per_class_score"].items():
        made, value, _ = searched(
            given["cas_sigmoid_fuse"], given["point_anno"], int(label),
            lambda s, w: exact_search(s, w, 0.25),
        )  # fmt: skip
        assert value >= reference - 1e-6
        if value < reference + 1e-6:
            np.testing.assert_array_equal(made, given["pseudo_labels"][:, int(label)])


@pytest.mark.parametrize("case", cases("lacp_search", "degenerate"), ids=lambda c: c["name"])
def test_degenerate_searches(case: Any) -> None:
    score = np.array(case["cas_sigmoid_fuse"], np.float32)
    annotated = np.array(case["point_anno"], np.int8)
    for label in np.flatnonzero(annotated.any(axis=0)):
        for search in (
            lambda s, w: exact_search(s, w, 0.25),
            lambda s, w: beam_search(s, w, 0.25, budget=25, prune=0.1),
        ):
            made, _, _ = searched(score, annotated, label, search)
            if "labels" in case:
                expected = np.array(case["labels"])[:, label]
                same = (made == expected).all()
                assert same or (score == score[0]).all()  # every sequence ties there
            else:
                assert made.all()


def test_contrast() -> None:
    for case in json.loads(shared("golden/lacp_oic/oic_scores.json").read_text())["cases"]:
        sums = np.concatenate([[0.0], np.cumsum(np.array(case["scores"]))])
        made = contrast(sums, case["start"], case["end"], case["delta"], True, 0, len(sums) - 2)
        assert made == pytest.approx(case["oic"], abs=1e-5)
        runs = mil.Runs(
            start=torch.tensor([[case["start"]]]), end=torch.tensor([[case["end"]]]),
            label=torch.zeros(1, 1, dtype=torch.int64), action=torch.ones(1, 1, dtype=torch.bool),
        )  # fmt: skip
        batched = mil.score_contrast(
            torch.tensor(case["scores"])[None, :, None], runs,
            torch.tensor([len(case["scores"])]), case["delta"],
        )  # fmt: skip
        assert batched.item() == pytest.approx(case["oic"], abs=1e-5)


@named("lacp_model")
def test_model(case: Any) -> None:
    given = arrays("lacp_model", case)
    hp = LacpTrain(embed_dim=case["hidden"], r_act=case["r_act"])
    model = Lacp(case["D"], case["C"], hp)
    names = {"conv_1.0": "embedding", "classifier.0": "classifier"}
    state = {}
    for name, new in names.items():
        for part in ("weight", "bias"):
            if (key := f"state/cls_module.{name}.{part}") in given:
                state[f"{new}.{part}"] = torch.from_numpy(given[key])
    model.load_state_dict(state)
    x = torch.from_numpy(given["x"])
    mask = torch.ones(x.shape[:2], dtype=torch.bool)
    with torch.no_grad():
        features, score = model(x)
        close(features, given["features"])
        close(mil.fuse(score), given["cas_sigmoid_fuse"])
        if case["k_act"] == 0:
            return  # the reference divides by zero there
        present = torch.from_numpy(given["vid_labels"])
        close(mil.video_scores(score[..., :-1], mask, hp.r_act), given["vid_score_nolabel"])
        close(mil.video_scores(score[..., :-1], mask, hp.r_act, present), given["vid_score_label"])


def close(made: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(made.detach()), expected, atol=1e-5, rtol=1e-4)


def runs_of(dense: np.ndarray) -> mil.Runs:
    """The runs of (B, T, C) pseudo-sequences, the classes in order."""
    found: list[list[tuple[int, int, int]]] = []
    for video in dense:
        rows = []
        for label in range(video.shape[1]):
            edge = np.flatnonzero(np.diff(np.pad(video[:, label].astype(int), 1)))
            rows += [(s, e - 1, label) for s, e in zip(edge[::2], edge[1::2], strict=True)]
        found.append(rows)
    most = max(1, *map(len, found))
    padded = torch.tensor([rows + [(-1, -1, -1)] * (most - len(rows)) for rows in found])
    length = torch.full((len(dense),), dense.shape[1])
    return cut_short(mil.runs_from_actions(*padded.unbind(dim=2), length), length)


def draws(runs: mil.Runs, log: list[list[int]]) -> Tensor:
    """Uniform numbers that pick the snippets the reference drew, in its order."""
    made = torch.zeros(*runs.start.shape, 3)
    taken = iter(log)
    for row in range(len(made)):
        for label in runs.label[row].unique():
            chosen = (runs.valid[row] & (runs.label[row] == label)).nonzero()[:, 0]
            for run in chosen[runs.start[row, chosen].argsort()]:
                for part in range(3):
                    low, high, pick = next(taken)
                    made[row, run, part] = (pick - low + 0.5) / max(high - low, 1)
    assert next(taken, None) is None
    return made


@pytest.mark.parametrize("tau", [0.005, 0.01, 0.1])
def test_the_contrast_of_features_is_finite_at_low_temperatures(tau: float) -> None:
    vector = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0))
    vector = torch.nn.functional.normalize(vector, dim=2).requires_grad_()
    start = torch.tensor([[0, 2, 4, 6]])
    runs = mil.Runs(
        start=start, end=start + 1, label=torch.zeros_like(start),
        action=torch.tensor([[True, False, True, False]]),
    )  # fmt: skip
    found = mil.feature_contrast(vector, runs, tau, 1)
    found.sum().backward()
    assert found.isfinite().all() and found.item() > 0
    assert vector.grad is not None and vector.grad.isfinite().all()


@named("lacp_loss")
def test_losses_and_their_gradients(case: Any) -> None:
    given = arrays("lacp_loss", case)
    fused = torch.from_numpy(given["cas_sigmoid_fuse"]).requires_grad_()
    video = torch.from_numpy(given["vid_score"]).requires_grad_()
    features = torch.from_numpy(given["features"]).requires_grad_()
    batch = batch_of(given["point_anno"], features)
    hp = LacpTrain(reference_faults=True)
    terms = snippet_losses(
        fused, video, batch.mask, batch.point_t, batch.point_label,
        gamma=hp.focal_gamma, threshold=hp.background_threshold,
    )  # fmt: skip
    if "new_dense_anno" in given:
        runs = runs_of(given["new_dense_anno"])
        draw = draws(runs, case["feature_sampling_log_lo_hi_pick"])
        step = SimpleNamespace(rand=lambda *_: draw)
        terms |= sequence_losses(features, fused, runs, batch, hp, step)  # type: ignore[arg-type]
    expected = case["losses"]
    names = {"video": "loss_vid", "point": "loss_frame", "feature": "loss_feat"}
    if len(fused) == 1:  # a batch of several is not what the reference trains on
        names |= {"background": "loss_frame_bkg", "score": "loss_score"}
    for name, reference in names.items():
        if name in terms:
            value = terms[name].mean().item()
            assert value == pytest.approx(expected[reference], rel=1e-4, abs=1e-5), name
    if len(fused) > 1:
        return
    weights = dict(
        zip(("video", "point", "background", "score", "feature"), case["lambdas"], strict=True)
    )
    total = sum(weights[k] * v.mean() for k, v in terms.items())
    assert total.item() == pytest.approx(expected["loss_total"], rel=1e-4)
    total.backward()
    close(fused.grad, given["grad_cas"])
    close(video.grad, given["grad_vid"])
    if "grad_feat" in given:
        close(features.grad, given["grad_feat"])


def test_upsampling() -> None:
    for case in json.loads(shared("golden/lacp_decode/upsample.json").read_text())[
        "upgrade_resolution"
    ]:
        given, expected = np.array(case["arr"]), np.array(case["up"])
        for channel in range(given.shape[1]):
            made = upsample(np.ascontiguousarray(given[:, channel, 0]), case["scale"])
            np.testing.assert_allclose(made, expected[:, channel, 0], atol=1e-9)


def test_suppression() -> None:
    for case in json.loads(shared("golden/lacp_decode/nms.json").read_text())["cases"]:
        rows = np.array(case["proposals_class_score_start_end"], float).reshape(-1, 4)
        found = hard_nms(
            Segments(
                start_s=rows[:, 2], end_s=rows[:, 3], label=np.zeros(len(rows), np.int64),
                score=rows[:, 1],
            ),
            case["thresh"], plus_one_second=True,
        )  # fmt: skip
        kept = np.array(case["kept"], float).reshape(-1, 4)
        np.testing.assert_allclose(found.score, kept[:, 1])
        np.testing.assert_allclose(found.start_s, kept[:, 2])


@named("lacp_decode")
def test_decode(case: Any) -> None:
    given = arrays("lacp_decode", case)
    fused = given["cas_sigmoid_fuse"]
    names = json.loads(shared("golden/lacp_decode/cases.json").read_text())["class_dict"]
    found = Scores(
        id="v",
        arrays={"video": given["vid_score"], "score": fused[:, :-1], "action": 1 - fused[:, -1]},
    )
    seconds = 16 / 25 * case["vid_num_seg"] / case["T"]
    made = decode(found, Grid(stride_s=seconds), np.inf, COMPATIBLE)
    expected = sorted(case["proposals"], key=lambda p: -p["score"])
    assert len(made) == len(expected) == case["n_proposals"]
    np.testing.assert_allclose(made.score, [p["score"] for p in expected], atol=1e-5)
    order = {
        (names[str(c)], round(s, 3), round(e, 3))
        for c, s, e in zip(made.label, made.start_s, made.end_s, strict=True)
    }
    assert order == {
        (p["label"], round(p["segment"][0], 3), round(p["segment"][1], 3)) for p in expected
    }
