"""Secrets stay where they are, and servers listen at loopback alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import HANG_S, make_store
from mlflow_service import Service, fresh_database
from test_search_cli import MARK, lay_out, left_over

import ptal_ray
from ptal_ray.errors import PtalError
from ptal_ray.tracking.tracker import MlflowTracker

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "planted-aws-9c1f",
    "MLFLOW_TRACKING_PASSWORD": "planted-password-77aa",
    "MLFLOW_TRACKING_USERNAME": "planted-user-1d2e",
    "RAY_AUTH_TOKEN": "5eed" * 16,
    "PTAL_TEST_SECRET": "planted-other-0b0b",
}
IN_URI = "planted-uri-4e4e"


def listening(folder: Path) -> set[str]:
    """Addresses at which the processes of a search in `folder` listen."""
    found = set()
    for process in left_over(folder):
        try:
            found |= {
                c.laddr.ip
                for c in process.net_connections("inet")
                if c.status == psutil.CONN_LISTEN
            }
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A small search with secrets in its environment that says all it can."""
    folder = tmp_path_factory.mktemp("secrets")
    lay_out(folder, make_store(folder / "tiny", train=9), "final.seeds=1", "budget.trials=2")
    server = Service(folder / "server")
    server.folder.mkdir()
    (server.folder / "mlflow.db").write_bytes(fresh_database())
    session = Path(tempfile.mkdtemp(prefix="r"))  # short: it is part of the paths of sockets
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    env |= SECRETS | {
        "PYTHONPATH": str(Path(ptal_ray.__file__).parents[1]), "OMP_NUM_THREADS": "1",
        MARK: str(folder), "HOME": str(folder),
        "RAY_TMPDIR": str(session), "RAY_AUTH_MODE": "token",
        "MLFLOW_TRACKING_URI": server.uri.replace("//", f"//somebody:{IN_URI}@"),
    }  # fmt: skip
    command = [sys.executable, "-m", "ptal_ray.search", "small.yaml", "-v"]
    addresses: set[str] = set()
    try:
        server.start()
        with (folder / "said.txt").open("wb") as said:
            process = subprocess.Popen(
                command, cwd=folder, env=env, stdout=said, stderr=subprocess.STDOUT
            )
            until = time.time() + HANG_S
            while process.poll() is None and time.time() < until:
                addresses |= listening(folder)
                time.sleep(2)
            process.kill()
            process.wait()
        yield {
            "folder": folder, "session": session, "code": process.returncode,
            "addresses": addresses, "said": (folder / "said.txt").read_text(),
        }  # fmt: skip
    finally:
        server.stop()
        shutil.rmtree(session, ignore_errors=True)


@pytest.mark.cluster
@pytest.mark.slow
def test_servers_listen_at_loopback_alone(searched: dict[str, Any]) -> None:
    assert searched["code"] == 0, searched["said"]
    assert searched["addresses"]
    assert searched["addresses"] <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.cluster
@pytest.mark.slow
def test_secrets_are_written_nowhere(searched: dict[str, Any]) -> None:
    assert searched["code"] == 0, searched["said"]
    folder, files = searched["folder"], 0
    assert (folder / "server" / "mlflow.db").exists()
    assert list((folder / "reports").glob("*/REPORT.md"))
    assert list(searched["session"].rglob("*.log"))
    for root in (folder, searched["session"]):
        for path in root.rglob("*"):
            if not path.is_file() or path.is_symlink():
                continue
            files += 1
            content = path.read_bytes()
            for name, value in (SECRETS | {"the address of MLflow": IN_URI}).items():
                assert value.encode() not in content, f"{name} is in {path}"
    assert files > 20


def test_errors_hide_the_password_of_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for uri in (
        f"postgresql://me:{IN_URI}@127.0.0.1:9/db",
        f"http://me:{IN_URI}@127.0.0.1:9",
        f"mysql+pymysql://me:{IN_URI}@127.0.0.1:9/db?ssl=1",
    ):
        with pytest.raises(PtalError) as caught:
            MlflowTracker(tmp_path / "study", uri).start()
        assert IN_URI not in str(caught.value)
        assert "127.0.0.1:9" in str(caught.value)
