"""The files of clusters/, read by the parsers of the tools they are for; test_slurm.py runs two."""

from __future__ import annotations

import configparser
import copy
import itertools
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import click
import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli as ray_cli

from ptal_ray.space.space import load_space
from ptal_ray.study.flags import parse

ROOT = Path(__file__).parents[1]
CLUSTERS = ROOT / "clusters"
FILES = sorted(path for path in CLUSTERS.iterdir() if path.name != "README.md")
YAML = [path for path in FILES if path.suffix == ".yaml"]
SCRIPTS = [path for path in FILES if path.suffix == ".sh"]
LAUNCHER = [CLUSTERS / name for name in ("aws_gpu_spot.yaml", "gcp_gpu.yaml", "onprem.yaml")]
KUBERAY = [CLUSTERS / name for name in ("kuberay_cluster.yaml", "kuberay_job.yaml")]
COMPOSE = CLUSTERS / "mlflow_compose.yaml"
SECTIONS = ("Cost", "Change", "Data", "Secrets", "Start", "Submit", "Watch", "Tear down")
PINNED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
)
SECRET = re.compile(r"PASSWORD|SECRET_|ACCESS_KEY|ROOT_USER|AUTH_TOKEN$")
SHELLCHECK = Path(sys.prefix) / "bin" / "shellcheck"


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.name)


def header(path):
    """The comment at the top, without its signs, continued lines joined."""
    lines = path.read_text().splitlines()
    top = itertools.takewhile(lambda line: line.startswith("#"), lines)
    text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in top)
    return re.sub(r" *\\\n *", " ", text)


def documents(path):
    return list(yaml.safe_load_all(path.read_text()))


def strings(value):
    """Every string inside what YAML gave."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (found for item in value.items() for found in strings(item))
    elif isinstance(value, list | tuple):
        yield from (found for item in value for found in strings(item))


def items(value):
    """Every (key, value) of every mapping inside, and (name, value) of Kubernetes' lists."""
    if isinstance(value, dict):
        yield from value.items()
        if {"name", "value"} <= value.keys():
            yield value["name"], value["value"]
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            yield from items(inner)


def text(path):
    """All that the file says: header, and values or body."""
    body = re.sub(r"\A(#.*\n)+", "", path.read_text())
    if path.suffix == ".yaml":
        body = "\n".join(found for document in documents(path) for found in strings(document))
    return f"{header(path)}\n{body}"


def commands(source, start):
    """The commands that begin with the words `start`, as words, up to a sign of the shell."""
    for match in re.finditer(rf"(?<![-\w/.]){start} [^\n`;&|>]*", source):
        words = match[0].split(" #")[0]
        for quote in "\"'":  # a command inside quotation marks ends with them
            words = words.rstrip(quote) if words.count(quote) % 2 else words
        yield shlex.split(words)


def shellcheck(script, *options):
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    found = subprocess.run(
        [SHELLCHECK, "--shell=bash", *options, "-"], input=script, text=True, capture_output=True
    )
    assert found.returncode == 0, found.stdout + found.stderr


@each(FILES)
def test_the_header_says_what_it_costs_and_how_to_use_it(path):
    found = re.findall(r"^([A-Z][A-Za-z ]+): +\S", header(path), re.MULTILINE)
    assert [name for name in found if name in SECTIONS] == list(SECTIONS)
    assert re.search(r"rough\s+estimate\s+of\s+[A-Z]\w+\s+20\d\d", header(path))
    assert "ptal_ray.search" in header(path)
    assert max(map(len, path.read_text().splitlines()), default=0) < 130


@each(FILES)
def test_every_search_in_it_is_one_the_command_line_takes(path):
    found = list(commands(text(path), "python -m ptal_ray.search"))
    assert found
    for words in found:
        args = parse(words[3:])
        space = load_space(args.space, args.set, args.dataset)
        assert space.name == args.space


@each([*LAUNCHER, *SCRIPTS, KUBERAY[0]])
def test_every_ray_command_in_it_is_one_that_this_ray_takes(path):
    verbs = "|".join(sorted(ray_cli.commands.keys() - {"symmetric-run"}, key=len, reverse=True))
    source = header(path) if path in SCRIPTS else text(path)  # what scripts do is run below
    found = list(commands(source, rf"ray (?:{verbs})"))
    assert found
    for words in found:
        command, rest = ray_cli, words[1:]
        while isinstance(command, click.Group):
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context("ray", rest)


