"""A Ray cluster to submit to: `ray start --head` on free ports of this machine, with a token."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
from conftest import HANG_S

MARK = "PTAL_RAY_HEAD_TEST"
RAY_SETTINGS = {
    # Ray's own limits of 30 s are too short for a machine that others use.
    "RAY_raylet_start_wait_time_s": "180", "RAY_agent_register_timeout_ms": "180000",
    "RAY_worker_niceness": "0",  # 15 by default: trials wait while anything else runs
    "RAY_prestart_worker_first_driver": "0",  # a job starts an idle process for each CPU
}  # fmt: skip
_PORTS = (
    "port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port", "runtime-env-agent-port", "metrics-export-port",
    "node-manager-port", "object-manager-port",
)  # fmt: skip


def free_ports(number):
    """Ports of the loopback interface that nobody listens at, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Head:
    """One node that lets in who has the token.

    Args:
        folder: holds the token and the log; also the home of everything that runs on the node.
        cpus: that the node offers.
    """

    def __init__(self, folder, cpus=2):
        self.folder, self.cpus = folder, cpus
        self.ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self.address = f"127.0.0.1:{self.ports['port']}"
        self.dashboard = f"http://127.0.0.1:{self.ports['dashboard-port']}"
        self.token = folder / "token"
        self.token.write_text(secrets.token_hex(32))
        self.session = tempfile.mkdtemp(prefix="r")  # short: it is part of the paths of sockets
        self.process = None

    def environment(self, **more):
        """Of the node and of its clients."""
        kept = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("RAY_", "MLFLOW_", "PTAL_", "PYTHONPATH"))
        }
        return kept | {
            "HOME": str(self.folder), "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token), "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1", MARK: str(self.folder),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listens at loopback alone
            "PYTHONUNBUFFERED": "1",
        } | RAY_SETTINGS | more  # fmt: skip

    def start(self):
        command = [
            self._ray(), "start", "--head", "--block", "--node-ip-address", "127.0.0.1",
            "--dashboard-host", "127.0.0.1", "--temp-dir", self.session,
            "--num-cpus", str(self.cpus), "--object-store-memory", "100000000",
            *(word for name, port in self.ports.items() for word in (f"--{name}", str(port))),
        ]  # fmt: skip
        with (self.folder / "head.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environment(), cwd=self.folder, start_new_session=True,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        until = time.monotonic() + HANG_S
        while time.monotonic() < until:
            said = (self.folder / "head.log").read_text()
            if "Ray runtime started" in said and self._answers():
                return
            assert self.process.poll() is None, said
            time.sleep(0.2)
        raise AssertionError("the head did not start")

    def run(self, *words, **more):
        """`ray ...` as a client; `more` is its environment."""
        settings = {"RAY_API_SERVER_ADDRESS": self.dashboard} | more
        return subprocess.run(
            [self._ray(), *words], env=self.environment(**settings), cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=HANG_S, check=False,
        )  # fmt: skip

    def processes(self):
        """Everything alive that came of this head."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
                if process.environ().get(MARK) == str(self.folder):
                    found.append(process)
        return found

    def stop(self):
        """Ends the node; what is left of it after some seconds."""
        if self.process:
            self.process.terminate()  # `ray start --block` ends what it started
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        left = self.processes()
        for _ in range(100):
            if not (left := self.processes()):
                break
            time.sleep(0.1)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(self.session, ignore_errors=True)
        return [process.pid for process in left]

    def _answers(self):
        request = urllib.request.Request(
            f"{self.dashboard}/api/jobs/",
            headers={"Authorization": f"Bearer {self.token.read_text()}"},
        )
        try:
            urllib.request.urlopen(request, timeout=1).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    @staticmethod
    def _ray():
        return str(Path(sys.executable).with_name("ray"))
