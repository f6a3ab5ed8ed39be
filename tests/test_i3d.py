"""I3D with weights of the user's, on images, on optical flow, and on both."""

from __future__ import annotations

import io
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_video import write_video
from test_extract import table

from ptal_ray.extract import main
from ptal_ray.video.encoders.i3d import network
from ptal_ray.video.flow import with_flow

pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")
UNITS = [  # of the common PyTorch port
    "Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3",
    *(f"Mixed_{m}.{b}" for m in ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")
      for b in ("b0", "b1a", "b1b", "b2a", "b2b", "b3b")),
]  # fmt: skip
PARTS = ("conv3d.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var",
         "bn.num_batches_tracked")  # fmt: skip


@cache
def state(channels: int) -> dict[str, torch.Tensor]:
    """Random weights under the names of the port, with the classifier that it has."""
    torch.manual_seed(channels)
    made = network(channels).state_dict()
    found = {name: made[name] for name in (f"{unit}.{part}" for unit in UNITS for part in PARTS)}
    classifier = {"weight": torch.zeros(400, 1024, 1, 1, 1), "bias": torch.zeros(400)}
    return found | {f"logits.conv3d.{name}": value for name, value in classifier.items()}


@cache
def content(channels: int) -> bytes:
    file = io.BytesIO()
    torch.save(state(channels), file)
    return file.getvalue()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "clip.mp4", frames=12, fps=8, height=64, width=64)
    (tmp_path / "rgb.pt").write_bytes(content(3))
    (tmp_path / "flow.pt").write_bytes(content(2))
    return tmp_path


def extract(place: Path, out: str, *words: str) -> int:
    given = [str(place / "videos"), "--out", str(place / out), "--encoder", "i3d", "--clip", "8"]
    return main([*given, "--device", "cpu", "--dtype", "float32", "--address", "local", *words])


def test_the_network_has_the_names_and_the_size_of_the_port() -> None:
    names = {f"{unit}.{part}" for unit in UNITS for part in PARTS}
    assert set(network(3).state_dict()) == names
    assert sum(p.numel() for p in network(3).parameters()) == 12_287_264  # 12.7 million with 400
    with torch.inference_mode():
        assert network(3).eval()(torch.zeros(1, 3, 9, 64, 96)).shape == (1, 1024, 2, 2, 3)


def test_padding_of_an_even_size_is_behind() -> None:
    """TensorFlow's: 224 pixels, kernel 7, stride 2 have 2 zeros before and 3 behind."""
    unit = network(1)[0].eval()
    with torch.inference_mode():
        unit.conv3d.weight.zero_()
        unit.conv3d.weight[:, :, 2, 2, 2] = 1  # output k sees input 2 k + 2 - pad before
        ramp = torch.arange(8.0).expand(1, 1, 8, 8, 8)
        found = unit(ramp)[0, 0, 0, 0] * (1 + 1e-3) ** 0.5
    assert found.tolist() == pytest.approx([0, 2, 4, 6])


def test_one_stream_and_two(place: Path) -> None:
    pytest.importorskip("cv2", reason="OpenCV (extra `flow`) is not installed")
    rgb, flow = ("--weights", str(place / "rgb.pt")), ("--flow", str(place / "flow.pt"))
    for out, words in (("one", rgb), ("motion", flow), ("two", (*rgb, *flow))):
        assert extract(place, out, *words) == 0
    one, motion, two = (np.load(place / out / "clip.npy") for out in ("one", "motion", "two"))
    assert one.shape == motion.shape == (2, 1024) and two.shape == (2, 2048)
    np.testing.assert_allclose(two, np.concatenate([one, motion], axis=1), atol=1e-5)
    (row,) = table(place / "two")
    assert (row["window"], float(row["stride"])) == ("8", 8.0)
    assert abs(one[0] - one[1]).max() > 0


def test_a_row_is_the_network_on_the_images_of_its_window(place: Path) -> None:
    assert extract(place, "one", "--weights", str(place / "rgb.pt")) == 0
    from ptal_ray.video.decode import Size, images
    from ptal_ray.video.probe import probe

    video = probe(place / "videos" / "clip.mp4")
    seen = np.stack(list(images(video, video.fps, Size(height=224, width=224, margin=32)))[:8])
    model = network(3)
    model.load_state_dict({k: v for k, v in state(3).items() if not k.startswith("logits")})
    with torch.inference_mode():
        clip = torch.from_numpy(seen).permute(3, 0, 1, 2)[None] / 127.5 - 1
        expected = model.eval()(clip).mean((2, 3, 4))[0].numpy()
    np.testing.assert_allclose(np.load(place / "one" / "clip.npy")[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Mixed_3b.b0.conv3d.weight": None}, "lacks Mixed_3b.b0.conv3d.weight, the first of 1"),
        ({"module.x": torch.zeros(1)}, "has the unknown module.x, the first of 1"),
        ({"Conv3d_1a_7x7.conv3d.weight": torch.zeros(64, 2, 7, 7, 7)},
         "has shape (64, 2, 7, 7, 7), not (64, 3, 7, 7, 7); give the weights of images"),
        ({"Mixed_3b.b0.bn.weight": 3}, "not a state dict of tensors"),
    ],
)  # fmt: skip
def test_weights_of_another_network_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], message: str
) -> None:
    changed = {k: v for k, v in (state(3) | change).items() if v is not None}
    torch.save(changed, place / "other.pt")
    assert extract(place, "out", "--weights", str(place / "other.pt")) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and not (place / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--encoder i3d: pass its weights"),
        (("--weights", "missing.pt"), "--weights missing.pt: cannot be read"),
        (("--weights", "videos"), "--weights videos: cannot be read"),
        (("--weights", "words.pt"), "--weights words.pt: not a state dict"),
        (
            ("--weights", "rgb.pt", "--size", "64"),
            "--size: applies only to --encoder FILE; i3d has its own value",
        ),
        (("--weights", "rgb.pt", "--clip", "4"), "--clip 4: i3d takes 8 frames or more"),
        (("--encoder", "transnetv2", "--flow", "x"), "--clip: applies only to --encoder FILE"),
    ],
)
def test_wrong_flags_of_i3d(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(place)
    (place / "words.pt").write_text("weights")
    assert extract(place, "out", *words) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and not (place / "out").exists()


def test_flow_without_opencv(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert extract(place, "out", "--flow", str(place / "flow.pt")) == 2
    assert "pip install -c constraints.txt 'ptal-ray[flow]'" in capsys.readouterr().err


def test_flow_is_the_motion_to_the_next_image() -> None:
    pytest.importorskip("cv2", reason="OpenCV (extra `flow`) is not installed")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (20, 20, 1), dtype=np.uint8)
    still = np.repeat(np.repeat(np.repeat(coarse, 6, 0), 6, 1), 3, 2)
    moved = np.roll(still, (2, 3), axis=(0, 1))
    (first, flow), (last, again) = with_flow([still, moved])
    assert first is still and last is moved and again is flow
    assert np.median(flow, axis=(0, 1)) == pytest.approx([3, 2], abs=0.2)
    ((_, none),) = with_flow([still])
    assert none.shape == (120, 120, 2) and not none.any()
