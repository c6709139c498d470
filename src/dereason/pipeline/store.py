"""The run directory: content-addressed steps, atomic outputs, one writer at a time, a structured log.

    runs/NAME/recipe.yaml  manifest.json  log.jsonl  summary.json  report.html
    runs/NAME/steps/<kind>-<key>/...  step.json        finished
    runs/NAME/steps/<kind>-<key>.partial/...           under way, or interrupted: continued by the next run

A step's key hashes its configuration, the keys of its inputs and the source code of the rooms that it runs,
so arms that share a prefix share the steps. A step works in its ``.partial`` folder; ``step.json`` is written
there last and the folder is then renamed: a folder without ``.partial`` is whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from dereason.content import Repository
from dereason.errors import DereasonError
from dereason.pipeline.environment import made_with

Info = dict[str, Any]

BEGUN = "begun.json"
"""File in a step's folder until it is finished: what it was begun with, as ``made_with`` of ``step.json``."""


def digest(value: Any) -> str:
    """Twelve hex digits of the SHA-256 of a JSON value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def code_version(rooms: tuple[str, ...]) -> str:
    """Hash of the source text of these rooms (or single files): a changed rule makes a new step."""
    root = Path(str(resources.files("dereason")))
    hasher = hashlib.sha256()
    for room in rooms:
        path = root / room
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            hasher.update(file.read_bytes())
    return hasher.hexdigest()[:12]


@dataclass(frozen=True, eq=False)
class Step:
    """One unit of work. Steps of one key do the same work; compare those.

    Attributes:
        kind: what it does: ``judge``, ``train-sft``, ``eval``, ...
        config: everything that decides its output besides its inputs.
        inputs: the steps whose outputs it reads, by role.
        rooms: whose source code its key covers.
        label: a few words for people.
        action: does the work: ``action(folder, inputs' folders) -> info``, info lands in ``step.json``.
        repositories: what it may load from the hub; its record names their commits.
        noted: settings outside the key that its record names, because its numbers depend on them by rounding.
        key: content address, twelve hex digits; found once, from the keys of the inputs.
    """

    kind: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Step] = field(repr=False)
    rooms: tuple[str, ...]
    label: str
    action: Callable[[Path, dict[str, Path]], Info]
    repositories: tuple[Repository, ...] = ()
    noted: Mapping[str, str] = field(default_factory=dict)
    key: str = field(init=False)

    def __post_init__(self) -> None:
        key = digest(
            {
                "kind": self.kind,
                "config": dict(self.config),
                "inputs": {role: step.key for role, step in self.inputs.items()},
                "code": code_version(("settings.py", "pipeline/actions.py", *self.rooms)),
            }
        )
        object.__setattr__(self, "key", key)

    def made_with(self) -> dict[str, str]:
        """What it would be made with now: for ``made_with`` of its record."""
        return {**made_with(self.repositories), **self.noted}

    @property
    def folder(self) -> str:
        """Name of its folder under ``steps/``."""
        return f"{self.kind}-{self.key}"


def write_json(path: Path, value: Any) -> None:
    """Write JSON by atomic rename."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as handle:
        json.dump(value, handle, indent=2, ensure_ascii=False, default=str)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        DereasonError: missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise DereasonError(f"{path}: cannot be read as JSON: {exc}", "run the recipe again") from exc


class Log:
    """``log.jsonl``: one event a line, appended at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def event(self, name: str, **fields: Any) -> None:
        """Append an event with the time (UTC)."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps({"time": now, "event": name, **fields}, default=str) + "\n")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel releases it when the process ends, however it ends.

    Raises:
        DereasonError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            handle.seek(0)
            owner = handle.read().strip() or "another process"
            raise DereasonError(
                f"{folder} is in use by process {owner}",
                "wait for it, stop it, or choose another run directory",
            ) from exc
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def finished(folder: Path) -> Info | None:
    """``step.json`` of a finished step, None where the step is not finished."""
    path = folder / "step.json"
    return read_json(path) if path.is_file() else None


def begun_with(work: Path) -> dict[str, str] | None:
    """What an unfinished step was begun with, None where it was not or nothing readable says so."""
    try:
        found = json.loads((work / BEGUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def execute(folder: Path, step: Step, inputs: dict[str, Path], log: Log) -> tuple[Info, bool]:
    """Run a step unless it is finished.

    Args:
        folder: where its outputs go.
        step: the step.
        inputs: folders of its inputs, by role.
        log: told of start and end.

    Returns:
        ``step.json`` and whether it was there already.
    """
    done = finished(folder)
    if done is not None:
        log.event("step-cached", kind=step.kind, key=step.key, label=step.label)
        return done, True
    work = folder.with_name(folder.name + ".partial")
    resumed = work.is_dir() and any(p.name not in ("key", BEGUN) for p in work.iterdir())
    work.mkdir(parents=True, exist_ok=True)
    if (begun := begun_with(work)) is None:
        write_json(work / BEGUN, begun := step.made_with())
    before = _seconds_so_far(work)
    log.event("step-start", kind=step.kind, key=step.key, label=step.label, resumed=resumed)
    started = time.monotonic()
    try:
        outcome = step.action(work, inputs)
    except BaseException as exc:
        (work / "seconds").write_text(repr(before + time.monotonic() - started))
        log.event("step-failed", kind=step.kind, key=step.key, cause=f"{type(exc).__name__}: {exc}"[:500])
        raise
    (work / "seconds").unlink(missing_ok=True)
    (work / BEGUN).unlink(missing_ok=True)
    made = step.made_with()
    info: Info = {
        "kind": step.kind,
        "key": step.key,
        "label": step.label,
        "config": dict(step.config),
        "inputs": {role: s.folder for role, s in step.inputs.items()},
        "seconds": round(before + time.monotonic() - started, 3),
        "resumed": resumed,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "made_with": made,
        "begun_with": {what: then for what, then in begun.items() if made.get(what, then) != then},
        "info": outcome,
    }
    write_json(work / "step.json", info)
    work.rename(folder)
    judged = {"confusion": outcome["confusion"]} if "confusion" in outcome else {}
    words = outcome.get("words", "")
    log.event("step-end", kind=step.kind, key=step.key, seconds=info["seconds"], words=words, **judged)
    return info, False


def _seconds_so_far(work: Path) -> float:
    """Time of earlier attempts that ended with an error or Ctrl-C (a kill leaves none)."""
    try:
        return float((work / "seconds").read_text())
    except (OSError, ValueError):
        return 0.0
