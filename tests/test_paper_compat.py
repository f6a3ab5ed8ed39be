"""Selection on the test split: only with its flag, counted, and said wherever figures are shown."""

from __future__ import annotations

import pytest
from conftest import make_store
from small_study import small_space, small_study

from ptal_ray import search, train
from ptal_ray.backends.local import run_local
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError
from ptal_ray.policy.policies import make_policy
from ptal_ray.reporting.benchmark import read_benchmark
from ptal_ray.reporting.comparison import compared
from ptal_ray.reporting.html.leaderboard import leaderboard_html
from ptal_ray.reporting.html.report import report_html
from ptal_ray.reporting.leaderboard import leaderboard
from ptal_ray.reporting.outcome import show_summary, summary
from ptal_ray.reporting.progress import make_progress
from ptal_ray.reporting.report import write_report
from ptal_ray.reporting.text import leaderboard_text
from ptal_ray.study.conclusion import test_reads as reads_of
from ptal_ray.study.event_types import TrialEnd
from ptal_ray.study.events import read_events
from ptal_ray.study.feasibility import problems
from ptal_ray.study.paper_compat import selection_gain, validated
from ptal_ray.study.study import create_study, read_study
from ptal_ray.study.view import StudyView
from ptal_ray.tracking.runs import Round

pytestmark = pytest.mark.usefixtures("empty_plots")

