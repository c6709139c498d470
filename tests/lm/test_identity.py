"""What a model's identity sees: every byte of every file that is loaded, hashed once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from dereason.content import KEPT_FROM, SETTLED, Repository, cache_dir, file_digest
from dereason.errors import DereasonError
from dereason.lm.local.model import ModelSettings, model_identity, repositories

BLOCK = bytes(range(256)) * 4096
"""1 MiB."""


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """An empty cache, and the sizes of the files whose bytes were read."""
    monkeypatch.setenv("DEREASON_CACHE", str(tmp_path / "cache"))
    sizes: list[int] = []
    whole = hashlib.file_digest

    def counted(handle: Any, name: str) -> Any:
        sizes.append(os.fstat(handle.fileno()).st_size)
        return whole(handle, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return sizes


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the files of the test had been lying there for a while."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + int(3 * SETTLED * 1e9))


def model_at(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(BLOCK * 20)
    return folder


def identity(folder: Path) -> str:
    return model_identity(ModelSettings(name=str(folder)))


def records() -> list[Path]:
    return sorted((cache_dir() / "digests").glob("*"))


def test_two_rows_of_an_embedding_are_seen(tmp_path: Path, hashed: list[int]) -> None:
    """A change of 4 KB anywhere in 20 MiB of weights, size and time as before."""
    folder = model_at(tmp_path / "m")
    weights = folder / "model.safetensors"
    seen = {identity(folder)}
    before = weights.stat()
    for at in (200_000, 10_000_000, 20 * len(BLOCK) - 5_000):
        with weights.open("r+b") as handle:
            handle.seek(at)
            handle.write(b"\x07" * 4096)
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
        seen.add(identity(folder))
    assert len(seen) == 4


@pytest.mark.parametrize(
    "name",
    [
        "merges.txt",
        "vocab.txt",
        "vocab.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "tokenizer.model",
        "tokenizer.model.v3",
        "spiece.model",
        "source.spm",
        "bpe.codes",
        "qwen.tiktoken",
        "generation_config.json",
        "chat_template.jinja",
        "additional_chat_templates/tool_use.jinja",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "a-file-of-a-tokenizer-to-come",
    ],
)
def test_every_file_that_can_decide_an_answer_is_in_the_identity(tmp_path: Path, hashed: list[int], name: str) -> None:
    folder = model_at(tmp_path / "m")
    seen = [identity(folder)]
    (folder / name).parent.mkdir(exist_ok=True)
    for text in ("one", "two"):
        (folder / name).write_text(text)
        seen.append(identity(folder))
    (folder / name).unlink()
    assert len(set(seen)) == 3
    assert identity(folder) == seen[0]


@pytest.mark.parametrize(
    "name",
    ["README.md", "LICENSE", "LICENSE.txt", ".gitattributes", "hand-off.json", "trainer_state.json", "optimizer.pt"],
)
def test_what_is_never_loaded_is_not(tmp_path: Path, hashed: list[int], name: str) -> None:
    folder = model_at(tmp_path / "m")
    before = identity(folder)
    (folder / name).write_text("x")
    assert identity(folder) == before


def test_weights_of_another_format_count_where_nothing_else_is_there(tmp_path: Path, hashed: list[int]) -> None:
    folder = model_at(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    before = identity(folder)
    (folder / "pytorch_model.bin").write_bytes(b"other")
    assert identity(folder) != before


def test_an_adapter_is_its_own_files_and_its_bases(tmp_path: Path, hashed: list[int]) -> None:
    base, adapter = model_at(tmp_path / "base"), tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    (adapter / "adapter_model.safetensors").write_bytes(b"a")
    seen = [identity(adapter)]
    (base / "merges.txt").write_text("x")
    seen.append(identity(adapter))
    (adapter / "adapter_model.safetensors").write_bytes(b"b")
    seen.append(identity(adapter))
    assert len(set(seen)) == 3


def test_content_decides_and_not_where_it_lies(tmp_path: Path, hashed: list[int]) -> None:
    folder = model_at(tmp_path / "m")
    shutil.copytree(folder, tmp_path / "elsewhere" / "m")
    assert identity(tmp_path / "elsewhere" / "m") == identity(folder)


@pytest.mark.usefixtures("later")
def test_large_files_are_read_once(tmp_path: Path, hashed: list[int]) -> None:
    folder = model_at(tmp_path / "m")
    first = identity(folder)
    assert max(hashed) == 20 * len(BLOCK)
    hashed.clear()
    assert identity(folder) == first
    assert max(hashed) < KEPT_FROM
    (tmp_path / "link").symlink_to(folder)  # as the hub's cache has it
    assert file_digest(tmp_path / "link" / "model.safetensors") == hashlib.sha256(BLOCK * 20).hexdigest()
    assert max(hashed) < KEPT_FROM


@pytest.mark.usefixtures("later")
def test_a_torn_record_is_not_believed(tmp_path: Path, hashed: list[int]) -> None:
    path = tmp_path / "weights"
    path.write_bytes(BLOCK * 2)
    right = file_digest(path)
    (record,) = records()
    whole = record.read_bytes()
    other = whole.replace(right.encode(), b"0" * 63)
    torn = [whole[:n] for n in range(0, len(whole), 7)]
    for broken in [*torn, b"\0" * len(whole), b"\xff\xfe", b"[]", b"1", b"null", b"{}", other]:
        record.write_bytes(broken)
        assert file_digest(path) == right
        assert records() == [record]
        assert record.read_bytes() == whole, "and it is mended"


def test_a_file_that_has_just_been_written_is_not_trusted_to_stay(
    tmp_path: Path, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write in the same tick of the clock leaves size and times as they were."""
    path = tmp_path / "weights"
    path.write_bytes(BLOCK)
    monkeypatch.setattr(time, "time_ns", lambda: path.stat().st_ctime_ns + 10**9)
    file_digest(path)
    assert records() == []


