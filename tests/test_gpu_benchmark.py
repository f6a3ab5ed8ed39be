"""The benchmark of a GPU, on a CPU: it needs no Ray, measures all parts and says what failed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ptal_ray.benchmarks import gpu
from ptal_ray.benchmarks.__main__ import main
from ptal_ray.benchmarks.packing import Pair, pair
from ptal_ray.benchmarks.step_times import synchronisations, warm
from ptal_ray.benchmarks.workload import Sizes, workload
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.text import class_embeddings
from ptal_ray.errors import DivergedError, NoTrialFinished
from ptal_ray.methods.method import load, names, with_values
from ptal_ray.process.cpus import usable_cpus
from ptal_ray.space.catalog import catalog
from ptal_ray.space.space import load_space
from ptal_ray.training.stages import start

ALONE = """
import sys
for name in {blocked}:
    sys.modules[name] = None  # then it cannot be imported
from ptal_ray.benchmarks import gpu, packing
from ptal_ray.benchmarks.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
BLOCKED = (
    "ray", "optuna", "mlflow", "yaml", "rich", "grpc", "matplotlib", "psutil", "seglearn",
    "wordllama",
)  # fmt: skip


def run_alone(out: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """The command in a process that can import none of these packages."""
    code = ALONE.replace("{blocked}", repr(set(BLOCKED)))
    words = ["gpu", "--device", "cpu", "--quick", "--out", str(out), *flags]
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=570,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_a_method_on_a_cpu_without_ray(tmp_path: Path) -> None:
    done = run_alone(tmp_path, "--methods", "lacp")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert list(found["methods"]) == ["lacp"]
    for own in found["methods"].values():
        for part in ("fp32", "bf16"):
            measured = own[part]
            assert measured["shape"] == [4, 32, 16]
            assert measured["step_ms"]["median"] > 0 and 0 < measured["matrix_share"] < 1
            assert measured["loss_steps"] == own["fp32"]["loss_steps"]
        assert own["bf16"]["loss"] == pytest.approx(own["fp32"]["loss"], rel=0.05)
        assert own["bf16"]["loss"] != own["fp32"]["loss"]
        packed = own["packed"]
        assert packed["gain"] == pytest.approx(packed["packed_per_hour"] / packed["alone_per_hour"])
    assert (tmp_path / "GPU.md").read_text().count("| 4 x 32 x 16 |") == 1
    assert "| lacp |" in done.stdout


@pytest.mark.parametrize("name", names())
def test_every_method_has_a_workload_that_needs_no_other_package(name: str, tmp_path: Path) -> None:
    sizes = Sizes(dim=8, classes=3, points=3)
    config = workload(tmp_path, name, sizes)
    hp = with_values(load(name).train_params, config.train)
    store = FeatureStore.open(config.store)
    longest = hp.resample_to or min(hp.max_snippets, 2304)
    assert {store.length(id) for id in store.ids("train")} == {longest}
    assert len(store.ids("train")) == max(hp.batch_size, 4)
    assert config.train["lr"] == load(name).train_params().lr
    if encoder := hp.texts():
        assert class_embeddings(store, encoder).shape == (3, 256)


SIZED = {"batch_size", "max_snippets", "resample_to", "embed_dim", "width", "window", "levels",
         "longest"}  # fmt: skip


@pytest.mark.parametrize("name", names())
def test_the_sizes_of_a_paper_are_those_of_its_search_space(name: str) -> None:
    spaces = [s.name for s in catalog() if s.method == name and "_thumos" in s.name]
    space = load_space(max(spaces))  # NAME_thumos_paper if the released code has other settings
    plain, stated = asdict(load(name).train_params()), space.train_defaults()
    other = {k: v for k, v in stated.items() if k in SIZED and v != plain[k]}
    assert dict(load(name).paper_sizes) == other


def test_the_benchmark_times_the_sizes_of_the_paper(tmp_path: Path) -> None:
    sizes = gpu.plan_of(["lacp"], "cpu", quick=False, repeats=1, minutes=1).sizes
    assert sizes.paper and sizes.dim == 2048
    small = replace(sizes, dim=8, classes=3, points=3, snippets=32)
    assert workload(tmp_path, "apn", small).train["embed_dim"] == 2048
    assert workload(tmp_path, "apn", replace(small, paper=False)).train["embed_dim"] == 512


@pytest.mark.parametrize(
    ("name", "terms"),
    [("lacp", {"video", "point", "score", "feature"}),
     ("fsptal", {"video", "point", "score", "separation"})],
)  # fmt: skip
def test_timed_steps_have_all_terms_and_compute_no_labels(
    name: str, terms: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = Sizes(dim=8, classes=3, points=3, snippets=32, batch=4)
    trial = start(workload(tmp_path, name, sizes, train={"embed_dim": 8}), "cpu")
    warm(trial)

    def refresh(rows: object, stale: object) -> None:
        raise AssertionError("a timed step computes labels")

    monkeypatch.setattr(trial, "refresh", refresh)
    assert trial.train_step().keys() >= terms


def test_what_fails_is_in_the_table_and_the_rest_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def trial(plan: gpu.Plan, config: Any) -> dict[str, Any]:
        if config.precision == "bf16":
            raise DivergedError("train/loss_total: nan\nby step 3")
        return {"shape": [1, 2, 3], "step_ms": {"median": 1.5}, "synchronisations": ["a.py:3"]}

    monkeypatch.setattr(gpu, "pair", lambda device: nullcontext(None))
    monkeypatch.setattr(gpu, "_trial", trial)
    monkeypatch.setattr(gpu, "_packed", lambda plan, config, two: {"gain": 1.25})
    words = ["gpu", "--device", "cpu", "--quick", "--out", str(tmp_path), "--methods", "lacp"]
    assert main(words) == 4
    table = (tmp_path / "GPU.md").read_text()
    assert "| lacp | 1 x 2 x 3 | 1.50 |  | 1 |  |  |  |  |  | 1.25 |" in table
    assert "- lacp, bf16: DivergedError: train/loss_total: nan\n" in table
    assert json.loads((tmp_path / "gpu.json").read_text())["machine"]["threads"] == usable_cpus()
    assert "1 parts were not measured" in capsys.readouterr().err
    assert main([*words, "--minutes", "0"]) == 4
    assert (tmp_path / "GPU.md").read_text().count("out of time; raise --minutes") == 3


def test_flags_that_cannot_be_met(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["--device", "cuda:99"], "--device cuda:99: not usable here"),
        (["--device", "cpu", "--methods", "nome"], "method: 'nome' is unknown"),
        (["--device", "cpu", "--repeats", "0"], "--repeats 0: allowed is 1 or more"),
    ):
        assert main(["gpu", *words, "--out", str(tmp_path)]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_process_that_fails_is_asked_again(tmp_path: Path) -> None:
    good = workload(tmp_path, "lacp", gpu.QUICK, train={"embed_dim": 8})
    broken = replace(good, store=str(tmp_path / "nowhere"))
    with pair("cpu") as two:
        assert isinstance(two, Pair)
        with pytest.raises(NoTrialFinished, match="DataError"):
            two.seconds(broken, 1, trials=2)
        assert two.seconds(good, 1, trials=2) > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", names())
def test_a_step_does_not_wait_for_the_device(name: str, tmp_path: Path) -> None:
    trial = start(workload(tmp_path, name, gpu.QUICK), "cuda")
    warm(trial)
    assert synchronisations(trial) == []
