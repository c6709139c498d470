"""Workers: every way for a task to go wrong costs that task alone, at most its limit, and leaves no process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dereason.verify import workers
from dereason.verify.workers import Outcome, Pool

SLACK = 30.0
"""Seconds beyond the limit that killing may take on a busy machine; what is not killed takes for ever."""
AMPLE = 120.0
"""Seconds that no task of these needs on the busiest machine, where it is not the time that must end it."""


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def make(target: str = "load", **settings: Any) -> Pool:
    given = {"time_limit": 1.0, "memory_limit": 256, "workers": 1} | settings
    return Pool(**given, target=f"planted:{target}")


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = make()
    yield made
    made.close()


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def descendants(pid: int) -> set[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found: set[int] = set()
    new = {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="counts processes in /proc")


def test_values_come_back_in_order_from_several_workers() -> None:
    with_two = make(workers=2)
    assert with_two.pids() == [], "nothing is started before the first task"
    outcomes = with_two.run([["double", i] for i in range(300)])
    assert outcomes == [Outcome(2 * i) for i in range(300)]
    assert len(with_two.pids()) == 2
    with_two.close()
    assert with_two.pids() == []


def test_tasks_run_in_parallel(tmp_path: Path) -> None:
    with_two = make(workers=2, time_limit=AMPLE)
    met = with_two.run([["meet", str(tmp_path), "one"], ["meet", str(tmp_path), "other"]])
    assert met == [Outcome(2)] * 2, "each waited for the other"
    with_two.close()


@pytest.mark.parametrize(
    ("task", "failure"),
    [
        (["spin"], "took longer than 1 s"),
        (["sleep", 100], "took longer than 1 s"),
        (["spawn"], "took longer than 1 s"),
        (["allocate", 300], "needed more than 256 MiB"),
        (["recurse"], "recursion too deep"),
        (["crash", signal.SIGSEGV], "worker died (signal 11)"),
        (["crash", signal.SIGKILL], "worker died (signal 9)"),
        (["leave"], "worker died (exit code 7)"),
        (["quit_politely"], "SystemExit: 3"),
        (["fail"], "TypeError: not an expression"),
    ],
)
def test_a_failure_costs_its_task_alone_and_at_most_the_limit(task: list[Any], failure: str) -> None:
    pool = make(time_limit=1.0 if "took longer" in failure else AMPLE)
    pool.run([["double", 1]])
    started = time.monotonic()
    (outcome,) = pool.run([task])
    assert time.monotonic() - started < pool.time_limit + SLACK
    assert outcome.value is None
    assert failure in (outcome.failure or "")
    assert outcome.lasting
    before, bad, after = pool.run([["double", 2], task, ["double", 3]])
    assert (before.value, after.value) == (4, 6)
    assert failure in (bad.failure or "")
    pool.close()


def test_the_start_of_a_worker_is_no_tasks_time() -> None:
    slow = make("starts_slowly", time_limit=0.9)
    assert slow.run([["double", 1]]) == [Outcome(2)]
    slow.close()


def test_a_task_below_the_memory_limit_is_fine_and_hoarded_memory_is_given_back(pool: Pool) -> None:
    assert pool.run([["allocate", 150]]) == [Outcome(150 * workers.MIB)]
    first = pool.run([["pid"]])[0].value
    assert pool.run([["pid"]])[0].value == first
    assert [o.value for o in pool.run([["hoard", 100]] * 4)] == [100] * 4  # 400 in one worker would be too much
    assert pool.run([["pid"]])[0].value != first


def test_the_protocol_is_out_of_the_tasks_reach(pool: Pool) -> None:
    assert pool.run([["chatter"], ["double", 4]]) == [Outcome(""), Outcome(8)]


def test_what_a_site_prints_at_start_up_is_not_taken_for_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "usercustomize.py").write_text("print('welcome'); print('{\"value\": 1}', flush=True)")
    (tmp_path / "sitecustomize.py").write_text("print('hello'); print('{\"value\": 2}', flush=True)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path(__file__).parent}")
    noisy = make()
    assert noisy.run([["double", 3]]) == [Outcome(6)]
    noisy.close()


def test_text_of_any_kind_survives_the_pipe(pool: Pool) -> None:
    text = "\ud800\x00\n\u2028é" + "{" * 200_000
    assert pool.run([["double", text]]) == [Outcome(2 * text)]


def test_workers_that_do_not_start_end_the_batch_with_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []

    class Counted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            started.append(self)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", Counted)
    for target, cause in (("cannot_load", "ImportError: no module named sympathy"), ("dies_at_start", "signal 9")):
        broken = make(target, workers=2)
        outcomes = broken.run([["double", i] for i in range(50)])
        tries = len(started)
        assert tries < 20
        assert {o.lasting for o in outcomes} == {False}
        assert all("could be started" in (o.failure or "") and cause in (o.failure or "") for o in outcomes)
        broken.run([["double", 1]])
        assert len(started) == tries, "it does not try again at once"
        started.clear()
        assert broken.pids() == []
        broken.close()


def test_no_interpreter_is_a_cause_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    (outcome,) = make().run([["double", 1]])
    assert "/nowhere/python" in (outcome.failure or "")


def test_a_worker_killed_between_two_tasks_is_replaced(pool: Pool) -> None:
    pool.run([["double", 1]])
    (pid,) = pool.pids()
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    assert pool.run([["double", 21]]) == [Outcome(42)]


def test_a_crash_loop_ends() -> None:
    crashing = make(workers=2)
    outcomes = crashing.run([["crash", signal.SIGSEGV]] * 12)
    assert {o.failure for o in outcomes} == {"symbolic comparison: worker died (signal 11)"}
    assert crashing.run([["double", 1]]) == [Outcome(2)]
    crashing.close()


def test_threads_share_a_pool(pool: Pool) -> None:
    def batch(first: int) -> list[Outcome]:
        return pool.run([["double", first + i] for i in range(20)])

    with ThreadPoolExecutor(8) as threads:
        for first, outcomes in enumerate(threads.map(batch, range(40))):
            assert [o.value for o in outcomes] == [2 * (first + i) for i in range(20)]


def test_an_interrupted_batch_leaves_no_answer_behind(pool: Pool) -> None:
    pool.run([["double", 1]])
    main = threading.main_thread()
    assert main.ident is not None
    threading.Timer(0.3, signal.pthread_kill, (main.ident, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        pool.run([["sleep", 0.9]])
    assert pool.run([["double", 5]]) == [Outcome(10)]


def test_a_forked_child_has_workers_of_its_own(pool: Pool) -> None:
    ours = pool.run([["pid"]])[0].value
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            theirs = pool.run([["pid"]])[0].value
            os.write(writer, str(theirs).encode())
            pool.close()
        finally:
            os._exit(0)
    os.close(writer)
    theirs = int(os.read(reader, 100))
    os.close(reader)
    assert os.waitpid(child, 0)[1] == 0
    assert theirs != ours
    assert pool.run([["pid"]])[0].value == ours, "the parent's worker is untouched"


PARENT = """
import sys, os, time
from dereason.verify.workers import Pool
pool = Pool(time_limit=float(sys.argv[1]), memory_limit=256, workers=2, target="planted:load")
pool.run([["double", 1], ["sleep", 0.2], ["sleep", 0.2]])
print(*pool.pids(), flush=True)
if sys.argv[2] == "end":
    sys.exit(0)
pool.run([["spin"], ["double", 1]])
"""


def parent(limit: float, how: str) -> tuple[subprocess.Popen[str], list[int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(limit), how], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout is not None
    return process, [int(p) for p in process.stdout.readline().split()]


def gone(pids: list[int], within: float) -> bool:
    deadline = time.monotonic() + within
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, pids))


@needs_proc
def test_no_worker_outlives_a_parent_that_ends() -> None:
    process, pids = parent(1, "end")
    assert len(pids) == 2
    assert process.wait(60) == 0
    assert gone(pids, SLACK)


@needs_proc
def test_no_worker_outlives_a_parent_that_is_killed_while_one_hangs() -> None:
    process, pids = parent(2, "hang")
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert any(map(alive, pids)), "one hangs"
    # The limit is in seconds of CPU, of which a busy machine gives fewer.
    assert gone(pids, 4 * (2 + 4) + AMPLE), "the idle one sees the end of its input, the other its CPU limit"


@needs_proc
def test_killing_a_worker_kills_what_it_started(pool: Pool) -> None:
    before = descendants(os.getpid())
    pool.run([["spawn"]])
    assert descendants(os.getpid()) - before == set()
