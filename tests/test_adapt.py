"""What follows from the data in a search space without a dataset: always valid, and monotone."""

from __future__ import annotations

import json
from dataclasses import MISSING, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import make_store

from ptal_ray import ablate, search, train
from ptal_ray.data.facts import Facts, facts
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError
from ptal_ray.methods import method as methods
from ptal_ray.space import adapt, fill
from ptal_ray.space import space as spaces
from ptal_ray.space.reader import specs_of
from ptal_ray.space.space import load_space, parse_space
from ptal_ray.study import duration
from ptal_ray.study.continuing import check_space, overrides
from ptal_ray.study.feasibility import problems
from ptal_ray.study.study import Study, create_study, read_study

SPACES = Path(__file__).parents[1] / "search_spaces"
OWN = {name.rpartition(".")[2]: name for name in methods.names()}
# videos, D, snippets (median, nine of ten, most), actions a video, snippets of the longest
SHAPES = {
    "one": (1, 3, 9, 9, 9, 1.0, 4.0),
    "two": (2, 16, 50, 60, 60, 2.0, 5.0),
    "watch": (14, 87, 273, 293, 301, 12.0, 19.6),
    "gtea_scores": (16, 33, 181, 253, 272, 17.5, 45.6),
    "salads50_scores": (40, 112, 335, 419, 548, 15.0, 113.0),
    "hapt": (42, 87, 749, 844, 1282, 20.2, 81.3),
    "beoid": (46, 2048, 80, 150, 400, 12.5, 60.0),
    "thumos14": (200, 2048, 280, 600, 2600, 15.0, 180.0),
    "epic_verb": (495, 2304, 1500, 4500, 8000, 135.0, 500.0),
    "anet13 resampled": (10024, 2048, 100, 100, 100, 1.5, 100.0),
    "anet13": (10024, 2048, 190, 330, 1200, 1.5, 330.0),
    "no points": (30, 512, 200, 300, 400, 0.0, 0.0),
    "long": (5, 4096, 40_000, 90_000, 200_000, 400.0, 9000.0),
}


def shape(name: str, gpu: bool = False) -> Facts:
    keys = ("videos", "dim", "median_t", "long_t", "longest_t", "points_a_video")
    *values, longest = SHAPES[name]
    return Facts(**dict(zip(keys, values, strict=True)), longest_action_t=longest, gpu=gpu)


def classes(name: str) -> dict[str, Any]:
    method = methods.load(name)
    own = {"train": method.train_params, "decode": method.decode_params}
    return {**spaces._SECTIONS, **own}


def defaults(name: str) -> dict[str, Any]:
    specs = {section: specs_of(own) for section, own in classes(name).items()}
    return {f"{s}.{n}": spec.default for s, own in specs.items() for n, spec in own.items()}


def derived(name: str, known: Facts, **given: Any) -> dict[str, Any]:
    """Every value of a space by key: the rules' where there is one, else the default."""
    values = defaults(name) | given
    method = methods.load(name)
    wanted = {rule.key for rule in adapt.rules_of(method)} - given.keys()
    found = adapt.derive(method, known, values, wanted)
    return values | {one.key: one.value for one in found}


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("name", methods.names())
@pytest.mark.parametrize("data", SHAPES)
def test_every_rule_gives_a_valid_value_on_any_data(data: str, name: str, gpu: bool) -> None:
    values = derived(name, shape(data, gpu))
    specs = {s: specs_of(c) for s, c in classes(name).items()}
    for key, value in values.items():
        section, field = key.removesuffix(".default").split(".")
        spec = specs[section][field]
        assert value is not MISSING or key == "budget.trials"
        if value is not MISSING:
            assert type(value) is spec.type, f"{key}: {value!r}"
            assert spec.admits(value), f"{key}: {value!r} is not {spec}"
    assert values["budget.min_steps"] <= values["budget.max_steps"]
    assert values["train.batch_size"] <= max(1, SHAPES[data][0])
    assert values["resources.gpus_per_worker"] == (0.5 if gpu else 0.0)


