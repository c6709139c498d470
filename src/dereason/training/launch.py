"""A training phase in several processes: started with ``accelerate launch``, watched, and ended with this process.

The phase is written down as a job (a JSON file and its tables) in the step's folder, and every process runs
:mod:`dereason.training.worker` on it. Results, errors and progress come back as files. What holds the processes
together:

- *This process ends* (also by ``kill -9``): the kernel releases a lock that it holds, each worker waits for that lock,
  and exits.
- *A worker fails*: the launcher ends the others, and the error of the first one is raised here.
- *Ctrl-C*: the launcher and its workers are ended before the exception goes on.
- *Workers of an earlier attempt* hold a lock of their own: a new attempt waits until they are gone.

A result does not depend on how many processes made it, beyond rounding; so none of these settings is in a step's key.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import IO, Any, Literal, Self

import polars as pl
import yaml
from pydantic import Field, model_validator

from dereason.errors import DereasonError
from dereason.lm.base import Progress
from dereason.lm.local.model import ModelSettings, resolve_device
from dereason.lm.prompts import Prompt
from dereason.problems.schema import write_table
from dereason.settings import Settings
from dereason.training import stack
from dereason.training.joint.settings import Joint
from dereason.training.phase import PhaseResult
from dereason.training.rl import RL
from dereason.training.sft import SFT
from dereason.training.watch import last_checkpoint
from dereason.verify.verifier import VerifierSettings
from dereason.verify.workers import available_cores

SUPERVISOR = "DEREASON_SUPERVISOR"
"""Environment variable: the file that the starting process holds locked for as long as it lives."""
FOLDER = "launch"
"""Folder in a step's work folder for the job, what the processes say, and their locks."""
LOG = "processes.log"
GRACE = 15.0
"""Seconds that processes have to end after they were told to, before they are killed."""
_LOOK = 0.1
_TAIL = 15


class Launch(Settings):
    """In how many processes a phase trains; no step's result depends on it beyond rounding."""

    processes: int = Field(default=1, gt=0)
    """Training processes over all machines, one a GPU (on a CPU each takes an equal share of the cores)."""
    config: str = "ddp"
    """accelerate configuration: a shipped one (`ddp`, `fsdp2`, `deepspeed-zero2`, ...) by name, or your own file."""
    machines: int = Field(default=1, gt=0)
    """Machines, each with an equal share of the processes; all see the run directory under the same path."""
    main_address: str | None = None
    """Address of the machine that runs `dereason`, as the others reach it; needed with several machines."""
    main_port: int = Field(default=29500, gt=0, lt=65536)
    """Port that the machines meet at; on one machine a free one is taken instead."""

    @model_validator(mode="after")
    def _machines_share(self) -> Self:
        if self.processes % self.machines:
            raise ValueError(f"{self.processes} processes do not divide among {self.machines} machines")
        if self.machines > 1 and self.main_address is None:
            raise ValueError("several machines need main_address: where the others reach the one that runs dereason")
        return self


class Job(Settings):
    """One phase, as the processes read it."""

    processes: int
    """How many processes there must be."""
    kind: Literal["sft", "rl", "joint"]
    """The kind of phase."""
    work: Path
    """The step's work folder."""
    model: ModelSettings
    """Where the phase starts."""
    prompt: Prompt
    """How questions are put."""
    sft: SFT | None = None
    """Settings of an SFT phase."""
    rl: Joint | RL | None = None
    """Settings of an RL phase, or of a joint one."""
    seed: int
    """Training seed."""
    expected_hash: str | None
    """Template hash of the run."""
    identity: str = ""
    """Name of the phase, for its rollouts."""
    verifier: VerifierSettings = VerifierSettings()
    """Limits of the verifier, its workers divided among the processes."""
    measures: str | None = None
    """What the early warning of an RL phase measures with, as `module:name`."""

    @property
    def folder(self) -> Path:
        """Where the job and its tables are."""
        return self.work / FOLDER


