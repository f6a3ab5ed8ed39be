"""What makes a study impossible is said before the first trial, by every command that trains."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_store
from test_trial import SMALL

from ptal_ray import ablate, search, train
from ptal_ray.data.splits import fold, kfold, labelled
from ptal_ray.data.store import FeatureStore, StoreWriter
from ptal_ray.data.types import Points, Segments
from ptal_ray.errors import ConfigError, DataError
from ptal_ray.space.space import load_space, parse_space
from ptal_ray.study.feasibility import demand, group_note, problems, remarks
from ptal_ray.study.start_end import study_event
from ptal_ray.study.study import create_study


def copied(
    source: Path,
    path: Path,
    unannotated: Collection[str] = (),
    pointless: Collection[str] = (),
    groups: Mapping[str, str] | None = None,
) -> Path:
    """A copy of a store without the annotations of some videos and the points of others."""
    store = FeatureStore.open(source)
    info = store.info
    with StoreWriter(
        path, name=info.name, classes=info.classes, grid=info.grid, features="test", dtype="float32"
    ) as writer:
        for subset in ("train", "test"):
            for id in store.ids(subset):
                truth, points = store.annotations(id), store.points(id)
                none = points.label[:0]
                writer.add(
                    id, subset=subset, features=store.video(id).features,
                    duration_s=store.duration_s(id),
                    annotations=Segments.empty() if id in unannotated else truth,
                    points=Points(time_s=points.time_s[:0], label=none)
                    if id in pointless else points,
                    group=(groups or {}).get(id, ""),
                )  # fmt: skip
    return path


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PTAL_DATA", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return make_store(tmp_path / "tiny", train=12, test=3)


def space_file(store: Path, method: str, searched: str = "") -> Path:
    fixed = "".join(f"  {k}: {v}\n" for k, v in SMALL[method].items() if f"{k}:" not in searched)
    path = store.parent / "space.yaml"
    path.write_text(
        f"method: {method}\ndataset: {store}\nselection: {{val_fraction: 0.34}}\n"
        f"budget: {{trials: 2, min_steps: 4, max_steps: 8}}\nfinal: {{top: 1, seeds: 1}}\n"
        f"train:\n{fixed}{searched}"
    )
    return path


def searched_ids(store: Path) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Videos to fit, to select on and to test."""
    opened = FeatureStore.open(store)
    return *fold(opened, 0.34, 0), opened.ids("test")


def commands(path: Path) -> list[Callable[[], int]]:
    """Every command that would meet the space in `path`, on the selection fold."""
    name = str(path)
    return [
        lambda: search.main([name, "--dry-run"]),
        lambda: search.main([name]),
        lambda: train.main([name, "--out", "runs"]),
        lambda: ablate.main([name, "--seeds", "1", "--variant", "a:", "--out", "ablation"]),
    ]


def all_say(
    path: Path, code: int, message: str, capsys: pytest.CaptureFixture[str], *, rest: bool = True
) -> None:
    before = sorted(path.parent.rglob("*"))
    for run in commands(path)[: None if rest else 2]:
        assert run() == code
        told = capsys.readouterr().err
        assert re.search(message, told), told
        assert told.count("\n") == 1
        assert sorted(path.parent.rglob("*")) == before  # nothing was begun