@pytest.mark.parametrize("name", methods.names())
def test_a_rule_has_a_key_of_its_own_and_says_why(name: str) -> None:
    method = methods.load(name)
    keys = [rule.key for rule in adapt.rules_of(method)]
    assert len(set(keys)) == len(keys)
    assert {"budget.max_steps", "train.batch_size", "train.resample_to"} <= set(keys)
    for one in adapt.derive(method, shape("hapt"), defaults(name), keys):
        assert one.why and "\n" not in one.why


PUBLISHED = [
    ("lacp", "thumos14", {"train.batch_size": 16, "train.embed_dim": 2048,
                          "train.resample_to": 0, "budget.max_steps": 1975}),
    ("lacp", "anet13", {"train.resample_to": 190, "budget.max_steps": 20_000}),
    ("apn", "anet13", {"train.resample_to": 100, "train.embed_dim": 512}),
    ("apl.actionformer", "thumos14", {"train.batch_size": 2, "train.width": 512,
                                      "train.window": 15, "train.levels": 5}),
    ("apl.actionformer", "anet13", {"train.resample_to": 190, "train.batch_size": 16}),
    ("apl.bmn", "anet13", {"train.resample_to": 100, "train.window": 0, "train.base_dim": 256}),
    ("apl.bmn", "watch", {"train.resample_to": 0, "train.window": 64, "train.max_snippets": 64}),
    ("potloc", "thumos14", {"train.batch_size": 4, "train.levels": 2, "train.base_steps": 1975}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "wanted"), PUBLISHED)
def test_published_data_have_about_their_published_sizes(
    name: str, data: str, wanted: dict[str, Any]
) -> None:
    values = derived(name, shape(data, gpu=True))
    assert {key: values[key] for key in wanted} == wanted


def ascends(values: list[float]) -> bool:
    return all(a <= b for a, b in zip(values, values[1:], strict=False)) and values[0] < values[-1]


@pytest.mark.parametrize("name", methods.names())
def test_more_videos_never_mean_a_smaller_batch_fewer_that_select_or_fewer_steps(name: str) -> None:
    start = replace(shape("salads50_scores"), points_a_video=20.0)
    many = [replace(start, videos=n) for n in (*range(2, 300), 1000, 1001, 3000, 10_024, 50_000)]
    found = [derived(name, one) for one in many]
    assert ascends([v["train.batch_size"] for v in found])
    assert ascends([round(v["selection.val_fraction"] * k.videos)
                    for v, k in zip(found, many, strict=True)])  # fmt: skip
    fractions = [v["selection.val_fraction"] for v in found[3:]]
    assert fractions[0] > fractions[-1]
    steps = [derived(name, one, **{"train.batch_size": 8})["budget.max_steps"] for one in many]
    assert ascends(steps)
    assert ascends([-v["selection.decode_settings"] for v in found])


@pytest.mark.parametrize("name", methods.names())
def test_longer_videos_never_mean_a_larger_batch(name: str) -> None:
    start = shape("thumos14", gpu=True)
    found = [
        derived(name, replace(start, videos=5000, median_t=t, long_t=t, longest_t=t))
        for t in (16, 100, 500, 2000, 8000, 40_000, 100_000)
    ]
    sizes = [v["train.batch_size"] for v in found]
    assert all(a >= b for a, b in zip(sizes, sizes[1:], strict=False))


@pytest.mark.parametrize(
    ("name", "key"),
    [("lacp", "train.embed_dim"), ("fsptal", "train.embed_dim"), ("apn", "train.embed_dim"),
     ("potloc", "train.width"), ("apl.actionformer", "train.width"), ("apl.bmn", "train.base_dim"),
     ("apl", "train.width")],
)  # fmt: skip
def test_width_grows_with_d_and_is_less_without_a_gpu(name: str, key: str) -> None:
    for gpu in (False, True):
        dims = (1, 8, 60, 87, 128, 129, 512, 2048, 4096)
        assert ascends([derived(name, replace(shape("hapt", gpu), dim=d))[key] for d in dims])
    known = replace(shape("hapt"), dim=2048)
    assert derived(name, known)[key] < derived(name, replace(known, gpu=True))[key]


