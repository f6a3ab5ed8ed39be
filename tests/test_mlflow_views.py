"""What a person sees in MLflow: saved views, filters, the data, the model; in a real browser."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path

import pytest
from browser import Page, chromium
from mlflow_service import Service, fresh_database
from synthetic_study import SyntheticStudy

import ptal_ray
from ptal_ray.tracking import views
from ptal_ray.tracking.experiments import set_tag
from ptal_ray.tracking.naming import MOST_METRICS
from ptal_ray.tracking.tracker import MlflowTracker, view_links

README = Path(ptal_ray.__file__).parent / "tracking" / "README.md"
STUDIES = ("apn_watch-20260801-120000", "apn_watch-20260802-130000", "apn_watch-20260803-140000")


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Three studies of 20 runs each in one database; the folder that holds it and them."""
    folder = tmp_path_factory.mktemp("views")
    (folder / "mlflow.db").write_bytes(fresh_database())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in STUDIES:
            study = SyntheticStudy(folder / "studies" / name, dataset="watch")
            tracker = MlflowTracker(study.whole(), f"sqlite:///{folder}/mlflow.db")
            tracker.start()
            assert tracker.close(60) == ()
    return folder


@pytest.fixture(scope="module")
def client(studies):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{studies}/mlflow.db")


def search(client, text):
    id = client.get_experiment_by_name("ptal/watch").experiment_id
    return client.search_runs([id], text, max_results=1000)


def test_links_open_a_view_of_the_tried_version_and_else_the_plain_table(studies, monkeypatch):
    directory = studies / "studies" / STUDIES[0]
    found = view_links(directory)
    assert re.fullmatch(
        r"http://127\.0\.0\.1:5000/#/experiments/\d+/runs\?viewStateShareKey=ptal-leaderboard"
        "&workflowType=machine_learning", found["leaderboard"],
    )  # fmt: skip
    assert "viewStateShareKey=ptal-trials-" in found["trials"]
    monkeypatch.setattr(views, "TRIED", (2, 0))
    assert not views.opens_views("sqlite:///x.db")
    assert views.links("http://host:1", "7", "abc", tried=False) == {
        "runs": "http://host:1/#/experiments/7/runs?workflowType=machine_learning"
    }
    assert view_links(studies) == {}


def test_a_view_holds_what_mlflow_reads(client):
    tags = client.get_experiment_by_name("ptal/watch").tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    whole = json.loads(tags["mlflow.sharedViewState.ptal-leaderboard"])
    assert whole["name"] == "Leaderboard" and whole["createdAt"] == whole["updatedAt"]
    kind, _, packed = whole["state"].partition(";")
    state = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert kind == "deflate"
    first = ["tags.`method`", "tags.`dataset`", "metrics.`test/mAP_avg`"]
    bounds = ["metrics.`test/mAP_avg_low`", "metrics.`test/mAP_avg_high`"]
    assert state["selectedColumns"][:6] == [*first, *bounds, "tags.`verdict`"]
    assert len([name for name in tags if name.startswith("mlflow.sharedViewState.")]) == 4


class Crowded:
    """A client whose database declines its first tags: another study has just set the same."""

    def __init__(self, code, times):
        self.code, self.times, self.tags = code, times, {}

    def set_experiment_tag(self, experiment, key, value):
        from mlflow.exceptions import MlflowException

        self.times -= 1
        if self.times >= 0:
            raise MlflowException("duplicate key value", error_code=self.code)
        self.tags[experiment, key] = value


def test_a_view_that_another_study_makes_at_the_same_moment_is_replaced():
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import BAD_REQUEST, TEMPORARILY_UNAVAILABLE

    client = Crowded(BAD_REQUEST, times=1)
    set_tag(client, "7", "key", "value")
    assert client.tags == {("7", "key"): "value"}
    for code, times in ((BAD_REQUEST, 2), (TEMPORARILY_UNAVAILABLE, 1)):
        with pytest.raises(MlflowException, match="duplicate"):
            set_tag(Crowded(code, times), "7", "key", "value")


