"""What every method must satisfy, whatever it is."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_store
from test_trial import SMALL, config

from ptal_ray.data.batching import PackedSplit
from ptal_ray.methods.method import Batch, Method, load, names
from ptal_ray.training.scoring import whole_videos
from ptal_ray.training.trial import Trial

METHODS = sorted(names())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("data") / "tiny", train=8)


@pytest.fixture(params=METHODS)
def trial(request: pytest.FixtureRequest, store: Path) -> Trial:
    made = Trial(config(store, request.param))
    for _ in range(2 * made.plan.steps_per_epoch + 1):  # past a first stage that trains less
        made.train_step()
    return made


def terms(trial: Trial) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = trial.objective(
        trial.batch(trial.plan.rows(trial.step)), trial.step_context()
    )
    return found


def test_loss_is_finite_and_reaches_every_parameter(trial: Trial) -> None:
    found = terms(trial)
    assert all(t.dim() == 0 and torch.isfinite(t) for t in found.values())
    trial.optimizer.zero_grad()
    torch.stack(list(found.values())).sum().backward()
    for name, parameter in trial.model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_same_step_same_loss(trial: Trial) -> None:
    before = copy.deepcopy(trial.model.state_dict())  # running numbers may be in it
    first = terms(trial)
    trial.model.load_state_dict(before)
    second = terms(trial)
    assert {k: v.item() for k, v in first.items()} == {k: v.item() for k, v in second.items()}


def test_padding_does_not_change_scores(trial: Trial) -> None:
    resample_to = trial.hp.resample_to
    split = PackedSplit(trial.store, trial.score_ids, trial.device, resample_to=resample_to)
    together = trial.score(trial.score_ids)
    method = trial.method
    for row, found in enumerate(together):
        batch = whole_videos(split, np.array([row]))
        longer = dataclasses.replace(
            batch,
            features=torch.nn.functional.pad(batch.features, (0, 0, 0, 37)),
            mask=torch.nn.functional.pad(batch.mask, (0, 37)),
        )
        with torch.no_grad():
            alone = method.scores(trial.judged, longer, trial.hp, [split.grids[row]])[0]
        assert alone.id == found.id
        for name, array in found.arrays.items():
            assert array.shape == alone.arrays[name].shape, name
            np.testing.assert_allclose(alone.arrays[name], array, atol=1e-4, err_msg=name)


def test_pseudo_labels_do_not_change_with_padding(trial: Trial) -> None:
    if trial.method.refresh is None:
        pytest.skip("the method has no pseudo-labels")
    rows = trial.plan.rows(0)
    trial.model.eval()
    with torch.no_grad():
        batch = trial.batch(rows, crop=False)
        one = trial.method.refresh(trial.model, batch, trial.hp)
        padded = dataclasses.replace(
            batch,
            features=torch.nn.functional.pad(batch.features, (0, 0, 0, 11)),
            mask=torch.nn.functional.pad(batch.mask, (0, 11)),
        )
        other = trial.method.refresh(trial.model, padded, trial.hp)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert len(value) == len(rows)
        torch.testing.assert_close(value, other[name], msg=name)


def test_detections_are_sorted_and_inside_the_video(trial: Trial) -> None:
    for found in trial.score(trial.score_ids):
        duration_s = trial.store.duration_s(found.id)
        grid = trial.store.info.grid
        made = trial.method.decode(found, grid, duration_s, trial.method.decode_params())
        assert len(made)
        assert (np.diff(made.score) <= 0).all()
        assert (made.start_s >= 0).all() and (made.end_s <= duration_s).all()
        assert (made.start_s < made.end_s).all()
        assert ((made.label >= 0) & (made.label < trial.store.info.num_classes)).all()


def test_scores_decode_in_a_process_without_the_model(trial: Trial, tmp_path: Path) -> None:
    found = trial.score(trial.score_ids)[0]
    grid, duration_s = trial.store.info.grid, trial.store.duration_s(found.id)
    here = trial.method.decode(found, grid, duration_s, trial.method.decode_params())
    (tmp_path / "in").write_bytes(pickle.dumps((trial.method.name, found, grid, duration_s)))
    code = (
        "import pickle, sys\n"
        "from ptal_ray.methods.method import load\n"
        "name, found, grid, duration_s = pickle.load(open(sys.argv[1], 'rb'))\n"
        "m = load(name)\n"
        "made = m.decode(found, grid, duration_s, m.decode_params())\n"
        "pickle.dump(made, open(sys.argv[2], 'wb'))\n"
    )
    paths = [str(tmp_path / "in"), str(tmp_path / "out")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True, timeout=120)
    there = pickle.loads((tmp_path / "out").read_bytes())
    for name in ("start_s", "end_s", "label", "score"):
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name))


@pytest.mark.parametrize("name", METHODS)
def test_every_parameter_is_documented_and_its_default_allowed(name: str) -> None:
    method: Method = load(name)
    for params in (method.train_params, method.decode_params):
        for field in dataclasses.fields(params):
            assert field.metadata.get("doc") and field.metadata.get("source"), field.name
            allowed: Any = field.metadata["allowed"]
            if allowed is None:
                continue
            if isinstance(field.default, str | bool):
                assert field.default in allowed, field.name
            else:
                assert allowed[0] <= field.default <= allowed[1], field.name


def test_the_batch_of_a_point_method_holds_no_instances() -> None:
    assert "instances" not in {f.name for f in dataclasses.fields(Batch)}
    assert SMALL


def test_draws_have_one_shape_on_every_worker(trial: Trial) -> None:
    fewest = int((trial.split.pair_t >= 0).sum(axis=1).argmin())
    most = int((trial.split.pair_t >= 0).sum(axis=1).argmax())
    trial.split.pair_t[fewest, 1:] = -1  # one video of the batch has a single point left
    rows = np.array([most, fewest])
    trial.batches.rank, trial.batches.world_size = 1, 2
    part = trial.batch(rows)
    assert part.ids == (trial.split.ids[fewest],)
    assert part.most_pairs == (trial.split.pair_t[most] >= 0).sum() > 1