def test_levels_and_windows_grow_with_the_longest_action() -> None:
    lengths = (1.0, 5.0, 20.0, 60.0, 150.0, 700.0)
    for name, key in (("apl.actionformer", "train.levels"), ("apl.bmn", "train.window")):
        known = shape("thumos14", gpu=True)
        found = [derived(name, replace(known, longest_action_t=one))[key] for one in lengths]
        assert ascends(found)


def test_a_stated_value_stays_and_the_others_follow_from_it() -> None:
    values = derived("lacp", shape("hapt"), **{"train.batch_size": 4})
    assert values["train.batch_size"] == 4
    assert values["budget.max_steps"] == 200 * 30 // 4


def test_facts_are_those_of_the_training_videos(tmp_path: Path) -> None:
    store = FeatureStore.open(make_store(tmp_path / "tiny", train=6, test=3))
    ids = store.ids("train")
    known = facts(store, (), gpu=False)
    lengths = sorted(store.length(id) for id in ids)
    assert (known.videos, known.dim, known.longest_t) == (6, 16, lengths[-1])
    assert lengths[2] <= known.median_t <= lengths[3]
    assert known.points_a_video == sum(len(store.points(id)) for id in ids) / 6
    assert known.longest_action_t == 0
    seen = facts(store, ids[:2], gpu=False)
    longest = max((s.end_s - s.start_s).max() for s in map(store.annotations, ids[:2]))
    assert seen.longest_action_t == pytest.approx(longest / 0.5)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory in which the store "mine" is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PTAL_DATA", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    make_store(tmp_path / "mine", train=9)
    return tmp_path


def begin(folder: Path, *settings: str) -> Study:
    space = load_space("lacp", settings, "mine")
    store = FeatureStore.open(folder / "mine")
    given = overrides(list(settings), "mine")
    return create_study(space, store, folder / "studies", overrides=given)


def test_a_method_of_points_reads_no_annotation(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sealed(store: FeatureStore, id: str) -> Any:
        raise AssertionError(f"the annotations of {id} were read")

    monkeypatch.setattr(FeatureStore, "annotations", sealed)
    for name in ("apn", "fsptal", "lacp", "potloc"):
        assert load_space(name, dataset="mine").derived
    with pytest.raises(AssertionError, match="were read"):
        load_space("actionformer", dataset="mine")


def test_a_semi_supervised_method_reads_those_of_its_share_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, ...]] = []
    monkeypatch.setattr(adapt, "facts", lambda store, ids, gpu: seen.append(ids) or facts(
        store, ids, gpu))  # fmt: skip
    load_space("apl", ["train.labelled_fraction=0.3"], "mine")
    load_space("actionformer", dataset="mine")
    assert [len(ids) for ids in seen] == [3, 9]


