from __future__ import annotations

import numpy as np
import pytest

from ptal_ray.data.features import half, precision
from ptal_ray.data.features.precision import BLOCK, LOSS, Channels, channel_sums
from ptal_ray.data.findings import Remarks
from ptal_ray.data.importing.survey import survey, surveyed
from ptal_ray.data.points import no_points
from ptal_ray.data.store import FeatureStore, StoreWriter
from ptal_ray.data.types import Grid, Segments
from ptal_ray.errors import DataError


def normal(*, videos=8, dim=3, snippets=200, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((snippets, dim)) for _ in range(videos)]


def measured(videos, dtype="float16", source=np.float32):
    channels = Channels("float16", "float32")
    for video in videos:
        channels.add(np.asarray(video, source))
    return channels.lost(dtype)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_loss_is_that_of_numpy_over_the_whole_set(kind):
    videos = [10 * video + [0, 50, 3000] for video in normal()]
    every = np.concatenate(videos).astype(kind).astype(np.float64)
    error = every - every.astype(np.float16)
    expected = np.sqrt((error**2).mean(axis=0)) / every.std(axis=0)
    np.testing.assert_allclose(measured(videos, source=kind), expected, rtol=0.01)


def test_videos_of_many_blocks_and_of_one_snippet_count_alike():
    whole = normal(videos=1, dim=2, snippets=BLOCK + 7)[0].astype(np.float32) + 500
    single = [whole[t : t + 1] for t in range(0, len(whole), 40)]
    np.testing.assert_allclose(measured([whole]), measured(single), rtol=0.1)


@pytest.mark.parametrize(
    ("change", "lossy"),
    [
        (lambda x, k: x, False),
        (lambda x, k: x + 10, False),
        (lambda x, k: x + 20_000, True),  # an offset
        (lambda x, k: x + 5000 * (k - 4), True),  # an offset of each video
        (lambda x, k: 1e-5 * x, False),
        (lambda x, k: 1e-6 * x, True),  # a tiny scale
        (lambda x, k: 1e-20 * x, True),
        (lambda x, k: 1e5 * x, True),  # too large
        (lambda x, k: np.tile(x[:1], (20, 1)), False),  # one vector a video, as of a clip
        (lambda x, k: 0 * x + 20_000.3, False),  # nothing to lose
        (lambda x, k: 1 + 1e-7 * x, False),  # a constant with noise of float32
        (lambda x, k: np.round(100 * x), False),
    ],
)
def test_what_float16_spoils(change, lossy):
    videos = [change(x, k) for k, x in enumerate(normal())]
    assert (measured(videos) > LOSS).tolist() == [lossy] * 3
    assert not (measured(videos, "float32") > LOSS).any()


@pytest.mark.parametrize("offset", [1e9, 1e300])
def test_what_float32_spoils(offset):
    videos = [x * (1 if offset < 1e10 else offset) + offset for x in normal()]
    assert (measured(videos, "float32", np.float64) > LOSS).all()