@each(FILES)
def test_versions_are_those_of_the_constraints(path):
    for name, version in re.findall(r"([\w-]+)(?:\[\w+\])?==([\w.]+)", text(path)):
        assert PINNED.get(name, version) == version
    for version in re.findall(r"(?:rayproject/ray|ptal-ray):([\d.]+)", path.read_text()):
        assert version == PINNED["ray"]
    for version in re.findall(r"ptal-mlflow:([\d.]+)", path.read_text()):
        assert version == PINNED["mlflow"]


@each(YAML)
def test_what_it_installs_is_pinned(path):
    bodies = [found for document in documents(path) for found in strings(document)]
    for body in bodies:
        for line in re.findall(r"pip install ([^\n;&]*)", body):
            assert "constraints.txt" in line
            for word in line.split():
                assert re.search(r"^-|constraints|ptal_ray|==", word) or word in PINNED, line


@each(FILES)
def test_it_holds_no_secret(path):
    body = path.read_text()
    assert not re.search(r"AKIA[0-9A-Z]{16}|-----BEGIN|://[^/\s:]+:(?!\$)[^@\s/]+@", body)
    pairs = []
    if path.suffix == ".yaml":
        pairs = [pair for document in documents(path) for pair in items(document)]
    elif path.suffix == ".sh":
        pairs = re.findall(r'^\s*(?:export )?(\w+)="?([^"\n]*)', body, re.MULTILINE)
    else:
        pairs = re.findall(r"(\w+)=(\S+)", body.partition("[Unit]")[2])
    for name, value in pairs:
        if SECRET.search(str(name)):
            assert str(value).startswith("${"), f"{path.name}: {name}"


@each(SCRIPTS)
def test_the_script_is_sound(path):
    shellcheck(path.read_text())


@each(LAUNCHER)
def test_the_launcher_takes_it(path):
    config = documents(path)[0]
    validate_config(prepare_config(config))
    wrong = copy.deepcopy(config) | {"idle_timeout": 5}
    with pytest.raises(ValidationError, match="idle_timeout"):
        validate_config(prepare_config(wrong))


@each(LAUNCHER)
def test_the_launcher_sets_up_the_project_its_data_and_its_token(path):
    config = documents(path)[0]
    setup = "\n".join(config["setup_commands"])
    for word in ("PTAL_DATA=", "MLFLOW_TRACKING_URI=", "RAY_AUTH_MODE=token", "constraints.txt"):
        assert word in setup
    head, worker = config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in head and ". ~/ptal_env;" in head
    assert "$RAY_HEAD_IP" in worker and ". ~/ptal_env;" in worker
    mounts = {Path(there).name: here for there, here in config["file_mounts"].items()}
    assert mounts == {"ptal_ray": ".", "auth_token": "~/.ray/auth_token"}
    assert config["idle_timeout_minutes"] > 0 and config["max_workers"] > 0


@each(LAUNCHER[:2])
def test_workers_in_a_cloud_are_spot_ones_with_a_gpu_and_the_head_is_not(path):
    config = documents(path)[0]
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    (worker,) = types.values()
    spot = re.compile("spot", re.IGNORECASE)
    assert not spot.search(str(head["node_config"])) and head["resources"] == {"CPU": 0}
    assert spot.search(str(worker["node_config"])) and worker["resources"]["GPU"] == 1
    assert worker["max_workers"] == config["max_workers"]


@each(LAUNCHER)
def test_commands_of_the_launcher_are_sound(path):
    for key, lines in documents(path)[0].items():
        if key.endswith("_commands"):
            for line in lines:
                shellcheck(line, "--exclude=SC1090,SC1091")  # sourced files lie on the nodes


def ray_cluster(path):
    """The RayClusterSpec in a manifest."""
    found = next(doc for doc in documents(path) if doc["apiVersion"] == "ray.io/v1")
    assert set(found["metadata"]) <= {"name", "generateName"}
    if found["kind"] == "RayJob":
        return found["spec"]["rayClusterSpec"]
    assert found["kind"] == "RayCluster"
    return found["spec"]


