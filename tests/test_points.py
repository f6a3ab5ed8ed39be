from __future__ import annotations

import numpy as np
import pytest
from conftest import shared
from hypothesis import given
from hypothesis import strategies as st

from ptal_ray.data.choices import KINDS
from ptal_ray.data.points import point_rows, simulate_points, write_points_csv
from ptal_ray.data.types import Segments
from ptal_ray.errors import DataError

CLASSES = ("open", "close")


def instances(start, end):
    n = len(start)
    return Segments(
        start_s=np.array(start), end_s=np.array(end), label=np.arange(n), score=np.ones(n)
    )


def csv_file(tmp_path, *lines):
    path = tmp_path / "points.csv"
    path.write_text("\n".join(lines))
    return path


def read(path, fps):
    """(seconds, label) of each video's points, ascending; the first problem is raised."""
    rows, problems = point_rows(path, CLASSES)
    assert not problems
    found = {}
    for row in rows:
        found.setdefault(row.video, []).append((row.time_s(fps), row.label))
    return {video: sorted(pairs) for video, pairs in found.items()}


def test_points_are_read_in_seconds_and_the_answer_is_dropped(tmp_path):
    path = csv_file(
        tmp_path, "class,class_index,start_frame,stop_frame,video_id,point",
        "close,1,30,90,v1,60", "open,0,0,20,v1,15", "open,0,0,20,v2,3",
    )  # fmt: skip
    found = read(path, 15.0)
    assert found["v1"] == [(1.0, 0), (4.0, 1)]
    # a CSV without the answer gives the same
    path = csv_file(tmp_path, "class,video_id,point", "close,v1,60", "open,v1,15", "open,v2,3")
    assert read(path, 15.0) == found


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["class,video_id,point", "opne,v,1"],
            ":2: video v: class 'opne' is unknown; did you mean 'open'",
        ),
        (
            ["class,video_id,point", "open,v,1", "zzz,v,1"],
            ":3: .*'zzz' is unknown; known are open, close",
        ),
        (["class,video_id,point", "open,v,ten"], ":2: video v: point 'ten'; must be a number"),
        (["class,video_id,point", "open,v,nan"], "point 'nan'"),
        (["class,video_id,point", "open,v,-inf"], "point '-inf'"),
        (["class,video_id,point", "open,v"], "point ''"),
        (["class,video,frame", "open,v,1"], "no column point, video_id"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, lines, message):
    with pytest.raises(DataError, match=message):
        for problem in point_rows(csv_file(tmp_path, *lines), CLASSES)[1]:
            raise DataError(problem)


def test_an_unreadable_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.csv: cannot be read"):
        point_rows(tmp_path / "absent.csv", CLASSES)


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent/p\.csv: cannot be written"):
        write_points_csv(tmp_path / "absent" / "p.csv", {}, CLASSES)


def test_what_is_written_is_read(tmp_path):
    rng = np.random.default_rng(0)
    points = {"v": simulate_points(instances([0.1, 5], [2, 9.7]), rng)}
    write_points_csv(tmp_path / "p.csv", points, CLASSES)
    own = points["v"]
    expected = {"v": list(zip(own.time_s.tolist(), own.label.tolist(), strict=True))}
    assert read(tmp_path / "p.csv", 1.0) == expected


@given(
    st.lists(st.tuples(st.floats(0, 1e4), st.floats(0.01, 1e3)), max_size=20),
    st.sampled_from(KINDS),
    st.integers(0, 9),
)
def test_simulated_points_are_one_an_instance_and_inside(rows, kind, seed):
    start = np.array([s for s, _ in rows])
    end = start + np.array([d for _, d in rows])
    points = simulate_points(instances(start, end), np.random.default_rng(seed), kind)
    assert sorted(points.label) == list(range(len(rows)))
    assert (np.diff(points.time_s) >= 0).all()
    assert ((points.time_s >= start[points.label]) & (points.time_s <= end[points.label])).all()


def test_gaussian_points_lie_around_the_middle_and_uniform_ones_anywhere():
    many = instances(np.zeros(20000), np.full(20000, 4.0))
    gaussian = simulate_points(many, np.random.default_rng(0), "gaussian").time_s
    uniform = simulate_points(many, np.random.default_rng(0), "uniform").time_s
    assert abs(gaussian.mean() - 2) < 0.05 and abs(uniform.mean() - 2) < 0.05
    assert 0.8 < gaussian.std() < 0.95  # a quarter of 4 s, less what the truncation takes
    assert abs(uniform.std() - 4 / 12**0.5) < 0.02


def test_points_in_the_centre_and_at_the_boundaries():
    many = instances(np.full(2000, 1.0), np.full(2000, 5.0))
    centre = simulate_points(many, np.random.default_rng(0), "centre").time_s
    np.testing.assert_allclose(centre, 3)
    found = simulate_points(many, np.random.default_rng(0), "boundary").time_s
    early = found < 3
    assert 0.45 < early.mean() < 0.55
    assert found[early].max() <= 1.4 and found[~early].min() >= 4.6


def test_human_points_are_early_and_hardly_at_an_edge():
    many = instances(np.zeros(20000), np.full(20000, 4.0))
    found = simulate_points(many, np.random.default_rng(0), "human").time_s
    assert 1.5 < found.mean() < 1.7
    assert ((found < 0.1) | (found > 3.9)).mean() < 0.01


def test_simulated_points_are_seeded_and_kinds_are_checked():
    one = instances([0.0], [1.0])
    draw = [simulate_points(one, np.random.default_rng(s)).time_s[0] for s in (0, 0, 1)]
    assert draw[0] == draw[1] != draw[2]
    with pytest.raises(DataError, match="'middle': allowed are gaussian, uniform"):
        simulate_points(one, np.random.default_rng(0), "middle")


def test_published_points_of_thumos14():
    import json

    folder = shared("data/annotations/THUMOS14")
    database = json.loads((folder / "gt_full.json").read_text())["database"]
    labels = tuple(sorted({a["label"] for v in database.values() for a in v["annotations"]}))
    rows, problems = point_rows(folder / "point_labels" / "point_gaussian.csv", labels)
    assert not problems and len(rows) == 3003 and len({row.video for row in rows}) == 200
