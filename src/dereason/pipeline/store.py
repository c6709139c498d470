"""The run directory: content-addressed steps, atomic outputs, one writer at a time, a structured log.

    runs/NAME/recipe.yaml  manifest.json  log.jsonl  summary.json  report.html
    runs/NAME/steps/<kind>-<key>/...  step.json        finished
    runs/NAME/steps/<kind>-<key>.partial/...           under way, or interrupted: continued by the next run

A step's key hashes its configuration, the keys of its inputs and the source code of the rooms that it runs,
so arms that share a prefix share the steps. A step works in its ``.partial`` folder; ``step.json`` is written
there last and the folder is then renamed: a folder without ``.partial`` is whole. What only an unfinished step needs
(batches, checkpoints) is removed after that, so whichever moment a process is killed at, the next one finds either
everything that was computed or the finished step.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
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
SCRATCH = "scratch"
"""Names, in a step's folder, of what only an unfinished step needs."""
_EVERYWHERE = ("characters.py", "settings.py", "statistics.py", "pipeline/actions.py")
"""What every key covers: no room, and any of them may compute with it."""
_RECORD = ("kind", "key", "config", "info", SCRATCH)

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
        action: does the work: ``action(folder, inputs' folders) -> info``, info lands in ``step.json``. It removes
            nothing that a repeated attempt would have to compute again: the entry :data:`SCRATCH` of info names what in
            the folder is needed no more once the step is finished.
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
                "code": code_version((*_EVERYWHERE, *self.rooms)),
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
def locked(folder: Path, what: Path | None = None) -> Iterator[None]:
    """Hold the folder's lock; the kernel releases it when the process ends, however it ends.

    Args:
        folder: where the lock is; made where it is missing.
        what: what the lock is for, where that is not the folder.

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
                f"{what or folder} is in use by process {owner}",
                "wait for it, stop it, or choose another " + ("run directory" if what is None else "--out"),
            ) from exc
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def finished(folder: Path) -> Info | None:
    """``step.json`` of a finished step, None where the step is not finished.

    Raises:
        DereasonError: there is one that is not ours, or that cannot be read.
    """
    path = folder / "step.json"
    if not path.is_file():
        return None
    try:
        record = read_json(path)
    except DereasonError:
        record = None
    if not isinstance(record, dict) or any(name not in record for name in _RECORD):
        raise DereasonError(f"{path} is no record of a dereason step", "move that folder away")
    return record


def begun_with(work: Path) -> dict[str, str] | None:
    """What an unfinished step was begun with, None where it was not or nothing readable says so."""
    try:
        found = json.loads((work / BEGUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def execute(folder: Path, step: Step, inputs: dict[str, Path], log: Log, *, replace: bool = False) -> tuple[Info, bool]:
    """Run a step unless it is finished.

    Args:
        folder: where its outputs go.
        step: the step.
        inputs: folders of its inputs, by role.
        log: told of start and end.
        replace: whether a finished step of another key that stands there makes way, once this one is finished.

    Returns:
        ``step.json`` and whether it was there already.
    """
    done = finished(folder)
    if done is not None and (done["key"] == step.key or not replace):
        _clean(folder, done)
        log.event("step-cached", kind=step.kind, key=step.key, label=step.label)
        return done, True
    work = partial_of(folder)
    adopted = _complete(work, step)
    if adopted is not None:
        put(work, folder)
        _clean(folder, adopted)
        log.event("step-adopted", kind=step.kind, key=step.key, label=step.label)
        return adopted, True
    resumed = work.is_dir() and any(p.name not in ("key", BEGUN) for p in work.iterdir())
    work.mkdir(parents=True, exist_ok=True)
    if (begun := begun_with(work)) is None:
        write_json(work / BEGUN, begun := step.made_with())
    before = _seconds_so_far(work)
    log.event("step-start", kind=step.kind, key=step.key, label=step.label, resumed=resumed)
    started = time.monotonic()
    try:
        outcome = dict(step.action(work, inputs))
    except BaseException as exc:
        (work / "seconds").write_text(repr(before + time.monotonic() - started))
        log.event("step-failed", kind=step.kind, key=step.key, cause=f"{type(exc).__name__}: {exc}"[:500])
        raise
    scratch = [*outcome.pop(SCRATCH, ()), "seconds", BEGUN]
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
        SCRATCH: scratch,
    }
    write_json(work / "step.json", info)
    put(work, folder)
    _clean(folder, info)
    judged = {"confusion": outcome["confusion"]} if "confusion" in outcome else {}
    words = outcome.get("words", "")
    log.event("step-end", kind=step.kind, key=step.key, seconds=info["seconds"], words=words, **judged)
    return info, False


def partial_of(folder: Path) -> Path:
    """Where the output that will stand at a path is made."""
    return folder.with_name(folder.name + ".partial")


def put(made: Path, folder: Path) -> None:
    """Rename a finished folder to its place; what stands there is removed when the new one is in place."""
    if folder.exists():
        folder.rename(_replaced(folder))
    made.rename(folder)
    shutil.rmtree(_replaced(folder), ignore_errors=True)


def settle(folder: Path, made: Path | None = None) -> None:
    """Finish what a kill inside :func:`put` left. To be called, under the place's lock, before looking at the place.

    Args:
        folder: the place.
        made: the finished folder that was to be put there; where it is not known any more, what it was to replace
            goes back to its place.
    """
    old = _replaced(folder)
    if not folder.exists() and old.exists():
        (made if made is not None and made.exists() else old).rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _replaced(folder: Path) -> Path:
    """Where an output that another one replaces waits between two renames."""
    return folder.with_name(f".{folder.name}.replaced-by-dereason")


def _complete(work: Path, step: Step) -> Info | None:
    """The record of a step that was killed between writing it and the rename."""
    try:
        record = finished(work)
    except DereasonError:
        return None
    return record if record is not None and record["key"] == step.key else None


def _clean(folder: Path, record: Info) -> None:
    """Remove what only the unfinished step needed; an earlier start may have been killed before it could."""
    for name in record[SCRATCH]:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _seconds_so_far(work: Path) -> float:
    """Time of earlier attempts that ended with an error or Ctrl-C (a kill leaves none)."""
    try:
        return float((work / "seconds").read_text())
    except (OSError, ValueError):
        return 0.0
