"""APN's boundary detector, proposals and decoding."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import shared
from hypothesis import given
from hypothesis import strategies as st

from ptal_ray.data.types import Grid, Scores
from ptal_ray.methods.apn.boundary import boundary_targets, weighted_binary_loss
from ptal_ray.methods.apn.decode import decode
from ptal_ray.methods.apn.loss import (
    NARROWEST_ZONE_T,
    _balance,
    _points_until,
    _with_instances,
)
from ptal_ray.methods.apn.model import Apn
from ptal_ray.methods.apn.params import ApnDecode, ApnTrain
from ptal_ray.methods.apn.proposals import (
    Candidates,
    edges,
    pair_candidates,
    sample_features,
    with_whole_videos,
)
from ptal_ray.methods.method import Batch, Step


def test_golden_boundary_targets() -> None:
    for case in json.loads(shared("golden/bsn/tem_labels.json").read_text())["cases"]:
        cells = torch.tensor(case["segments_s"], dtype=torch.float64) * case["T"] / case["duration"]
        valid = torch.ones(1, len(cells), dtype=torch.bool)
        made = boundary_targets(
            cells[None, :, 0], cells[None, :, 1], valid, case["T"], case["boundary_ratio"]
        )
        for name, values in zip(("start", "end", "action"), made, strict=True):
            np.testing.assert_allclose(values[0], case[name], atol=1e-6, err_msg=name)


def test_golden_boundary_loss() -> None:
    for case in json.loads(shared("golden/bsn/tem_loss.json").read_text())["cases"]:
        output = torch.tensor(case["output"])
        mask = torch.ones(output.shape[0], output.shape[2], dtype=torch.bool)
        made = {}
        for channel, name in enumerate(("action", "start", "end")):
            target = torch.tensor(case[name]).view(mask.shape)
            made[name] = weighted_binary_loss(output[:, channel], target, mask)
        for name, value in made.items():
            expected = case.get(f"loss_{name}")
            if expected is not None and np.isfinite(expected):
                assert float(value) == pytest.approx(expected, abs=1e-5), name
        assert all(torch.isfinite(v) for v in made.values())


LOWEST_RATIO, HIGHEST_RATIO = ApnTrain.__dataclass_fields__["zone_ratio"].metadata["allowed"]


@given(
    length=st.integers(1, 60),
    edges=st.lists(st.tuples(st.integers(0, 59), st.integers(0, 59)), min_size=1, max_size=8),
    ratio=st.floats(LOWEST_RATIO, HIGHEST_RATIO),
)
def test_every_instance_has_a_positive_cell_at_its_start_and_its_end(
    length: int, edges: list[tuple[int, int]], ratio: float
) -> None:
    first, last = (torch.tensor([[p(e) for e in edges]]).clamp(max=length - 1) for p in (min, max))
    valid = torch.ones_like(first, dtype=torch.bool)
    start, end, _ = boundary_targets(
        first.float(), last.float() + 1, valid, length, ratio, NARROWEST_ZONE_T
    )
    assert (start.gather(1, first) > 0.5).all() and (end.gather(1, last) > 0.5).all()


def test_no_positive_cell_gives_no_loss_and_no_gradient() -> None:
    logit = torch.zeros(1, 5, requires_grad=True)
    mask = torch.ones(1, 5, dtype=torch.bool)
    value = weighted_binary_loss(torch.sigmoid(logit), torch.zeros(1, 5), mask)
    value.backward()
    assert value == 0 and torch.equal(logit.grad, torch.zeros(1, 5))


def test_golden_proposals() -> None:
    checked = 0
    for case in json.loads(shared("golden/bsn/pgm_proposals.json").read_text())["cases"]:
        length = case["T"]
        found = pair_candidates(
            torch.tensor(case["start"], dtype=torch.float64)[None],
            torch.tensor(case["end"], dtype=torch.float64)[None],
            torch.ones(1, length, dtype=torch.bool),
            min_duration_t=1,
            max_duration_t=float("inf"),
            top=length * length,
            threshold=case["peak_threshold"],
        )
        kept = found.valid[0]
        made = np.stack(
            [
                (found.start_t[0][kept].numpy() + 0.5) / length,
                (found.end_t[0][kept].numpy() + 0.5) / length,
                found.start_score[0][kept].numpy(),
                found.end_score[0][kept].numpy(),
            ],
            axis=1,
        )
        expected = np.array(case["proposals_xmin_xmax_smin_smax_score"])
        assert len(made) == len(expected)
        np.testing.assert_allclose(made[:, 2] * made[:, 3], expected[:, 4], atol=1e-9)
        order = [np.lexsort(rows[:, 1::-1].T) for rows in (made, expected)]
        np.testing.assert_allclose(made[order[0]], expected[order[1]][:, :4], atol=1e-9)
        checked += 1
    assert checked


def test_padding_and_duration_limits_bound_the_pairs() -> None:
    rng = torch.Generator().manual_seed(0)
    score = torch.rand(2, 2, 30, generator=rng)
    mask = torch.arange(30)[None] < torch.tensor([[30], [12]])
    found = pair_candidates(
        score[0], score[1], mask, min_duration_t=2, max_duration_t=torch.tensor(5.0), top=40
    )
    duration = found.end_t - found.start_t
    assert ((duration >= 2) & (duration <= 5) | ~found.valid).all()
    assert (found.end_t[1][found.valid[1]] < 12).all()
    alone = pair_candidates(
        score[0][1:, :12], score[1][1:, :12], mask[1:, :12],
        min_duration_t=2, max_duration_t=5.0, top=40,
    )  # fmt: skip
    number = int(alone.valid.sum())
    assert torch.equal(alone.start_t[0][:number], found.start_t[1][:number])


def test_a_video_without_a_pair_is_a_proposal_itself() -> None:
    score = torch.rand(2, 2, 9, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, 6:] = False
    found = pair_candidates(score[0], score[1], mask, min_duration_t=1, max_duration_t=0.5, top=4)
    assert not found.valid.any()
    whole = with_whole_videos(found, score[0], score[1], mask)
    assert whole.valid.tolist() == [[True, False, False, False]] * 2
    assert whole.start_t[:, 0].tolist() == [0, 0] and whole.end_t[:, 0].tolist() == [8, 5]
    assert whole.end_score[1, 0] == score[1, 1, 5]
    some = pair_candidates(score[0], score[1], mask, min_duration_t=1, max_duration_t=9, top=4)
    assert torch.equal(with_whole_videos(some, score[0], score[1], mask).start_t, some.start_t)


def test_peaks_are_candidates_at_the_highest_threshold() -> None:
    score = torch.tensor([[0.2, 0.9, 0.1, 0.8, 0.3]])
    mask = torch.ones(1, 5, dtype=torch.bool)
    found = pair_candidates(
        score, score, mask, min_duration_t=1, max_duration_t=9, top=20, threshold=1.0
    )
    pairs = found.start_t[found.valid].tolist(), found.end_t[found.valid].tolist()
    assert sorted(zip(*pairs, strict=True)) == [(0, 1), (0, 3), (0, 4), (1, 3), (1, 4), (3, 4)]


def test_sampling_a_linear_signal_is_exact_inside_and_zero_outside() -> None:
    features = (torch.arange(10.0) + 0.5)[None, :, None]  # the value of a moment is the moment
    start, end = torch.tensor([[2.0, 8.0]]), torch.tensor([[6.0, 12.0]])
    made = sample_features(features, start, end, 5, 0.25)[0, :, :, 0]
    torch.testing.assert_close(made[0], torch.tensor([1.0, 2.5, 4.0, 5.5, 7.0]))
    assert made[1, 0] == 7.0 and made[1, -1] == 0


def test_points_in_front_of_a_snippet_are_counted() -> None:
    batch = Batch(
        ids=("a",), features=torch.zeros(1, 6, 1), mask=torch.ones(1, 6, dtype=torch.bool),
        point_t=torch.tensor([[-1, 1, 4, -1]]),
        pair_t=torch.zeros(1, 1), pair_class=torch.zeros(1, 1), most_pairs=0,
        point_label=torch.zeros(1, 4, 2),
        crop_t=torch.zeros(1, dtype=torch.int64),
    )  # fmt: skip
    before, latest = _points_until(batch)
    assert before.tolist() == [[0, 0, 1, 1, 1, 2, 2]]
    assert latest.tolist() == [[-1, 1, 1, 1, 2, 2]]


@pytest.mark.parametrize("background", [False, True])
def test_proposals_without_a_point_are_background_where_asked_for(background: bool) -> None:
    batch = Batch(
        ids=("a",), features=torch.zeros(1, 8, 1), mask=torch.ones(1, 8, dtype=torch.bool),
        point_t=torch.tensor([[2, 5]]), pair_t=torch.zeros(1, 1), pair_class=torch.zeros(1, 1),
        most_pairs=0, point_label=torch.ones(1, 2, 1), crop_t=torch.zeros(1, dtype=torch.int64),
    )  # fmt: skip
    spans = torch.tensor([[[0, 1], [1, 3], [1, 6], [6, 7], [0, 7]]])
    ones = torch.ones(1, 5)
    found = Candidates(
        start_t=spans[..., 0], end_t=spans[..., 1], start_score=ones, end_score=ones,
        start_height=ones, end_height=ones, valid=torch.tensor([[True] * 4 + [False]]),
    )  # fmt: skip
    labels = {
        "start_t": torch.tensor([[2, 4]]), "end_t": torch.tensor([[2, 5]]),
        "valid": torch.tensor([[True, False]]),
    }  # fmt: skip
    *_, point, usable, empty = _with_instances(found, batch, labels, background)
    none = [background, False, False, background, False]
    assert empty.tolist() == [[*none, False, False]]
    assert usable.tolist() == [[background, True, False, background, False, True, False]]
    assert point[0, 1] == 0  # the one point that the second candidate holds


def test_balance_keeps_twice_as_many_others() -> None:
    overlap = torch.tensor([[0.9, 0.6] + [0.1] * 20, [0.1] * 22])
    usable = torch.ones(2, 22, dtype=torch.bool)
    usable[:, -3:] = False
    step = Step(index=0, epoch=0.0, generator=torch.Generator().manual_seed(0))
    rows, kept = _balance(overlap, usable, 30, step)
    chosen = [set(r[k].tolist()) for r, k in zip(rows, kept, strict=True)]
    assert {0, 1} <= chosen[0] and len(chosen[0]) == 6
    assert len(chosen[1]) == 2  # no good proposal: two others
    assert all(usable[0, r] is not False for r in chosen[0])


def cached(**columns: list[float]) -> Scores:
    number = len(columns["start_t"])
    arrays = {
        "start_t": np.array(columns["start_t"], np.int32),
        "end_t": np.array(columns["end_t"], np.int32),
        "start_score": np.array(columns.get("start_score", [0.5] * number), np.float32),
        "end_score": np.full(number, 0.5, np.float32),
        "height": np.array(columns.get("height", [1.0] * number), np.float32),
        "label": np.tile(np.array([2, 0], np.int16), (number, 1)),
        "class_score": np.tile(np.array([0.9, 0.2], np.float32), (number, 1)),
        "text_score": np.full((number, 2), 0.5, np.float32),
    }
    return Scores(id="a", arrays=arrays)


def test_decode_weighs_suppresses_and_clips() -> None:
    found = cached(start_t=[0, 0, 5], end_t=[3, 4, 19], start_score=[0.9, 0.8, 0.4])
    made = decode(found, Grid(stride_s=2.0), 30.0, ApnDecode(top_classes=1, nms_tiou=0.5))
    assert made.label.tolist() == [2, 2]
    assert made.start_s.tolist() == [1.0, 11.0] and made.end_s.tolist() == [7.0, 30.0]
    expected = (np.array([0.9, 0.4]) * 0.5) ** 0.5 * 0.9 * 0.5
    np.testing.assert_allclose(made.score, expected, rtol=1e-6)


def test_a_video_of_one_snippet_is_detected_as_a_whole() -> None:
    found = cached(start_t=[0], end_t=[0])
    made = decode(found, Grid(stride_s=2.0), 1.5, ApnDecode(top_classes=1))
    assert made.start_s.tolist() == [0.0] and made.end_s.tolist() == [1.5]
    start, end = edges(torch.tensor([[0, 0, 3]]), torch.tensor([[0, 2, 4]]))
    assert start.tolist() == [[0, 0.5, 3.5]] and end.tolist() == [[1, 2.5, 4.5]]


@pytest.mark.parametrize(("width", "heads"), [(8, 1), (100, 1), (200, 2), (512, 8), (1000, 10)])
def test_heads_divide_every_width(width: int, heads: int) -> None:
    hp = ApnTrain(embed_dim=8, encoder_width=width, num_samples=4, encoder_layers=1)
    model = Apn(6, 3, None, hp)
    assert model.layers[0].heads == heads
    classes, _ = model.evaluate(torch.zeros(1, 5, 8), torch.tensor([[1.0]]), torch.tensor([[4.0]]))
    assert classes.shape == (1, 1, 3)


def test_decode_thresholds_select_candidates() -> None:
    found = cached(start_t=[0, 10, 20], end_t=[3, 13, 23], height=[1.0, 0.45, 0.25])
    numbers = [
        len(decode(found, Grid(stride_s=1.0), 30.0, ApnDecode(peak_threshold=p, top_classes=1)))
        for p in (0.2, 0.3, 0.5)
    ]
    assert numbers == [3, 2, 1]
    assert len(decode(found, Grid(stride_s=1.0), 30.0, ApnDecode(max_detections=1))) == 1