@pytest.mark.parametrize("name", OWN)
def test_the_study_of_any_method_can_be_done(folder: Path, name: str) -> None:
    space = load_space(name, dataset="mine")
    store = FeatureStore.open(folder / "mine")
    study = create_study(space, store, folder / "studies")
    assert problems(study, store) == []
    assert read_study(study.directory).space == space


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (search, []),
        (search, ["--dry-run"]),
        (train, []),
        (ablate, ["--out", "ablation", "--variant", "as it is:"]),
    ],
)
def test_without_a_dataset_those_that_are_there_are_named(
    folder: Path, command: ModuleType, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(folder / "other")
    (folder / "no_store").mkdir()
    assert command.main(["lacp", *flags]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "lacp.yaml: dataset: is missing" in told
    assert "give --dataset NAME" in told
    assert f"in {folder} are mine, other, watch" in told


def test_a_dataset_may_be_set_as_any_key(folder: Path) -> None:
    assert load_space("lacp", ["dataset=mine"]) == load_space("lacp", dataset="mine")
    path = str(folder / "mine")
    assert load_space("lacp", dataset=path).dataset == path


def test_what_the_flags_state_is_not_derived(folder: Path) -> None:
    space = load_space("lacp", ["train.batch_size={choice: [2, 4]}", "selection=val",
                                "budget.max_steps=90"], "mine")  # fmt: skip
    assert space.train["batch_size"].args == (2, 4)
    assert space.budget.report_steps == (10, 30, 90)
    keys = {one.key for one in space.derived}
    assert not keys & {"train.batch_size", "budget.max_steps", "selection.metric"}
    with pytest.raises(ConfigError, match="--set train.batch_size=0"):
        load_space("lacp", ["train.batch_size=0"], "mine")


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("{}", [], "method: is missing"),
        ("method: lacp\ndatset: mine", [], "did you mean 'dataset'"),
        ("method: lacp\ntrian: {lr: 1}", [], "did you mean 'train'"),
        ("method: lacp\ntrain: {lrr: 1}", [], "did you mean 'lr'"),
        (
            "method: lacp\nbudget: {trials: 2}",
            ["budget.min_steps=5000"],
            "min_steps=5000: budget.min_s",
        ),
    ],
)
def test_a_mistake_in_a_space_without_a_dataset_is_named(
    folder: Path, text: str, settings: list[str], message: str
) -> None:
    (folder / "own.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_space("own.yaml", settings, "mine")
    if "dat" not in message and not settings:
        with pytest.raises(ConfigError, match="is missing|did you mean"):
            load_space("own.yaml")


def test_sections_that_are_empty_are_filled(folder: Path) -> None:
    (folder / "own.yaml").write_text("method: lacp\ntrain:\ndecode:\nbudget: {trials: 2}\n")
    space = load_space("own.yaml", dataset="mine")
    assert space.budget.trials == 2
    assert space.train_fixed["batch_size"] == 4
    (folder / "own.yaml").write_text("method: lacp\n")
    with pytest.raises(ConfigError, match="budget.trials: is missing"):
        load_space("own.yaml", dataset="mine")


def test_a_space_with_a_dataset_derives_nothing(folder: Path) -> None:
    there = load_space("lacp_gtea")
    here = load_space("lacp_gtea", dataset="mine")
    assert here == replace(there, dataset="mine")
    assert not here.derived
    text = "method: lacp\ndataset: mine\n"
    (folder / "half.yaml").write_text(text)
    with pytest.raises(ConfigError, match="budget: is missing"):
        load_space("half.yaml", dataset="mine")


def test_a_study_keeps_what_the_data_gave_and_resumes_without_asking_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = begin(folder, "final.top=1")
    plain = json.loads((study.directory / "study.json").read_text())["space"]
    assert plain["train"]["batch_size"] == 4
    assert plain["budget"]["max_steps"] == study.space.budget.max_steps
    best = study.space.freeze({"lr": 1e-3}, {})
    assert parse_space(best.to_yaml(), name="lacp", source="best.yaml") == best

    def asked(*_: Any) -> Any:
        raise AssertionError("the data was asked again")

    monkeypatch.setattr(adapt, "facts", asked)
    monkeypatch.setattr(fill, "find", asked)
    assert read_study(study.directory).space == study.space
    assert check_space(study, "lacp", "") == []


def test_an_edit_of_a_space_without_a_dataset_is_still_seen(folder: Path) -> None:
    text = (SPACES / "lacp.yaml").read_text()
    (folder / "own.yaml").write_text(text)
    store = FeatureStore.open(folder / "mine")
    study = create_study(
        load_space("own.yaml", dataset="mine"), store, folder / "studies",
        overrides=overrides([], "mine"),
    )  # fmt: skip
    (folder / "own.yaml").write_text(text.replace("train:\n", "train:\n  batch_size: 2\n"))
    with pytest.raises(ConfigError, match="train.batch_size .study: 4, file: 2"):
        check_space(study, "own.yaml", "")


def test_a_dry_run_gives_values_reasons_and_time(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duration, "LEARN_S", 0.05)
    before = sorted(path for path in folder.rglob("*"))
    assert search.main(["lacp", "--dataset", "mine", "--dry-run", "--json"]) == 0
    told = capsys.readouterr()
    plan = json.loads(told.out)
    rules = {rule["key"]: rule for rule in plan["rules"]}
    assert rules["train.batch_size"]["value"] == plan["space"]["train"]["batch_size"] == 4
    assert "4" in rules["train.batch_size"]["why"] or "6 videos" in rules["train.batch_size"]["why"]
    assert 0 < plan["time"]["low_s"] < plan["time"]["high_s"]
    line = next(text for text in told.err.splitlines() if text.startswith("time  "))
    assert "trials at a time" in line
    row = next(text for text in told.err.splitlines() if "train.batch_size" in text)
    assert row.split()[1] == "4"
    assert sorted(path for path in folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["apl", "apn"])
def test_time_counts_stages_and_needs_no_names_of_classes(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duration, "LEARN_S", 0.05)
    store = FeatureStore.open(folder / "mine")
    study = create_study(load_space(name, dataset="mine"), store, folder / "studies")
    fast, slow = duration.measured(study, "cpu")
    assert 0 < fast.step <= slow.step and fast.report > 0
    assert fast.before <= slow.before
    assert (fast.before > 0) == (methods.load(study.space.method).stage is not None)


def made(folder: Path, *settings: str) -> Study:
    return begin(folder, "budget.trials=9", "budget.max_steps=90", "final.seeds=2", *settings)


FAST = duration.Costs(step=1.0, report=10.0, before=100.0)
SLOW = duration.Costs(step=2.0, report=10.0, before=200.0)


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duration, "measured", lambda *_: (FAST, SLOW))


