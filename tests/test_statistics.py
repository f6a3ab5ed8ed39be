from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import make_store
from test_content import segments

from ptal_ray.data.__main__ import main
from ptal_ray.data.statistics import StoredVideo, covered, statistics, table
from ptal_ray.data.types import Points


def video(id, subset, rows, times=(), duration_s=10.0):
    points = Points(time_s=np.array(times, float), label=np.zeros(len(times), np.int64))
    return StoredVideo(
        id=id, subset=subset, duration_s=duration_s, instances=segments(*rows), points=points
    )


VIDEOS = [
    video("a", "train", [(0, 2, 0), (1, 4, 1), (6, 7, 0)], [1, 6.5]),
    video("b", "train", [(8, 12, 0)], [9]),
    video("c", "train", []),
    video("d", "test", [(0, 10, 1)], duration_s=40.0),
]


def test_numbers_by_split_and_class():
    found = statistics(VIDEOS, ("open", "close"))
    train, test = found["train"], found["test"]
    assert (train.videos, train.hours, test.videos) == (3, 30 / 3600, 1)
    assert (train.all.instances, train.all.points, train.all.videos) == (4, 3, 3)
    assert train.all.instances_a_video == 4 / 3
    assert train.all.background == pytest.approx(1 - (4 + 1 + 2) / 30)
    row = train.classes["open"]
    assert (row.videos, row.instances, row.points, row.instances_a_video) == (2, 3, 3, 1.5)
    assert (row.shortest_s, row.median_s, row.longest_s) == (1, 2, 4)
    assert row.background == pytest.approx(1 - (2 + 1 + 2) / 30)
    assert (test.classes["open"].instances, test.classes["open"].background) == (0, 1)
    assert test.classes["close"].background == 0.75


def test_time_in_instances_is_counted_once():
    assert covered(segments((1, 5, 0), (2, 3, 1), (4, 6, 0), (8, 12, 0), (11, 13, 0)), 10) == 7
    assert covered(segments(), 10) == 0


def test_the_table_says_what_it_leaves_out():
    names = tuple(f"class{number}" for number in range(14))
    lines = table(statistics(VIDEOS, names), 10)
    assert lines[-1] == "and 4 more classes (`info` lists all)"
    assert sum("class1" in line for line in lines) >= 2 and not any("class0" in x for x in lines)
    assert len(table(statistics(VIDEOS, names))) == 1 + 2 * 15


def test_the_table_has_no_durations_where_there_is_no_instance():
    lines = table(statistics(VIDEOS, ("open", "close")))
    assert lines[-2].split() == ["open", "0", "0", "0.0", "0", "-", "-", "-", "-"]
    assert lines[-1].split()[-1] == "%"


def test_info_has_statistics_and_a_picture(tmp_path, capsys):
    path, picture = make_store(tmp_path / "tiny"), tmp_path / "p.png"
    assert main(["info", str(path), "--plot", str(picture)]) == 0
    text = capsys.readouterr().out
    assert "background" in text and sum("ClassA" in line for line in text.splitlines()) == 3
    assert picture.read_bytes().startswith(b"\x89PNG") and str(picture) in text
    before = picture.read_bytes()
    assert main(["info", str(path), "--plot", str(picture)]) == 3
    assert picture.read_bytes() == before
    capsys.readouterr()
    assert main(["info", str(path), "--json", "--plot", str(tmp_path / "p.svg")]) == 0
    facts = json.loads(capsys.readouterr().out)
    train = facts["statistics"]["train"]
    assert train["all"]["instances"] == facts["subsets"]["train"]["instances"]
    assert sum(row["instances"] for row in train["classes"].values()) == train["all"]["instances"]
    assert (tmp_path / "p.svg").exists()


def test_a_picture_that_cannot_be_written_is_named(tmp_path, capsys):
    path = make_store(tmp_path / "tiny")
    assert main(["info", str(path), "--plot", str(tmp_path / "p.xyz")]) == 2
    assert "p.xyz: a picture's name ends in one of" in capsys.readouterr().err
    assert main(["info", str(path), "--plot", str(tmp_path / "absent" / "p.png")]) == 3
    assert "p.png: cannot be written (No such file" in capsys.readouterr().err


def test_names_are_no_formulas_in_a_picture(tmp_path):
    from ptal_ray.reporting.plots import data_statistics, save_as

    found = {"train": segments((0, 1, 0), (2, 5, 1)), "test": segments()}
    save_as(data_statistics(found, (r"$\nothing$", "b"), "$x"), tmp_path / "p.svg")
    assert r"$\nothing$" in (tmp_path / "p.svg").read_text()
