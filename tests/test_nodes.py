"""Studies on clusters of several nodes: where workers lie, and what a lost node costs."""

from __future__ import annotations

import json
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG_S, make_store
from object_store import BUCKET, object_store
from ray_nodes import Network, Nodes
from small_study import small_space
from test_search_cli import ended_well

from ptal_ray.study.event_types import Report, StudyEnd, TrialEnd, TrialStart
from ptal_ray.study.events import read_events

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


def lay_out(folder: Path, *overrides: str) -> list[str]:
    """The command of a small study in `folder`."""
    make_store(folder / "tiny", train=9)
    space = small_space(*overrides).to_yaml().replace("tiny", str(folder / "tiny"))
    (folder / "small.yaml").write_text(space)
    return [sys.executable, "-m", "ptal_ray.search", "small.yaml", "--json"]


def events(folder: Path) -> list[dict[str, Any]]:
    found = list(folder.rglob("events.jsonl"))
    return read_events(found[0]) if found else []


def wait_for(folder: Path, holds: Any) -> None:
    until = time.time() + HANG_S
    while time.time() < until:
        log = events(folder)
        if holds(log):
            return
        assert not ended_well(log), "the study ended before it got there"
        time.sleep(0.1)
    raise AssertionError("the study did not get there in time")


def both_report(log: list[dict[str, Any]]) -> bool:
    return {0, 1} <= {e.trial for e in log if isinstance(e, Report)}


def complete(folder: Path, trials: int) -> list[dict[str, Any]]:
    """The events of a finished study, in which nothing is lost or counted twice."""
    log = events(folder)
    ends = [e.trial for e in log if isinstance(e, TrialEnd)]
    assert sorted(ends) == list(range(trials))
    assert isinstance(log[-1], StudyEnd) and log[-1].state == "done"
    return log


def test_a_trial_of_two_workers_outlives_a_node(tmp_path: Path) -> None:
    """It has a worker on either node; then both are on the node that is left."""
    nodes = Nodes((2, 1), Network(2))
    try:
        command = lay_out(
            tmp_path, "budget.max_steps=160", "final.seeds=1", "final.top=1", "budget.trials=2",
            "resources.workers=2", "resources.placement=spread",
        )  # fmt: skip
        search = nodes.popen([*command, "--address", nodes.address], cwd=tmp_path)
        wait_for(tmp_path, lambda log: any(isinstance(e, Report) for e in log))
        assert [len(nodes.on(k, "RayTrainWorker")) for k in (0, 1)] == [1, 1]
        nodes.kill(1)
        _, err = search.communicate(timeout=HANG_S)
        assert search.returncode == 0, err
        assert complete(tmp_path, 2)
    finally:
        nodes.close()


def test_a_search_makes_a_cluster_grow_and_no_further(tmp_path: Path) -> None:
    """Only a head without CPUs runs; an autoscaler may start two nodes."""
    network = Network(1)
    if not network.made:
        pytest.skip("network namespaces are not allowed here")
    nodes = Nodes((0,), network, grows_to=2)
    try:
        command = lay_out(tmp_path, "budget.max_steps=160", "final.seeds=1", "budget.trials=4")
        grow = ["--autoscale", "--max-concurrent", "2"]
        search = nodes.popen([*command, *grow, "--address", nodes.address], cwd=tmp_path)
        _, err = search.communicate(timeout=HANG_S)
        assert search.returncode == 0, err
        log = complete(tmp_path, 4)
        running: set[int] = set()
        for event in log:
            if isinstance(event, TrialStart):
                running.add(event.trial)
            elif isinstance(event, TrialEnd):
                running.remove(event.trial)
            assert len(running) <= 2
    finally:
        nodes.close()


SEND = """
import sys
from pathlib import Path
from ptal_ray.storage.folder import Folder
for file in Path(sys.argv[1]).iterdir():
    (Folder.parse(sys.argv[2]) / file.name).push(file)
"""


def test_nodes_that_share_no_files(tmp_path: Path) -> None:
    """Each node has files of its own and knows one object store; one of them is lost."""
    network, own = Network(2), tmp_path / "own"
    if not network.made:
        pytest.skip("network namespaces are not allowed here")
    own.mkdir()
    with ExitStack() as stack:
        stack.callback(network.close)
        shelf = stack.enter_context(object_store(tmp_path, network.host(0), network.inside(0)))
        where = f"s3://{BUCKET}"
        env = shelf.environment | {"PTAL_DATA": f"{where}/data", "PTAL_CACHE": str(own / "cache")}
        nodes = Nodes((1, 1), network, unshared=own, env=env)
        stack.callback(nodes.close)
        command = lay_out(
            own, "budget.max_steps=800", "final.seeds=1", "final.top=1", "budget.trials=2"
        )
        space = (own / "small.yaml").read_text()
        (own / "small.yaml").write_text(space.replace(str(own / "tiny"), "tiny"))
        send = [sys.executable, "-c", SEND, str(own / "tiny"), f"{where}/data/tiny"]
        assert nodes.run(send).returncode == 0
        shutil.rmtree(own / "tiny")
        options = ["--scheduler", "none", "--storage", f"{where}/studies"]
        search = nodes.popen([*command, *options, "--address", nodes.address], cwd=own)
        wait_for(own / "cache" / ".remote", both_report)
        nodes.kill(1)
        out, err = search.communicate(timeout=HANG_S)
        assert search.returncode == 0, err
        log = complete(own / "cache" / ".remote", 2)
        restarted = [e.from_step for e in log if isinstance(e, TrialStart)][2:]
        assert restarted and restarted[0] > 0, "its checkpoint came from the object store"
        assert json.loads(out)["storage"].startswith(f"{where}/studies")
