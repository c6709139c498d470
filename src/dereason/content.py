"""What files and hub repositories hold, for keys and provenance: hashes of all bytes, kept, and commits."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from dereason.errors import DereasonError

KEPT_FROM = 1 << 20
"""Bytes from which on a file's hash is kept: a smaller file is hashed faster than its hash is looked up safely."""

SETTLED = 2.0
"""Seconds that a file must have stood unchanged before its hash is kept. A write that comes later in the same tick of
the clock leaves the same size and time, and file systems count time in up to two seconds."""


def cache_dir() -> Path:
    """What is made once and used ever after: ``$DEREASON_CACHE``, ``$XDG_CACHE_HOME/dereason`` or
    ``~/.cache/dereason``."""
    if root := os.environ.get("DEREASON_CACHE"):
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dereason"


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    That of a large file is kept in the user's cache directory by path, size and times: the second call reads no bytes
    of it. A record that is broken, or of another state of the file, is not used; where none can be written, the file
    is hashed every time.

    Raises:
        DereasonError: the file cannot be read.
    """
    try:
        path = path.resolve(strict=True)
        state = _state(path)
        if state["size"] < KEPT_FROM:
            return _hashed(path)
        record = cache_dir() / "digests" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
        if (known := _recorded(record, state)) is not None:
            return known
        begun = time.time_ns()
        found = _hashed(path)
        changed = max(state["modified"], state["status_changed"])
        if begun - changed > SETTLED * 1e9 and _state(path) == state:
            _record(record, state | {"sha256": found})
        return found
    except OSError as exc:
        raise DereasonError(f"{path}: cannot be read: {exc.strerror or exc}", "check the path") from exc


def files_digest(files: Sequence[Path], folder: Path) -> str:
    """One hash of several files: their names below a folder and all their bytes.

    Raises:
        DereasonError: a file cannot be read.
    """
    files = sorted(files)
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashing lets other threads run, and disks read several at once
        digests = list(pool.map(file_digest, files))
    named = [[file.relative_to(folder).as_posix(), digest] for file, digest in zip(files, digests, strict=True)]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def _hashed(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _state(path: Path) -> dict[str, int]:
    """What changes with a file's content. The status changes also where a copy brings its old time along."""
    found = path.stat()
    return {"size": found.st_size, "modified": found.st_mtime_ns, "status_changed": found.st_ctime_ns}


def _recorded(record: Path, state: dict[str, int]) -> str | None:
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
        found = str(kept.pop("sha256"))
    except (OSError, ValueError, AttributeError, KeyError, TypeError):  # none yet, or torn
        return None
    return found if kept == state and re.fullmatch("[0-9a-f]{64}", found) else None


_found: dict[str, dict[str, Any] | None] = {}


def remembered(key: str, look: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
    """What was found once under a key, in this process or before, and else what is looked up now, and kept.

    Args:
        key: all that decides it but the versions of this package and of those that look: they are added.
        look: finds it; JSON, None where there is nothing to find, which is kept as well.
    """
    versions = []
    for package in ("dereason", "torch", "transformers"):
        with contextlib.suppress(PackageNotFoundError):
            versions.append(version(package))
    digest = hashlib.sha256(f"{versions} {key}".encode(errors="replace")).hexdigest()[:32]
    if digest not in _found:
        file = cache_dir() / "found" / f"{digest}.json"
        try:
            _found[digest] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none yet, or torn
            _found[digest] = look()
            _record(file, _found[digest])
    return _found[digest]


def _record(record: Path, value: dict[str, Any] | None) -> None:
    """Keep a record by atomic rename; a cache that cannot be written is no error."""
    with contextlib.suppress(OSError):
        record.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=record.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(value, file)
            os.replace(part, record)
        finally:
            Path(part).unlink(missing_ok=True)


@dataclass(frozen=True)
class Repository:
    """What a step reads from the Hugging Face hub.

    Attributes:
        kind: what it is.
        name: its id.
        revision: the commit, tag or branch that was asked for.
    """

    kind: Literal["model", "dataset"]
    name: str
    revision: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}@{self.revision}"

    def commit(self) -> str | None:
        """The commit that this machine last loaded for the revision; None where it never has. Asks no network."""
        if re.fullmatch("[0-9a-f]{40}", self.revision):
            return self.revision
        from huggingface_hub.constants import HF_HUB_CACHE
        from huggingface_hub.file_download import repo_folder_name

        # the layout of the hub's cache is documented: a branch or tag is a file that holds its commit
        ref = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=self.name, repo_type=self.kind) / "refs" / self.revision
        try:
            found = ref.read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
        return found if re.fullmatch("[0-9a-f]{40}", found) else None
