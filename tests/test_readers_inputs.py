"""Unusual inputs in released folders: each is an error in one line, or is read as it was meant."""

from __future__ import annotations

import json

import pytest
from released_folder import (
    SEGMENTS,
    annotations,
    database,
    features,
    imported,
    refused,
    save,
    write,
)

pytestmark = pytest.mark.usefixtures("data_folder")


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


def transcripts(root, names=("rest", "open")):
    """One training and one test video of ten frames of each label of `names`."""
    write(root / "mapping.txt", "".join(f"{n} {name}\n" for n, name in enumerate(names)))
    for split, id in (("train", "a"), ("test", "b")):
        write(root / "splits" / f"{split}.split1.bundle", f"{id}.txt\n")
        write(root / "groundTruth" / f"{id}.txt", "".join(f"{name}\n" * 10 for name in names))
        save(root / "features" / f"{id}.npy", features(4, 10 * len(names)))
    return ["--layout", "mstcn", root, "--fps", 10, "--simulate-points", "centre"]


def test_an_empty_line_in_a_transcript_is_no_frame_to_skip(root, capsys):
    words = transcripts(root)
    lines = ["rest"] * 10 + ["open"] * 10
    write(root / "groundTruth" / "a.txt", "\n".join([*lines, "", ""]))  # at the end it is harmless
    imported(*words)
    lines[4] = " "
    write(root / "groundTruth" / "a.txt", "\n".join(lines))
    assert "a.txt:5: an empty line; each line is a frame" in refused(capsys, *words)


def test_background_labels_are_those_of_the_mapping(root, capsys):
    words = transcripts(root)
    message = refused(capsys, *words, "--background", "Rest")
    assert "mapping.txt: has no label 'Rest' of --background; did you mean 'rest'?" in message
    assert imported(*words, "--background", " rest ,").info.classes == ("open",)
