"""A Ray cluster of several nodes on this machine, each in a network namespace of its own.

Where namespaces are not allowed, all nodes share the loopback interface.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
from conftest import HANG_S
from ray_head import RAY_SETTINGS, free_ports

import ptal_ray


class Network:
    """Namespaces that reach each other over a bridge, and nothing else."""

    def __init__(self, num: int) -> None:
        name = secrets.token_hex(3)
        self.bridge, self.spaces = f"b{name}", [f"ptal{name}n{k}" for k in range(num)]
        self.subnet = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(250)}"
        self.made = self._make()

    def _make(self) -> bool:
        if shutil.which("ip") is None or not self._ip("netns", "add", self.spaces[0]):
            return False
        self._ip("link", "add", self.bridge, "type", "bridge")
        self._ip("link", "set", self.bridge, "up")
        for k, space in enumerate(self.spaces):
            if k:
                self._ip("netns", "add", space)
            outer = f"{self.bridge}v{k}"
            self._ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
            self._ip("link", "set", outer, "master", self.bridge, "up")
            self._ip("-n", space, "addr", "add", f"{self.host(k)}/24", "dev", "eth0")
            self._ip("-n", space, "link", "set", "eth0", "up")
            self._ip("-n", space, "link", "set", "lo", "up")
        return True

    def host(self, k: int) -> str:
        """Address of node `k`."""
        return f"{self.subnet}.{k + 1}" if getattr(self, "made", True) else "127.0.0.1"

    def inside(self, k: int) -> list[str]:
        """What a command begins with to run on node `k`."""
        return ["ip", "netns", "exec", self.spaces[k]] if self.made else []

    def close(self) -> None:
        """Removes everything."""
        if self.made:
            for space in self.spaces:
                self._ip("netns", "delete", space)
            self._ip("link", "delete", self.bridge)

    @staticmethod
    def _ip(*arguments: str) -> bool:
        return subprocess.run(["ip", *arguments], capture_output=True).returncode == 0


class Nodes:
    """`ray start --block` for each entry of `cpus`, the first the head; ended one by one.

    Args:
        cpus: of each node.
        network: whose namespaces they live in.
        grows_to: nodes of one CPU that an autoscaler starts when they are needed, at most; needs
            namespaces.
        unshared: a folder that is empty at first on all nodes but the head, and of their own; needs
            namespaces.
        env: of all nodes, and of what runs on them.
    """

    def __init__(
        self, cpus: tuple[int, ...], network: Network, grows_to: int = 0,
        unshared: Path | None = None, env: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.network, self.grows_to, self.unshared = network, grows_to, unshared
        self.temp = Path(tempfile.mkdtemp(prefix="ptal"))  # short: sockets lie in it
        self.env = os.environ | {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1",
            "RAY_health_check_failure_threshold": "3", "RAY_health_check_period_ms": "1000",
            "PYTHONPATH": str(Path(ptal_ray.__file__).parents[1]),
        } | RAY_SETTINGS | (env or {})  # fmt: skip
        for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
            self.env.pop(name, None)
        free, self.dashboard_port, self.client_port = free_ports(3)
        self.port = 6379 if grows_to else free  # what Ray's provider looks for
        self.address = f"{network.host(0)}:{self.port}"
        self.processes: list[subprocess.Popen[bytes]] = []
        try:
            for k, count in enumerate(cpus):
                self.start(k, count)
            self.wait_for(len(cpus))
        except BaseException:
            self.close()
            raise

    def start(self, k: int, cpus: int) -> None:
        """Starts node `k`."""
        host = self.network.host(k)
        where = (
            ["--head", f"--port={self.port}", "--dashboard-host=127.0.0.1",
             f"--dashboard-port={self.dashboard_port}", "--include-dashboard=true",
             f"--ray-client-server-port={self.client_port}", f"--temp-dir={self.temp}/ray"]
            if k == 0 else [f"--address={self.address}"]
        )  # fmt: skip
        hide = 'mount -t tmpfs none "$0" && exec "$@"'  # `ip netns exec` gives mounts of its own
        own = ["sh", "-c", hide, str(self.unshared)] if self.unshared and k else []
        command = [
            *self.network.inside(k), *own,
            sys.executable, "-m", "ray.scripts.scripts", "start", *where,
            f"--node-ip-address={host}", f"--num-cpus={cpus}",
            "--object-store-memory=100000000", "--disable-usage-stats", "--block",
        ]  # fmt: skip
        if k == 0 and self.grows_to:
            command += self.autoscaler()
        with (self.temp / f"node{k}.log").open("ab") as log:
            process = subprocess.Popen(
                command, env=self.env, start_new_session=True, stdout=log, stderr=log
            )
        self.processes.append(process)
        if k == 0:
            self.wait_for(1)

    def autoscaler(self) -> list[str]:
        """Options of a head whose autoscaler starts nodes as processes beside it."""
        config = {
            "cluster_name": "grows", "max_workers": self.grows_to, "idle_timeout_minutes": 10,
            "upscaling_speed": 1.0,
            "provider": {  # its nodes take no commands, and send no heartbeat it understands
                "type": "fake_multinode", "disable_node_updaters": True,
                "worker_liveness_check": False,
            },
            "head_node_type": "ray.head.default", "auth": {"ssh_user": "root"}, "docker": {},
            "file_mounts": {}, "cluster_synced_files": [], "file_mounts_sync_continuously": False,
            **{
                f"{name}_commands": []
                for name in ("initialization", "setup", "head_setup", "worker_setup",
                             "head_start_ray", "worker_start_ray")
            },
            "available_node_types": {
                "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                "one": {
                    "resources": {"CPU": 1}, "node_config": {}, "min_workers": 0,
                    "max_workers": self.grows_to,
                },
            },
        }  # fmt: skip
        self.env |= {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}
        path = self.temp / "autoscaling.json"
        path.write_text(json.dumps(config))
        return [f"--autoscaling-config={path}"]

    def wait_for(self, num: int) -> None:
        """Returns once `num` nodes are alive."""
        until = time.time() + HANG_S
        while time.time() < until:
            if self.alive() == num:
                return
            time.sleep(0.5)
        logs = "\n".join(p.read_text()[-2000:] for p in self.temp.glob("node*.log"))
        raise AssertionError(f"the cluster did not come to {num} nodes:\n{logs}")

    def alive(self) -> int:
        """Nodes alive, asked of the cluster itself."""
        code = (
            "import os; from ray._raylet import GcsClient; "
            f"c = GcsClient(address={self.address!r}); "
            "print(sum(i.state == 0 for i in c.get_all_node_info().values()))"
        )
        done = self.run([sys.executable, "-c", code], timeout=60)
        return int(done.stdout) if done.returncode == 0 else 0

    def run(
        self, command: list[str], timeout: float = HANG_S, **more
    ) -> subprocess.CompletedProcess:
        """Runs a command on the head's node."""
        return subprocess.run(
            [*self.network.inside(0), *command], capture_output=True, text=True,
            env=self.env | more.pop("env", {}), timeout=timeout, **more,
        )  # fmt: skip

    def popen(self, command: list[str], **more) -> subprocess.Popen:
        """Starts a command on the head's node."""
        return subprocess.Popen(
            [*self.network.inside(0), *command], text=True, env=self.env | more.pop("env", {}),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
        )  # fmt: skip

    def on(self, k: int, name: str = "") -> list[psutil.Process]:
        """Processes of node `k` whose command line holds `name`."""
        if self.network.made:
            listed = subprocess.run(
                ["ip", "netns", "pids", self.network.spaces[k]], capture_output=True, text=True
            )
            found = [psutil.Process(int(line)) for line in listed.stdout.split()]
        else:
            own = psutil.Process(self.processes[k].pid)
            found = [own, *own.children(recursive=True)]
        return [p for p in found if name in " ".join(_command(p))]

    def kill(self, k: int) -> None:
        """Kills all processes of node `k` at once, as a machine that loses power."""
        for process in self.on(k):
            with suppress(psutil.NoSuchProcess):  # ended with its parent
                process.kill()
        self.processes[k].wait()

    def close(self) -> None:
        """Ends every node and removes its files."""
        for k, process in reversed(list(enumerate(self.processes))):
            if self.network.made:
                self.kill(k)
            elif process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(30)
        self.network.close()
        shutil.rmtree(self.temp, ignore_errors=True)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has just ended
        return []