def shipped_configs() -> dict[str, Path]:
    """accelerate configurations that come with the package, by name."""
    folder = Path(str(resources.files("dereason") / "recipes" / "launch"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_config(name: str) -> Path:
    """An accelerate configuration by the name of a shipped one, or by path.

    Raises:
        DereasonError: there is none.
    """
    if name in shipped_configs():
        return shipped_configs()[name]
    path = Path(name)
    if path.is_file():
        return path.resolve()
    raise DereasonError(
        f"launch.config: no accelerate configuration {name!r}",
        f"give a YAML file, or one of: {', '.join(shipped_configs())}",
    )


def sharding(launch: Launch) -> str:
    """``FSDP`` or ``DEEPSPEED`` where each process holds a part of the weights, else an empty string.

    Raises:
        DereasonError: the configuration is not there, or is no accelerate configuration.
    """
    if launch.processes == 1:
        return ""
    path = find_config(launch.config)
    try:
        kind = yaml.safe_load(path.read_text(encoding="utf-8"))["distributed_type"]
    except (OSError, yaml.YAMLError, TypeError, KeyError) as exc:
        raise DereasonError(
            f"{path}: no accelerate configuration with a distributed_type", "write one with `accelerate config`"
        ) from exc
    return str(kind) if kind in ("FSDP", "DEEPSPEED") else ""


def check_launch(launch: Launch, device: str) -> None:
    """Refuse what cannot start, or would start as something else, before any work.

    Args:
        launch: the settings.
        device: ``cpu``, ``cuda`` or ``mps``.

    Raises:
        DereasonError: too few GPUs, a device without several processes, a sharded configuration on CPUs, or a stack
            that is known to train wrongly.
    """
    if launch.processes == 1:
        return
    parts = sharding(launch)
    if device == "mps":
        raise DereasonError("launch.processes is above 1, and Apple's GPU takes one process", "set launch.processes=1")
    if device == "cpu" and parts:
        raise DereasonError(
            f"launch.config {launch.config!r} shards the model by {parts}, and accelerate does so on accelerators only "
            "(on CPUs it would train unsharded, without a word)",
            "use launch.config=ddp, or a GPU",
        )
    if parts == "DEEPSPEED" and importlib.util.find_spec("deepspeed") is None:
        raise DereasonError(
            f"launch.config {launch.config!r} needs DeepSpeed", "pip install 'deepspeed>=0.19', or use fsdp2"
        )
    if parts == "DEEPSPEED":
        stack.check(stack.from_accelerate(find_config(launch.config)))
    if device == "cuda":
        import torch

        wanted, there = launch.processes // launch.machines, torch.cuda.device_count()
        if wanted > there:
            raise DereasonError(
                f"launch wants {wanted} processes a machine, one a GPU, and there are {there} GPUs here",
                "lower launch.processes",
            )


def check_resume(launch: Launch, work: Path) -> None:
    """Refuse to go on from checkpoints whose optimiser state was cut into other parts.

    One process and ``ddp`` write the same kind of checkpoint; a sharded one is read by as many processes, sharded
    alike. Writes down what this attempt is, for the next one.

    Raises:
        DereasonError: there are such checkpoints.
    """
    path = work / "checkpoints" / "sharded"
    parts = sharding(launch)
    mine = f"{parts} in {launch.processes} processes" if parts else ""
    theirs = path.read_text() if path.is_file() else ""
    if theirs != mine and last_checkpoint(work) is not None:
        raise DereasonError(
            f"the checkpoints in {path.parent} were written with {theirs or 'no sharding'}, and launch now asks for "
            f"{mine or 'none'}",
            "go on with the launch settings of then, or remove that folder to begin the phase again",
        )
    if mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(mine)
    else:
        path.unlink(missing_ok=True)


def command(launch: Launch, job: Path, rank: int = 0) -> list[str]:
    """The line that starts one machine's processes.

    Args:
        launch: the settings.
        job: the job file.
        rank: number of the machine; 0 is the one that runs ``dereason``.
    """
    here = launch.processes // launch.machines
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, available_cores() // here))
    several = launch.machines > 1
    line = [
        *("--config_file", str(find_config(launch.config))),
        *("--num_processes", str(launch.processes)),
        *("--num_machines", str(launch.machines), "--machine_rank", str(rank)),
        *(("--main_process_ip", str(launch.main_address)) if several else ()),
        *("--main_process_port", str(launch.main_port if several else 0)),  # 0: a free one
        *("--num_cpu_threads_per_process", threads),
    ]
    return [sys.executable, "-m", "accelerate.commands.launch", *line, "-m", "dereason.training.worker", str(job)]


def launch_phase(
    launch: Launch,
    job: Job,
    problems: pl.DataFrame,
    targets: pl.DataFrame | None = None,
    *,
    progress: Progress = lambda done, total, words: None,
    say: Callable[[str], None] = lambda words: None,
) -> PhaseResult:
    """Run a job in ``launch.processes`` processes and wait for its result.

    Args:
        launch: how many processes, and how they share the model.
        job: the phase.
        problems: PROBLEM table.
        targets: TARGET table of an SFT phase.
        progress: told of each optimiser step.
        say: told what to do on the other machines, where there are any.

    Raises:
        DereasonError: what a process raised, or that one was killed; the step's ``processes.log`` has their words.
        RuntimeError: a process failed in a way that we did not foresee.
    """
    device = resolve_device(job.model.device)
    check_launch(launch, device)
    folder = job.folder
    folder.mkdir(parents=True, exist_ok=True)
    _wait_for_earlier(folder)
    stale = ("error-*.json", "*.pid", "alive-*", "result.json", "progress.json")
    for old in (path for pattern in stale for path in folder.glob(pattern)):
        old.unlink(missing_ok=True)
    write_table(problems, folder / "problems.parquet")
    if targets is not None:
        write_table(targets, folder / "targets.parquet")
    path = folder / "job.json"
    path.write_text(job.model_dump_json(indent=2), encoding="utf-8")
    for rank in range(1, launch.machines):
        script = folder / f"machine-{rank}.sh"
        script.write_text(shlex.join(command(launch, path, rank)) + "\n")
        say(f"  waiting for machine {rank}; run there: sh {script}")
    log = job.work / LOG
    with _supervised(folder) as alive, log.open("wb") as output:
        process = subprocess.Popen(
            command(launch, path),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(alive),
            start_new_session=True,  # Ctrl-C in a terminal is ours to pass on
        )
        try:
            _follow(process, folder / "progress.json", progress)
        finally:
            _end(process, folder)
    if process.returncode or not (folder / "result.json").is_file():
        raise _failure(folder, log, process.returncode)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    shutil.rmtree(folder)
    return PhaseResult(**result | {"model": Path(result["model"])})


def _environment(alive: Path) -> dict[str, str]:
    package = str(Path(str(resources.files("dereason"))).parent)
    inherited = os.environ.get("PYTHONPATH")
    return os.environ | {
        SUPERVISOR: str(alive),
        "PYTHONPATH": f"{package}{os.pathsep}{inherited}" if inherited else package,
        "PYTHONSAFEPATH": "1",  # `-m` would put the current folder first, and a `datasets.py` there in the way
    }


@contextmanager
def _supervised(folder: Path) -> Iterator[Path]:
    """A new file that is locked until this process ends or leaves the block."""
    path = folder / f"alive-{os.getpid()}-{time.time_ns()}"
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield path
    path.unlink(missing_ok=True)


def _follow(process: subprocess.Popen[bytes], path: Path, progress: Progress) -> None:
    """Pass progress on until the launcher ends."""
    seen = ""
    while process.poll() is None:
        with contextlib.suppress(OSError):
            said = path.read_text(encoding="utf-8")
            if said != seen:
                seen = said
                progress(*json.loads(said))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK)


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    """End the launcher, and its workers, which are in sessions of their own, with it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
    if not _gone(folder, 1.0):
        for pid in _workers(folder):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        _gone(folder, GRACE)


def _wait_for_earlier(folder: Path) -> None:
    """Wait for workers of an attempt whose parent was killed: they write to the same files.

    Raises:
        DereasonError: they do not end.
    """
    if not _gone(folder, GRACE):
        pids = ", ".join(map(str, _workers(folder)))
        raise DereasonError(f"training processes of an earlier attempt are still running ({pids})", "end them")


def _workers(folder: Path) -> list[int]:
    return sorted(int(path.read_text()) for path in folder.glob("*.pid") if path.read_text().isdigit())


def _gone(folder: Path, seconds: float) -> bool:
    """Whether no worker holds its lock, waiting for that at most so long."""
    until = time.monotonic() + seconds
    with workers_lock(folder) as handle:
        while True:
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            if time.monotonic() > until:
                return False
            time.sleep(_LOOK)


def workers_lock(folder: Path) -> IO[str]:
    """The file that every worker holds locked (shared) while it runs."""
    return (folder / "workers.lock").open("a")


def _failure(folder: Path, log: Path, code: int) -> Exception:
    """What went wrong: an error with a known cause first, then a kill, then whatever was raised, then the log."""
    errors: list[dict[str, Any]] = []
    for path in folder.glob("error-*.json"):
        with contextlib.suppress(ValueError):
            errors.append(json.loads(path.read_text(encoding="utf-8")))
    errors.sort(key=lambda e: e["time"])
    for error in errors:
        if error["known"]:
            return DereasonError(error["cause"], error["mend"])
    text = log.read_bytes()[-200_000:].decode(errors="replace") if log.is_file() else ""
    # torch's launcher says how each process ended; those it ended itself have signal 15
    ended = [int(found) for found in re.findall(r"exitcode\s*:\s*(-?\d+)", text)]
    killed = [status for status in (*ended, code) if status < 0 and -status != signal.SIGTERM]
    if killed:
        words = f"a training process was ended by signal {-killed[0]}"
        if -killed[0] == signal.SIGKILL:
            return DereasonError(
                f"{words}, most likely because memory ran out",
                "lower optimiser.micro_batch (and rollout_batch in RL) or launch.processes; the same run goes on from "
                f"the last checkpoint; {log} has what the processes said",
            )
        return DereasonError(words, f"see {log}; the same run goes on from the last checkpoint")
    if errors:
        first = errors[0]
        return RuntimeError(f"training process {first['rank']}: {first['cause']}\n{first['traceback']}")
    last = [line.strip() for line in text.strip().splitlines() if line.strip()][-_TAIL:]
    return DereasonError(
        f"the training processes ended with exit code {code}; their last words: {' | '.join(last) or 'none'}",
        f"see {log}",
    )
