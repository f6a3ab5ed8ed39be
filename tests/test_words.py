"""Words of messages: numbers and nouns, and the two ways to write the id of a video."""

from __future__ import annotations

import pytest

from ptal_ray.data.video_ids import bare, same_id, spellings
from ptal_ray.process.words import counted


@pytest.mark.parametrize(
    ("number", "noun", "plural", "wanted"),
    [(0, "video", "", "0 videos"), (1, "video", "", "1 video"), (2, "video", "", "2 videos"),
     (1, "class", "classes", "1 class"), (3, "class", "classes", "3 classes")],
)  # fmt: skip
def test_a_noun_follows_its_number(number: int, noun: str, plural: str, wanted: str) -> None:
    assert counted(number, noun, plural) == wanted


def test_ids_with_and_without_v() -> None:
    assert [same_id(id, {"v_a", "b"}) for id in ("a", "v_a", "b", "v_b", "c")] == [
        "v_a", "v_a", "b", "b", None
    ]  # fmt: skip
    assert same_id("v_a", {"a", "v_a"}) == "v_a"  # as it is given first
    assert (bare("v_a"), bare("a")) == ("a", "a")
    assert set(spellings("v_a")) >= {"a", "v_a"} and set(spellings("a")) == {"a", "v_a"}
