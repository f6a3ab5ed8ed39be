"""The batch scripts of clusters/, run with real Ray; stand-ins take Slurm's place."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HANG_S

CLUSTERS = Path(__file__).parents[1] / "clusters"

SCONTROL = "#!/usr/bin/env bash\nprintf 'node1\\nnode2\\n'\n"

# A step of one task runs here. Two tasks are each given a network and processes of their own, as
# nodes have, joined by a wire.
SRUN = f"""#!{sys.executable}
import itertools, os, subprocess, sys, time

options = list(itertools.takewhile(lambda word: word.startswith("-"), sys.argv[1:]))
command = sys.argv[1 + len(options) :]
if "--ntasks=1" in options:
    os.execvp(command[0], command)
assert "--ntasks=2" in options
node = 'until ip addr add "$1" dev eth0 2>/dev/null; do sleep 0.1; done; ' \
    'ip link set lo up; ip link set eth0 up; "${{@:2}}"; exit "$?"'
tasks = []
for rank in range(2):
    tasks.append(subprocess.Popen(
        ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child",
         "bash", "-c", node, "_", f"10.9.0.{{rank + 1}}/24", *command],
        env=os.environ | {{"RAY_TMPDIR": os.environ["RAY_TMPDIR"] + f"/{{rank}}"}}))
    while os.readlink(f"/proc/{{tasks[-1].pid}}/ns/net") == os.readlink("/proc/self/ns/net"):
        time.sleep(0.05)
first, second = (str(task.pid) for task in tasks)
subprocess.run(["ip", "link", "add", "eth0", "netns", first, "type", "veth",
                "peer", "name", "eth0", "netns", second], check=True)
sys.exit(max(task.wait() for task in tasks))
"""

# In place of a search: says what it was given. TERM is what Slurm sends before the time limit.
ENTRY = """
import os, signal, sys, time, urllib.error, urllib.request
import ray

def stop(number, frame):
    print("stopped cleanly", flush=True)
    os._exit(7)

url = ray.init(log_to_driver=False).dashboard_url
signal.signal(signal.SIGTERM, stop)
print("nodes:", sum(node["Alive"] for node in ray.nodes()), flush=True)
print("CPUs:", ray.cluster_resources()["CPU"], flush=True)
try:
    urllib.request.urlopen(f"http://{url}/api/jobs/", timeout=20)
except urllib.error.HTTPError as error:
    print("without token:", error.code, flush=True)
if sys.argv[1] == "wait":
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(60)
sys.exit(7)
"""

ALONE = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--mount-proc",
         "--kill-child"]  # fmt: skip
# Afterwards only this shell and `ps` run; what Ray's daemons have started may take a moment to go.
INSIDE = """
ip link set lo up
bash "$@"
status=$?
for ((i = 0; i < 100; i++)); do
  left="$(ps -eo comm=)"
  (("$(wc -l <<<"$left")" == 2)) && break
  sleep 0.1
done
echo "left:" $left
exit $status
"""


def slurm(folder, script, words, *, head_ip, srun=SRUN):
    """Runs the batch script of a job on two nodes, cut off from this machine's network."""
    programs = folder / "bin"
    programs.mkdir()
    for name, body in (("srun", srun), ("scontrol", SCONTROL)):
        (programs / name).write_text(body)
        (programs / name).chmod(0o755)
    job = str(os.getpid())
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SLURM_"))} | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PTAL_VENV": sys.prefix,
        "HEAD_IP": head_ip,
        "SLURM_JOB_ID": job,
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_SUBMIT_DIR": str(folder),
    }
    try:
        return subprocess.run(
            [*ALONE, "bash", "-c", INSIDE, "_", CLUSTERS / script, *words],
            env=environment, cwd=folder, capture_output=True, text=True, timeout=HANG_S,
        )  # fmt: skip
    finally:
        shutil.rmtree(f"/tmp/ptal-{job}", ignore_errors=True)


@pytest.fixture
def entry(tmp_path):
    if not shutil.which("ip") or subprocess.run([*ALONE, "true"], capture_output=True).returncode:
        pytest.skip("needs Linux namespaces (unshare) and ip, to run Ray apart from this machine's")
    path = tmp_path / "entry.py"
    path.write_text(ENTRY)
    return path


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "head_ip", "what", "said"),
    [
        ("slurm_head_workers.sh", "127.0.0.1", "wait", {"stopped cleanly"}),
        ("slurm_symmetric.sh", "10.9.0.1", "end", set()),
    ],
)
def test_a_job_runs_the_search_and_ends(tmp_path, entry, script, head_ip, what, said):
    done = slurm(tmp_path, script, ["python", str(entry), what], head_ip=head_ip)
    lines = done.stdout.splitlines()
    assert done.returncode == 7, done.stdout[-4000:] + done.stderr[-4000:]
    expected = {"nodes: 2", "CPUs: 2.0", "without token: 401"} | said
    assert expected <= set(lines), done.stdout[-4000:]
    assert lines[-1] == "left: bash ps", "processes outlive the job"
    assert not list(tmp_path.glob(".ptal-*"))


def test_a_symmetric_run_whose_ray_did_not_start_fails(tmp_path, entry):
    nothing = "#!/usr/bin/env bash\nexit 0\n"  # what `ray symmetric-run` returns then
    words = ["python", str(entry), "end"]
    done = slurm(tmp_path, "slurm_symmetric.sh", words, head_ip="127.0.0.1", srun=nothing)
    assert done.returncode == 1
    assert "the search did not run" in done.stderr
