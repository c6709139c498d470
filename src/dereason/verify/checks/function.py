"""Calling a user's check: a process of its own for each call, under the guards of :mod:`.guard`.

It runs inside the workers of :mod:`dereason.verify.workers` only. A call cannot change what the next one sees: it runs
in a copy of the worker, in a folder that is removed after it, and all processes that it started are ended with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from dereason.verify import workers
from dereason.verify.checks import guard
from dereason.verify.workers import TaskError

MAX_REPLY = 64 * 1024
_KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
"""Of the environment; the rest may hold keys and tokens. Besides, what starts with PYTHON or ends in _NUM_THREADS."""


def load(scratch: str, name: str, places: str, time_limit: str, unguarded: str) -> Callable[[dict[str, Any]], bool]:
    """Guard this process, import the function and return what a worker does with a task.

    Args:
        scratch: an empty folder of this worker's.
        name: ``package.module:function``.
        places: folders to look for modules in, as JSON.
        time_limit: seconds that a call may take.
        unguarded: whether to go on where files or the network cannot be guarded; ``yes`` or ``no``.

    A task is an object with the arguments of the function, its result whether the answer is right.

    Raises:
        OSError: files or the network cannot be guarded here.
    """
    folder = Path(scratch)
    separated = guard.separate(folder)
    missing = guard.holds(separated)
    if missing and unguarded != "yes":
        raise OSError(
            f"a function cannot be called safely here: nothing guards {' or '.join(missing)}; "
            "answer_check_unguarded: true calls it all the same"
        )
    guard.adopt()
    for variable in list(os.environ):
        if variable not in _KEPT and not variable.startswith("PYTHON") and not variable.endswith("_NUM_THREADS"):
            del os.environ[variable]
    os.environ |= {"HOME": scratch, "TMPDIR": scratch}
    os.chdir(folder)
    sys.dont_write_bytecode = True
    sys.path[:] = list(dict.fromkeys([*sys.path, *json.loads(places)]))
    module, attribute = name.split(":")
    function = getattr(import_module(module), attribute)
    if not callable(function):
        raise TypeError(f"{name} is no function")

    def decide(task: dict[str, Any]) -> bool:
        return _call(function, task, folder, float(time_limit))

    return decide


def _call(function: Callable[..., Any], arguments: dict[str, Any], folder: Path, time_limit: float) -> bool:
    own = Path(tempfile.mkdtemp(dir=folder))
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _child(function, arguments, own, writer)
    os.close(writer)
    try:
        reply = _reply(reader, time.monotonic() + time_limit)
    finally:
        os.close(reader)
        guard.end_descendants()
        shutil.rmtree(own, ignore_errors=True)
    if reply is None:
        raise TaskError(f"the check took longer than {time_limit:g} s")
    try:
        answer = json.loads(reply)
    except ValueError:
        raise TaskError("the check ended its process without a verdict") from None
    if "failure" in answer:
        raise TaskError(answer["failure"])
    return bool(answer["right"])


def _child(function: Callable[..., Any], arguments: dict[str, Any], own: Path, writer: int) -> NoReturn:
    """In the process of one call."""
    try:
        for pipe in workers.protocol:
            os.close(pipe)
        os.chdir(own)
        os.environ |= {"HOME": str(own), "TMPDIR": str(own)}
        tempfile.tempdir = None
        guard.confine(own, separated=os.getppid() == 1)
        answer = _judged(function(**arguments))
    except MemoryError:
        answer = {"failure": "the check needed more memory than memory_limit allows"}
    except BaseException as exc:  # SystemExit too
        answer = {"failure": f"the check failed: {type(exc).__name__}: {exc}"[:300]}
    data = json.dumps(answer).encode() + b"\n"
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(writer, data) :]
    os._exit(0)


def _judged(result: Any) -> dict[str, Any]:
    """What a function returned: true, false, or a score from 0 to 1, of which only 1 is right."""
    if hasattr(result, "item") and not isinstance(result, bool | int | float):
        result = result.item()  # numpy's and torch's own booleans and numbers
    if not isinstance(result, bool | int | float) or not 0 <= result <= 1:
        shown = repr(result)
        raise TypeError(f"it returned {shown[:60]}, which is neither true, false nor a score from 0 to 1")
    return {"right": result == 1}


def _reply(reader: int, deadline: float) -> bytes | None:
    """What the call says; None where it says nothing in time."""
    data = b""
    poll = select.poll()
    poll.register(reader, select.POLLIN | select.POLLHUP)
    while not data.endswith(b"\n") and len(data) < MAX_REPLY:  # another process may hold the pipe open
        if not poll.poll(max(0, deadline - time.monotonic()) * 1000):
            return None
        part = os.read(reader, 65536)
        if not part:
            break
        data += part
    return data
