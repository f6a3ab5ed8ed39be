"""The check that features cover the time of their video, and what it tells."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import shared

from ptal_ray.data.importing.annotations import read_annotations
from ptal_ray.data.importing.coverage import Covered, length_problem, length_remarks
from ptal_ray.data.importing.importer import plan_import
from ptal_ray.data.importing.plan import Source
from ptal_ray.data.rates import Frames


def covered(
    snippets: int,
    duration_s: float = 100.0,
    fps: float = 1.0,
    window: float = 0.0,
    stated_fps: float | None = None,
    name: str = "a.npy",
) -> Covered:
    return Covered(
        file=Path(name), snippets=snippets, expected_s=duration_s, stated_fps=stated_fps,
        frames=Frames(fps=fps, stride=1.0, window=window),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("snippets", "duration_s", "window", "fits"),
    [
        (97, 100.0, 0.0, True),  # a snippet and 2 % too short
        (96, 100.0, 0.0, False),
        (103, 100.0, 0.0, True),
        (104, 100.0, 0.0, False),
        (88, 100.0, 5.0, False),
        (89, 100.0, 5.0, True),  # 93 s: a window and 2 % too short
        (98, 100.0, 5.0, True),
        (103, 100.0, 5.0, True),  # a window too long: padded at both ends
        (104, 100.0, 5.0, False),
        (1, 1.9, 0.0, True),  # a short video, whose last snippet was dropped
        (3, 1.9, 0.0, False),
    ],
)
def test_one_snippet_and_two_percent(
    snippets: int, duration_s: float, window: float, fits: bool
) -> None:
    found = covered(snippets, duration_s, window=window)
    assert found.fits() == fits
    assert bool(length_problem([found], 1.0)) != fits


@pytest.mark.parametrize(("snippets", "window", "fits"), [(100, 201, False), (1, 201, True)])
def test_a_window_of_more_than_two_videos(snippets: int, window: float, fits: bool) -> None:
    found = covered(snippets, 100.0, window=window)
    assert (length_problem([found], 1.0) == "") is fits
    assert "check --fps, --stride and --window" in length_problem([found], 1.0) or fits


def test_all_are_in_one_line_with_the_worst_ten() -> None:
    found = [covered(n, name=f"v{n}.npy") for n in (*range(50, 62), 100, 99)]
    text = length_problem(found, 1.0)
    assert text.startswith("the features of 12 of 14 videos do not cover the duration")
    assert "v50.npy: 50 snippets cover 50.0 s of 100.0 s (0.50 times); v51.npy" in text
    assert "v59.npy" in text and "v60.npy" not in text and "; and 2 more; " in text
    assert "\n" not in text and "--allow-length" in text


@pytest.mark.parametrize(
    ("given", "true"), [(25.0, 30.0), (30.0, 25.0), (24.0, 30.0), (30.0, 29.97 / 2), (1.0, 1.2)]
)
def test_the_factor_on_which_all_agree_and_the_rate_it_points_to(given: float, true: float) -> None:
    durations = (80.0, 95.5, 143.0, 201.3)
    found = [covered(int(d * true), d, given) for d in durations]
    text = length_problem(found, given)
    assert f"all videos are covered {true / given:.2f} times: --fps {given:g} given for " in text
    shown = float(text.split(" given for ")[1].split("?")[0])
    assert shown == pytest.approx(true, rel=0.01)
    fault = "small" if true > given else "large"
    assert f"is each rate too {fault} by this factor?" in length_problem(found, "json")


def test_single_short_videos_are_no_wrong_rate() -> None:
    found = [covered(70), *[covered(100)] * 9]
    text = length_problem(found, 1.0)
    assert "1 of 10 videos" in text and "the others fit" in text and "given for" not in text
    different = [covered(n) for n in (40, 55, 70, 85)]
    assert "given for" not in length_problem(different, 1.0)
    assert "given for" not in length_problem([covered(70)], 1.0)


def test_rates_that_the_annotations_state_are_tried() -> None:
    found = [covered(3000, 100.0, 30.0, stated_fps=30.0)] * 9
    found += [
        covered(2500, 100.0, 30.0, stated_fps=25.0),
        covered(2400, 100.0, 30.0, stated_fps=24),
    ]
    assert "2 of 11 videos" in length_problem(found, 30.0)
    assert "with --fps json all would fit" in length_problem(found, 30.0)
    alike = [covered(2500, 100.0, 30.0, stated_fps=25.0)] * 3
    assert "covered 0.83 times: --fps 30 given for 25?; with --fps json all would fit" in (
        length_problem(alike, 30.0)
    )
    found.append(covered(1000, 100.0, 30.0, stated_fps=30.0))
    assert "with --fps json all but 1 would fit" in length_problem(found, 30.0)


def test_what_is_allowed_or_small_is_a_remark() -> None:
    assert length_remarks([covered(100), covered(99)]) == {}
    assert length_remarks([covered(100), covered(70), covered(80)]) == {
        "videos whose features cover another time, allowed (worst 0.70 times)": 2
    }
    alike = [covered(2500, 100.0, 24.6), covered(3750, 150.0, 24.6)]
    assert length_remarks(alike) == {
        "videos that are covered 1.016 times, all alike; check --fps": 2
    }
    assert length_problem(alike, 24.6) == ""
    assert length_remarks([alike[0], covered(2460, 100.0, 24.6)]) == {}


def gtea_scores(fps: float) -> Source:
    folder = shared("data/gtea_scores")
    return Source(
        name="gtea_scores", features=folder / "features", annotations=folder / "gt.json", fps=fps,
        stride=1.0, points=folder / "point_labels_15fps_frames.csv", point_fps=15.0,
    )  # fmt: skip


def test_features_that_end_early_as_their_file_says_are_sound() -> None:
    assert plan_import(gtea_scores(3.0)).problems == ()
    for fps, ratio in ((2.5, 1.2), (3.6, 0.83), (3.15, 0.95)):
        problem, *rest = plan_import(gtea_scores(fps)).problems
        assert not rest and f"all videos are covered {ratio:.2f} times" in problem
        assert f"--fps {fps:g} given for 3?" in problem
    videos = read_annotations(gtea_scores(3.0).annotations).videos
    assert sum(v.feature_s is not None and v.feature_s < 0.95 * v.duration_s for v in videos) == 9


def test_allowed_lengths_are_imported() -> None:
    source = gtea_scores(2.5)
    allowed = Source(**(source.__dict__ | {"allow_length": True}))
    plan = plan_import(allowed)
    assert plan.problems == ()
    assert (
        plan.remarks["videos whose features cover another time, allowed (worst 1.20 times)"] == 21
    )
