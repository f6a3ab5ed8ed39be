"""Searches as jobs of a cluster: a small upload, exit codes, a clean stop, results that stay."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG_S, make_store
from ray_head import Head
from test_search_cli import lay_out, wait_for

from ptal_ray.errors import ConfigError
from ptal_ray.storage.place import kept, make_results_root, results_root
from ptal_ray.study.event_types import Report, StudyEnd, TrialEnd
from ptal_ray.study.events import read_events

ROOT = Path(__file__).parents[1]
STOP_WAIT_S = 60


def test_the_upload_is_small_and_whole(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    create_package(str(ROOT), tmp_path / "package.zip", include_gitignore=True)
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        names = set(package.namelist())
    assert (tmp_path / "package.zip").stat().st_size < 2_500_000
    assert {n.split("/")[0] for n in names if "/" in n} == {"ptal_ray", "search_spaces"}
    assert {n for n in names if "/" not in n} <= {"pyproject.toml"} | {
        p.name for p in ROOT.glob("*.yaml")
    }
    source = {p.relative_to(ROOT).as_posix() for p in (ROOT / "ptal_ray").rglob("*.py")}
    spaces = {p.relative_to(ROOT).as_posix() for p in (ROOT / "search_spaces").iterdir()}
    assert source | spaces <= names
    assert not [n for n in names if "__pycache__" in n]


def test_results_of_a_job_do_not_lie_in_its_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    copy.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PTAL_RESULTS", raising=False)
    monkeypatch.chdir(copy)
    assert kept(Path("studies")) == copy / "studies"  # somebody's folder of that name
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert results_root() == tmp_path / "home" / "ptal_ray"
    assert kept(tmp_path / "there") == tmp_path / "there"
    monkeypatch.chdir(tmp_path)
    assert results_root() == tmp_path  # a job without a copy
    monkeypatch.setenv("PTAL_RESULTS", str(tmp_path / "kept"))
    assert kept(Path("studies")) == tmp_path / "kept" / "studies"
    make_results_root()
    assert (tmp_path / "kept").is_dir()
    (tmp_path / "file").touch()
    monkeypatch.setenv("PTAL_RESULTS", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="PTAL_RESULTS .*file: cannot be created"):
        make_results_root()


class Cluster:
    """A head, and a tiny search to run on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.head = folder, Head(folder)
        self.results = folder / "results"
        overrides = ("budget.max_steps=160", "final.seeds=1", "budget.trials=3")
        lay_out(folder, make_store(folder / "tiny", train=9), *overrides)
        self.space = str(folder / "small.yaml")

    def submit(self, name: str, *search: str, **env: str) -> None:
        """Starts a job that runs a search; its working directory is this repository."""
        settings = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), "PTAL_DATA": str(self.folder)}
        done = self.head.run(
            "job", "submit", "--no-wait", "--submission-id", name, "--working-dir", str(ROOT),
            "--runtime-env-json", json.dumps({"env_vars": settings | env}),
            "--", "python", "-m", "ptal_ray.search", *search,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout

    def ask(self, path: str, method: str = "GET") -> dict[str, Any]:
        """An answer of Ray's job server; what `ray job` asks, without its seconds of imports."""
        request = urllib.request.Request(
            f"{self.head.dashboard}/api/jobs/{path}",
            headers={"Authorization": f"Bearer {self.head.token.read_text()}"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=HANG_S) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def ended(self, name: str) -> dict[str, Any]:
        """What Ray knows of a job after its end."""
        until = time.time() + HANG_S
        while (found := self.ask(name))["status"] in ("PENDING", "RUNNING"):
            if time.time() > until:
                status = self.head.run("status").stdout  # what holds the place of its trials
                raise AssertionError(f"job {name} did not end: {self.logs(name)}{status}")
            time.sleep(0.2)
        return found

    def logs(self, name: str) -> str:
        """What the job printed."""
        return str(self.ask(f"{name}/logs")["logs"]).partition("Running entrypoint for job")[2]

    def search(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        """A search as a client on the head."""
        command = [sys.executable, "-m", "ptal_ray.search", *args]
        env = self.head.environment(PYTHONPATH=str(ROOT), **env)
        return subprocess.run(
            command, cwd=self.folder, env=env, text=True, capture_output=True, timeout=HANG_S
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Cluster(tmp_path_factory.mktemp("jobs"))
    try:
        made.head.start()
        yield made
    finally:
        assert made.head.stop() == []


@pytest.fixture(scope="module")
def stopped(cluster: Cluster) -> dict[str, Any]:
    """A search stopped as by `ray job stop` while a trial runs, and resumed as another job."""
    results = {"PTAL_RESULTS": str(cluster.results)}
    cluster.submit("first", cluster.space, **results)
    studies = cluster.results / "studies"
    wait_for(studies, lambda events: any(isinstance(e, Report) for e in events))
    began = time.time()
    asked = cluster.ask("first/stop", "POST")
    first = cluster.ended("first") | {"log": cluster.logs("first")}
    took_s = time.time() - began
    (directory,) = (p for p in studies.iterdir() if p.name[0] != ".")
    interrupted = read_events(directory / "events.jsonl")
    command = shlex.split(first["log"].strip().splitlines()[-1])
    cluster.submit("second", *command[3:], **results)
    second = cluster.ended("second") | {"log": cluster.logs("second")}
    return {
        "first": first, "second": second, "took_s": took_s, "directory": directory,
        "interrupted": interrupted, "asked": asked, "command": command,
    }  # fmt: skip


@pytest.mark.cluster
@pytest.mark.slow
def test_stop_is_clean_and_says_how_to_go_on(cluster: Cluster, stopped: dict[str, Any]) -> None:
    assert stopped["asked"] == {"stopped": True}
    assert stopped["first"]["status"] == "STOPPED"
    assert stopped["took_s"] < STOP_WAIT_S / 2
    assert "stopping; a second signal stops immediately" in stopped["first"]["log"]
    assert isinstance(stopped["interrupted"][-1], StudyEnd)
    assert stopped["interrupted"][-1].state == "interrupted"
    assert stopped["command"][3:] == ["--resume", str(stopped["directory"])]


@pytest.mark.cluster
@pytest.mark.slow
def test_the_study_goes_on_as_another_job(cluster: Cluster, stopped: dict[str, Any]) -> None:
    second, events = stopped["second"], read_events(stopped["directory"] / "events.jsonl")
    assert (second["status"], second["driver_exit_code"]) == ("SUCCEEDED", 0), second["log"]
    assert events[: len(stopped["interrupted"])] == stopped["interrupted"]
    assert sorted(e.trial for e in events if isinstance(e, TrialEnd)) == [0, 1, 2]
    assert (cluster.results / "mlflow.db").exists()
    (report,) = (cluster.results / "reports").iterdir()
    assert (report / "REPORT.md").exists()
    assert f"report  {report}" in second["log"]


@pytest.mark.cluster
@pytest.mark.slow
def test_logs_are_plain_lines(stopped: dict[str, Any]) -> None:
    for job in (stopped["first"], stopped["second"]):
        assert not re.search(r"[\x00-\x08\x0b-\x1f]", job["log"])
    lines = [line for line in stopped["second"]["log"].splitlines() if line.startswith("trial ")]
    ended = [e for e in stopped["interrupted"] if isinstance(e, TrialEnd)]
    assert len(lines) == 3 - len(ended)


@pytest.mark.cluster
@pytest.mark.slow
def test_a_job_carries_the_exit_code_of_its_search(cluster: Cluster) -> None:
    cluster.submit("fails", cluster.space, "--time-budget", "0.01s")
    found = cluster.ended("fails")
    assert (found["status"], found["driver_exit_code"]) == ("FAILED", 4), found
    assert "exit code 4" in found["message"]
    assert re.search("error: small.*none of .* trials reached", found["message"])
    assert list((cluster.folder / "ptal_ray" / "studies").iterdir())  # without PTAL_RESULTS


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize(
    "env", [{"RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_TOKEN": "f" * 64}, {"RAY_AUTH_TOKEN_PATH": ""}]
)
def test_who_has_no_token_is_told_so_at_once(cluster: Cluster, env: dict[str, str]) -> None:
    done = cluster.search(cluster.space, "--address", cluster.head.address, **env)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()  # Ray, which tries for 20 s, would write more
    assert line.startswith(f"error: --address {cluster.head.address}: authentication failed (")
    assert line.endswith("or in RAY_AUTH_TOKEN")