@pytest.mark.usefixtures("later")
def test_without_a_cache_that_can_be_written_every_call_reads(
    tmp_path: Path, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(BLOCK)
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("DEREASON_CACHE", str(tmp_path / "taken"))
    assert file_digest(path) == file_digest(path) == hashlib.sha256(BLOCK).hexdigest()
    assert len(hashed) == 2
    with pytest.raises(DereasonError, match="nowhere"):
        file_digest(tmp_path / "nowhere")


def test_the_commit_of_a_hub_model_is_the_one_that_was_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (found,) = repositories(ModelSettings(name="owner/name"))
    assert str(found) == "model owner/name@main"
    assert found.commit() is None
    ref = tmp_path / "models--owner--name" / "refs" / "main"
    ref.parent.mkdir(parents=True)
    for text, known in ((commit, commit), ("", None), ("torn\0", None)):
        ref.write_text(text)
        assert found.commit() == known
    assert Repository("dataset", "a/b", commit).commit() == commit
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base"}))
    assert [str(r) for r in repositories(ModelSettings(name=str(adapter)))] == ["model owner/base@main"]
    assert repositories(ModelSettings()) == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "base_model_name_or_path is None"),
        ('{"base_model_name_or_path": 3}', "base_model_name_or_path is 3"),
        ('{"base_model_name_or_path": "/nowhere"}', "there is no such model"),
        ('{"base_model_name_or_path": "owner/base", "revision": 1}', "revision is 1"),
    ],
)
def test_an_adapters_configuration_that_cannot_be_used_is_named(tmp_path: Path, config: str, message: str) -> None:
    (tmp_path / "adapter_config.json").write_text(config)
    with pytest.raises(DereasonError, match=message) as caught:
        identity(tmp_path)
    assert "adapter_config.json" in caught.value.cause


def test_adapters_in_a_circle_are_refused(tmp_path: Path) -> None:
    for name, base in (("a", "b"), ("b", "a"), ("c", "c")):
        (tmp_path / name).mkdir()
        config = {"base_model_name_or_path": str(tmp_path / base)}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(config))
    for name in "abc":
        with pytest.raises(DereasonError, match="leads back to the same folder"):
            identity(tmp_path / name)