def test_the_range_of_the_time_is_that_of_stopped_and_of_full_trials(
    folder: Path, costs: None
) -> None:
    study = made(folder, "final.top=3", "policy=simple")
    found = duration.duration(study, 2)
    stopped = 9 * (10 + 10) + 3 * (20 + 10) + 1 * (60 + 10)
    low = stopped + 2 * (2 + 3) * (90 + 10) + 100 * (1 + 2 * 2)
    high = 9 * (180 + 3 * 10) + 2 * (2 + 3) * (180 + 10) + 200 * (1 + 2 * 2)
    assert found["low_s"] == pytest.approx(low / 2)
    assert found["high_s"] == pytest.approx(high / 2)
    assert found["text"].startswith(f"{low / 120:.0f} min to {high / 120:.0f} min, 2 trials")


def test_the_budget_of_a_race_is_that_of_full_trials(folder: Path, costs: None) -> None:
    study = made(folder, "final.top=3")
    found = duration.duration(study, 20)  # no more at a time than there are
    low = 9 * (90 + 3 * 10) + 2 * 2 * (90 + 10) + 100 * (study.num_folds + 2)
    assert found["low_s"] == pytest.approx(low / 9)


def test_the_time_on_a_gpu_that_is_not_here_is_unknown(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = made(folder, "resources.gpus_per_worker=1")
    monkeypatch.setattr(duration.torch.cuda, "is_available", lambda: False)
    found = duration.duration(study, 1)
    assert found["text"].startswith("unknown: ")
    assert "low_s" not in found


def test_a_gpu_decides_widths_and_shares(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapt.torch.cuda, "is_available", lambda: True)
    space = load_space("apn", dataset="mine")
    assert space.resources.gpus_per_worker == 0.5
    assert space.train_fixed["encoder_layers"] == 2


def test_the_default_of_a_searched_rate_follows_from_the_steps(folder: Path) -> None:
    space = load_space("lacp", ["budget.max_steps=500"], "mine")
    assert space.train["lr"].default == space.train_defaults()["lr"] == 0.2 / 500
    assert space.derived[-2].key == "train.lr.default"
    first = space.first_params()
    assert first is not None and first["lr"] == 0.2 / 500
    stated = load_space("lacp", ["train.lr={loguniform: [1e-5, 1e-2], default: 2e-3}"], "mine")
    assert stated.train["lr"].default == 2e-3
    assert load_space("lacp", ["train.lr=2e-3"], "mine").train_fixed["lr"] == 2e-3
    outside = load_space("lacp", ["train.lr={loguniform: [1e-5, 1e-4]}"], "mine")
    assert outside.train["lr"].default is None
    study = begin(folder, "budget.max_steps=500")
    assert check_space(study, "lacp", "") == []
