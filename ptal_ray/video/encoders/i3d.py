"""I3D (Carreira and Zisserman, CVPR 2017) with the user's weights: 1024 numbers per clip.

Weights are a state dict with the names of the common PyTorch port: `Conv3d_1a_7x7.conv3d.weight`,
`Mixed_3b.b0.bn.running_mean` and so on. The classifier (`logits`) is not used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptal_ray.errors import ConfigError
from ptal_ray.video.decode import Image, Size
from ptal_ray.video.encoders.encoder import I3d, batch_size
from ptal_ray.video.flow import check_installed, with_flow
from ptal_ray.video.windows import Rows, Windows, batched, spread

SHORTEST = 8  # frames; with fewer, the last pooling has no output
MOST_FLOW = 20.0  # pixels; larger values are clipped, as in the released flow of I3D
_MIXED = {  # channels: input; branch 0; branch 1, inner and output; branch 2, likewise; branch 3
    "3b": (192, 64, 96, 128, 16, 32, 32),
    "3c": (256, 128, 128, 192, 32, 96, 64),
    "4b": (480, 192, 96, 208, 16, 48, 64),
    "4c": (512, 160, 112, 224, 24, 64, 64),
    "4d": (512, 128, 128, 256, 24, 64, 64),
    "4e": (512, 112, 144, 288, 32, 64, 64),
    "4f": (528, 256, 160, 320, 32, 128, 128),
    "5b": (832, 256, 160, 320, 32, 128, 128),
    "5c": (832, 384, 192, 384, 48, 128, 128),
}
Triple = tuple[int, int, int]
Frame = tuple[np.ndarray[Any, Any], ...]  # an image, and its flow if used


class TwoStreams:
    """I3D on the images of a window, on its optical flow, or on both, concatenated.

    Args:
        spec: weight files and the length of a clip.
        device: to compute on.

    Raises:
        ConfigError: a file is not such a state dict, or OpenCV is not installed for flow.
    """

    size = Size(height=224, width=224, margin=32)  # the middle of 256 pixels

    def __init__(self, spec: I3d, device: torch.device) -> None:
        if spec.clip < SHORTEST:
            raise ConfigError(f"--clip {spec.clip}: i3d takes {SHORTEST} frames or more")
        if spec.flow is not None:
            check_installed()
        self._clip, self._device = spec.clip, device
        self._weights = _stream("--weights", spec.weights, 3, device)
        self._flow = _stream("--flow", spec.flow, 2, device)

    def encode(self, images: Iterable[Image], windows: Windows) -> Iterator[Rows]:
        """Rows (n, 1024), or (n, 2048) of two streams, of the windows."""
        shown: Iterable[Frame] = (
            ((image,) for image in images) if self._flow is None else with_flow(images)
        )
        clips = (spread(seen, windows, self._clip) for seen in windows.over(shown))
        return (self._rows(batch) for batch in batched(clips, batch_size(self._device, self._clip)))

    @torch.inference_mode()
    def _rows(self, clips: Sequence[Sequence[Frame]]) -> Rows:
        """The rows of clips of (image,) or (image, flow)."""
        rows = []
        if self._weights is not None:
            rows.append(self._weights(self._tensor(clips, 0) / 127.5 - 1))
        if self._flow is not None:
            motion = self._tensor(clips, 1).clamp(-MOST_FLOW, MOST_FLOW)
            rows.append(self._flow(motion / MOST_FLOW))
        found: Rows = torch.cat(rows, dim=1).float().cpu().numpy()
        return found

    def _tensor(self, clips: Sequence[Sequence[Frame]], part: int) -> Tensor:
        """(clips, channels, frames, height, width) of the images (0) or the flows (1)."""
        stacked = np.stack([np.stack([frame[part] for frame in clip]) for clip in clips])
        return torch.from_numpy(stacked).to(self._device).movedim(-1, 1).float()


class _Unit(nn.Module):
    """Convolution, normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(outputs, eps=1e-3)
        self._kernel, self._stride = (kernel,) * 3, (stride,) * 3

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> the same with other channels and strides."""
        return F.relu(self.bn(self.conv3d(_padded(x, self._kernel, self._stride))))


class _Pool(nn.Module):
    """Maximum over boxes; padding with 0 has no effect, because all inputs come from a ReLU."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self._kernel, self._stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W), padded, -> pooled."""
        return F.max_pool3d(_padded(x, self._kernel, self._stride), self._kernel, self._stride)