SAID = "selected on the test split"
PAPER = ["--dry-run", "--protocol", "paper-compat"]
DECODED = ("decode.nms_tiou={uniform: [0.3, 0.9]}", "budget.max_steps=10")


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A study that selects on the test split, and the same one that does not."""
    made = []
    for words, settings in (((), {}), (("selection.metric=test",), {"protocol": "paper-compat"})):
        folder = tmp_path_factory.mktemp("study")
        study = small_study(folder, *DECODED, *words, scheduler="none", **settings)
        run_local(study, make_policy(study))
        made.append(study)
    return made


@pytest.fixture(scope="module")
def sealed(studies):
    return StudyView.read(studies[0].directory)


@pytest.fixture(scope="module")
def peeked(studies):
    return StudyView.read(studies[1].directory)


def test_every_reading_of_the_test_split_is_counted(sealed, peeked):
    arms = ("best", "default")
    assert reads_of(sealed) == sum(len(sealed.runs("test", arm)) for arm in arms) > 0
    reports = sum(len(trial.reports) for trial in peeked.trials)
    tested = [run for run in peeked.finals if run.role == "test"]
    assert reports >= 4 and reads_of(peeked) == reports + len(tested)
    assert not any("test/mAP_avg" in r.metrics for t in sealed.trials for r in t.reports)


def test_the_same_trials_train_and_validate_as_in_a_sealed_study(sealed, peeked):
    first = [t.reports[-1].metrics["val/mAP_avg"] for t in (sealed.trials[0], peeked.trials[0])]
    assert first[0] == first[1]


def test_the_test_split_chooses_and_validation_is_tested_beside_it(peeked):
    objectives = {t.number: t.reports[-1].objective for t in peeked.trials}
    assert objectives == {t.number: t.reports[-1].metrics["test/mAP_avg"] for t in peeked.trials}
    assert peeked.best.objective == max(objectives.values())
    assert not peeked.arms("reselect")
    assert set(peeked.arms("test")) >= {"best", "validated"}
    own = selection_gain(peeked)
    assert own.validated == validated(peeked).number
    honest = peeked.trials[own.validated].reports[-1].metrics
    assert honest["val/mAP_avg"] == max(t.reports[-1].metrics["val/mAP_avg"] for t in peeked.trials)
    assert own.read == max(objectives.values()) >= own.honest == honest["test/mAP_avg_validated"]
    assert own.tested is not None


def test_what_validation_chose_is_tested_with_its_own_decode_parameters(peeked):
    (run, _) = peeked.runs("test", "validated")
    assert {k: run.params[k] for k in ("lr", "weight_decay")} == dict(validated(peeked).params)
    settings = {t.reports[-1].metrics["val/decode_setting"] for t in peeked.trials}
    assert settings <= {0.0, 1.0}
    default = peeked.study.defaults["decode"]["nms_tiou"]
    first = validated(peeked).reports[-1].metrics["val/decode_setting"] == 0.0
    assert (run.decode["nms_tiou"] == default) == first


def test_a_sealed_study_says_how_often_it_read_and_nothing_else(studies, sealed, tmp_path):
    text = write_report(studies[0].directory, tmp_path).joinpath("REPORT.md").read_text()
    assert f"was read {reads_of(sealed)} times, after the search" in text
    assert SAID not in text and selection_gain(sealed) is None
    (row,) = leaderboard([sealed])
    assert (
        row["test_reads"] == reads_of(sealed) and row["habit"] == "" and SAID not in row["labels"]
    )


def test_every_table_says_so(studies, peeked, tmp_path):
    gains = selection_gain(peeked).text
    folder = write_report(studies[1].directory, tmp_path)
    lines = (folder / "REPORT.md").read_text().splitlines()
    assert f"was read {reads_of(peeked)} times.** {gains}" in "\n".join(lines)
    for k, line in enumerate(lines):
        if line.startswith("| ---"):
            before = [x for x in lines[: k - 1] if x and not x.startswith("|")][-1]
            assert SAID in before, lines[k - 1]
    assert "--protocol paper-compat" in "\n".join(lines)
    page = report_html(peeked, read_benchmark(peeked, studies[1].directory), [])
    titles = [part.partition("</h2>")[0] for part in page.split("<h2 ")[1:]]
    assert titles and all(SAID in title for title in titles)
    assert gains in page
    (row,) = leaderboard([peeked])
    assert SAID in row["labels"] and row["habit"] == gains
    assert gains in leaderboard_text([row])
    views = {s.directory: StudyView.read(s.directory) for s in studies}
    both = leaderboard_html(list(views.values()), compared(views))
    assert both.count(f"points; {SAID}</p>") >= 1 and gains in both


def test_the_terminal_says_so(studies, peeked, capsys, tmp_path):
    shown = show_summary(summary(studies[1], tmp_path, ()))
    assert shown.startswith(f"warning {selection_gain(peeked).text}\n")
    assert "test mAP, by validation" in shown
    with make_progress(studies[1], quiet=False, stderr=False) as progress:
        progress.console.print(progress.render())
        progress.event(next(e for e in read_events(studies[1].events) if isinstance(e, TrialEnd)))
    said = capsys.readouterr().out
    assert SAID in said and "  test mAP 0." in said


def test_mlflow_says_so(studies, peeked):
    events = read_events(studies[1].events)
    run = Round(StudyView(), events, studies[1].directory).updates["study"]
    assert run.tags["ptal.test_reads"] == str(reads_of(peeked))
    assert run.tags["ptal.selected_on_test"] == selection_gain(peeked).text
    assert selection_gain(peeked).text in run.tags["mlflow.note.content"]
    assert events[0].protocol == "paper-compat"  # a tag of every run


def test_a_resumed_study_keeps_its_protocol(studies):
    assert [read_study(study.directory).protocol for study in studies] == ["sealed", "paper-compat"]


@pytest.fixture
def space(tmp_path, monkeypatch):
    """A file of a space that selects on the test split."""
    store = make_store(tmp_path / "tiny", train=9)
    path = tmp_path / "small.yaml"
    text = small_space("selection=test", "policy=race").to_yaml()
    path.write_text(text.replace("dataset: tiny", f"dataset: {store}"))
    monkeypatch.chdir(tmp_path)
    return str(path)


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (search, ["--dry-run"], "--protocol paper-compat; then every table states it"),
        (train, [], "--set selection.metric=map"),
        (search, [*PAPER, "--policy", "race"], "--policy simple"),
        (search, [*PAPER, "--set", "selection.metric=map"],
         "add --set selection=test"),
    ],
)  # fmt: skip
def test_without_the_flag_it_is_one_clear_error(space, capsys, command, words, message):
    assert command.main([space, *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_data_without_a_test_split_have_nothing_to_choose_on(tmp_path):
    store = FeatureStore.open(make_store(tmp_path / "tiny", train=9, test=0))
    space = small_space("selection=test")
    study = create_study(space, store, tmp_path / "studies", protocol="paper-compat")
    (found,) = problems(study, store)
    assert "has no test split to select on; leave out --protocol paper-compat" in str(found)


def test_an_unknown_protocol_is_named(tmp_path):
    with pytest.raises(ConfigError, match="--protocol open: unknown; allowed are sealed"):
        small_study(tmp_path, protocol="open")
