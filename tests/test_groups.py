"""Videos that belong together: given at import, kept in the store, not parted by folds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from conftest import make_store
from test_importer import layout  # noqa: F401  a fixture
from test_splits import trial_config

from ptal_ray.data.__main__ import main
from ptal_ray.data.content import Content
from ptal_ray.data.importing.groups import PERSON, group_source, video_groups
from ptal_ray.data.readers import watch
from ptal_ray.data.splits import fold, kfold
from ptal_ray.data.store import FeatureStore, StoreWriter
from ptal_ray.data.types import DatasetInfo, Grid, Points, Segments
from ptal_ray.errors import DataError
from ptal_ray.methods.method import load
from ptal_ray.training.supervision import split_ids

GOLDEN = "1c731723dcae309cd12a2b4e9c59518f547c33a16c700060a0307d6b2ad7a113"  # of the first version


def column_names(store):
    with pa.memory_map(str(store.path / "videos.arrow")) as file:
        return pa.ipc.open_file(file).read_all().column_names


def digest(**more):
    grid = Grid(stride_s=1.0)
    info = DatasetInfo(
        name="d", classes=("a",), feature_dim=2, grid=grid, features="test", content_hash=""
    )
    content, point = Content(info, "float32"), Points(time_s=np.ones(1), label=np.zeros(1, int))
    features = np.ones((3, 2), np.float32)
    content.add("v", "train", features, 3.0, Segments.empty(), point, grid, **more)
    return content.digest()


def test_the_hash_of_content_without_groups_is_the_one_of_before():
    assert digest() == digest(group="") == GOLDEN
    assert len({digest(), digest(group="x"), digest(group="y")}) == 3


def test_a_store_without_groups_has_no_column_of_them(tmp_path):
    store = FeatureStore.open(make_store(tmp_path / "d"))
    assert store.groups() == {} and "group" not in column_names(store)


def test_a_store_keeps_the_groups(tmp_path):
    grid = Grid(stride_s=1.0)
    with StoreWriter(
        tmp_path / "d", name="d", classes=("a",), grid=grid, features="test"
    ) as writer:
        for k, group in enumerate(("x", "", "x")):
            writer.add(
                f"v{k}", subset="train", features=np.ones((4, 2)), duration_s=4.0, group=group,
                annotations=Segments.empty(),
                points=Points(time_s=np.ones(1), label=np.zeros(1, int)),
            )  # fmt: skip
    store = FeatureStore.open(tmp_path / "d")
    assert store.groups() == {"v0": "x", "v2": "x"}
    store.verify()
    folds = kfold(store, 2, 0, groups=store.groups())
    assert {frozenset(f) for f in folds} == {frozenset({"v0", "v2"}), frozenset({"v1"})}


def test_the_folds_of_a_trial_keep_the_groups(tmp_path):
    watch.assemble(tmp_path / "watch")
    store = FeatureStore.open(tmp_path / "watch")
    config = trial_config(store, num_folds=3, fold=1)
    fit, val = split_ids(store, config, load("lacp").train_params())
    subjects = [{id.split("_")[0] for id in ids} for ids in (fit, val)]
    assert all(subjects) and not subjects[0] & subjects[1]


def test_the_fold_of_a_single_run_takes_no_notice_of_groups(tmp_path):
    """Results of earlier versions by `train`, `ablate` and the simple policy stay comparable."""
    watch.assemble(tmp_path / "watch")
    store = FeatureStore.open(tmp_path / "watch")
    apart = [fold(store, 0.35, seed) for seed in range(4)]
    split = [{i[:9] for i in fit} & {i[:9] for i in val} for fit, val in apart]
    assert any(split)
    store.groups = dict  # a store without groups
    assert [fold(store, 0.35, seed) for seed in range(4)] == apart


def test_watch_groups_by_subject(tmp_path):
    watch.assemble(tmp_path / "watch")
    store = FeatureStore.open(tmp_path / "watch")
    assert store.groups() == {id: id.split("_")[0] for id in store.ids("train") + store.ids("test")}


@pytest.mark.parametrize(
    ("id", "person"),
    [("exp01_user01", "01"), ("subject3", "3"), ("a-Person_12-b", "12"), ("superuser1", None),
     ("user", None)],
)  # fmt: skip
def test_persons_in_ids(id, person):
    found = PERSON.search(id)
    assert (found and found[1]) == person


def test_groups_by_a_regular_expression_on_the_ids(layout):  # noqa: F811
    _, store = layout.run(group=group_source("^(.)"))
    assert store.groups() == {"a": "a", "b": "b", "c": "c"}


def test_groups_by_a_csv(layout):  # noqa: F811
    path = layout.path / "groups.csv"
    path.write_text("video;group\nv_a;x\nb;x\nc;y\nother;z\n")
    _, store = layout.run(group=group_source(str(path)))
    assert store.groups() == {"a": "x", "b": "x", "c": "y"}


def test_a_group_in_both_splits_is_remarked(layout):  # noqa: F811
    path = layout.path / "groups.csv"
    path.write_text("video,group\na,x\nb,y\nc,x\n")
    plan, _ = layout.run(group=path)
    kind = "groups with videos in the training and in the test split"
    assert plan.remarks[kind] == 1 and plan.examples[kind] == ["x"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("video,person\na,x\n", "no column group in the first line"),
     ("video,group\na,x\na,y\nb,x\nc,x\n", ":3: video a: group 'y', given before as 'x'"),
     ("video,group\na,x\nb,\n", "no group of 2 of 3 videos: b, c; add them")],
)  # fmt: skip
def test_what_is_wrong_with_a_csv(layout, text, message):  # noqa: F811
    path = layout.path / "groups.csv"
    path.write_text(text)
    with pytest.raises(DataError) as raised:
        layout.run(group=path)
    assert str(path) in str(raised.value) and message in str(raised.value)


def test_an_expression_must_fit_every_id():
    found, problems = video_groups(group_source("user([0-9]*)"), ["user1", "user", "x"])
    assert found["user1"] == "1"
    assert "no group of 2 of 3 videos: user, x; correct it" in problems[0]


@pytest.mark.parametrize(
    ("text", "message"), [("(", "not a regular expression"), ("user", "0 capture groups"),
                          ("(a)(b)", "2 capture groups")]
)  # fmt: skip
def test_what_is_no_group_flag(text, message, capsys):
    with pytest.raises(SystemExit) as left:
        main(["import", "d", "--group", text, "--features", "x", "--annotations", "y"])
    assert left.value.code == 2 and message in capsys.readouterr().err
