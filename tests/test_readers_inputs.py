"""Unusual inputs in released folders: each is an error in one line, or is read as it was meant."""

from __future__ import annotations

import json

import pytest
from released_folder import (
    SEGMENTS,
    annotations,
    database,
    features,
    refused,
    save,
    write,
)


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PTAL_DATA", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    (tmp_path / "release").mkdir()
    return tmp_path / "release"


LONG = "a" * 300


@pytest.mark.parametrize("layout", ["actionformer", "opentad", "lacp", "hrpro", "signals"])
def test_an_id_that_is_too_long_for_a_file_name_is_named(root, layout, capsys):
    videos = database(fps=10) | {
        LONG: {"subset": "training", "duration": 10.0, "annotations": annotations("a"), "fps": 10}
    }
    write(root / "gt_full.json", json.dumps({"database": videos}))
    for id in SEGMENTS:
        save(root / "features" / f"{id}.npy", features())
    message = refused(
        capsys, "--layout", layout, root, "--annotations", root / "gt_full.json", "--fps", 10,
        "--stride", 5, "--window", 5, "--point-kind", "centre",
    )  # fmt: skip
    assert "must not be longer than 200 bytes" in message