def test_every_run_says_what_it_is_and_has_few_names(client):
    runs = search(client, "")
    assert len(runs) == 3 * (1 + 12 + 2 * (1 + 3) + 2 * (1 + 3))
    for run in runs:
        tags = run.data.tags
        assert (tags["method"], tags["dataset"]) == ("apn", "watch")
        assert tags["study"] in STUDIES
        assert tags["kind"] in ("study", "trial", "arm", "seed")
        assert len(run.data.metrics) <= MOST_METRICS
        values = [v for k, v in run.data.metrics.items() if "mAP" in k or "objective" in k]
        assert len(set(values)) == len(values), "one number has two names"
    names = {run.info.run_name for run in runs}
    assert {"test best", "seed 0 of test best", "120000 apn_watch", "trial 003"} <= names


def test_only_the_full_budget_is_called_objective(client):
    for run in search(client, "tags.kind = 'trial'"):
        full = run.data.tags["state"] == "complete"
        assert ("objective" in run.data.metrics) == full
        assert run.info.status == ("FAILED" if run.data.tags["state"] == "failed" else "FINISHED")


def test_the_note_of_a_study_has_its_conclusion(client):
    (run,) = search(client, f"tags.kind = 'study' and tags.study = '{STUDIES[0]}'")
    note = run.data.tags["mlflow.note.content"]
    assert "**Recommended minus defaults on the test split: +12.0 [12.0, 12.0] mAP.**" in note
    assert "| recommended | 3 | 44.80 | 0.80 |" in note
    assert "Features: real. Made up for a test." in note


def recipes():
    text = README.read_text().partition("## Filters")[2]
    return text.split("```")[1].strip().splitlines()


@pytest.mark.parametrize("recipe", recipes())
def test_the_filters_of_the_readme_find_runs(client, recipe):
    found = search(client, recipe)
    assert found
    everything = search(client, "")
    assert len(found) < len(everything)


def test_there_are_five_filters():
    assert len(recipes()) == 5


def test_the_data_is_an_input_with_its_hash(client):
    found = search(client, "dataset.name = 'watch'")
    assert {run.data.tags["kind"] for run in found} == {"study", "arm", "seed"}
    assert len(found) == 3 * (1 + 4 + 12)
    (entry,) = found[0].inputs.dataset_inputs
    assert entry.dataset.digest == ("0" * 64)[:36]
    assert json.loads(entry.dataset.source)["content"] == "0" * 64


def test_the_machine_of_the_driver_is_watched(monkeypatch):
    from ptal_ray.tracking import machine

    watch = machine.Machine()
    assert watch.look() == {}
    later = machine.time.monotonic() + 2
    monkeypatch.setattr(machine.time, "monotonic", lambda: later)
    found = watch.look()
    assert {name for name, _ in found} == {
        "system/cpu_utilization_percentage", "system/system_memory_usage_percentage",
        "system/system_memory_usage_megabytes",
    }  # fmt: skip
    assert watch.look() == {}


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.mark.slow
def test_both_views_show_rows_and_columns_in_a_browser(studies, browser):
    service = Service(studies, f"sqlite:///{studies}/mlflow.db")
    service.start()
    try:
        page = Page(browser, 1600)
        links = view_links(studies / "studies" / STUDIES[0])
        for what, count, column in (("leaderboard", 6, "test/mAP_avg"), ("trials", 12, "lr")):
            page.page.goto(links[what].replace(views.LOCAL_UI, service.uri))
            page.page.wait_for_selector(".ag-center-cols-container .ag-row", timeout=60_000)
            page.page.wait_for_timeout(500)
            headers = page.page.locator(".ag-header-cell").all_inner_texts()
            assert any(column in text for text in headers), headers
            assert not {"Dataset", "Source", "Models"} & set(headers)
            assert page.page.locator(".ag-center-cols-container .ag-row").count() >= count
            if what == "leaderboard":  # left of the assistant of MLflow, where it is open
                heads = {h.inner_text(): h for h in page.page.locator(".ag-header-cell").all()}
                names = ("method", "dataset", "test/mAP_avg", "test/mAP_avg_low")
                ends = [heads[name].bounding_box() for name in names]
                ends = [box["x"] + box["width"] for box in ends]
                table = page.page.locator(".ag-root").first.bounding_box()
                assert ends == sorted(ends) and ends[-1] < table["x"] + table["width"]
    finally:
        service.stop()
