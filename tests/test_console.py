"""Every command on the machine a user really has: no traceback, the right code, one clear line."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import HANG_S, make_store
from small_study import small_space
from synthetic_study import SyntheticStudy

import ptal_ray
from ptal_ray.backends.ray import cluster, private
from ptal_ray.backends.ray.address import given_address
from ptal_ray.backends.ray.scratch import LONGEST, socket_folder
from ptal_ray.errors import ConfigError
from ptal_ray.storage.user_directories import expanded, home

PACKAGE = Path(ptal_ray.__file__).parent
TRUTH = (
    '{"database": {"vidéo": {"duration": 10, "subset": "test", "annotations": '
    '[{"segment": [1, 3], "label": "Läufer 走"}]}}}'
)
PREDICTIONS = '{"results": {"vidéo": [{"segment": [1, 3], "label": "Läufer 走", "score": 1}]}}'
SIMULATE = "data simulate sim --annotations gt.json --out made/sim --workers 1 --dim 4 --stride-s 1"
COMMANDS = {  # exit code and what passes through the code of a command at the least cost
    "data info STORE": 0,
    "data validate STORE": 0,
    "data points STORE --out made/points.csv": 0,
    "data import new --features features --annotations gt.json --simulate-points uniform "
    "--fps 1 --stride 1 --out made/new": 3,  # the one video is of the test split
    SIMULATE: 0,
    "evaluate gt.json pred.json": 0,
    "search small.yaml --dry-run": 0,
    "train small.yaml --device nothing": 2,
    "ablate small.yaml --out made/ablation --variant wrong": 2,
    "report study --out made/reports": 0,
    "profile suppression --repeats 1": 0,
}
AS_JSON = (
    "data info STORE --json",
    "evaluate gt.json pred.json --json",
    "report study --out made/reports --json",
    "profile suppression --repeats 1 --json",
    "__main__ list --json",
)
NAMES = (
    "data", "evaluate", "extract", "predict", "search", "train", "ablate", "decode",
    "report", "profile",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a bit of everything, for any user to read."""
    folder = tmp_path_factory.mktemp("a b%20#é")
    store = make_store(folder / "STORE")
    (folder / "small.yaml").write_text(
        small_space().to_yaml().replace("dataset: tiny", f"dataset: '{store}'"), "utf-8"
    )
    (folder / "gt.json").write_text(TRUTH, "utf-8")
    (folder / "pred.json").write_text(PREDICTIONS, "utf-8")
    (folder / "features").mkdir()
    np.save(folder / "features" / "vidéo.npy", np.ones((10, 4), np.float32))
    study = SyntheticStudy(folder / "study")
    study.begin()
    study.trial(0)
    study.end()
    (folder / "made").mkdir(mode=0o777)
    (folder / "made").chmod(0o777)
    return folder


def started(folder: Path, command: str, *before: str, **options: object) -> subprocess.Popen[str]:
    module, *words = command.split()
    words = [str(folder / "STORE") if word == "STORE" else word for word in words]
    given: dict[str, str | None] = {"PYTHONPATH": str(PACKAGE.parent), "RAY_ADDRESS": None}
    given |= {"MLFLOW_TRACKING_URI": None, "PYTHONUNBUFFERED": None, "PYTHONDONTWRITEBYTECODE": "1"}
    given |= options.pop("env", {})  # type: ignore[arg-type]
    env = {k: v for k, v in (os.environ | given).items() if v is not None}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(
        [*before, sys.executable, "-m", f"ptal_ray.{module}", *words],
        cwd=folder, env=env, encoding="utf-8", errors="replace", **streams,  # type: ignore[call-overload]
    )  # fmt: skip


def check(folder: Path, command: str, code: int, *before: str, **options: object) -> str:
    """Runs a command to its end; returns what it said."""
    process = started(folder, command, *before, **options)
    out, err = process.communicate(timeout=120)
    return checked(command, code, (process.returncode, out, err))


def checked(command: str, code: int, ended: tuple[int, str, str]) -> str:
    """What a command said that ended with an exit code, on stdout and on stderr."""
    found, out, err = ended
    err = re.sub(r"(?m)^timing .*\n", "", err)  # what `profile` is at
    said = f"{command}: {found}\n{out}\n{err}"
    assert found == code, said
    assert "Traceback" not in err and "rror" not in err.replace("error: ", "", 1), said
    assert len(err.splitlines()) == (code != 0), said
    return f"{out}{err}"


