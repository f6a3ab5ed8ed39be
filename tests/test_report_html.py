"""report.html: its sections and numbers, what it says without data, and how a browser shows it."""

from __future__ import annotations

import json
import math
import re
import time

import numpy as np
import pytest
from browser import Page, chromium
from conftest import make_store
from synthetic_study import SyntheticStudy

from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Segments
from ptal_ray.ops.metrics import detection_map, match_detections
from ptal_ray.reporting.benchmark import read_benchmark
from ptal_ray.reporting.diagnosis import KINDS, diagnose
from ptal_ray.reporting.html.page import page, paragraph, table
from ptal_ray.reporting.html.parallel import NEAREST, axis
from ptal_ray.reporting.html.report import report_html
from ptal_ray.reporting.html.search import _slice, compared_report
from ptal_ray.reporting.outcome import _tested
from ptal_ray.reporting.report import write_report
from ptal_ray.reporting.resampling import Resampled, holm, resample, weighted_map
from ptal_ray.reporting.tested import read_tested
from ptal_ray.study.view import StudyView

pytestmark = pytest.mark.usefixtures("empty_plots")

NAME = "apn_demo-20260801-120000"
SECTIONS = (
    "test", "search", "importance", "parameters", "curves", "workers", "classes", "errors",
    "sensitivity", "videos", "configuration", "trials", "provenance",
)  # fmt: skip


def whole_page(study_dir, commands):
    """report.html of a study."""
    view = StudyView.read(study_dir)
    return report_html(view, read_benchmark(view, study_dir), commands)


@pytest.fixture(scope="module")
def study_dir(tmp_path_factory):
    store = FeatureStore.open(make_store(tmp_path_factory.mktemp("data") / "store", test=6))
    return SyntheticStudy(tmp_path_factory.mktemp("studies") / NAME, store).whole(24)


@pytest.fixture(scope="module")
def text(study_dir):
    return whole_page(study_dir, ["python -m ptal_ray.search x.yaml"])


@pytest.fixture(scope="module")
def tested(study_dir):
    return read_tested(StudyView.read(study_dir), study_dir)


def test_it_has_every_section_and_the_verdict_first(text):
    assert re.findall(r'<h2 id="(\w+)"', text) == list(SECTIONS)
    first = re.search(r"<section>(.*?)</section>", text, re.DOTALL)
    assert "Recommended minus defaults on the test split: +12.0" in first[1]
    assert "python -m ptal_ray.search x.yaml" in text


def test_the_difference_on_test_is_the_same_everywhere(study_dir, tmp_path):
    """One number with one interval, over seeds and videos: in both reports and the last lines."""
    view = StudyView.read(study_dir)
    folder = write_report(study_dir, tmp_path / "reports")
    found = json.loads((folder / "result.json").read_text())["test_difference"]
    resampled = read_benchmark(view, study_dir).resampled
    expected, p = resampled.difference("best", "default")
    assert (found["low"], found["high"], found["p"]) == (expected.low, expected.high, p)
    assert found["over"] == "seeds and videos" and found["low"] < found["mean"] < found["high"]
    last = {"low": 100 * found["low"], "high": 100 * found["high"]}
    short, long = (f"[{last['low']:.{k}f}, {last['high']:.{k}f}]" for k in (1, 2))
    outcome = {"test_difference": found, "recommended": None, "test": {"best": {}, "default": {}}}
    (line,) = _tested(outcome)
    assert f"{short}  (95 %, over seeds and videos, p = {p:.3f})" in line
    sure = "(95 %, over seeds and videos"
    assert f"{short} mAP points {sure}" in (folder / "report.html").read_text()
    assert f" points {long} {sure}" in (folder / "REPORT.md").read_text()


def test_trials_are_compared_where_all_of_them_arrived(study_dir):
    view = StudyView.read(study_dir)
    whole = [t for t in view.trials if t.state == "complete"]
    stopped = [t for t in view.trials if t.state == "pruned"]
    assert compared_report(view, whole) == (-1, "at the full budget")
    assert compared_report(view, [*whole, *stopped]) == (0, "at the first report")
    full = _slice(view, whole, "train.lr", -1, "at the full budget")
    at = next(data["y"] for data in full.data if data["name"] == "complete")
    assert at == [100 * t.reports[-1].objective for t in whole]


def test_no_address_is_fetched(text):
    body = text.partition("</script></head>")[2]
    assert "http" not in body and "<link" not in body and "src=" not in body


def test_what_a_study_says_cannot_become_markup():
    assert "&lt;script" in paragraph("<script>alert(1)</script>")
    assert "<b>" not in table(["a"], [["<b>"]])
    assert "</script><b>" not in page("</script><b>", [])


def test_numbers_of_a_table_are_numbers():
    text = table(["name", "value"], [["a", 0.123456], ["b", None]], sortable=True)
    assert '<td class="number" data-value="0.123456">0.1235</td>' in text
    assert '<th class="number">value' in text and "<th>name" in text


