"""One process of a phase that several share: ``accelerate launch ... -m dereason.training.worker JOB``.

Started by :func:`dereason.training.launch.launch_phase`, or by hand on the other machines of a run that has several.
The first process (rank 0) writes progress and the result; any process that fails writes its error, beside the job.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import sys
import threading
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dereason.errors import DereasonError
from dereason.lm.local.model import resolve_device
from dereason.problems.schema import read_table
from dereason.training.launch import SUPERVISOR, Job, workers_lock
from dereason.training.phase import PhaseResult
from dereason.verify.verifier import Verifier
from dereason.verify.workers import available_cores


def main(path: Path) -> int:
    """Do this process's part of the job; 0 when it is done, 1 when it failed and said why in ``error-RANK.json``."""
    rank = int(os.environ.get("RANK", "0"))
    leave_with(os.environ.get(SUPERVISOR))
    lock = workers_lock(path.parent)
    fcntl.flock(lock, fcntl.LOCK_SH)  # held until the process ends, however it ends
    (path.parent / f"worker-{rank}.pid").write_text(str(os.getpid()))
    try:
        job = Job.model_validate_json(path.read_text(encoding="utf-8"))
        result = run_job(job, rank)
        if rank == 0:
            _write(path.parent / "result.json", asdict(result))
        _part()
    except Exception as exc:  # the outermost frame: the starting process raises it again
        known = isinstance(exc, DereasonError)
        error = {
            "time": time.time(),
            "rank": rank,
            "known": known,
            "cause": exc.cause if isinstance(exc, DereasonError) else f"{type(exc).__name__}: {exc}",
            "mend": exc.mend if isinstance(exc, DereasonError) else "",
            "traceback": traceback.format_exc(),
        }
        with contextlib.suppress(OSError):  # a full disk; the log has it
            _write(path.parent / f"error-{rank}.json", error)
        traceback.print_exc()
        return 1
    return 0


def run_job(job: Job, rank: int) -> PhaseResult:
    """Train.

    Raises:
        DereasonError: the processes are not as many as the job says, or what the phase raises.
    """
    check_world(job)

    def progress(done: int, total: int, words: str) -> None:
        if rank == 0:
            _write(job.folder / "progress.json", [done, total, words])

    problems = read_table("problem", job.folder / "problems.parquet")
    if job.kind == "sft":
        from dereason.training.sft import run_sft

        assert job.sft is not None
        return run_sft(
            job.model,
            job.prompt,
            problems,
            read_table("target", job.folder / "targets.parquet"),
            job.sft,
            out=job.work / "model",
            work=job.work,
            seed=job.seed,
            expected_hash=job.expected_hash,
            progress=progress,
        )
    from dereason.training.rl import run_rl

    assert job.rl is not None
    shown = read_table("target", job.folder / "targets.parquet") if job.kind == "joint" else None
    here = int(os.environ.get("LOCAL_WORLD_SIZE", str(job.processes)))
    workers = max(1, (job.verifier.workers or min(4, available_cores())) // here)
    with Verifier(job.verifier.model_copy(update={"workers": workers})) as verifier:
        return run_rl(
            job.model,
            job.prompt,
            problems,
            job.rl,
            identity=job.identity,
            out=job.work / "model",
            work=job.work,
            seed=job.seed,
            expected_hash=job.expected_hash,
            verifier=verifier,
            progress=progress,
            demonstrations=shown,
            measures=_named(job.measures) if job.measures else None,
        )


def _named(path: str) -> Any:
    """What stands in a module under a name: rooms that training may not import pass their functions in this way."""
    module, name = path.split(":")
    return getattr(importlib.import_module(module), name)


def check_world(job: Job) -> None:
    """Refuse to train alone what was meant for several: ``accelerate launch --cpu`` starts one process, silently.

    Raises:
        DereasonError: the environment or accelerate counts other processes than the job.
    """
    from accelerate import PartialState

    device = resolve_device(job.model.device)
    told = int(os.environ.get("WORLD_SIZE", "1"))
    found = PartialState(cpu=device == "cpu").num_processes if told == job.processes else told
    if found != job.processes:
        raise DereasonError(
            f"the job is for {job.processes} processes, and there are {found}",
            "start it with `accelerate launch --num_processes` and a configuration whose distributed_type is not NO",
        )


def _part() -> None:
    """Leave the group together: a process that ends early looks like a failure to those that still talk to it."""
    from accelerate import PartialState

    state = PartialState()
    state.wait_for_everyone()
    state.destroy_process_group()


def leave_with(supervisor: str | None) -> None:
    """End this process when the one that started the phase ends: it holds this file locked as long as it lives."""
    if not supervisor:
        return  # started by hand, on another machine
    try:
        handle = open(supervisor)  # noqa: SIM115  (waited for as long as this process lives)
    except OSError:
        os._exit(1)  # a later attempt has cleaned up: this one's time is over

    def wait() -> None:
        fcntl.flock(handle, fcntl.LOCK_SH)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _write(path: Path, value: Any) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, default=str), encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    if main(Path(sys.argv[1])):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # not through exit handlers, which may wait for processes that wait for this one
