"""The search over decode parameters on cached scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from ptal_ray.data.datasets import protocol
from ptal_ray.data.types import Grid, Points, Scores, Segments
from ptal_ray.ops.metrics import detection_map
from ptal_ray.space.domain import Domain
from ptal_ray.training import decoding
from ptal_ray.training.decoding import decode_settings, read_scores, search_decode, write_scores
from ptal_ray.training.selection import ByMap, ByPoints

PROTOCOL = protocol("thumos14")
GRID = Grid(stride_s=1.0)
SHIFT = {"shift_s": Domain(kind="uniform", args=(-4.0, 4.0))}


@dataclass(frozen=True, kw_only=True)
class Decode:
    shift_s: float = 3.0
    luck: int = 0


def segments(rng, num, classes=3):
    start = np.sort(rng.uniform(0, 80, num))
    return Segments(
        start_s=start,
        end_s=start + rng.uniform(3, 9, num),
        label=rng.integers(0, classes, num),
        score=np.ones(num),
    )


def videos(num, seed=0):
    """Scores whose segments are the ground truth: a shift of 0 is perfect."""
    rng = np.random.default_rng(seed)
    truth = {f"v{k:02d}": segments(rng, 8) for k in range(num)}
    scores = [
        Scores(id=i, arrays={"start": s.start_s, "end": s.end_s, "label": s.label})
        for i, s in truth.items()
    ]
    return truth, scores


def shifted(scores, grid, duration_s, hp):
    a = scores.arrays
    score = np.linspace(1, 0.5, len(a["start"]))
    shift = hp.shift_s * grid.stride_s
    return Segments(
        start_s=a["start"] + shift, end_s=a["end"] + shift, label=a["label"], score=score
    )


def lucky(scores, grid, duration_s, hp):
    """Noise that depends on the video and on a parameter: nothing can be learnt from it."""
    rng = np.random.default_rng([int(scores.id[1:]), hp.luck])
    found = segments(rng, 12)
    return Segments(
        start_s=found.start_s, end_s=found.end_s, label=found.label, score=np.linspace(1, 0, 12)
    )


def search(decode, truth, scores, **changes):
    arguments = {
        "start": Decode(), "domains": SHIFT, "settings": 16, "cross_fit": False, "seed": 0,
    } | changes  # fmt: skip
    many = len(scores)
    by_map = ByMap(truth=truth, num_classes=3, protocol=PROTOCOL)
    objective = arguments.pop("objective", by_map)
    return search_decode(decode, scores, [GRID] * many, [100.0] * many, objective, **arguments)


def test_the_start_is_tried_first_and_the_best_is_kept():
    truth, scores = videos(6)
    result = search(shifted, truth, scores)
    assert len(result.table) == 16
    assert result.table[0][0] == {"shift_s": 3.0, "luck": 0}
    best = max(value for _, value in result.table)
    assert result.objective == best > result.table[0][1]
    assert abs(result.params.shift_s) < 0.5
    expected = detection_map(truth, result.detections, 3, PROTOCOL.tiou)
    assert result.metrics["mAP_avg"] == result.objective == pytest.approx(expected.per_tiou.mean())
    assert result.metrics["mAP_0.50"] == expected.per_tiou[4]
    assert not result.cross_fitted


def test_every_call_tries_the_same_settings():
    two = {"luck": Domain(kind="randint", args=(0, 50)), **SHIFT}
    settings = decode_settings(Decode(), two, 16, seed=3)
    assert settings == decode_settings(Decode(), dict(reversed(two.items())), 16, seed=3)
    assert settings != decode_settings(Decode(), two, 16, seed=4)
    assert settings[:8] == decode_settings(Decode(), two, 8, seed=3)
    assert len(set(settings)) == 16
    assert all(two["luck"].contains(s.luck) for s in settings)


def test_a_small_space_is_not_tried_twice():
    domains = {"luck": Domain(kind="choice", args=(0, 1))}
    assert len(decode_settings(Decode(), domains, 64, seed=0)) == 2


@pytest.mark.parametrize("changes", [{"domains": {}}, {"settings": 1}])
def test_frozen_parameters_are_scored_as_they_are(changes):
    truth, scores = videos(6)
    result = search(shifted, truth, scores, cross_fit=True, **changes)
    assert result.params == Decode()
    assert len(result.table) == 1
    assert result.objective == result.table[0][1]
    assert not result.cross_fitted


def test_cross_fitting_does_not_reward_luck():
    truth, scores = videos(12)
    domains = {"luck": Domain(kind="randint", args=(0, 1000))}
    plain = search(lucky, truth, scores, domains=domains, settings=48)
    fair = search(lucky, truth, scores, domains=domains, settings=48, cross_fit=True)
    mean = np.mean([value for _, value in plain.table])
    assert fair.cross_fitted
    assert fair.params == plain.params
    assert fair.table == plain.table
    assert plain.objective > 1.5 * mean
    assert fair.objective < mean + 0.5 * (plain.objective - mean)


def test_cross_fitting_is_exact_where_both_halves_agree():
    truth, scores = videos(8)
    domains = {"shift_s": Domain(kind="choice", args=(0.0, 3.0))}
    result = search(shifted, truth, scores, domains=domains, cross_fit=True)
    assert result.cross_fitted
    assert result.objective == max(value for _, value in result.table)


def test_score_scales_of_the_halves_do_not_matter():
    """Each half prefers its own setting, and the settings differ in score scale a thousandfold."""
    truth, scores = videos(8)
    first = set(decoding._halves({i: t.label for i, t in truth.items()}, 3, 0)[0])

    def scaled(s, grid, duration_s, hp):
        wrong = (s.id in first) == (hp.luck == 0)
        found = shifted(s, grid, duration_s, Decode(shift_s=0.5 if wrong else 0.0))
        return Segments(
            start_s=found.start_s, end_s=found.end_s, label=found.label,
            score=found.score * (1000.0 if hp.luck else 1.0),
        )  # fmt: skip

    domains = {"luck": Domain(kind="choice", args=(0, 1))}
    result = search(scaled, truth, scores, domains=domains, cross_fit=True)
    all_wrong = search(shifted, truth, scores, start=Decode(shift_s=0.5), domains={})
    assert result.objective == pytest.approx(all_wrong.objective, abs=0.02)


@pytest.mark.parametrize("cross_fit", [False, True])
def test_points_alone_find_the_right_setting(cross_fit):
    """A shift of 0 is perfect; one of 9 seconds misses most points."""
    truth, scores = videos(8)
    points = {
        i: Points(time_s=np.sort((t.start_s + t.end_s) / 2), label=t.label[
            np.argsort((t.start_s + t.end_s) / 2)]) for i, t in truth.items()
    }  # fmt: skip
    lengths = np.concatenate([t.end_s - t.start_s for t in truth.values()])
    by_points = ByPoints(
        points=points, num_classes=3, duration_s=dict.fromkeys(truth, 100.0),
        label_length_s=float(lengths.mean()),
    )  # fmt: skip
    domains = {"shift_s": Domain(kind="choice", args=(0.0, 9.0))}
    start = Decode(shift_s=9.0)
    result = search(
        shifted, truth, scores, objective=by_points, domains=domains, start=start,
        cross_fit=cross_fit,
    )  # fmt: skip
    assert result.cross_fitted == cross_fit
    assert result.params.shift_s == 0.0
    assert result.objective == result.metrics["points_score"] > result.metrics["hit_mAP"]
    assert result.objective == max(value for _, value in result.table)
    assert result.metrics["length_ratio"] == pytest.approx(1.0)
    assert result.metrics["point_log_likelihood"] > 0
    assert not any("mAP_avg" in name for name in result.metrics)


def test_ranks_keep_order_and_ties():
    found = {
        "a": Segments(start_s=np.zeros(3), end_s=np.ones(3), label=np.zeros(3, int),
                      score=np.array([0.9, 0.5, 0.1])),
        "b": Segments(start_s=np.zeros(2), end_s=np.ones(2), label=np.zeros(2, int),
                      score=np.array([0.5, 0.4])),
    }  # fmt: skip
    ranked = decoding._ranked(found)
    np.testing.assert_allclose(ranked["a"].score, 1 / (1 + np.array([0, 1, 4]) / 2))
    np.testing.assert_allclose(ranked["b"].score, 1 / (1 + np.array([1, 3]) / 2))
    assert len(decoding._ranked({"a": Segments.empty(), "b": Segments.empty()})["b"]) == 0


def test_halves_share_every_class():
    rng = np.random.default_rng(0)
    truth = {f"v{k:02d}": segments(rng, 6, classes=4) for k in range(20)}
    truth |= {f"w{k}": segments(rng, 1, classes=1) for k in range(2)}
    labels = {i: t.label for i, t in truth.items()}
    halves = decoding._halves(labels, 4, seed=0)
    assert sorted(halves[0] + halves[1]) == sorted(truth)
    assert [len(h) for h in halves] == [11, 11]
    counts = [np.bincount(np.concatenate([truth[i].label for i in h]), minlength=4) for h in halves]
    assert np.abs(counts[0] - counts[1]).max() <= 4
    assert halves == decoding._halves(dict(reversed(labels.items())), 4, seed=0)


@pytest.mark.parametrize("num", [1, 2, 3])
def test_too_few_videos_are_not_cross_fitted(num):
    truth, scores = videos(num)
    result = search(shifted, truth, scores, cross_fit=True)
    assert not result.cross_fitted
    assert result.objective == max(value for _, value in result.table)


def test_videos_without_detections_count():
    truth, scores = videos(4)
    result = search(lambda *_: Segments.empty(), truth, scores, cross_fit=True)
    assert result.objective == 0
    assert result.params == Decode()


def test_scores_survive_the_cache(tmp_path):
    _, scores = videos(3)
    scores.append(Scores(id="has/slash and ü", arrays={"a/b": np.float16([1, 2])}))
    write_scores(tmp_path / "deep" / "scores.npz", scores)
    again = read_scores(tmp_path / "deep" / "scores.npz")
    assert [s.id for s in again] == [s.id for s in scores]
    for before, after in zip(scores, again, strict=True):
        assert before.arrays.keys() == after.arrays.keys()
        for name, array in before.arrays.items():
            np.testing.assert_array_equal(after.arrays[name], array)
            assert after.arrays[name].dtype == array.dtype
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["scores.npz"]
