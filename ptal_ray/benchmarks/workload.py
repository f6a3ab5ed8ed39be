"""A trial for timings: a method with its own parameters on random features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ptal_ray.benchmarks.random_store import random_store
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.text import keep_random_embeddings
from ptal_ray.methods.method import TrainParams, load, with_values
from ptal_ray.space.domain import Scalar
from ptal_ray.training.config import TrialConfig

LONGEST_T = 2304  # for methods that use whole videos
MANY_STEPS = 10**6


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of the data.

    Args:
        dim: D.
        classes: C.
        points: instances and points per video.
        snippets: T of every video; 0 for the longest in training of the method.
        batch: videos per batch; 0 for the method's own.
        paper: whether the method has the sizes of its paper, see `Method.paper_sizes`.
    """

    dim: int = 2048
    classes: int = 20
    points: int = 10
    snippets: int = 0
    batch: int = 0
    paper: bool = False


def workload(
    folder: Path,
    name: str,
    sizes: Sizes,
    *,
    precision: str = "fp32",
    train: Mapping[str, Scalar] | None = None,
) -> TrialConfig:
    """A trial of a method whose steps have all terms of the loss from the second on.

    Args:
        folder: for the store and the earlier stages.
        name: of the method.
        sizes: of the data.
        precision: "fp32" or "bf16".
        train: parameters other than its defaults.
    """
    method = load(name)
    values: dict[str, Scalar] = asdict(method.train_params()) | {"refresh_every": 1}
    if sizes.paper:
        values |= method.paper_sizes
    if sizes.batch:
        values["batch_size"] = sizes.batch
    if method.stage is not None:
        values[method.stage.steps] = 1  # the timed steps come after it
    values |= train or {}
    hp = with_values(method.train_params, values)
    path = folder / f"store-{name}"
    if not path.exists():
        _make_store(path, hp, sizes)
    return TrialConfig(
        method=name, store=str(path), train=values, decode=asdict(method.decode_params()),
        decode_domains={}, decode_settings=1, cross_fit=False, seed=0, report_steps=(MANY_STEPS,),
        fit_on="train", score_on="test", precision=precision, stages=str(folder / "stages"),
    )  # fmt: skip


def _make_store(path: Path, hp: TrainParams, sizes: Sizes) -> None:
    random_store(
        path, videos=max(hp.batch_size, 4), dim=sizes.dim, classes=sizes.classes,
        points=sizes.points,
        snippets=sizes.snippets or hp.resample_to or min(hp.max_snippets, LONGEST_T),
    )  # fmt: skip
    if encoder := hp.texts():
        keep_random_embeddings(FeatureStore.open(path), encoder)
