"""A network in a user's file: TorchScript (.pt) or `torch.export` (.pt2)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat

import numpy as np
import torch

from ptal_ray.errors import ConfigError, DataError
from ptal_ray.video.decode import Image, Size
from ptal_ray.video.encoders.encoder import FileEncoder, batch_size
from ptal_ray.video.windows import Rows, Windows, batched, means, spread


class Program:
    """The output of the file, for each image (window means) or for each window as a clip.

    Args:
        spec: the file and how to use it.
        device: to compute on.

    Raises:
        ConfigError: the file is not such a network, or needs other images.
    """

    def __init__(self, spec: FileEncoder, device: torch.device) -> None:
        self.size = Size(height=spec.height, width=spec.width)
        self._spec, self._device = spec, device
        shape = (3, 1, 1) if spec.clip == 1 else (3, 1, 1, 1)
        self._mean = torch.tensor(spec.mean, device=device).view(shape)
        self._std = torch.tensor(spec.std, device=device).view(shape)
        self._network = _load(spec, device)
        self._batch = self._fitting()

    def encode(self, images: Iterable[Image], windows: Windows) -> Iterator[Rows]:
        """Rows (n, D) of the windows."""
        number = self._spec.clip
        if number == 1:
            return means(
                (self._rows(batch, self._batch) for batch in batched(images, self._batch)), windows
            )
        clips = (np.stack(spread(seen, windows, number)) for seen in windows.over(images))
        return (self._rows(batch, self._batch) for batch in batched(clips, self._batch))

    def _fitting(self) -> int:
        """The batch size that the network accepts; exported ones may fix it."""
        sides = (self._spec.height, self._spec.width, 3)
        blank = np.zeros(sides if self._spec.clip == 1 else (self._spec.clip, *sides), np.uint8)
        failed: DataError | None = None
        for number in (max(2, batch_size(self._device, self._spec.clip)), 1):
            try:
                self._rows([blank], number)
            except DataError as error:
                failed = error
            else:
                return number
        raise ConfigError(
            f"{failed}; check --size and --clip against what the network takes; one exported for a "
            "fixed number of inputs must take 1"
        ) from failed

    @torch.inference_mode()
    def _rows(self, inputs: Sequence[Image], number: int) -> Rows:
        """Rows (n, D) of n images (H, W, 3) or clips (clip, H, W, 3), computed with `number`."""
        place = f"--encoder {self._spec.path}"
        repeated = [*inputs, *repeat(inputs[-1], number - len(inputs))]
        pixels = torch.from_numpy(np.stack(repeated)).to(self._device).movedim(-1, 1).float()
        try:
            found = self._network((pixels / 255 - self._mean) / self._std)
        except Exception as error:  # any error of a user's program
            raise DataError(
                f"{place}: fails on an input of shape {tuple(pixels.shape)} ({_last_line(error)})"
            ) from error
        if not isinstance(found, torch.Tensor) or found.ndim < 2 or len(found) != number:
            shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise DataError(
                f"{place}: gives {shape} for {number} inputs; a tensor ({number}, D) or "
                f"({number}, D, ...) is needed"
            )
        rows: Rows = found.float().reshape(*found.shape[:2], -1).mean(2).cpu().numpy()
        return rows[: len(inputs)]


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__


def _load(spec: FileEncoder, device: torch.device) -> Callable[[torch.Tensor], object]:
    try:
        if spec.path.suffix == ".pt2":
            from torch.export.passes import move_to_device_pass

            program = torch.export.load(spec.path)
            network: torch.nn.Module = move_to_device_pass(program, device).module()
            return network
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch advises torch.export
            script = torch.jit.load(str(spec.path), map_location=device)  # type: ignore[no-untyped-call]
        script.eval()
        loaded: torch.nn.Module = script
        return loaded
    except Exception as error:  # torch raises many kinds for a file of another kind
        raise ConfigError(
            f"--encoder {spec.path}: not a network ({type(error).__name__}); save it by "
            "torch.jit.save as .pt or by torch.export.save as .pt2"
        ) from error
