"""What the workers of the tests run instead of symbolic comparison: every way for a task to go wrong."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any


def load() -> Callable[[list[Any]], Any]:
    """The target of the tests' pools."""
    return lambda task: globals()[task[0]](*task[1:])


def cannot_load() -> None:
    """A worker that fails to start."""
    raise ImportError("no module named sympathy")


def starts_slowly() -> Callable[[list[Any]], Any]:
    """A worker that takes longer to start than a task may take."""
    time.sleep(1)
    return load()


def dies_at_start() -> None:
    """A worker that is killed while it starts."""
    os.kill(os.getpid(), signal.SIGKILL)


def double(number: int) -> int:
    """A task that works."""
    return 2 * number


def pid() -> int:
    """Which process answers."""
    return os.getpid()


def spin() -> None:
    """A hang that holds the interpreter's lock in one integer operation and hears no signal handler."""
    _ = 9**387420489


def sleep(seconds: float) -> float:
    """A task that takes its time."""
    time.sleep(seconds)
    return seconds


def meet(folder: str, name: str) -> int:
    """A task that waits until another one has begun."""
    from pathlib import Path

    Path(folder, name).touch()
    while len(found := list(Path(folder).iterdir())) < 2:
        time.sleep(0.01)
    return len(found)


def allocate(mib: int) -> int:
    """A task that takes memory, for as long as it runs."""
    return len(bytearray(mib * 1024 * 1024))


def hoard(mib: int) -> int:
    """A task that keeps memory, as caches do."""
    sys.modules[__name__].__dict__.setdefault("kept", []).append(bytearray(mib * 1024 * 1024))
    return mib


def recurse() -> int:
    """A task that recurses for ever."""
    return recurse() + 1


def crash(number: int) -> None:
    """A task that kills its worker."""
    os.kill(os.getpid(), number)


def leave() -> None:
    """A task that ends the interpreter."""
    os._exit(7)


def quit_politely() -> None:
    """A task that asks the interpreter to end."""
    sys.exit(3)


def fail() -> None:
    """A task that raises."""
    raise TypeError("not an expression")


def chatter() -> str:
    """A task that writes where the protocol is, and reads there."""
    print("noise on stdout")
    os.write(1, b'{"value": "forged"}\n')
    print("noise on stderr", file=sys.stderr)
    return sys.stdin.read()


def spawn() -> int:
    """A task that starts a process of its own and hangs."""
    import subprocess

    return subprocess.run(["sleep", "1000"], check=False).returncode
