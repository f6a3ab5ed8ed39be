"""What every command has in common: its help is fast, because it imports nothing that is slow."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ptal_ray
from ptal_ray.__main__ import COMMANDS as WORDS
from ptal_ray.__main__ import main
from ptal_ray.data.datasets import DATASETS
from ptal_ray.space.space import load_space

ROOT = Path(ptal_ray.__file__).parent
COMMANDS = sorted(
    p.stem for p in ROOT.glob("*.py") if p.stem not in ("__init__", "__main__", "errors")
)
DATA = ("import", "validate", "points", "info", "simulate")
HELPS = [[f"ptal_ray.{name}"] for name in COMMANDS]
HELPS += [
    ["ptal_ray"],
    ["ptal_ray.benchmarks"],
    ["ptal_ray.data"],
    *(["ptal_ray.data", name] for name in DATA),
]
SLOW = ("torch", "ray", "mlflow", "optuna", "numba", "pyarrow", "matplotlib")
MOST_S = 0.5
MOST_LINES = 150
HELP = f"""
import json, runpy, sys, time
module, *words = sys.argv[1:]
sys.argv = [module, *words, "--help"]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
finally:
    print(json.dumps([[name for name in {SLOW!r} if name in sys.modules], time.process_time()]))
"""


def name(words: list[str]) -> str:
    return " ".join(words)


def helped(words: list[str]) -> tuple[str, list[str], float]:
    """The first line of a help text, the slow packages that it has imported, and its seconds of
    processor time, which do not grow where others use the machine."""
    done = subprocess.run([sys.executable, "-c", HELP, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    return first, *json.loads(last)


@pytest.mark.parametrize("words", HELPS, ids=name)
def test_help_is_fast_because_it_imports_nothing_slow(words):
    first, loaded, seconds = helped(words)
    assert first.startswith("usage: ")
    assert loaded == []
    assert seconds < MOST_S or any(helped(words)[2] < MOST_S for _ in range(2))


@pytest.mark.parametrize("command", ["__main__", *COMMANDS, "data/__main__"])
def test_a_command_is_short(command):
    lines = (ROOT / f"{command}.py").read_text().splitlines()
    assert len(lines) <= MOST_LINES


def test_ptal_runs_every_command(monkeypatch, capsys):
    assert sorted(WORDS) == sorted([*COMMANDS, "data", "benchmarks"])
    for word in WORDS:
        with pytest.raises(SystemExit) as leaving:
            main([word, "--help"])
        assert leaving.value.code == 0
        assert f"python -m ptal_ray.{word}" in capsys.readouterr().out
        assert f"  {word} " in main_help(capsys)


def main_help(capsys) -> str:
    with pytest.raises(SystemExit):
        main(["--help"])
    return capsys.readouterr().out


def test_help_shows_the_command_as_it_was_called(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/ptal", "search"])
    for word in WORDS:
        with pytest.raises(SystemExit):
            main([word, "--help"])
        assert capsys.readouterr().out.startswith(f"usage: ptal {word} ")


def test_an_unknown_command_is_named(capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["serach"])
    assert leaving.value.code == 2
    assert "'serach'" in capsys.readouterr().err


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working directory without studies, and a data directory with one store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PTAL_DATA", str(tmp_path / "data"))
    for name in ("mine", "thumos14"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "store.json").write_text("{}")
    return tmp_path


def study(place: Path, name: str, space: str, *events: dict[str, str]) -> None:
    folder = place / "studies" / name
    folder.mkdir(parents=True)
    plain = {"space_name": space, "space": {"method": "m", "dataset": "watch"}}
    (folder / "study.json").write_text(json.dumps(plain))
    if events:
        (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))


def listed(capsys) -> dict[str, object]:
    assert main(["list", "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_what_is_here(place, capsys):
    found = listed(capsys)
    assert {"name": "apn_watch", "method": "apn", "dataset": "watch"} in found["spaces"]
    assert found["datasets_present"] == ["watch", "thumos14", "mine"]
    assert found["datasets_missing"] == [n for n in DATASETS if n not in ("watch", "thumos14")]
    assert found["studies"] == []
    assert main([]) == 0
    text = capsys.readouterr().out
    assert "  present           watch thumos14 mine\n" in text
    assert f"Next\n  {found['next']}\n" in text
    # those present first, then by name
    assert re.search(r"^  apn: +thumos watch anet .* any$", text, re.MULTILINE)
    assert re.search(r"^  apl\.apl_bmn: +anet thumos any$", text, re.MULTILINE)
    assert {m["name"] for m in found["methods"]} == {s["method"] for s in found["spaces"]}
    assert all(m["title"] for m in found["methods"])
    assert "\n  lacp              LACP: learning action completeness" in text


STARTED = {"event": "trial_start", "trial": 0, "params": {}}


def test_the_next_command(place, capsys):
    spaces = listed(capsys)["spaces"]
    on_watch = [s["name"] for s in spaces if s["dataset"] == "watch"]
    budgets = {name: load_space(name).budget for name in on_watch}
    on_watch.sort(key=lambda name: budgets[name].max_steps * budgets[name].trials)
    assert on_watch[0] == "apn_watch"  # the first command of README.md
    assert listed(capsys)["next"] == "python -m ptal_ray.search METHOD --dataset mine"
    shutil.rmtree(place / "data" / "mine")
    assert listed(capsys)["next"] == f"python -m ptal_ray.search {on_watch[0]}"
    study(place, "a-1", on_watch[0], STARTED, {"event": "study_end", "state": "done"})
    assert listed(capsys)["next"] == f"python -m ptal_ray.search {on_watch[1]}"
    for name, events, state in (
        ("b-1", [], "not started"),
        ("b-2", [STARTED], "unfinished"),
        ("b-3", [{"event": "study_end", "state": "interrupted"}], "interrupted"),
    ):
        study(place, name, "apn_watch", *events)
        os.utime(place / "studies" / name / "study.json", (2e9 + int(name[-1]),) * 2)
        found = listed(capsys)
        assert found["studies"][0]["state"] == state
        assert found["next"] == f"python -m ptal_ray.search --resume {place}/studies/{name}"
    (place / "studies" / "other").mkdir()
    (place / "studies" / "other" / "study.json").write_text("{}")
    assert len(listed(capsys)["studies"]) == 4


def test_a_space_without_a_method_is_named(place, capsys):
    (place / "search_spaces").mkdir()
    (place / "search_spaces" / "broken.yaml").write_text("dataset: watch\n")
    assert main([]) == 2
    assert "search_spaces/broken.yaml: not a search space" in capsys.readouterr().err


def test_what_is_here_is_shown_fast(place):
    code = "import json, sys; from ptal_ray.__main__ import main; main([]); " + (
        f"print(json.dumps([name for name in {SLOW[:5]!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


@pytest.mark.parametrize("name, is_command", [("ptal", True), ("another", False)])
def test_signals_end_the_script_too(name, is_command, tmp_path):
    (tmp_path / name).write_text(
        "import signal\nfrom ptal_ray.process import interruption\n"
        "print(signal.getsignal(signal.SIGINT) is interruption._end)\n"
    )
    command = [sys.executable, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{is_command}\n"
