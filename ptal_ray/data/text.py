"""Class names as frozen text embeddings: wordllama, CLIP, or a matrix of the user."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.features.feature_file import UNREADABLE
from ptal_ray.data.new_videos import NewVideos
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError, DataError
from ptal_ray.storage.user_directories import expanded
from ptal_ray.storage.whole import whole

Embeddings = NDArray[np.float32]

PROMPTS = (
    "a video of {}",
    "a person is {}",
    "the man in the scene is {}",
    "this clip shows {}",
    "someone performing {}",
    "the action of {}",
    "human activity: {}",
    "footage of {}",
)

RANDOM_DIM = 256  # as wordllama
ALLOWED = "allowed: wordllama, open_clip:<model>:<weights file>, a .npy file of shape (C, d)"

_SEPARATORS = re.compile(r"[\s_\-/]+")
_WORD_STARTS = re.compile(
    r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])"  # CricketBowling, 50Salads, but not 3D
    r"|(?<=[a-z]{2})(?=[0-9])"  # take2, but not 4x100m
    r"|(?<=[A-Z])(?=[A-Z][a-z])"  # BMXRace
)
_log = logging.getLogger(__name__)


def words(name: str) -> str:
    """A class name as lower-case words: "CricketBowling" and "cricket_bowling" read alike."""
    parts = (_WORD_STARTS.sub(" ", part) for part in _SEPARATORS.split(name))
    return " ".join(part for part in parts if part).lower()


def class_embeddings(store: FeatureStore, encoder: str) -> Embeddings:
    """One frozen text embedding a class: the mean over `PROMPTS` of normalised sentences.

    Computed once; later calls read the file the first one left in the directory of the store.

    Args:
        store: its class names are embedded, in label order; new videos bring the embeddings that
            their model was trained with.
        encoder: "wordllama", "open_clip:<model>:<weights file>", or the path of a .npy file with
            one row a class, which is used as it is.

    Returns:
        (C, d_text) float32.

    Raises:
        ConfigError: unknown encoder, or CLIP without its package or weights.
        DataError: a .npy file that is no finite (C, d) matrix.

    Source: APN section 3.4 (class embeddings from prompts); all prompts but the third are ours.
    """
    if isinstance(store, NewVideos):
        return store.embeddings[encoder]
    classes = store.info.classes
    if encoder.endswith(".npy"):
        return _read_matrix(expanded(encoder), len(classes))
    embed = _sentence_encoder(encoder)
    path = _kept(store, encoder)
    if path.exists():
        return _read_matrix(path, len(classes))
    result = _average_prompts(embed, classes)
    _keep(path, result)
    return result


def keep_random_embeddings(store: FeatureStore, encoder: str) -> None:
    """Makes `class_embeddings` of an encoder return random ones: times need neither it nor names.

    Args:
        store: gets a file, unless it cannot be written to.
        encoder: as for `class_embeddings`; nothing happens for a .npy file, which is read anyway.
    """
    shape = (store.info.num_classes, RANDOM_DIM)
    if not encoder.endswith(".npy"):
        _keep(_kept(store, encoder), np.random.default_rng(0).standard_normal(shape, np.float32))


def check_encoder(store: FeatureStore, encoder: str) -> None:
    """Says whether `class_embeddings` can work, without loading a model.

    Raises:
        ConfigError: unknown encoder, or CLIP without its package or weights.
        DataError: a .npy file that is no finite (C, d) matrix.
    """
    if encoder.endswith(".npy"):
        _read_matrix(Path(encoder).expanduser(), len(store.info.classes))
        return
    _sentence_encoder(encoder)
    package = encoder.partition(":")[0]
    kept = _kept(store, encoder)
    if not kept.exists() and package not in sys.modules and find_spec(package) is None:
        raise _not_installed(package)


def _not_installed(package: str) -> ConfigError:
    name, other = {
        "open_clip": ("open_clip_torch", "wordllama"), "wordllama": ("wordllama", "a .npy file")
    }[package]  # fmt: skip
    return ConfigError(
        f"text encoder {package} is not installed; pip install {name}, or use {other}"
    )


def _average_prompts(embed: Callable[[list[str]], Embeddings], names: Sequence[str]) -> Embeddings:
    sentences = [prompt.format(words(name)) for name in names for prompt in PROMPTS]
    each = embed(sentences)
    each = each / np.linalg.norm(each, axis=1, keepdims=True)
    mean: Embeddings = each.reshape(len(names), len(PROMPTS), -1).mean(axis=1).astype(np.float32)
    return mean


def _sentence_encoder(encoder: str) -> Callable[[list[str]], Embeddings]:
    """The function from S sentences to (S, d_text); loads nothing before it is called."""
    if encoder == "wordllama":
        return _embed_wordllama
    if not encoder.startswith("open_clip:"):
        raise ConfigError(f"text encoder {encoder!r} is unknown; {ALLOWED}")
    _, model, weights = (*encoder.split(":", 2), "", "")[:3]
    if not model or not expanded(weights).is_file():
        raise ConfigError(
            f"text encoder {encoder!r}: no weights file {weights!r}; use "
            "open_clip:<model>:<weights file>, e.g. open_clip:ViT-B-32:/data/vit_b_32.pt"
        )
    return lambda sentences: _embed_open_clip(model, expanded(weights), sentences)


def _embed_wordllama(sentences: list[str]) -> Embeddings:
    with _root_logger_kept():
        try:
            import wordllama
        except ImportError as error:
            raise _not_installed("wordllama") from error
    package = Path(wordllama.__file__).parent  # the wheel ships 256-d weights and a tokenizer
    model = wordllama.WordLlama.load(cache_dir=package, disable_download=True)
    return np.asarray(model.embed(sentences, norm=True), np.float32)


def _embed_open_clip(model_name: str, weights: Path, sentences: list[str]) -> Embeddings:
    try:
        import open_clip
    except ImportError as error:
        raise _not_installed("open_clip") from error
    import torch

    known = open_clip.list_models()
    if model_name not in known:
        near = ", ".join(get_close_matches(model_name, known, n=3, cutoff=0.0))
        raise ConfigError(f"text encoder: open_clip has no model {model_name!r}; nearest: {near}")
    model = open_clip.create_model(model_name, pretrained=str(weights)).eval()
    tokenize = open_clip.get_tokenizer(model_name)
    with torch.no_grad():
        chunks = [
            model.encode_text(tokenize(sentences[first : first + 64])).float()
            for first in range(0, len(sentences), 64)
        ]
    return np.asarray(torch.cat(chunks).numpy(), np.float32)


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """wordllama calls logging.basicConfig on import, which would make every library chatty."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _read_matrix(path: Path, num_classes: int) -> Embeddings:
    if not path.is_file():
        raise DataError(f"text embeddings {path}: no such file; expected ({num_classes}, d) floats")
    try:
        matrix: NDArray[Any] = np.load(path, allow_pickle=False)
    except UNREADABLE as error:
        raise DataError(f"text embeddings {path}: not a .npy file of numbers ({error})") from error
    if matrix.ndim != 2 or len(matrix) != num_classes or matrix.shape[1] == 0:
        raise DataError(
            f"text embeddings {path}: shape {matrix.shape}, expected ({num_classes}, d): "
            "one row per class of the store, in label order"
        )
    if matrix.dtype.kind not in "fiu" or not np.isfinite(matrix).all():
        raise DataError(f"text embeddings {path}: {matrix.dtype}; must be finite numbers")
    return matrix.astype(np.float32)


def _kept(store: FeatureStore, encoder: str) -> Path:
    """Where the embeddings of an encoder are kept."""
    return store.path / f"text_{_key(encoder, store.info.classes)}.npy"


def _key(encoder: str, classes: Sequence[str]) -> str:
    content = json.dumps([encoder, PROMPTS, [words(name) for name in classes]])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _keep(path: Path, embeddings: Embeddings) -> None:
    """A store that cannot be written to stays as it is."""
    try:
        with whole(path) as beside, beside.open("wb") as file:
            np.save(file, embeddings)
    except OSError as error:
        _log.debug("class embeddings are not cached in %s: %s", path.parent, error)