class _Mixed(nn.Module):
    """Four branches, concatenated."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        inputs, plain, first, first_out, second, second_out, pooled = channels
        self.b0 = _Unit(inputs, plain)
        self.b1a, self.b1b = _Unit(inputs, first), _Unit(first, first_out, 3)
        self.b2a, self.b2b = _Unit(inputs, second), _Unit(second, second_out, 3)
        self.b3a, self.b3b = _Pool((3, 3, 3), (1, 1, 1)), _Unit(inputs, pooled)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> the four branches, concatenated by channel."""
        branches = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x)))
        return torch.cat(branches, dim=1)


def network(channels: int) -> nn.Sequential:
    """I3D without its classifier: (N, channels, T, H, W) -> (N, 1024, T / 8, H / 32, W / 32)."""
    found = nn.Sequential()
    found.add_module("Conv3d_1a_7x7", _Unit(channels, 64, 7, 2))
    found.add_module("MaxPool3d_2a_3x3", _Pool((1, 3, 3), (1, 2, 2)))
    found.add_module("Conv3d_2b_1x1", _Unit(64, 64))
    found.add_module("Conv3d_2c_3x3", _Unit(64, 192, 3))
    found.add_module("MaxPool3d_3a_3x3", _Pool((1, 3, 3), (1, 2, 2)))
    pools = {
        "4b": ("MaxPool3d_4a_3x3", _Pool((3, 3, 3), (2, 2, 2))),
        "5b": ("MaxPool3d_5a_2x2", _Pool((2, 2, 2), (2, 2, 2))),
    }
    for name, sizes in _MIXED.items():
        if name in pools:
            found.add_module(*pools[name])
        found.add_module(f"Mixed_{name}", _Mixed(sizes))
    return found


class _Stream(nn.Module):
    """(N, channels, T, H, W) -> (N, 1024), the mean over the remaining time and space."""

    def __init__(self, inner: nn.Sequential) -> None:
        super().__init__()
        self._inner = inner

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B, C, T, H, W) -> features (B, D)."""
        found: Tensor = self._inner(clips).mean((2, 3, 4))
        return found


def _padded(x: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """Pad time and space with zeros so that ceil(size / stride) remain, like TensorFlow."""
    sides: list[int] = []
    for size, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        more = max(k - (size % s or s), 0)
        sides += [more // 2, more - more // 2]
    return F.pad(x, sides) if any(sides) else x


def _stream(flag: str, path: Path | None, channels: int, device: torch.device) -> _Stream | None:
    """The stream of a weight file.

    Raises:
        ConfigError: it is not a state dict of I3D with this number of channels.
    """
    if path is None:
        return None
    inner, weights = network(channels), _state(flag, path)
    expected = inner.state_dict()
    kept = {name: value for name, value in weights.items() if not name.startswith("logits.")}
    counts = {name for name in expected if name.endswith("num_batches_tracked")}  # older: not saved
    missing = sorted(expected.keys() - kept.keys() - counts)
    unexpected = sorted(kept.keys() - expected.keys())
    for names, what in ((missing, "lacks"), (unexpected, "has the unknown")):
        if names:
            raise ConfigError(
                f"{flag} {path}: not an I3D with the names Conv3d_1a_7x7.conv3d.weight, "
                f"Mixed_3b.b0...: {what} {names[0]}, the first of {len(names)}; rename its keys"
            )
    for name in sorted(kept):
        if kept[name].shape != expected[name].shape:
            raise ConfigError(
                f"{flag} {path}: {name} has shape {tuple(kept[name].shape)}, not "
                f"{tuple(expected[name].shape)}; give the weights of "
                f"{'images' if channels == 3 else 'optical flow'}, {channels} channels"
            )
    inner.load_state_dict(expected | kept)
    return _Stream(inner).to(device).eval()


def _state(flag: str, path: Path) -> Mapping[str, Tensor]:
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file of another kind
        raise ConfigError(
            f"{flag} {path}: not a state dict ({type(error).__name__}); save one by torch.save"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ConfigError(
            f"{flag} {path}: not a state dict of tensors; save model.state_dict() by torch.save"
        )
    return found
