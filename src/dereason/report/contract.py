"""Reading the JSON files that a page is made from: their version and their keys, checked before anything is drawn."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dereason.errors import DereasonError


def read_json(path: Path, version: int, again: str, newer: str) -> dict[str, Any]:
    """A JSON object of the schema version that this package reads.

    Args:
        path: the file.
        version: its schema version.
        again: the mend where the file is missing or broken.
        newer: the mend where it has another version.

    Raises:
        DereasonError: the file is missing, no JSON, or of another version.
    """
    if not path.is_file():
        raise DereasonError(f"{path}: no such file", again)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise DereasonError(f"{path}: not readable as JSON ({exc})", again) from exc
    found = value.get("schema_version") if isinstance(value, dict) else None
    if found != version:
        raise DereasonError(f"{path}: schema_version is {found!r}, this version of dereason reads {version}", newer)
    return dict(value)


def need(path: Path, where: str, value: Any, keys: Iterable[str], again: str) -> None:
    """Refuse an object that lacks a key.

    Args:
        path: the file.
        where: the object's place in it.
        value: the object.
        keys: what it must have.
        again: the mend.

    Raises:
        DereasonError: a key is missing, or it is no object.
    """
    missing = [key for key in keys if key not in value] if isinstance(value, dict) else list(keys)
    if missing:
        raise DereasonError(f"{path}: {where} has no {', '.join(missing)}", again)