def test_an_unfinished_study_says_what_is_missing(tmp_path):
    study = SyntheticStudy(tmp_path / NAME)
    study.begin()
    study.trials(3)
    text = whole_page(study.directory, [])
    for said in (
        "The study is not finished.",
        "No final run has finished.",
        "8 trials with different objectives are required",
        "Nothing on classes, errors and videos: no final run has finished.",
    ):
        assert said in text


def test_beliefs_are_drawn_where_the_search_has_them(study_dir, tmp_path):
    study = SyntheticStudy(tmp_path / NAME)
    study.begin()
    study.trials(2)
    study.final("test", "default", 0, 0.4)
    arms = [{"arm": k, "mean": 0.3 + 0.1 * k, "sd": 0.02} for k in range(2)]
    said = {"verdict": "tie", "difference": {"mean": 0.01, "low": -0.02, "high": 0.04}}
    study.append("study_end", state="done", arms=arms, recommended={"arm": 0}, **said)
    text = whole_page(study.directory, [])
    verdict = "Verdict: the best found is not distinguishable from the defaults, which are kept"
    assert verdict in text
    other = (write_report(study.directory, tmp_path / "reports") / "REPORT.md").read_text()
    assert verdict in other.splitlines()[2]  # first, too
    assert "+1.0 [-2.0, 4.0] mAP" in text
    assert "best posterior mean" in text
    assert "2 trials, 1 test run of the recommended configuration." in text


def test_500_trials_take_under_20_s(tmp_path):
    study = SyntheticStudy(tmp_path / NAME)
    study.begin()
    study.trials(500)
    began = time.process_time()
    whole_page(study.directory, [])
    assert time.process_time() - began < 20


def test_weighted_map_is_map_where_every_video_counts_once(tested):
    for key, run in tested.matches.items():
        exact = detection_map(tested.truth, tested.found[key], len(tested.classes), tested.tiou)
        found = weighted_map(run, np.ones((1, len(run.videos))), tested.averaged)
        assert found[0] == pytest.approx(exact.average)


def test_weighted_map_of_some_videos_is_their_map(tested):
    key, run = next(iter(tested.matches.items()))
    kept = run.videos[::2]
    weights = np.array([[float(v in kept) for v in run.videos]])
    truth = {v: tested.truth[v] for v in kept}
    found = {v: tested.found[key][v] for v in kept}
    exact = detection_map(truth, found, len(tested.classes), tested.tiou).average
    assert weighted_map(run, weights, tested.averaged)[0] == pytest.approx(exact)


def test_intervals_hold_the_mean_and_a_run_equals_itself(tested):
    runs = {"best": tested.runs("best"), "default": tested.runs("default")}
    found = resample(runs | {"again": runs["best"]}, tested.averaged)
    for name in runs:
        own = found.interval(name)
        assert own.low < own.mean < own.high
    difference, p = found.difference("best", "default")
    assert difference.mean == pytest.approx(found.plain["best"] - found.plain["default"])
    same, p_same = found.difference("best", "again")
    assert same.low < 0 < same.high and p_same > 0.5 and p <= 1


def test_one_video_and_one_seed_prove_nothing(tested):
    good, video = tested.runs("best")[:1], next(iter(tested.truth))
    own = next(iter(tested.found.values())).get(video, Segments.empty())
    truth = {video: tested.truth[video]}
    one = [match_detections(truth, {video: own}, len(tested.classes), tested.tiou)]
    found = Resampled(
        maps={"a": np.ones(9), "b": np.zeros(9)}, plain={"a": 1, "b": 0}, varied=False
    )
    difference, p = found.difference("a", "b")
    assert difference.mean == 1 and np.isnan(difference.low) and p == 1
    assert resample({"a": good}, tested.averaged).varied  # several videos
    assert not resample({"a": one}, tested.averaged).varied


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def segments(*rows):
    start, end, label, score = (np.array(column) for column in zip(*rows, strict=True))
    return Segments(start_s=start.astype(float), end_s=end.astype(float),
                    label=label.astype(np.int64), score=score.astype(float))  # fmt: skip


def test_each_kind_of_error_by_hand():
    truth = {"v": segments((0, 10, 0, 1), (20, 30, 1, 1))}
    found = {"v": segments(
        (0, 10, 0, 0.9), (0, 9, 0, 0.8), (20, 30, 0, 0.7), (6, 14, 0, 0.6), (26, 34, 0, 0.5),
        (50, 60, 0, 0.4),
    )}  # fmt: skip
    own = diagnose(truth, found, {"v": 100.0}, 2)
    assert [KINDS[k] for k in own.shares[:6].argmax(axis=1)] == list(KINDS)
    assert own.counts["length"] == [0, 0, 0, 0, 2] or sum(own.counts["length"]) == 2
    assert own.counts["instances"] == [2, 0, 0, 0]
    assert own.found["instances"] == [0.5, None, None, None]


