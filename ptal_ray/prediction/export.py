"""The network of a model as a program of torch.export, for use without this package."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ptal_ray.errors import ConfigError, DataError
from ptal_ray.prediction.target import check_export
from ptal_ray.prediction.trained import TrainedModel
from ptal_ray.storage.whole import write_whole

CLOSE = 1e-4  # greatest difference of a score
STEPS = (0, 1, 2, 7, 60)  # additional lengths of the videos whose scores are compared
ABOUT = "ptal_ray.json"


class _Network(nn.Module):
    """(features (1, T, D), length (1,) of the video in them) -> the output of `Method.network`."""

    def __init__(self, model: TrainedModel) -> None:
        super().__init__()
        assert model.method.network is not None
        self.inner, self._train = model.network, model.train
        self._network = model.method.network

    def forward(self, features: Tensor, length: Tensor) -> dict[str, Tensor]:
        """The output of `Method.network` for features (1, T, D) and their length (1,)."""
        mask = torch.arange(features.shape[1])[None] < length[:, None]
        return self._network(self.inner, features, mask, self._train)


def export_model(model: TrainedModel, out: Path) -> float:
    """Write the program atomically, and compare its scores with those of the model.

    The extra file `ptal_ray.json` of the program has classes, grid, decode parameters, the
    preparation of features (mean and standard deviation of z-scores), and the lengths T that it
    accepts. Features after the end of a shorter video are zero.

    Args:
        model: on the CPU.
        out: the file, *.pt2.

    Returns:
        The largest difference of a score.

    Raises:
        ConfigError: the network of the method cannot be exported, or `out` has another suffix.
        DataError: the scores differ by more than CLOSE.
    """
    if model.method.network is None:
        raise ConfigError(
            f"--export: {model.file.method} chooses the proposals that it scores by the values of "
            "each video, which torch.export cannot trace; predict with the model file"
        )
    if out.suffix != ".pt2":
        raise ConfigError(f"--export {out}: torch.export writes .pt2 files; name one")
    check_export(out, ABOUT)
    network = _Network(model).eval()
    made = io.BytesIO()
    with torch.no_grad():
        network(*_example(model, _lengths(model)[0]))  # constants are created before the trace
        program = _traced(network, model)
        torch.export.save(program, made, extra_files={ABOUT: json.dumps(_about(model))})
        difference = _difference(torch.export.load(io.BytesIO(made.getvalue())), network, model)
    if not difference <= CLOSE:
        raise DataError(
            f"{out}: exported scores differ by {difference:g}, more than {CLOSE:g}; it was not "
            "written; predict with the model file"
        )
    write_whole(out, made.getbuffer())
    return difference


def _lengths(model: TrainedModel) -> tuple[int, int]:
    """(least, step), see `Method.network_lengths`."""
    found = model.method.network_lengths
    return (1, 1) if found is None else found(model.train)


def _traced(network: _Network, model: TrainedModel) -> ExportedProgram:
    least, step = _lengths(model)
    snippets = step * Dim("steps", min=least // step) if step > 1 else Dim("snippets", min=least)
    return torch.export.export(
        network,
        _example(model, least + 5 * step),
        dynamic_shapes={"features": {1: snippets} if step else None, "length": None},
    )


def _example(model: TrainedModel, length: int, behind: int = 0) -> tuple[Tensor, Tensor]:
    """Random features of a video; the last `behind` snippets are padding."""
    generator = torch.Generator().manual_seed(length)
    features = torch.randn((1, length, model.file.data.feature_dim), generator=generator)
    own = max(length - behind, 1)
    features[:, own:] = 0
    return features, torch.tensor([own])


def _difference(program: ExportedProgram, network: _Network, model: TrainedModel) -> float:
    run = program.module()
    least, step = _lengths(model)
    greatest = 0.0
    for behind, more in enumerate(STEPS):
        inputs = _example(model, least + more * step, behind)
        expected, found = network(*inputs), run(*inputs)
        for name, value in expected.items():
            gap = (found[name].float() - value.float()).abs().max()
            greatest = max(greatest, float(gap))
    return greatest


def _about(model: TrainedModel) -> dict[str, Any]:
    data = model.file.data
    return {
        "method": model.file.method,
        "decode": model.file.decode,
        "classes": list(data.classes),
        "feature_dim": data.feature_dim,
        "stride_s": model.file.grid.stride_s,
        "offset_s": model.file.grid.offset_s,
        "resample_to": model.train.resample_to,
        "preparation": model.file.preparation.plain(),
        "lengths": dict(zip(("least", "step"), _lengths(model), strict=True)),
        "ptal_ray": model.file.version,
    }