def test_a_test_split_without_instances(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = copied(store, store.parent / "bare", unannotated=searched_ids(store)[2])
    path = space_file(bare, "lacp")
    message = "bare: no annotated instance in the 3 videos of split 'test'; mAP needs some"
    all_say(path, 3, message, capsys, rest=False)
    assert train.main([str(path), "--test", "--out", "runs"]) == 3
    assert re.search(message, capsys.readouterr().err)
    one = ["--threads", "1", "--out", "runs"]
    assert train.main([str(path), *one]) == 0  # which does not test


def test_a_selection_fold_without_instances(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = copied(store, store.parent / "bare", unannotated=searched_ids(store)[1])
    message = r"split 'val'; mAP needs some: import annotations or choose .*\(selection.fold_seed\)"
    all_say(space_file(bare, "lacp"), 3, message, capsys)


def test_each_fold_of_a_race_is_looked_at(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    third = kfold(FeatureStore.open(store), 3, 0)[2]
    few = [id for id in FeatureStore.open(store).ids("train") if id not in searched_ids(store)[1]]
    bare = copied(store, store.parent / "bare", unannotated={*third, *few})
    path = space_file(bare, "lacp")
    message = r"error: fold \d of 3: .*bare: no annotated instance in the 4 videos of split 'val'"
    for more in (["--dry-run"], []):
        assert search.main([str(path), *more]) == 3
        told = capsys.readouterr().err
        assert re.search(message, told) and told.count("\n") == 1
        assert "raise selection.val_fraction for fewer folds" in told
    assert search.main([str(path), "--policy", "simple", "--dry-run"]) == 0


@pytest.mark.parametrize("number", range(1, 7))
def test_data_of_few_groups_can_be_raced(store: Path, number: int) -> None:
    ids = FeatureStore.open(store).ids("train")
    groups = {id: f"p{k % number}" for k, id in enumerate(ids)}
    grouped = FeatureStore.open(copied(store, store.parent / "grouped", groups=groups))
    space = load_space("lacp", dataset=str(grouped.path))
    study = create_study(space, grouped, store.parent / "studies")
    assert problems(study, grouped) == []
    alone = load_space("lacp", dataset=str(store)).selection.val_fraction
    wanted = round(1 / alone)
    assert study.num_folds == (min(wanted, number) if number > 1 else wanted)
    why = next(one.why for one in space.derived if one.key == "selection.val_fraction")
    assert (f"split none of the {number} groups" in why) == (1 < number < wanted)
    said = "one group (p0); the folds divide its recordings"
    assert any(said in note for note in remarks(study, study.num_trials)) == (number == 1)
    assert (said in study_event(study).note) == (number == 1)
    simple = replace(study, space=replace(space, policy="simple"))
    assert not group_note(simple, grouped)  # its test videos are of no group here


def test_more_folds_than_groups_are_refused_with_what_helps(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = {id: f"p{id[-1] in '02468'}" for id in FeatureStore.open(store).ids("train")}
    path = space_file(copied(store, store.parent / "grouped", groups=groups), "lacp")
    assert search.main([str(path), "--dry-run"]) == 3
    told = capsys.readouterr().err
    assert "3 folds of 12 training videos in 2 groups; allowed are 2 folds" in told
    assert "raise selection.val_fraction for fewer folds (0.5 gives 2), or pass --policy" in told
    for fix in (["--set", "selection.val_fraction=0.5"], ["--policy", "simple"]):
        assert search.main([str(path), "--dry-run", *fix]) == 0


def test_each_fold_of_an_ablation_is_looked_at(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, val = fold(FeatureStore.open(store), 0.34, 2)
    bare = copied(store, store.parent / "bare", unannotated=val)
    assert fold(FeatureStore.open(bare), 0.34, 2)[1] == val
    arguments = [str(space_file(bare, "lacp")), "--variant", "a:", "--seeds", "3", "--out", "out"]
    assert ablate.main(arguments) == 3
    assert "variant 'a', seed 2: " in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_training_part_without_points(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = FeatureStore.open(store)
    bare = copied(store, store.parent / "bare", pointless=opened.ids("train"))
    message = r"no point in the \d+ videos of split 'fit'; lacp learns from points"
    all_say(space_file(bare, "lacp"), 3, message, capsys)
    demand_nothing(space_file(bare, "apl.actionformer"))


def demand_nothing(path: Path) -> None:
    assert search.main([str(path), "--dry-run", "--quiet"]) == 0


@pytest.mark.parametrize("method", ["apl", "apl.actionformer"])
def test_a_share_of_videos_without_instances(
    store: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = FeatureStore.open(store)
    chosen = labelled(opened, 0.01, 0)
    bare = copied(store, store.parent / "bare", unannotated=set(opened.ids("train")) - set(chosen))
    path = space_file(bare, method, "  labelled_fraction: 0.01\n")
    everywhere = copied(store, store.parent / "none", unannotated=opened.ids("train"))
    # The one video with instances stays to fit, so that none is left to select on.
    all_say(path, 3, "no annotated instance in the 4 videos of split 'val'", capsys)
    path = space_file(everywhere, method)
    all_say(path, 3, "none of the 12 training videos has an annotated instance", capsys)


def test_an_empty_split(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = make_store(store.parent / "one", train=1, test=1)
    all_say(space_file(one, "lacp"), 3, "split 'val' is empty; .*import 2 or more of them", capsys)
    none = make_store(store.parent / "none", train=4, test=0)
    demand_nothing(space_file(none, "lacp"))  # nothing is tested


@pytest.mark.parametrize(
    ("method", "searched", "message"),
    [
        (
            "apl.actionformer",
            "  heads: {choice: [2, 3]}\n",
            "given train.heads=3: .*does not divide",
        ),
        ("apl.bmn", "  base_dim: {randint: [16, 18]}\n", "given train.base_dim=17: .*no multiple"),
        ("apl.bmn", "  resample_to: {choice: [0, 40]}\n", "needs resampled videos"),
        ("potloc", "  heads: {choice: [2, 5]}\n", "given train.heads=5: .*does not divide"),
        ("apn", "  text_encoder: {choice: [learned, wordlama]}\n", "'wordlama' is unknown"),
        ("apl.actionformer", "  external_scores: {choice: [none.json]}\n", "none.json: no JSON"),
    ],
)
def test_values_that_a_method_cannot_use(
    store: Path, method: str, searched: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = 3 if "external" in searched else 2
    all_say(space_file(store, method, searched), code, message, capsys, rest=False)


def test_values_that_fail_only_together(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    searched = "  heads: {choice: [3, 4]}\n  width: {choice: [48, 60]}\n"
    demand_nothing(space_file(store, "apl.actionformer", searched))
    capsys.readouterr()
    searched = "  heads: {choice: [4, 5]}\n  width: {choice: [40, 48]}\n"
    all_say(
        space_file(store, "apl.actionformer", searched), 2, "48 does not divide among 5", capsys,
        rest=False,
    )  # fmt: skip


@pytest.mark.parametrize("encoder", ["wordlama", "none.npy", "open_clip:ViT-B-32:none.pt"])
def test_a_missing_text_encoder(
    store: Path, encoder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = space_file(store, "apn", f"  text_encoder: {encoder}\n")
    all_say(path, 3 if encoder == "none.npy" else 2, f"text e.*{encoder[-7:]}", capsys)


def test_stages_that_have_no_place(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("studies").mkdir()
    Path("studies/.stages").touch()
    all_say(space_file(store, "potloc"), 2, "stages: not a folder to write to", capsys)


def test_a_warm_up_longer_than_the_training(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = space_file(store, "lacp", "  warmup: 1.0\n")
    demand_nothing(path)
    capsys.readouterr()
    for key in ("budget.min_steps=1", "budget.max_steps=1"):
        path.write_text(re.sub(rf"{key[7:].partition('=')[0]}: \d+", key[7:].replace("=", ": "),
                               path.read_text()))  # fmt: skip
    all_say(path, 2, "train.warmup: with 1.0 of 1 steps of lacp", capsys)


STUDY = """
method: {method}
dataset: tiny
selection: {{val_fraction: 0.34}}
budget: {{trials: 2, min_steps: 4, max_steps: 8}}
resources: {{workers: {workers}}}
train: {{batch_size: {batch}, lr: {{loguniform: [0.001, 0.01]}}}}
"""


@pytest.mark.parametrize(
    ("method", "batch", "workers", "message"),
    [
        ("lacp", "4", 2, ""),
        ("lacp", "{choice: [2, 4]}", 2, ""),
        ("lacp", "3", 2, "batch size of lacp: 3 videos do not divide among 2 workers"),
        ("lacp", "{choice: [4, 7]}", 2, "given train.batch_size=7.*: batch size of lacp: 7 videos"),
        ("lacp", "{randint: [2, 9]}", 2, "batch size of lacp: [357] videos"),
        ("lacp", "16", 3, r"8 videos \(16 are asked for\) do not divide among 3 workers"),
        ("lacp", "16", 16, "among 16 workers; choose fewer resources.workers"),
        ("potloc", "6", 3, "batch size of potloc.base: 8 videos"),  # a stage, whose default is 16
        ("apl.actionformer", "16", 6, "8 videos"),
    ],
)
def test_batches_divide_among_workers(
    store: Path, tmp_path: Path, method: str, batch: str, workers: int, message: str
) -> None:
    text = STUDY.format(method=method, batch=batch, workers=workers)
    opened = FeatureStore.open(store)
    study = create_study(parse_space(text, name="x", source="x.yaml"), opened, tmp_path / "s")
    found = problems(study, opened)
    assert not found if not message else re.search(message, str(found[0])), found
    values = "choice" in batch and bool(message)
    assert problems(study, opened, values=False) == [] if values else True


def test_all_problems_are_one_line() -> None:
    with pytest.raises(DataError, match="^a; also: b$"):
        demand([DataError("a"), ConfigError("b")])
    demand([])


@pytest.mark.parametrize(
    ("train", "more", "note"),
    [
        ("{batch_size: {choice: [2, 4]}}", [], "has 2 different .* 10 trials were requested"),
        ("{batch_size: {choice: [2]}}", [], "train: has 1 different configuration and 10 trials"),
        ("{batch_size: 4}", [], "no configuration is run twice, so the search ends after 1"),
        ("{lr: {loguniform: [0.001, 0.01]}}", [], ""),
        ("{batch_size: {choice: [2, 4]}}", ["--searcher", "grid"], "the grid has 2 different"),
        ("{batch_size: {choice: [2, 4]}}", ["--num-trials", "2"], ""),
        ("{batch_size: {choice: [2, 4]}, lr: {loguniform: [0.001, 0.01]}}",
         ["--set", "train.lr=0.01", "--searcher", "random"], "has 2 different"),
    ],
)  # fmt: skip
def test_fewer_configurations_than_trials(
    store: Path, train: str, more: list[str], note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("few.yaml").write_text(
        f"method: lacp\ndataset: {store}\nbudget: {{trials: 10, min_steps: 2, max_steps: 4}}\n"
        f"policy: simple\nfinal: {{top: 1}}\ntrain: {train}\n"
    )
    assert search.main(["few.yaml", "--dry-run", "--json", *more]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert bool(plan["notes"]) == bool(note)
    assert re.search(note, "".join(plan["notes"]))
    ends = re.search(r"ends after (\d+)", "".join(plan["notes"]))
    assert plan["num_trials"] == (int(ends[1]) if ends else 2 if more else 10)


def test_what_a_budget_leaves_out_is_noted(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = space_file(store, "lacp", "  lr: {loguniform: [0.001, 0.01]}\n")
    path.write_text(path.read_text() + "decode: {nms_tiou: {uniform: [0.3, 0.5]}}\n")
    more = ["--set", "final.top=3", "--set", "selection.decode_settings=1", "--dry-run"]
    assert search.main([str(path), *more]) == 0
    told = capsys.readouterr().err
    assert "final.top" not in told  # a race has none
    assert "note: selection.decode_settings: 1 means only the defaults" in told
    assert search.main([str(path), "--policy", "simple", *more]) == 0
    told = capsys.readouterr().err
    assert "note: final.top: 3 configurations are to be compared, but the search has only 2" in told
