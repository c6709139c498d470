"""Killable workers: run a function on tasks in other processes, each task under a time and a memory limit.

A worker is ``python -m dereason.verify.workers MODULE:FUNCTION ...``: neither forked (the parent may have threads
and a GPU open) nor importing the parent's main module. Parent and worker exchange one JSON value a line; the
worker keeps the pipe to itself and gives its libraries ``/dev/null`` for stdin and stdout.

What ends a worker: the parent's SIGKILL at the time limit or when the pool is closed; the end of its input, where
the parent is gone; its own CPU limit, where the parent was killed while the worker hangs; running out of memory.
The next task gets a new one.

Linux and other Unixes. macOS does not enforce ``RLIMIT_AS``, so there only the time limit holds.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import IO, Any

START_LIMIT = 120.0
"""Seconds that a worker may take to import its libraries; no task's time."""
START_ATTEMPTS = 3
"""Workers that may fail to start, one after the other, before a batch gives up."""
RETRY_AFTER = 60.0
"""Seconds before a pool whose workers do not start tries again."""
RECURSION_LIMIT = 3000
MIB = 1024 * 1024
_READY = b'{"ready": true}'

protocol: list[int] = []
"""In a worker its ends of the pipes, which a process that it forks for a task has to close."""


@dataclass(frozen=True)
class Outcome:
    """What became of one task: a value, or why there is none."""

    value: Any = None
    failure: str | None = None
    lasting: bool = True
    """False where the same task may fare better another time: no worker could be started."""


class TaskError(Exception):
    """A task's own cause of failure, in whole words."""


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# ---------------------------------------------------------------------------------------------------- the worker


def serve(target: str, memory_limit: int, time_limit: float, what: str, *arguments: str) -> None:
    """The worker's main loop: read a task, answer it, until the input ends.

    Args:
        target: ``module:function``; the function returns the one that is called with each task.
        memory_limit: MiB beyond what the process has after its imports.
        time_limit: seconds a task; decides the CPU limit that ends a worker without a parent.
        what: names a task, in the reasons of failures.
        arguments: what the target's function is called with.
    """
    requests, replies = os.fdopen(os.dup(0), "rb"), os.dup(1)
    protocol.extend((requests.fileno(), replies))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _set_limit(resource.RLIMIT_CORE, 0)
    module, name = target.split(":")
    function = getattr(import_module(module), name)(*arguments)
    sys.setrecursionlimit(RECURSION_LIMIT)
    size = _address_space()
    if size:
        _set_limit(resource.RLIMIT_AS, size + memory_limit * MIB)
    os.write(replies, _READY + b"\n")
    os.dup2(null, 2)
    for line in requests:
        task = json.loads(line)
        # Whole seconds; two more than the parent allows, so that this acts only where the parent does not.
        _set_limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + time_limit) + 2)
        answer = _attempt(function, task, memory_limit, what)
        # Memory that sympy's caches hold is taken from the next task: start afresh before it matters.
        answer["last"] = answer.pop("spent", False) or _address_space() > size + memory_limit * MIB // 4
        _reply(replies, answer)
        if answer["last"]:
            break
    os._exit(0)


def _attempt(function: Callable[[Any], Any], task: Any, memory_limit: int, what: str) -> dict[str, Any]:
    try:
        return {"value": function(task)}
    except MemoryError:
        return {"failure": f"{what} needed more than {memory_limit} MiB", "spent": True}
    except RecursionError:
        return {"failure": f"{what}: recursion too deep"}
    except TaskError as exc:
        return {"failure": str(exc)[:300]}
    except BaseException as exc:  # SystemExit too: a library must not end the worker
        return {"failure": f"{what} failed: {type(exc).__name__}: {exc}"[:300]}


def _reply(pipe: int, value: dict[str, Any]) -> None:
    data = json.dumps(value).encode() + b"\n"
    while data:
        data = data[os.write(pipe, data) :]


