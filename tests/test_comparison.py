"""Methods against each other and against the papers: leaderboard.html."""

from __future__ import annotations

import json
from dataclasses import replace
from html import escape

import numpy as np
import pytest
import yaml
from browser import Page, chromium
from conftest import make_store
from synthetic_study import SyntheticStudy

from ptal_ray.data.store import FeatureStore
from ptal_ray.report import main
from ptal_ray.reporting import papers
from ptal_ray.reporting.comparison import compared, differences, entries, ranks, unequal
from ptal_ray.reporting.html.leaderboard import leaderboard_html
from ptal_ray.reporting.papers import compare, numbers_file, read_numbers
from ptal_ray.reporting.resampling import Resampled, holm
from ptal_ray.study.conclusion import Interval
from ptal_ray.study.view import StudyView

pytestmark = pytest.mark.usefixtures("empty_plots")


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Two studies of one method and one of another, on the same store; one on another data set."""
    root = tmp_path_factory.mktemp("studies")
    store = FeatureStore.open(make_store(tmp_path_factory.mktemp("data") / "store", test=6))
    plan = (
        ("apn_a", "apn", "demo", 12),
        ("apn_b", "apn", "demo", 12),
        ("lacp_a", "lacp", "demo", 4),
        ("lacp_b", "lacp", "gtea", 4),
    )
    found = {}
    for name, method, dataset, trials in plan:
        directory = root / f"{name}-20260801-120000"
        study = SyntheticStudy(directory, store, method=method, dataset=dataset)
        study.random = np.random.default_rng(len(found))
        study.whole(trials)
        found[directory] = StudyView.read(directory)
    return found


@pytest.fixture(scope="module")
def found(studies):
    return entries(studies)


def test_repeated_studies_are_pooled_and_unequal_budgets_said(found):
    (demo, gtea) = found
    assert (demo[0], gtea[0]) == ("demo", "gtea")
    by_method = {entry.method: entry for entry in found[demo]}
    assert (len(by_method["apn"].studies), len(by_method["apn"].values)) == (2, 6)
    assert len(by_method["apn"].matches) == 6
    assert by_method["apn"].reads == 12  # three seeds of two configurations in each
    assert unequal(found[demo]) and not unequal(found[gtea])


def test_differences_are_paired_and_corrected(found):
    (pair,) = differences(found)
    assert {pair.one, pair.other} == {"apn", "lacp"}
    assert pair.text.startswith(f"{pair.one} - {pair.other}: ")
    assert pair.text.endswith("no difference shown")  # the same quality, other noise
    assert pair.found.low < 0 < pair.found.high


@pytest.mark.parametrize("draws", [40, 2000])
def test_a_large_difference_is_shown_among_many_comparisons(draws):
    rng = np.random.default_rng(0)
    maps = {"a": 0.8 + 0.03 * rng.normal(size=draws), "b": 0.5 + 0.03 * rng.normal(size=draws)}
    drawn = Resampled(maps=maps, plain={"a": 0.8, "b": 0.5})
    found, p = drawn.difference("a", "b")
    assert found.low > 0.1 and 0 < holm([p] + [1.0] * 60)[0] < 0.001
    assert drawn.difference("b", "a")[1] == pytest.approx(p)
    assert drawn.difference("a", "a") == (Interval(mean=0.0, low=0.0, high=0.0), 1.0)
    sure = Resampled(maps={"a": np.full(draws, 0.8), "b": np.full(draws, 0.5)}, plain=drawn.plain)
    assert sure.difference("a", "b")[1] == pytest.approx(2 / (draws + 1))


def test_ranks_need_two_methods(found):
    table = ranks(found)
    assert set(table) == {"apn", "lacp"}
    assert all(len(own) == 1 for own in table.values())


def number(**changes):
    plain = {"method": "lacp", "dataset": "gtea", "table": "T", "average": "0.10-0.70",
             "value": 43.5, "protocol": "points"}  # fmt: skip
    return papers.PaperNumber(**plain | changes)


def test_badges(studies):
    views = list(studies.values())
    asked = [number(), number(value=60.0), number(dataset="beoid"), number(average="0.50-0.95")]
    badges = [own.badge for own in compare(asked, views)]
    assert badges == ["reproduced", "not reproduced", "not run", "not comparable"]


def test_points_drawn_anew_stand_for_a_paper_only_where_no_others_do(studies):
    views = list(studies.values())
    drawn = [replace(v, start=replace(v.start, points="uniform:seed=0")) for v in views]
    (plain,), (mixed,) = compare([number()], views), compare([number()], [*drawn, *views])
    assert mixed == plain and plain.why == ""
    (alone,) = compare([number()], drawn)
    assert alone.why == "points drawn anew: uniform:seed=0"


def test_a_study_stands_for_the_number_with_its_share_of_annotated_videos(studies):
    asked = [number(method="apl", share=share) for share in (0.2, 0.4, None)]
    starts = [view.start for view in studies.values() if view.start.method == "lacp"]
    train = starts[0].defaults["train"] | {"labelled_fraction": 0.6, "of_an_earlier_version": 1}
    space = starts[0].space | {"train": {"labelled_fraction": 0.4}}
    changes = {"method": "apl", "space": space, "defaults": {"train": train, "decode": {}}}
    views = [replace(v, start=replace(v.start, **changes)) for v in studies.values()]
    badges = [own.badge == "not run" for own in compare(asked, views)]
    assert badges == [True, False, True]


def test_simulated_features_are_not_comparable(tmp_path):
    study = SyntheticStudy(tmp_path / "lacp_c-20260801-120000", features="simulated-v1",
                           method="lacp", dataset="gtea")  # fmt: skip
    (own,) = compare([number()], [StudyView.read(study.whole(2))])
    assert (own.badge, own.why) == ("not comparable", "features: simulated-v1")
    assert own.ours is not None


def test_the_registry_covers_all_five_papers():
    known = read_numbers(numbers_file())
    assert {n.method for n in known} == {"apn", "lacp", "fsptal", "potloc", "apl", "apl.apl_bmn"}
    assert all(0 < n.value < 100 and n.table and n.protocol for n in known)
    keys = [(n.method, n.dataset, n.table, n.average, n.share) for n in known]
    assert len(set(keys)) == len(keys)


def test_a_damaged_registry_is_said(tmp_path):
    path = tmp_path / "numbers.yaml"
    path.write_text(yaml.safe_dump([{"method": "x"}]))
    with pytest.raises(papers.DataError, match="no registry of numbers"):
        read_numbers(path)


def test_the_command_writes_the_page_and_replaces_no_other_file(studies, tmp_path, capsys):
    page = tmp_path / "pages" / "leaderboard.html"
    flags = ["--out", str(tmp_path / "reports"), "--html", str(page), "--json"]
    few = [str(directory) for directory in studies][1:3]
    assert main([*few, *flags]) == 0
    told = capsys.readouterr()
    printed = json.loads(told.out)
    assert told.err.splitlines()[1] == f"study 2 of 2: {few[1]}"
    assert printed["html"] == str(page)
    (pair,) = printed["differences"]
    assert pair["low"] <= pair["mean"] <= pair["high"] and escape(pair["text"]) in page.read_text()
    assert main([*few, *flags[:-1]]) == 0  # its own page may be replaced
    assert f"{pair['dataset']}: {pair['text']}\n" in capsys.readouterr().out
    assert main([*few, "--out", str(tmp_path / "new"), "--html", str(tmp_path / "new")]) == 2
    assert "this is the folder of --out; give a file" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    page.write_text("mine")
    assert main([*few, *flags]) == 2
    assert page.read_text() == "mine"


def test_a_browser_shows_the_page_without_errors(studies, tmp_path):
    path = tmp_path / "leaderboard.html"
    path.write_text(leaderboard_html(list(studies.values()), compared(studies)))
    with chromium() as browser:
        for width in (1280, 400):
            shown = Page(browser, width)
            shown.page.goto(path.as_uri())
            assert shown.page.locator(".badge.reproduced").count() >= 1
            assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
            assert shown.errors == []


def test_intervals_and_p_values_say_what_they_are(studies):
    own = compared(studies)
    assert own.text().splitlines()[-1] == own.basis
    assert "corrected for 1 comparison (Holm)" in own.basis
    assert escape(own.basis) in leaderboard_html(list(studies.values()), own)


def test_a_study_without_a_finished_test_run_is_named(studies):
    views = list(studies.values())
    waiting = replace(views[0], finals=(), start=replace(views[0].study, study="not_tested"))
    page = leaderboard_html([*views, waiting], compared(studies))
    assert "Without a finished test run, not compared: not_tested." in page


def test_studies_that_were_tested_on_points_are_named(studies):
    views = list(studies.values())
    tested = [f for f in views[0].finals if f.role == "test"]
    hits = tuple(replace(f, metrics={"test/hit_mAP": 0.4}, arm="default") for f in tested)
    points = replace(views[0], finals=hits, start=replace(views[0].study, study="by_points"))
    page = leaderboard_html([*views, points], compared(studies))
    assert "Tested on points (pure-hit mAP)" in page and "compared here: by_points." in page
    assert "Without a finished test run" not in page


def test_mean_ranks_over_other_data_sets_are_said(studies):
    own = compared(studies)
    (place,) = [place for place, group in own.methods.items() if len(group) > 1]
    second = ("second", *place[1:])
    both = replace(own, methods=dict(own.methods) | {second: own.methods[place]})
    said = "their mean ranks are not comparable"
    assert said not in leaderboard_html([], both)
    third = ("third", *place[1:])
    other = [replace(entry, method=f"{entry.method}2") for entry in own.methods[place]]
    assert said in leaderboard_html([], replace(own, methods=dict(both.methods) | {third: other}))


def test_a_folder_that_cannot_be_written_is_said_before_the_work(studies, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    page = tmp_path / "file" / "leaderboard.html"
    reports = tmp_path / "reports"
    assert main([str(next(iter(studies))), "--out", str(reports), "--html", str(page)]) == 2
    assert "cannot be written" in capsys.readouterr().err and not reports.exists()
