"""The points of an import: outside their video or its instances, of other videos, before 0."""

from __future__ import annotations

import pytest
from import_layout import small_layout

from ptal_ray.data.importing.importer import plan_import


@pytest.fixture
def layout(tmp_path):
    return small_layout(tmp_path)


def test_points_that_disagree_with_the_instances(layout):
    layout.lines[1:] = ["open,,,a,40", "close,,,a,140", "open,,,b,60", "open,,,b,61"]
    first, last = plan_import(layout.source()).problems
    assert "points.csv:3: point 140 is at 14.00 s, outside video a" in first
    assert "points.csv: 0 of 4 points (0.0 %)" in last and "no other reading is clearly" in last
    layout.lines[3:] = ["close,,,b,60"]
    for id in "abc":
        layout.database[id]["fps"] = 20
    first, last = plan_import(layout.source()).problems  # a known cause comes first
    assert "likely cause: the frame rate is not 10: pass --point-fps json" in first
    assert "outside video a" in last
    assert plan_import(layout.source(point_fps=None)).remarks == {}
    del layout.lines[2]
    layout.refused(r"points\.csv: 0 of 2 points .*--allow-points to go on$")
    plan, store = layout.run(allow_points=True)
    (remark, number), *_ = plan.remarks.items()
    assert remark.startswith("points in no instance of their class (0.0 % lie in one, ")
    assert number == 2 and store.points("a").time_s.tolist() == [4.0]


def test_points_of_other_videos(layout):
    layout.lines += ["open,1,2,zz,20"]
    layout.refused("points.csv:5: video 'zz' is not among those of .*gt.json, as 1 of 4 points")
    layout.lines += [f"open,1,2,a,{10 + frame / 4}" for frame in range(40)]
    plan, _ = layout.run()
    assert plan.remarks == {"points of videos that are not imported, left out": 1}


def test_points_of_videos_that_are_on_no_list(layout):
    for name, ids in (("train", "a"), ("test", "c")):
        (layout.path / name).write_text(ids)
    lists = {name: layout.path / name for name in ("train", "test")}
    plan, store = layout.run(lists=lists)
    assert (store.ids("train"), store.ids("test")) == (("a",), ("c",))
    assert plan.remarks["points of videos of no chosen subset, left out"] == 1


def test_points_before_0_name_a_common_offset(layout):
    layout.lines[1:] = [f"open,1,2,a,{frame}" for frame in (12, 16, 20, 24, 28)]
    layout.lines += [f"close,1,2,b,{frame}" for frame in (22, 28, 34, 38)]
    early = [layout.lines[0]]
    for line in layout.lines[1:]:
        *words, frame = line.split(",")
        early.append(",".join([*words, str(int(frame) - 25)]))
    layout.lines = early
    said = layout.refused(
        r"points\.csv: .* likely cause: an offset: the points are about 25 frames"
    )
    assert "too early" in said


def test_one_point_before_0(layout):
    layout.lines += ["open,1,2,a,-0.5"]
    layout.refused(r"points\.csv:5: video a: point -0\.5; must be a number of 0 or more")
    layout.lines[-1] = "open,1,2,a,-inf"
    layout.refused(r"points\.csv:5: video a: point '-inf'; must be a number of 0 or more")


def test_points_with_both_spellings_of_an_id(layout):
    layout.lines += ["open,1,2,v_a,20"]
    layout.refused(r"points\.csv: video a is there with and without v_; write one id")