def _set_limit(which: int, soft: int) -> None:
    hard = resource.getrlimit(which)[1]
    with contextlib.suppress(ValueError, OSError):  # macOS refuses some
        resource.setrlimit(which, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _address_space() -> int:
    """Bytes of address space in use, 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return 0
    return pages * resource.getpagesize()


# ---------------------------------------------------------------------------------------------------- the parent


@dataclass(eq=False)
class _Worker:
    """One child process."""

    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    deadline: float
    ready: bool = False
    served: int = 0
    task: int | None = None
    buffer: bytearray = field(default_factory=bytearray)
    folder: Path | None = None

    @property
    def output(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def send(self, number: int, task: Any, time_limit: float) -> None:
        """Hand it a task. Raises OSError where it has died since its last one."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(task).encode() + b"\n")
        self.process.stdin.flush()
        self.task = number
        self.deadline = time.monotonic() + time_limit

    def receive(self) -> tuple[bool, dict[str, Any] | None]:
        """What has arrived: (whether the pipe is still open, a message if one is complete)."""
        data = os.read(self.output, 65536)
        self.buffer += data
        while (end := self.buffer.find(b"\n")) >= 0:
            line = bytes(self.buffer[:end])
            del self.buffer[: end + 1]
            # The first line may follow what a site's start-up code prints, before the worker has the pipe to itself.
            if self.ready or line == _READY:
                return True, json.loads(line)
        return bool(data), None

    def kill(self) -> int:
        """End it and everything that it started, and return its exit status."""
        if self.process.returncode is None:  # once it was waited for, its number may be another's
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        status = self.process.wait()
        self.forget()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        return status

    def forget(self) -> None:
        """Close our ends of its pipes."""
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            with contextlib.suppress(OSError):  # a task may still lie in the pipe's buffer
                if pipe is not None:
                    pipe.close()

    def last_words(self) -> str:
        """The last line that it wrote to stderr before it was ready."""
        self.errors.seek(0)
        lines = self.errors.read()[-4000:].decode(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else ""


class Pool:
    """Workers for one function, started when the first task comes.

    Safe to use from several threads (one batch at a time) and after a fork (the child starts workers of its own).

    Args:
        time_limit: wall seconds a task; the worker is killed then.
        memory_limit: MiB that a task may take.
        workers: how many at most; 0 means the number of cores, up to 4.
        target, what, arguments: see :func:`serve`.
        scratch: give each worker an empty folder, which is removed with it; its path comes before the arguments.
    """

    def __init__(
        self,
        *,
        time_limit: float,
        memory_limit: int,
        workers: int = 0,
        target: str = "dereason.verify.symbolic:load",
        what: str = "symbolic comparison",
        arguments: Sequence[str] = (),
        scratch: bool = False,
    ) -> None:
        self.time_limit = time_limit
        self.memory_limit = memory_limit
        self.size = workers or min(4, available_cores())
        self.target = target
        self.what = what
        self.arguments = arguments
        self.scratch = scratch
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        self._failures = 0
        self._cause = ""
        self._retry_at = 0.0
        _pools.add(self)
        # Runs when the pool is collected, and at the interpreter's exit.
        self._end = weakref.finalize(self, _kill_all, self._workers, os.getpid())

    def run(self, tasks: Sequence[Any]) -> list[Outcome]:
        """Run the function on every task, several at a time, and return what became of each, in order.

        Args:
            tasks: JSON values.
        """
        with self._lock:
            outcomes: dict[int, Outcome] = {}
            waiting = deque(range(len(tasks)))
            try:
                while len(outcomes) < len(tasks):
                    self._hand_out(waiting, tasks, outcomes)
                    self._collect(waiting, outcomes)
            except BaseException:  # Ctrl-C: answers still to come belong to nobody
                _kill_all(self._workers, os.getpid())
                raise
            return [outcomes[i] for i in range(len(tasks))]

    def close(self) -> None:
        """Kill the workers. The next task would start new ones."""
        with self._lock:
            _kill_all(self._workers, os.getpid())

    def pids(self) -> list[int]:
        """Process ids of the living workers."""
        return [w.process.pid for w in self._workers]

    def _hand_out(self, waiting: deque[int], tasks: Sequence[Any], outcomes: dict[int, Outcome]) -> None:
        for worker in [w for w in self._workers if w.ready and w.task is None]:
            if not waiting:
                return
            number = waiting.popleft()
            try:
                worker.send(number, tasks[number], self.time_limit)
            except OSError:  # it died between two tasks; this one is not to blame
                waiting.appendleft(number)
                self._lost(worker, f"it ended at once ({_words(worker.kill())})")
        if self._failures >= START_ATTEMPTS and time.monotonic() < self._retry_at and not self._workers:
            for number in waiting:
                failure = f"no worker for {self.what} could be started: {self._cause}"
                outcomes[number] = Outcome(failure=failure, lasting=False)
            waiting.clear()
            return
        unstarted = len(waiting) - sum(not w.ready for w in self._workers)
        while unstarted > 0 and len(self._workers) < self.size and (self._failures == 0 or not self._workers):
            unstarted -= 1
            try:
                self._workers.append(self._start())
            except OSError as exc:
                self._failed(str(exc))
                return

    def _start(self) -> _Worker:
        package = str(Path(__file__).resolve().parents[2])
        inherited = os.environ.get("PYTHONPATH")
        environment = os.environ | {
            "PYTHONPATH": f"{package}{os.pathsep}{inherited}" if inherited else package,
            "PYTHONHASHSEED": "0",  # sympy's order of operations follows the hashes of its symbols
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        }
        errors = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the worker)
        folder = Path(tempfile.mkdtemp(prefix="dereason-check-")) if self.scratch else None
        own = [str(folder), *self.arguments] if folder else self.arguments
        arguments = [self.target, str(self.memory_limit), str(self.time_limit), self.what, *own]
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "dereason.verify.workers", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,  # Ctrl-C in a terminal is the parent's; and one signal ends all it started
            )
        except OSError:
            errors.close()
            if folder:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        return _Worker(process, errors, time.monotonic() + START_LIMIT, folder=folder)

    def _collect(self, waiting: deque[int], outcomes: dict[int, Outcome]) -> None:
        """Wait for the next message, death or deadline."""
        active = [w for w in self._workers if not w.ready or w.task is not None]
        if not active:
            return
        poll = select.poll()
        for worker in active:
            poll.register(worker.output, select.POLLIN | select.POLLHUP)
        rest = min(w.deadline for w in active) - time.monotonic()
        told = {descriptor for descriptor, _ in poll.poll(max(0.0, math.ceil(rest * 1000)))}
        for worker in active:
            if worker.output in told:
                alive, message = worker.receive()
                if message is not None:
                    self._heard(worker, message, outcomes)
                elif not alive:
                    self._died(worker, outcomes)
            elif time.monotonic() >= worker.deadline:
                self._late(worker, outcomes)

    def _heard(self, worker: _Worker, message: dict[str, Any], outcomes: dict[int, Outcome]) -> None:
        if not worker.ready:
            worker.ready = True
            return
        assert worker.task is not None
        self._failures = 0
        outcomes[worker.task] = Outcome(message.get("value"), message.get("failure"))
        worker.task = None
        worker.served += 1
        if message["last"]:
            self._workers.remove(worker)
            worker.kill()

    def _died(self, worker: _Worker, outcomes: dict[int, Outcome]) -> None:
        if worker.task is None:
            words = worker.last_words()
            self._lost(worker, words or f"it ended before it was ready ({_words(worker.kill())})")
            return
        self._workers.remove(worker)
        status = worker.kill()
        died = f"{self.what}: worker died ({_words(status)})"
        outcomes[worker.task] = Outcome(failure=self._too_long() if -status == signal.SIGXCPU else died)

    def _late(self, worker: _Worker, outcomes: dict[int, Outcome]) -> None:
        if worker.task is None:
            self._lost(worker, f"it was not ready after {START_LIMIT:g} s")
            return
        self._workers.remove(worker)
        worker.kill()
        outcomes[worker.task] = Outcome(failure=self._too_long())

    def _too_long(self) -> str:
        return f"{self.what} took longer than {self.time_limit:g} s"

    def _lost(self, worker: _Worker, cause: str) -> None:
        """A worker that did no work is gone."""
        self._workers.remove(worker)
        worker.kill()
        if worker.served == 0:
            self._failed(cause)

    def _failed(self, cause: str) -> None:
        self._failures += 1
        self._cause = cause
        self._retry_at = time.monotonic() + RETRY_AFTER

    def _after_fork(self) -> None:
        """In a forked child: the workers are the parent's, and a lock may be held by a thread that is not here."""
        for worker in self._workers:
            worker.process.returncode = 0  # not our child: nothing to wait for
            worker.forget()
        self._workers.clear()
        self._lock = threading.Lock()
        self._end.detach()
        self._end = weakref.finalize(self, _kill_all, self._workers, os.getpid())


def _kill_all(workers: list[_Worker], owner: int) -> None:
    if os.getpid() == owner:
        while workers:
            workers.pop().kill()


def _words(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit code {status}"


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in _pools:
        pool._after_fork()


os.register_at_fork(after_in_child=_after_fork)

if __name__ == "__main__":
    # Under its own name, by which the targets know it too.
    import_module("dereason.verify.workers").serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:])