@each(KUBERAY)
def test_a_manifest_is_complete_and_consistent(path):
    spec = ray_cluster(path)
    assert spec["rayVersion"] == PINNED["ray"]
    assert spec["authOptions"] == {"mode": "token"}
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    assert len(groups) > 1
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert re.search(r":[\d.]+$", container["image"])
            resources = container["resources"]
            assert resources["requests"] == resources["limits"]
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            names = {variable["name"] for variable in container["env"]}
            assert {"PTAL_DATA", "MLFLOW_TRACKING_URI"} <= names
    for group in spec["workerGroupSpecs"]:
        assert group["groupName"]
        assert 0 < group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert limits["nvidia.com/gpu"] == "1"
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_the_standing_cluster_grows_and_shares_a_claimed_volume():
    claim, cluster = documents(KUBERAY[0])
    assert claim["kind"] == "PersistentVolumeClaim"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert cluster["spec"]["enableInTreeAutoscaling"] is True
    assert cluster["spec"]["autoscalerOptions"]["idleTimeoutSeconds"] > 0
    for path in KUBERAY:
        claims = {
            volume["persistentVolumeClaim"]["claimName"]
            for group in (
                ray_cluster(path)["headGroupSpec"],
                *ray_cluster(path)["workerGroupSpecs"],
            )
            for volume in group["template"]["spec"]["volumes"]
        }
        assert claims == {claim["metadata"]["name"]}


def test_the_job_ends_with_its_search():
    (job,) = documents(KUBERAY[1])
    spec = job["spec"]
    assert spec["entrypoint"].startswith("python -m ptal_ray.search ")
    assert "\n" not in spec["entrypoint"]
    assert spec["shutdownAfterJobFinishes"] is True and spec["ttlSecondsAfterFinished"] > 0
    assert spec["activeDeadlineSeconds"] > 0 and spec["backoffLimit"] == 0


def check_server_command(words, host):
    """`mlflow server ...` is one that this MLflow takes, with the one worker that is fastest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        from mlflow.cli import server

    assert [Path(words[0]).name, words[1]] == ["mlflow", "server"]
    params = server.make_context("server", words[2:]).params
    assert (params["host"], params["port"], params["workers"]) == (host, 5000, "1")


def test_the_compose_file_is_sound_and_reachable_from_this_machine_alone():
    (compose,) = documents(COMPOSE)
    services = compose["services"]
    assert set(services) == {"postgres", "minio", "bucket", "mlflow"}
    for service in services.values():
        assert re.search(r":\S*\d\.?\d\S*$", service["image"])
        assert all(re.match(r"127\.0\.0\.1:\d+:\d+$", port) for port in service.get("ports", ()))
        named = {volume.partition(":")[0] for volume in service.get("volumes", ())}
        assert named <= set(compose["volumes"])
        assert set(service.get("depends_on", ())) <= set(services)
        for other, condition in service.get("depends_on", {}).items():
            assert condition["condition"] != "service_healthy" or "healthcheck" in services[other]
    check_server_command(services["mlflow"]["command"].split(), "0.0.0.0")
    environment = services["mlflow"]["environment"]
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert all(isinstance(value, str) for value in environment.values())
    for variable in re.findall(r"(?<!\$)\$(.*)", COMPOSE.read_text()):
        assert re.match(r"\{\w+:\?|\$|\(", variable), variable


def test_commands_of_the_compose_file_are_sound():
    (compose,) = documents(COMPOSE)
    shellcheck(compose["services"]["bucket"]["command"][0].replace("$$", "$"))
    inline = compose["services"]["mlflow"]["build"]["dockerfile_inline"]
    assert re.match(r"FROM python:3\.11\.\d+-", inline)
    for line in re.findall(r"^RUN (.*)", inline, re.MULTILINE):
        shellcheck(line)


def test_the_unit_is_one_that_systemd_takes(tmp_path):
    path = CLUSTERS / "mlflow_server.service"
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str
    unit.read(path)
    assert unit.sections() == ["Unit", "Service", "Install"]
    service = unit["Service"]
    check_server_command(service["ExecStart"].split(), "127.0.0.1")
    assert "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false" in service["Environment"]
    assert service["EnvironmentFile"].startswith("/etc/")
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    program = service["ExecStart"].split()[0]
    here = tmp_path / path.name
    here.write_text(path.read_text().replace(program, sys.executable))
    subprocess.run(["systemd-analyze", "verify", "--man=no", here], check=True)
