"""The output of a single command: one writer at a time, and nothing deleted that nobody named.

``OUT`` appears whole. ``OUT.partial`` is where it is made, ``.OUT.lock.d`` holds the lock.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dereason.errors import DereasonError
from dereason.pipeline.dates import FILE as DAY
from dereason.pipeline.store import BEGUN, Step, finished, locked, partial_of, settle

_KEY = "key"
"""A file with the step's key: in an output it says that a single command made it, since a step of a run has none."""


@contextmanager
def output_locked(out: Path) -> Iterator[None]:
    """Hold the lock of an output, a file or a folder.

    Raises:
        DereasonError: another process makes it, or it would stand among the steps of a run.
    """
    if out.parent.name == "steps" and (out.parent.parent / "manifest.json").is_file():
        raise DereasonError(f"{out} is among the steps of a run", "choose another --out")
    with locked(out.parent / f".{out.name}.lock.d", out):
        yield


def make_way(out: Path, step: Step, *, overwrite: bool, restart: bool) -> None:
    """Refuse or discard what stands in the way of an output, and mark the place where it will be made.

    Args:
        out: the output folder, locked.
        step: what will be made there.
        overwrite: whether an output of the same command with another key may be replaced.
        restart: whether to discard what an unfinished call left.

    Raises:
        DereasonError: something stands there that these do not allow to go.
    """
    partial = partial_of(out)
    settle(out, partial)
    if out.exists():  # what is not ours is never deleted, whatever --overwrite says
        done = finished(out)
        if done is None or not (out / _KEY).is_file():
            raise DereasonError(f"{out} exists and is no output of a dereason command", "choose another --out")
        if done["key"] == step.key:
            return
        if _command(done["kind"]) != _command(step.kind):
            raise DereasonError(f"{out} holds the output of another command ({done['kind']})", "choose another --out")
        if not overwrite:
            raise DereasonError(
                f"{out} holds the output of other settings", "choose another --out, or give --overwrite"
            )
    begun = _begun(partial)
    if begun is not None and begun != step.key and not restart:
        raise DereasonError(
            f"{partial} holds what a call with other settings, input files or another version of dereason has computed "
            "and not finished",
            "repeat that call to finish it, choose another --out, or give --restart to discard it",
        )
    mark = partial / _KEY
    if partial.exists() and (restart or not mark.is_file() or mark.read_text() != step.key):
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    part = partial / f"{_KEY}.part"
    part.write_text(step.key)
    part.replace(mark)


def _command(kind: str) -> str:
    """What makes steps of a kind; the kind of targets also names their set."""
    return "targets" if kind.startswith("targets-") else kind


def _begun(partial: Path) -> str | None:
    """The key of the call that has computed something on the way to an output; None where none has.

    Raises:
        DereasonError: something else stands at that place.
    """
    if not partial.exists():
        return None
    marks = {_KEY, f"{_KEY}.part", BEGUN, f"{BEGUN}.part", DAY, "seconds"}
    found = {path.name for path in partial.rglob("*") if not path.is_dir()} if partial.is_dir() else {"a file"}
    if found <= marks:
        return None  # killed before it began, or its settings or files were refused
    if (partial / _KEY).is_file():
        return (partial / _KEY).read_text()
    raise DereasonError(
        f"{partial}, where the output is to be made, exists and is not of dereason",
        "move it away, or choose another --out",
    )