ALL = """
import json, runpy, sys
from contextlib import redirect_stderr, redirect_stdout
from tempfile import TemporaryFile

def ended(words, out, err):
    sys.argv, code = words, 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            runpy.run_module(f"ptal_ray.{words[0]}", run_name="__main__", alter_sys=True)
        except SystemExit as left:
            code = left.code
    return [code, *(file.seek(0) or file.read() for file in (out, err))]

store, *commands = sys.argv[1:]
found = {}
for command in commands:
    words = [store if word == "STORE" else word for word in command.split()]
    with TemporaryFile("w+", encoding="utf-8") as out, TemporaryFile("w+", encoding="utf-8") as err:
        found[command] = ended(words, out, err)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def without_home(folder: Path) -> dict[str, tuple[int, str, str]]:
    """How each command ended for a user without a home, all in one process: imports are slow."""
    if os.getuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root becomes another user")
    rights = "+dac_read_search"  # Python itself may lie in the home of another user
    user = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"]
    user += ["--inh-caps", rights, "--ambient-caps", rights]
    env = os.environ | {"PTAL_DATA": str(folder), "PYTHONPATH": str(PACKAGE.parent)}
    env |= {"PYTHONDONTWRITEBYTECODE": "1"}
    for name in ("HOME", "XDG_CACHE_HOME", "RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        env.pop(name, None)
    done = subprocess.run(
        [*user, sys.executable, "-c", ALL, str(folder / "STORE"), *COMMANDS], cwd=folder,
        env=env, capture_output=True, encoding="utf-8", timeout=HANG_S,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    shutil.rmtree(folder / "made")
    (folder / "made").mkdir()
    (folder / "made").chmod(0o777)
    assert not (folder / "~").exists()
    found: dict[str, tuple[int, str, str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_a_user_without_a_home(without_home, command):
    checked(command, COMMANDS[command], without_home[command])


@pytest.mark.parametrize(
    ("command", "encoding"),
    [
        ("evaluate gt.json pred.json", "ascii"),
        ("evaluate gt.json pred.json", "latin-1"),
        ("report study --out made/r", "ascii"),
    ],
)
def test_a_terminal_that_does_not_show_everything(folder, command, encoding):
    env = {"PYTHONIOENCODING": encoding, "LC_ALL": "C", "PYTHONUTF8": "0"}
    said = check(folder, command, 0, env=env | {"PYTHONCOERCECLOCALE": "0"})
    if command.startswith("evaluate"):
        assert r"ufer \u8d70" in said


def test_a_file_that_the_locale_cannot_name(folder):
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = "data validate new --features features --annotations gt.json --fps 1 --stride 1"
    process = started(folder, f"{command} --simulate-points uniform", env=env)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (2, 3) and "Traceback" not in err


@pytest.mark.parametrize("buffered", [None, "1"])
def test_a_reader_that_goes(folder, buffered):
    env = {"PYTHONUNBUFFERED": buffered}
    both = ("evaluate gt.json pred.json", "data info STORE")  # a table, and lines
    for command in (*both, *AS_JSON) if buffered is None else both:
        said, code = unread(started(folder, command, env=env))
        assert code == 141 and "Traceback" not in said and "error" not in said, command
    with started(folder, "evaluate gone gone", env=env, stderr=subprocess.STDOUT) as process:
        assert process.stdout
        process.stdout.close()
    assert process.returncode in (3, 141)


def unread(process: subprocess.Popen[str]) -> tuple[str, int]:
    """What a command says on stderr, and its exit code, when nobody reads the rest."""
    with process:
        assert process.stdout and process.stderr
        process.stdout.close()
        said = process.stderr.read()
    return said, process.returncode


@pytest.mark.parametrize("name", NAMES)
def test_help_to_a_reader_that_goes(folder, name):
    assert unread(started(folder, f"{name} --help", env={"PYTHONIOENCODING": "ascii"})) == ("", 141)


def test_a_disk_without_room_for_the_output(folder):
    with open("/dev/full", "w") as full:
        process = started(folder, "evaluate gt.json pred.json", stdout=full)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "error: [Errno 28] No space left on device\n")


def test_an_output_that_is_closed(folder):
    command = ["sh", "-c", 'exec "$@" >&-', "sh"]
    check(folder, "evaluate gt.json pred.json", 0, *command)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_with_one_line(folder, number):
    process = started(folder, "profile evaluation --repeats 100000")
    assert process.stderr is not None
    assert process.stderr.readline().startswith("timing ")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted\n")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            "http://127.0.0.1:8265",
            "RAY_ADDRESS http://127.0.0.1:8265: this is the address of the dashboard",
        ),
        (
            "https://user:secret@host/",
            "RAY_ADDRESS https://host/: this is the address of the dashboard",
        ),
        ("ray://host:10001", "RAY_ADDRESS ray://host:10001: Ray Client cannot"),
        ("::1:6379", "write an IPv6 address in brackets"),
        ("host", "RAY_ADDRESS host: give host:port"),
        ("host:99999", "RAY_ADDRESS host:99999: give host:port"),
        ("host:²", "give host:port"),
        (" ", "RAY_ADDRESS ' ': give host:port"),
    ],
)
def test_an_address_that_no_cluster_has(monkeypatch, value, said):
    monkeypatch.setenv("RAY_ADDRESS", value)
    with pytest.raises(ConfigError) as error:
        given_address(None)
    assert said in str(error.value) and "secret" not in str(error.value)
    monkeypatch.delenv("RAY_ADDRESS")
    with pytest.raises(ConfigError, match="^--address "):
        given_address(value)


def test_no_address(monkeypatch):
    for value in ("", "local"):
        monkeypatch.setenv("RAY_ADDRESS", value)
        assert given_address(None) is None
    monkeypatch.setenv("RAY_ADDRESS", "host:1")
    assert given_address("local") is None
    assert given_address(None) == "host:1"
    assert given_address("[::1]:6379") == "[::1]:6379"


@pytest.mark.parametrize("found", ["127.0.0.1:9", "[::1]:9", "a..b:9", "garbage", ""])
def test_the_file_of_a_cluster_that_is_dead(monkeypatch, found):
    name = "get_ray_address_from_environment"
    monkeypatch.setattr(private.services, name, lambda address, folder: found)
    began = time.monotonic()
    with pytest.raises(ConfigError, match="^--address auto"):
        cluster._checked("auto")
    assert time.monotonic() - began < 10


def test_a_folder_for_sockets(tmp_path, monkeypatch):
    long = tmp_path / ("x" * LONGEST)
    long.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    for useless in (long, tmp_path / "file" / "x"):
        (tmp_path / "file").touch()
        monkeypatch.setenv("TMPDIR", str(useless))
        assert socket_folder() == Path("/tmp")
    monkeypatch.setenv("RAY_TMPDIR", "")
    assert socket_folder() == Path("/tmp")
    for useless, why in ((long, "too long"), (tmp_path / "file", "too long"), ("here", "absolute")):
        monkeypatch.setenv("RAY_TMPDIR", str(useless))
        with pytest.raises(ConfigError, match=f"^RAY_TMPDIR .*{why}.*at most {LONGEST} bytes"):
            socket_folder()


def test_a_home_that_is_unknown(monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    needed = "has no home directory; set PTAL_CACHE or HOME to a writable folder"
    with pytest.raises(ConfigError, match=needed):
        home("PTAL_CACHE")
    with pytest.raises(ConfigError, match="~/x: ~ has no home directory on this machine"):
        expanded("~/x")


def test_every_text_file_has_its_encoding():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                assert _names_encoding(node), f"{path}:{node.lineno}: name the encoding, utf-8"


def _names_encoding(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    named = {keyword.arg for keyword in call.keywords}
    if name == "write_text":
        return "encoding" in named
    if name == "read_text":
        return bool(call.args) or "encoding" in named
    modes = [a.value for a in call.args if isinstance(a, ast.Constant) and a.value in ("w", "a")]
    text = name in ("open", "fdopen") and (modes or "newline" in named)
    text = text or (name in ("run", "Popen") and "text" in named)
    return not text or "encoding" in named


def test_a_working_directory_that_was_removed_is_one_line(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f"rmdir {gone}; {sys.executable} -m ptal_ray.search --help"
    done = subprocess.run(
        ["sh", "-c", command], cwd=gone, env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    said = "error: the working directory was removed; cd to one that exists\n"
    assert (done.returncode, done.stderr, done.stdout) == (1, said, "")
