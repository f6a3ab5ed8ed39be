"""Documents agree with the files: every link leads somewhere, every folder says what lies in it."""

from __future__ import annotations

import argparse
import re
import subprocess
from pathlib import Path

import pytest

import ptal_ray
from ptal_ray.data.readers.flags import add_flags

PACKAGE = Path(ptal_ray.__file__).parent
ROOT = PACKAGE.parent
MOST_LINES = 150
FOLDERS = sorted(
    {p.parent for p in PACKAGE.rglob("*.py")}
    - {PACKAGE}
    - {PACKAGE / "video" / "encoders"}  # its files are in the table of video/
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def documents() -> list[Path]:
    """Every Markdown file of the repository but the changelog."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    found = [ROOT / name for name in listed if name != "CHANGELOG.md" and (ROOT / name).exists()]
    assert len(found) > 20
    return found


def anchors(document: Path) -> set[str]:
    """The names of its headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_test_that_a_document_names_exists():
    for document in documents():
        for file, name in re.findall(r"(test_\w+\.py)::(test_\w+)", document.read_text("utf-8")):
            code = (ROOT / "tests" / file).read_text()
            assert re.search(rf"^def {name}\(", code, re.MULTILINE), f"{document}: {file}::{name}"


@pytest.mark.parametrize("document", documents(), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(document):
    for target in LINK.findall(document.read_text("utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = document.parent / path if path else document
        assert there.exists(), f"{target} does not exist"
        assert not anchor or anchor in anchors(there), f"{target} is no heading"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_readme_of_a_folder_names_every_file(folder):
    text = (folder / "README.md").read_text("utf-8")
    rows = re.findall(r"^\|(.+?)\|(.+?)\|", text, re.MULTILINE)
    named = {name for row in rows for cell in row for name in re.findall(r"`([\w/]+\.py)`", cell)}
    own = {p.relative_to(folder).as_posix() for p in folder.glob("*.py")}
    if folder.name == "video":
        own |= {f"encoders/{p.name}" for p in folder.glob("encoders/*.py")}
    assert named == {name for name in own if not name.endswith("__init__.py")}


def test_the_readme_of_layouts_names_every_flag_of_a_layout():
    parser = argparse.ArgumentParser(add_help=False)
    add_flags(parser)
    named = set(re.findall(r"--[a-z-]+", (PACKAGE / "data/readers/README.md").read_text("utf-8")))
    flags = {flag for action in parser._actions for flag in action.option_strings}
    assert sorted(flags - named) == []


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= MOST_LINES


def test_the_index_of_reports_names_every_folder():
    text = (ROOT / "reports" / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (?:\[(\w+)\]\([^)]*\)|(\w+)) \|", text, re.MULTILINE)
    named = {first or second for first, second in rows} - {"folder"}
    assert named == {p.name for p in (ROOT / "reports").iterdir() if p.is_dir()}


def test_every_report_can_be_reached_from_the_index():
    reached, todo = set[Path](), [ROOT / "reports" / "README.md"]
    while todo:
        document = todo.pop()
        for target in LINK.findall(document.read_text("utf-8")):
            there = (document.parent / target.partition("#")[0]).resolve()
            if there.suffix == ".md" and there not in reached:
                reached.add(there)
                todo.append(there)
    reports = {p.resolve() for p in (ROOT / "reports").rglob("REPORT.md")}
    assert reports <= reached


def test_the_tests_of_the_first_page_are_those_of_ci():
    page = (ROOT / "README.md").read_text("utf-8")
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    commands = re.findall(r"^pytest .+$", script, re.MULTILINE)
    assert commands
    assert all(command in page for command in commands)