def test_compiled_rounding_gives_the_bits_of_numpy():
    bits = np.arange(0, 2**32, 2**32 // (1 << 21), dtype=np.uint32) + np.uint32(7)
    edges = np.float32([0, -0.0, 65504, 65519.996, 65520, 1e30, 2**-14, 2**-24, 2**-25, 3e-8, 2049])
    ties = np.arange(0x3800_1000, 0x4780_0000, 0x2000, dtype=np.uint32).view(np.float32)
    values = np.concatenate([bits.view(np.float32), edges, -edges, ties])
    values = values[np.isfinite(values)]
    assert values.size >= half.LARGE
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    rounded = half.rounded_to(values[None], "float16")[0]
    np.testing.assert_array_equal(rounded.view(np.uint16), expected.view(np.uint16))


def test_compiled_sums_are_those_of_numpy(monkeypatch):
    values = np.concatenate([*normal(), 1e-5 * normal()[0]]).astype(np.float32) * [1, 1e-6, 3e4]
    whole = values.astype(np.float32)
    plain = channel_sums(whole, ("float16",))
    monkeypatch.setattr(precision, "LARGE", 1)
    fast = channel_sums(whole, ("float16",))
    assert np.isinf(plain.error["float16"]).tolist() == [False, False, True]
    np.testing.assert_array_equal(plain.mean, fast.mean)
    np.testing.assert_allclose(plain.squares, fast.squares, rtol=1e-12)
    np.testing.assert_allclose(plain.error["float16"], fast.error["float16"], rtol=1e-12)


def test_whole_numbers_and_types_that_hold_all_lose_nothing():
    videos = [np.round(100 * x) for x in normal()]
    assert not measured(videos, source=np.int32).any()
    assert not measured(normal(), source=np.float16).any()
    assert measured([1000 * v for v in videos], source=np.int64).all()


def chosen(videos, dtype="auto", source=np.float32):
    problems, remarks = [], Remarks()
    named = ((f"v{k}", np.asarray(v, source)) for k, v in enumerate(videos))
    return (
        survey([surveyed(*video) for video in named], dtype, problems, remarks),
        problems,
        remarks,
    )


def test_auto_takes_the_type_that_is_needed_and_says_why():
    assert chosen(normal()) == ("float16", [], {})
    dtype, problems, remarks = chosen([x + [0, 0, 20_000] for x in normal()])
    assert (dtype, problems) == ("float32", [])
    kind = "channels for which float16 is too imprecise; stored as float32"
    assert remarks == {kind: 1}
    assert "float16 is too imprecise for 1 of 3 channels (2; worst 2: " in remarks.examples[kind][0]
    assert chosen(normal(), "float32")[0] == "float32"


def test_a_type_that_loses_is_refused():
    _, problems, _ = chosen([1e-7 * x for x in normal()], "float16")
    assert "float16 is too imprecise for 3 of 3 channels (0, 1, 2; worst" in problems[0]
    assert "remove --dtype or pass --dtype float32" in problems[0]
    _, problems, _ = chosen([1e-7 * x for x in normal()], "float32")
    assert not problems
    _, problems, _ = chosen([x + 1e10 for x in normal()], source=np.float64)
    assert (
        "float32 is too imprecise for 3 of 3" in problems[0]
        and "pass --normalize train, or subtract" in problems[0]
    )


def test_channels_and_videos_that_hold_nothing_are_named():
    videos = [x * [1, 0, 0] + [0, 0, 7] for x in normal(videos=4)]
    videos[1] = np.tile(videos[1][:1], (5, 1))
    videos.append(np.zeros((5, 3)) + [0, 0, 7])
    _, problems, remarks = chosen(videos)
    assert not problems and remarks == {
        "videos whose snippets are all equal": 2,
        "channels that are 0 in all videos": 1,
        "channels that are constant over all videos": 1,
    }
    assert remarks.examples["channels that are 0 in all videos"] == ["of 3: 1"]
    assert remarks.examples["channels that are constant over all videos"] == ["of 3: 2"]
    assert remarks.examples["videos whose snippets are all equal"] == ["v1", "v4"]
    _, problems, remarks = chosen(2 * [np.zeros((4, 3))])
    assert "each of the 3 channels is constant" in problems[0]
    assert remarks == {"videos whose features are all 0": 2}


@pytest.mark.parametrize(
    ("dtype", "offset", "kind", "fix"),
    [("float16", 20_000, np.float32, "--dtype float32"), ("float32", 1e10, np.float64, "")],
)
def test_a_store_from_python_refuses_a_type_that_loses(tmp_path, dtype, offset, kind, fix):
    def write(path, **more):
        with StoreWriter(
            path, name="d", classes=("a",), grid=Grid(stride_s=1.0), features="test",
            dtype=dtype, **more,
        ) as writer:  # fmt: skip
            for k, x in enumerate(normal()):
                writer.add(
                    f"v{k}", subset="train", features=(x + offset).astype(kind), duration_s=200.0,
                    annotations=Segments.empty(), points=no_points(),
                )  # fmt: skip

    with pytest.raises(
        DataError, match=f"{dtype} is too imprecise for 3 of 3 channels.*subtract.*{fix}"
    ) as told:
        write(tmp_path / "d")
    assert ("store them as float32" in str(told.value)) == (dtype == "float16")
    assert not list(tmp_path.iterdir())
    write(tmp_path / "d", measured=True)
    assert FeatureStore.open(tmp_path / "d").dtype == dtype
