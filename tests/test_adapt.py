"""What follows from the data in a search space without a dataset: always valid, and monotone."""

from __future__ import annotations

from dataclasses import MISSING, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import make_store

from ptal_ray.data.facts import Facts, facts
from ptal_ray.data.store import FeatureStore
from ptal_ray.methods import method as methods
from ptal_ray.space import adapt
from ptal_ray.space import space as spaces
from ptal_ray.space.reader import specs_of

# videos, D, snippets (median, nine of ten), actions a video, snippets of the longest
SHAPES = {
    "one": (1, 3, 9, 9, 1.0, 4.0),
    "two": (2, 16, 50, 60, 2.0, 5.0),
    "watch": (14, 87, 273, 293, 12.0, 19.6),
    "gtea_scores": (16, 33, 181, 253, 17.5, 45.6),
    "salads50_scores": (40, 112, 335, 419, 15.0, 113.0),
    "hapt": (42, 87, 749, 844, 20.2, 81.3),
    "beoid": (46, 2048, 80, 150, 12.5, 60.0),
    "thumos14": (200, 2048, 280, 600, 15.0, 180.0),
    "epic_verb": (495, 2304, 1500, 4500, 135.0, 500.0),
    "anet13 resampled": (10024, 2048, 100, 100, 1.5, 100.0),
    "anet13": (10024, 2048, 190, 330, 1.5, 330.0),
    "no points": (30, 512, 200, 300, 0.0, 0.0),
    "long": (5, 4096, 40_000, 90_000, 400.0, 9000.0),
}


def shape(name: str, gpu: bool = False) -> Facts:
    keys = ("videos", "dim", "median_t", "long_t", "points_a_video")
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
        derived(name, replace(start, videos=5000, median_t=t, long_t=t))
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
    assert (known.videos, known.dim, known.long_t) == (6, 16, lengths[-1])
    assert lengths[2] <= known.median_t <= lengths[3]
    assert known.points_a_video == sum(len(store.points(id)) for id in ids) / 6
    assert known.longest_action_t == 0
    seen = facts(store, ids[:2], gpu=False)
    longest = max((s.end_s - s.start_s).max() for s in map(store.annotations, ids[:2]))
    assert seen.longest_action_t == pytest.approx(longest / 0.5)
