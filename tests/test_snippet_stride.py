"""Settings that count snippets are refused for data of another stride."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import make_store

from ptal_ray.data.snippet_stride import check_snippets
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import DataError
from ptal_ray.methods.method import load
from ptal_ray.space.space import load_space

SPACES = Path(__file__).parents[1] / "search_spaces"
COUNTING = ("apl", "apl.actionformer", "apl.apl_bmn", "apl.bmn", "potloc")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return FeatureStore.open(make_store(tmp_path_factory.mktemp("data") / "tiny"))  # 0.5 s


@pytest.mark.parametrize("method", COUNTING)
def test_a_stride_of_another_length_is_refused(store: FeatureStore, method: str) -> None:
    chosen = load(method)
    assert chosen.check is not None
    changes = {} if method == "potloc" or "bmn" not in method else {"resample_to": 0, "window": 8}
    with pytest.raises(DataError) as caught:
        chosen.check(store, chosen.train_params(snippet_s=0.1333, **changes))
    message = str(caught.value)
    assert f"{store.path}: its snippets are 0.5 s apart" in message
    assert "train.snippet_s" in message and "0.133 s" in message and "\n" not in message


@pytest.mark.parametrize("expected", [0.0, 0.4, 0.5, 0.7])
def test_a_stride_near_the_expected_one_fits(store: FeatureStore, expected: float) -> None:
    check_snippets(store, load("potloc").train_params(snippet_s=expected))


@pytest.mark.parametrize("expected", [0.3, 0.8])
def test_strides_on_both_sides_are_refused(store: FeatureStore, expected: float) -> None:
    with pytest.raises(DataError):
        check_snippets(store, load("potloc").train_params(snippet_s=expected))


def test_resampled_videos_fit_whatever_their_stride(store: FeatureStore) -> None:
    check_snippets(store, load("potloc").train_params(snippet_s=0.1, resample_to=100))


@pytest.mark.parametrize("name", ["actionformer_thumos", "apl_thumos", "bmn_thumos"])
def test_the_detectors_of_thumos_expect_snippets_every_four_frames(name: str) -> None:
    space = load_space(SPACES / f"{name}.yaml")
    for fps in (25, 29.97, 30):
        assert 1 / 1.5 <= space.train_defaults()["snippet_s"] / (4 / fps) <= 1.5
    assert space.train_defaults()["snippet_s"] < 16 / 25 / 1.5