def test_places_on_an_axis():
    def places(values, kind):
        return axis("p", values, {kind: []}).places

    assert places([1e-4, 1e-3, 1e-2], "loguniform") == pytest.approx([0, 0.5, 1])
    assert places(["b", "a", None], "choice")[:2] == [1, 0]
    assert math.isnan(places(["b", "a", None], "choice")[2])
    assert places([2, 2], "randint") == [0.5, 0.5]
    assert places([64, 1, 2], "choice") == [1, 0, 0.5]
    assert places([True], "choice") == [0.5]


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        ([3e-5, 2e-3, 0.05], "loguniform", ["3e-05", "0.0001", "0.001", "0.01", "0.05"]),
        ([1.0, 2.0, 8.0], "loguniform", ["1", "2", "4", "8"]),
        ([0.5 + k / 100 for k in range(9)], "uniform", ["0.5", "0.52", "0.54", "0.56", "0.58"]),
        ([3, 1, 2, None], "randint", ["1", "2", "3"]),
        ([1, 2, 1000], "randint", ["1", "1e+03"]),
        (["soft", "hard", False], "choice", ["False", "hard", "soft"]),
        (["a name that is too long"], "choice", ["a name that…"]),
        ([None, None], "choice", []),
        ([7.0, 7.0], "uniform", ["7"]),
    ],
)
def test_an_axis_shows_its_values(values, kind, said):
    ticks = axis("p", values, {kind: []}).ticks
    assert [text for _, text in ticks] == said
    gaps = np.diff([place for place, _ in ticks])
    assert (gaps >= NEAREST).all()


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_draws_everything_within_its_width(browser, text, tmp_path, width):
    path = tmp_path / "report.html"
    path.write_text(text)
    shown = Page(browser, width)
    asked = []
    shown.page.on("request", lambda request: asked.append(request.url))
    shown.page.goto(path.as_uri())
    figures = shown.page.locator(".figure").count()
    assert figures == shown.page.locator(".figure .main-svg:first-child").count() > 15
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
    top = shown.page.locator(".verdict").bounding_box()
    assert top["y"] + top["height"] < 400
    assert shown.errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("width", [1280, 400])
def test_parallel_coordinates_show_values_and_scroll_where_they_are_wider(
    browser, text, tmp_path, width
):
    path = tmp_path / "report.html"
    path.write_text(text)
    page = Page(browser, width).page
    page.goto(path.as_uri())
    figure = page.locator("#parameters-0")
    said = figure.locator(".annotation-text").all_text_contents()
    assert {"0.0001", "0.001", "0.01", "0.1"} & set(said)  # a logarithmic axis
    assert {"1", "5", "10"} <= set(said)  # a choice
    boxes = [mark.bounding_box() for mark in figure.locator(".annotation").all()]
    assert all(box["height"] > 9 and box["width"] > 5 for box in boxes)  # readable
    assert not any(_overlap(a, b) for k, a in enumerate(boxes) for b in boxes[:k])
    scrolled = figure.locator("xpath=..")
    hidden = scrolled.evaluate("e => e.scrollWidth - e.clientWidth")
    assert (hidden > 0) == (width == 400)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_legend_hides_no_point_and_a_slice_orders_its_choices(browser, text, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(text)
    page = Page(browser, 400).page
    page.goto(path.as_uri())
    for figure in page.locator(".figure:has(.legend)").all():
        legend, plot = (figure.locator(part).first for part in (".legend", ".nsewdrag"))
        assert not _overlap(legend.bounding_box(), plot.bounding_box())
    axes = page.evaluate("[...document.querySelectorAll('.figure')].map(f => f.layout.xaxis)")
    choices = [axis["categoryarray"] for axis in axes if "categoryarray" in axis]
    assert choices and all(own == sorted(own) for own in choices)
    assert all(axis["exponentformat"] == "none" for axis in axes if axis.get("type") == "log")


def _overlap(one, other):
    apart = (
        one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"],
        one["y"] + one["height"] <= other["y"] or other["y"] + other["height"] <= one["y"],
    )
    return not any(apart)


def test_a_click_on_a_heading_sorts(browser, text, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(text)
    page = Page(browser, 1280).page
    page.goto(path.as_uri())
    head = page.locator("#trials ~ div th", has_text="mAP, %")
    column = f"""[...document.querySelectorAll('#trials ~ div tbody tr')].map(
        row => row.cells[{head.evaluate("e => e.cellIndex")}].dataset.value).filter(Boolean)"""
    head.click()
    values = [float(v) for v in page.evaluate(column)]
    assert values == sorted(values) and len(values) > 20
    head.click()
    assert [float(v) for v in page.evaluate(column)] == sorted(values, reverse=True)


def test_figures_are_json_without_nan(text):
    for part in re.findall(r'data-figure="[^"]+">(.*?)</script>', text):
        json.loads(part, parse_constant=lambda name: pytest.fail(name))
