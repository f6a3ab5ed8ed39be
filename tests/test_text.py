"""Class names as words and as text embeddings, cached beside the store."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ptal_ray.data import text
from ptal_ray.data.text import PROMPTS, class_embeddings, words
from ptal_ray.errors import ConfigError, DataError

CLASSES = ("CricketBowling", "Drinking beer", "pick-up_plug")


def fake_store(path: Path, classes: tuple[str, ...] = CLASSES) -> Any:
    return SimpleNamespace(path=path, info=SimpleNamespace(classes=classes))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CricketBowling", "cricket bowling"),
        ("Drinking beer", "drinking beer"),
        ("pick-up_plug", "pick up plug"),
        ("switch-on_socket", "switch on socket"),
        ("BMX", "bmx"),
        ("BMXRace", "bmx race"),
        ("CleanAndJerk", "clean and jerk"),
        ("take2", "take 2"),
        ("50Salads", "50 salads"),
        ("4x100m", "4x100m"),
        ("watching 3D film", "watching 3d film"),
        ("__put  down-", "put down"),
        ("on/off", "on off"),
    ],
)
def test_class_names_become_words(name: str, expected: str) -> None:
    assert words(name) == expected


def test_prompts_have_one_place_for_the_words() -> None:
    assert len(PROMPTS) == 8 == len(set(PROMPTS))
    assert all(prompt.count("{}") == 1 for prompt in PROMPTS)


def test_wordllama_embeds_offline_and_similar_names_alike(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ("CricketBowling", "CricketShot", "washing_dishes"))
    root_before = (logging.getLogger().handlers[:], logging.getLogger().level)
    embedding = class_embeddings(store, "wordllama")
    assert embedding.shape == (3, 256) and embedding.dtype == np.float32
    norm = np.linalg.norm(embedding, axis=1)
    assert (norm > 0.3).all() and (norm <= 1 + 1e-6).all()  # a mean of unit vectors
    unit = embedding / norm[:, None]
    assert unit[0] @ unit[1] > unit[0] @ unit[2] + 0.1
    assert (logging.getLogger().handlers[:], logging.getLogger().level) == root_before


def count_sentences(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def embed(sentences: list[str]) -> np.ndarray:
        asked.extend(sentences)
        return np.random.default_rng(0).normal(size=(len(sentences), 5)).astype(np.float32)

    monkeypatch.setattr(text, "_embed_wordllama", embed)
    return asked


def test_each_sentence_is_normalised_before_the_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = count_sentences(monkeypatch)
    embedding = class_embeddings(fake_store(tmp_path), "wordllama")
    assert asked[8:10] == ["a video of drinking beer", "a person is drinking beer"]
    raw = np.random.default_rng(0).normal(size=(24, 5))
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(embedding, unit.reshape(3, 8, 5).mean(axis=1), rtol=1e-5)


def test_the_second_call_reads_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = count_sentences(monkeypatch)
    first = class_embeddings(fake_store(tmp_path), "wordllama")
    second = class_embeddings(fake_store(tmp_path), "wordllama")
    np.testing.assert_array_equal(first, second)
    assert len(asked) == 24
    class_embeddings(fake_store(tmp_path, CLASSES[::-1]), "wordllama")
    assert len(asked) == 48, "other classes, or another order, are another file"
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".npy", ".npy"]


@pytest.mark.parametrize("broken", ["open", "replace"])
def test_a_read_only_store_is_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError("read-only file system")

    count_sentences(monkeypatch)
    store = fake_store(tmp_path)
    monkeypatch.setattr(Path if broken == "open" else os, broken, refuse)
    with caplog.at_level(logging.DEBUG, logger="ptal_ray.data.text"):
        assert class_embeddings(store, "wordllama").shape == (3, 5)
    assert "not cached" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_matrix_of_the_user_is_taken_as_it_is(tmp_path: Path) -> None:
    matrix = np.arange(12.0).reshape(3, 4)
    np.save(tmp_path / "own.npy", matrix)
    embedding = class_embeddings(fake_store(tmp_path), str(tmp_path / "own.npy"))
    np.testing.assert_array_equal(embedding, matrix)
    assert embedding.dtype == np.float32


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((2, 4)), r"shape \(2, 4\), expected \(3, d\)"),
        (np.zeros(3), r"shape \(3,\), expected \(3, d\)"),
        (np.full((3, 4), np.nan), "float64; must be finite numbers"),
        (np.array([["a"]] * 3), "<U1; must be finite numbers"),
        (np.array([[None]] * 3), "not a .npy file of numbers"),
    ],
)
def test_a_wrong_matrix_is_a_data_error(tmp_path: Path, matrix: np.ndarray, message: str) -> None:
    np.save(tmp_path / "own.npy", matrix)
    with pytest.raises(DataError, match=message):
        class_embeddings(fake_store(tmp_path), str(tmp_path / "own.npy"))


def test_a_missing_or_foreign_matrix_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        class_embeddings(fake_store(tmp_path), str(tmp_path / "none.npy"))
    (tmp_path / "text.npy").write_text("not an array")
    with pytest.raises(DataError, match="not a .npy file"):
        class_embeddings(fake_store(tmp_path), str(tmp_path / "text.npy"))


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("wordlama", "unknown; allowed: wordllama, open_clip:<model>:<weights file>"),
        ("open_clip:ViT-B-32", "no weights file ''"),
        ("open_clip:ViT-B-32:/nowhere/w.pt", "no weights file '/nowhere/w.pt'"),
    ],
)
def test_an_unknown_encoder_is_a_config_error(tmp_path: Path, encoder: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        class_embeddings(fake_store(tmp_path), encoder)


def test_clip_without_its_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.pt").touch()
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ConfigError, match="pip install open_clip_torch"):
        class_embeddings(fake_store(tmp_path), f"open_clip:ViT-B-32:{tmp_path / 'w.pt'}")


class FakeClip(ModuleType):
    """The four names of open_clip in use; a sentence's embedding is (length, 1)."""

    def __init__(self) -> None:
        super().__init__("open_clip")
        self.loaded: list[tuple[str, str]] = []

    def list_models(self) -> list[str]:
        return ["ViT-B-32", "RN50"]

    def create_model(self, name: str, pretrained: str) -> Any:
        self.loaded.append((name, pretrained))
        model = SimpleNamespace(encode_text=lambda tokens: torch.stack(tokens))
        model.eval = lambda: model
        return model

    def get_tokenizer(self, _name: str) -> Any:
        return lambda sentences: [torch.tensor([float(len(s)), 1.0]) for s in sentences]


def test_clip_encodes_the_prompts_with_the_weights_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = FakeClip()
    monkeypatch.setitem(sys.modules, "open_clip", clip)
    (tmp_path / "w.pt").touch()
    store = fake_store(tmp_path, tuple(f"class {i}" for i in range(20)))  # 160 sentences: 3 chunks
    embedding = class_embeddings(store, f"open_clip:ViT-B-32:{tmp_path / 'w.pt'}")
    assert clip.loaded == [("ViT-B-32", str(tmp_path / "w.pt"))]
    raw = np.array([[len(p.format("class 3")), 1.0] for p in PROMPTS])
    expected = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(embedding[3], expected, rtol=1e-6)
    with pytest.raises(ConfigError, match="no model 'ViT-B-23'; nearest: ViT-B-32"):
        class_embeddings(store, f"open_clip:ViT-B-23:{tmp_path / 'w.pt'}")
