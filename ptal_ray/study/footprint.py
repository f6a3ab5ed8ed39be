"""The disk space that the files of a study need, estimated before it starts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ptal_ray.data.batching import PackedSplit
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError
from ptal_ray.methods.method import AnyMethod, TrainParams, load
from ptal_ray.study.no_test_split import runs_after, runs_again
from ptal_ray.study.study import Study
from ptal_ray.training.scoring import score_videos, whole_videos
from ptal_ray.training.supervision import fold

STOPPED_EARLY = 2  # trials of a race for each full run of its budget, in the recorded searches
PER_TENSOR_BYTES = 310  # overhead of torch.save per tensor: names, alignment, a directory entry
PER_CHECKPOINT_BYTES = 3000  # the configuration and torch's own records
PER_ARRAY_BYTES = 256  # overhead of np.savez per array


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes on disk.

    Args:
        checkpoint: of one checkpoint with the defaults of the space: parameters, two moments of
            Adam, the average of the weights and refreshed pseudo-labels.
        scores: of the cached scores of one trial, estimated from one video.
        checkpoints: the largest number at one time: those kept, two for every concurrent trial (a
            new one is complete before the old one is removed), and those of the final runs.
        trials: number of trials whose scores are kept; in a race that stops trials early, an
            estimate.
        model: bytes of one model file.
        models: number of model files, one per run on the whole training split.
    """

    checkpoint: int
    scores: int
    checkpoints: int
    trials: int
    model: int
    models: int

    @property
    def most(self) -> int:
        """The largest number of bytes on disk at one time."""
        made = self.checkpoints * self.checkpoint + self.trials * self.scores
        return made + self.models * self.model

    def __str__(self) -> str:
        return (
            f"at most {size(self.most)} at once: {self.checkpoints} checkpoints of "
            f"{size(self.checkpoint)}, scores of {self.trials} trials of {size(self.scores)}, "
            f"{self.models} models of {size(self.model)}"
        )


def footprint(study: Study, store: FeatureStore, concurrent: int) -> Footprint:
    """Estimate from the model of the defaults, built on the CPU, and its scores of one video.

    Args:
        study: what would run.
        store: its data.
        concurrent: trials at a time.
    """
    space = study.space
    method, selection = load(space.method), space.selection
    hp = space.train_params()
    fit, val = fold(store, hp, selection.val_fraction, selection.fold_seed)
    with torch.random.fork_rng(devices=[]):
        model = method.build(store, hp).eval()
    again = runs_again(space, study.num_trials)
    runs, models = runs_after(space, bool(store.ids("test")))
    keep = study.keep_checkpoints or space.final.top
    stops = space.policy == "race" and study.scheduler == "asha"
    return Footprint(
        checkpoint=_checkpoint_bytes(model, hp) + _label_bytes(method, model, hp, store, fit),
        scores=_score_bytes(method, model, hp, store, val),
        checkpoints=keep + 2 * concurrent + again + runs,
        trials=study.num_trials * (STOPPED_EARLY if stops else 1),
        model=_model_bytes(model),
        models=models,
    )


def check_room(need: Footprint, directory: Path) -> int:
    """Free bytes on the file system of `directory`, which need not exist yet.

    Raises:
        ConfigError: the rest of the study needs more.
    """
    place = next(path for path in (directory, *directory.parents) if path.exists())
    free = shutil.disk_usage(place).free
    there = sum(f.stat().st_size for f in directory.rglob("*") if f.is_file())
    if need.most - there > free:
        raise ConfigError(
            f"{place}: {size(free)} are free, but the study needs {need}; free space, choose "
            "another --storage, or lower --keep-checkpoints, --max-concurrent or --num-trials"
        )
    return free


def size(number: int) -> str:
    """Bytes as text: "12.3 MB"."""
    value, unit = float(number), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.3g} {unit}" if unit != "B" else f"{number} B"


def _checkpoint_bytes(model: nn.Module, hp: TrainParams) -> int:
    state = list(model.state_dict().values())
    moments = [p for p in model.parameters() if p.requires_grad]
    copies = 2 if hp.ema else 1
    tensors = copies * len(state) + 3 * len(moments)  # Adam counts the steps of each parameter
    data = copies * sum(map(_bytes, state)) + 2 * sum(map(_bytes, moments)) + 4 * len(moments)
    return PER_CHECKPOINT_BYTES + data + tensors * PER_TENSOR_BYTES


def _model_bytes(model: nn.Module) -> int:
    state = list(model.state_dict().values())
    return PER_CHECKPOINT_BYTES + sum(map(_bytes, state)) + len(state) * PER_TENSOR_BYTES


def _label_bytes(
    method: AnyMethod, model: nn.Module, hp: TrainParams, store: FeatureStore, ids: tuple[str, ...]
) -> int:
    """Bytes of the labels of all videos, estimated from those of the first."""
    if method.refresh is None:
        return 0
    split = PackedSplit(store, ids, torch.device("cpu"), resample_to=hp.resample_to)
    with torch.no_grad():
        first = method.refresh(model, whole_videos(split, np.zeros(1, np.int64)), hp)
    return len(ids) * sum(map(_bytes, first.values()))


def _score_bytes(
    method: AnyMethod, model: nn.Module, hp: TrainParams, store: FeatureStore, ids: tuple[str, ...]
) -> int:
    """Bytes of the scores of all videos, estimated from those of the first and the lengths."""
    split = PackedSplit(store, ids[:1], torch.device("cpu"), resample_to=hp.resample_to)
    arrays = score_videos(method, model, split, hp)[0].arrays.values()
    lengths = [1 if hp.resample_to else store.length(i) for i in ids]
    per_snippet = sum(a.nbytes for a in arrays) / lengths[0]
    return round(per_snippet * sum(lengths)) + len(arrays) * len(ids) * PER_ARRAY_BYTES


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
