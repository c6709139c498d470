"""Phases in two processes (gloo): the one-process result, and what happens when something is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from dereason.cli.main import main
from dereason.errors import DereasonError
from dereason.lm.local.model import ModelSettings
from dereason.lm.prompts import Prompt
from dereason.problems.schema import frame, write_table
from dereason.training import launch as launch_module
from dereason.training import worker
from dereason.training.launch import (
    Job,
    Launch,
    check_launch,
    check_resume,
    command,
    find_config,
    launch_phase,
    shipped_configs,
    workers_lock,
)
from dereason.training.phase import Optimiser
from dereason.training.rewards.settings import Format, Rewards
from dereason.training.rl import RL, RLOptimiser, run_rl
from dereason.training.rollouts import rollout_table
from dereason.training.selection import DynamicSampling
from dereason.training.sft import SFT
from dereason.training.watch import mark

PROMPT = Prompt(suffix="Add.")
START_LIMIT = 600.0
UNLIKE = {"seconds", "memory_gib", "tokens_per_second", "sampler_gap", "sampler_gap_max"}
"""What a log says of the machine or of rounding."""


@pytest.fixture(scope="module")
def pool() -> pl.DataFrame:
    rows = [
        {
            "id": f"p{i}",
            "question": f"What is {i} + {i * i}?" + " Think." * (i % 3),
            "answer": str(i + i * i),
            "domain": "sum",
            "source": "test",
        }
        for i in range(12)
    ]
    return frame("problem", rows)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job for tests in which nothing is trained."""
    (tmp_path / "launch").mkdir()
    settings = {"model": ModelSettings(name="none", device="cpu"), "prompt": PROMPT, "sft": SFT()}
    return Job(processes=2, kind="sft", work=tmp_path, seed=0, expected_hash=None, **settings)  # type: ignore[arg-type]


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody waited for counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def wait_for(holds: object, seconds: float = START_LIMIT) -> None:
    until = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_training(one: Path, two: Path, start: Path) -> None:
    """The same log, one line a step, and weights that differ by little of what training changed."""
    left, right = metrics(one), metrics(two)
    assert [row["step"] for row in right] == [row["step"] for row in left]
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - UNLIKE:
            assert b[name] == pytest.approx(a[name], rel=1e-4, abs=1e-6), (a["step"], name)
    before, first, second = (load_file(p / "model.safetensors") for p in (start, one / "model", two / "model"))
    moved = sum(float((first[k] - before[k]).square().sum()) for k in before)
    apart = sum(float((first[k] - second[k]).square().sum()) for k in before)
    assert moved > 0
    assert apart < 1e-4 * moved


@pytest.fixture(scope="module")
def alone(tiny_model: Path, pool: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tables, and of an SFT phase in one process."""
    folder = tmp_path_factory.mktemp("sft")
    targets = [
        {"problem_id": r["id"], "response": f"\\boxed{{{r['answer']}}}", "origin": "reference", "accepted": True}
        for r in pool.iter_rows(named=True)
    ]
    write_table(pool, folder / "pool.parquet")
    write_table(frame("target", targets), folder / "targets.parquet")
    assert main(sft_line(folder, tiny_model, "one", 1)) == 0
    return folder


def sft_line(folder: Path, model: Path, out: str, processes: int) -> list[str]:
    inputs = [str(folder / "pool.parquet"), "--targets", str(folder / "targets.parquet"), "--out", str(folder / out)]
    phase = SETTINGS.model_dump_json(include={"batch", "epochs", "optimiser"})
    sets = ["--set", f"phase={phase}", "--set", f"launch.processes={processes}"]
    return ["train", "sft", *inputs, "--model", str(model), *sets, "--json"]


SETTINGS = SFT(
    batch=6,
    epochs=3,
    optimiser=Optimiser(learning_rate=1e-3, micro_batch=2, checkpoint_every=2, warmup_ratio=0.1),
)


@pytest.mark.slow
def test_sft_in_two_processes_is_sft_in_one_also_after_the_run_was_killed(tiny_model: Path, alone: Path) -> None:
    """`kill -9` of the starting process ends its workers; the same command goes on; `launch` is not in the key."""
    line = sft_line(alone, tiny_model, "two", 2)
    partial, two = alone / "two.partial", alone / "two"
    process = subprocess.Popen(
        [sys.executable, "-m", "dereason", *line], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        marker = partial / "checkpoints" / "checkpoint-2" / "checkpoint-complete"
        wait_for(lambda: marker.is_file() or process.poll() is not None)
        pids = [int(p.read_text()) for p in (partial / "launch").glob("*.pid")]
    finally:
        process.kill()
        assert process.stderr is not None
        said = process.stderr.read().decode()
        process.wait()
    assert marker.is_file(), said
    assert len(pids) == 2
    wait_for(lambda: all(map(gone, pids)), 10)

    assert main(line) == 0
    assert_same_training(alone / "one", two, tiny_model)
    assert not (two / "launch").exists()
    stamp = (two / "step.json").stat().st_mtime_ns
    assert main(sft_line(alone, tiny_model, "two", 1)) == 0
    assert (two / "step.json").stat().st_mtime_ns == stamp, "the number of processes made another step of it"


@pytest.mark.slow
def test_sft_sharded_by_fsdp2_is_sft_in_one_process(
    tiny_model: Path, pool: pl.DataFrame, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped configuration, over gloo; what a GPU adds (autocast, NCCL) is not in it."""
    work = alone / "fsdp2"
    work.mkdir()
    job = Job(
        processes=2,
        kind="sft",
        work=work,
        model=ModelSettings(name=str(tiny_model), device="cpu"),
        prompt=Prompt(),
        sft=SETTINGS,
        seed=0,
        expected_hash=None,
    )
    real = launch_module.command

    def on_cpus(*args: Any) -> list[str]:
        line = real(*args)
        return [*line[:-3], str(Path(__file__).with_name("fsdp_on_cpus.py")), line[-1]]

    monkeypatch.setattr(launch_module, "command", on_cpus)
    monkeypatch.setattr(launch_module, "check_launch", lambda *args: None)
    targets = pl.read_parquet(alone / "targets.parquet")
    result = launch_phase(Launch(processes=2, config="fsdp2"), job, pool, targets)
    assert result.steps == 6
    saved = work / "checkpoints" / "checkpoint-6"
    assert len(list((saved / "pytorch_model_fsdp_0").glob("*.distcp"))) == 2, "nothing was sharded"
    assert_same_training(alone / "one", work, tiny_model)


@pytest.mark.slow
def test_rl_in_two_processes_is_rl_in_one_also_after_a_worker_was_killed(
    tiny_model: Path, pool: pl.DataFrame, tmp_path: Path
) -> None:
    """Sampling streams belong to problem and index, so that both draw the same rollouts.

    No group is mixed and one problem is left over: dynamic sampling draws for one process and not for the other.
    """
    pool = pool.head(5)
    settings = RL(
        steps=4,
        prompts_per_generation=4,
        group_size=4,
        updates_per_generation=2,
        dynamic_sampling=DynamicSampling(max_draws=2),
        max_new_tokens=6,
        # at 1 a random model's 49,000 tokens are so alike that rounding may fall on another one
        temperature=0.4,
        optimiser=RLOptimiser(learning_rate=1e-5, micro_batch=4, checkpoint_every=2),
        # a random model never answers right: reward every other length of its text
        rewards=Rewards(of=[Format(shape="regex", pattern=r"(?s)(?:..)*")]),
    )
    model = ModelSettings(name=str(tiny_model))
    one, two = tmp_path / "one", tmp_path / "two"
    run_rl(model, PROMPT, pool, settings, identity="x", out=one / "model", work=one, seed=3)
    job = Job(
        processes=2,
        kind="rl",
        work=two,
        model=model,
        prompt=PROMPT,
        rl=settings,
        seed=3,
        expected_hash=None,
        identity="x",
    )
    pids: list[int] = []

    def kill_one(done: int, total: int, words: str) -> None:
        if done >= 3 and not pids:
            pids.extend(int((two / "launch" / f"worker-{rank}.pid").read_text()) for rank in (0, 1))
            os.kill(pids[1], signal.SIGKILL)

    two.mkdir()
    with pytest.raises(DereasonError, match=r"ended by signal 9, most likely because memory ran out"):
        launch_phase(Launch(processes=2), job, pool, progress=kill_one)
    assert len(pids) == 2
    wait_for(lambda: all(map(gone, pids)), 5)
    # Two launchers, as on two machines; the second is started by the script that the first names.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    machines = Launch(processes=2, machines=2, main_address="127.0.0.1", main_port=port)
    others: list[subprocess.Popen[bytes]] = []
    seen: list[int] = []
    result = launch_phase(
        machines,
        job,
        pool,
        progress=lambda done, total, words: seen.append(done),
        say=lambda words: others.append(subprocess.Popen(words.split("run there: ")[1].split())),
    )
    assert [other.wait(30) for other in others] == [0]
    assert seen[-1] == result.steps == 4
    assert result.model == two / "model"
    assert_same_training(one, two, tiny_model)
    rollouts = rollout_table(two)
    assert rollouts.equals(rollout_table(one))
    assert rollouts.group_by("step", "problem_id").len()["len"].to_list() == [4] * 10
    assert sum(row["grad_norm"] > 0 for row in metrics(two)) >= 3  # one whose groups are all flat has none


STUB = """
import fcntl, os, pathlib, subprocess, sys, time
folder = pathlib.Path(sys.argv[1])
if len(sys.argv) == 2:  # the launcher: like torch's, it has its workers in sessions of their own
    child = subprocess.Popen([sys.executable, __file__, str(folder), "worker"], start_new_session=True)
    sys.exit(child.wait())
lock = open(folder / "workers.lock", "a")
fcntl.flock(lock, fcntl.LOCK_SH)
(folder / "worker-0.pid").write_text(str(os.getpid()))
(folder / "progress.json").write_text('[1, 2, "loss 3"]')
time.sleep(60)
"""


def replace_launcher(monkeypatch: pytest.MonkeyPatch, line: list[str]) -> None:
    monkeypatch.setattr(launch_module, "command", lambda *args: line)


def test_an_interrupt_ends_launcher_and_workers(job: Job, pool: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher dies of its signal without a word to its worker."""
    script = job.work / "stub.py"
    script.write_text(STUB)
    replace_launcher(monkeypatch, [sys.executable, str(script), str(job.folder)])
    heard: list[object] = []

    def interrupt(*said: object) -> None:
        heard.append(said)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch_phase(Launch(processes=2), job, pool, progress=interrupt)
    assert heard == [(1, 2, "loss 3")]
    pid = int((job.folder / "worker-0.pid").read_text())
    wait_for(lambda: gone(pid), 5)


def test_a_new_attempt_waits_for_the_workers_of_an_earlier_one(
    job: Job, pool: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr(launch_module, "GRACE", 0.3)
    replace_launcher(monkeypatch, ["false"])
    (job.folder / "worker-0.pid").write_text("4242")
    with workers_lock(job.folder) as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        with pytest.raises(DereasonError, match=r"earlier attempt are still running \(4242\)"):
            launch_phase(Launch(processes=2), job, pool)
    with pytest.raises(DereasonError, match="exit code 1"):
        launch_phase(Launch(processes=2), job, pool)


def error(rank: int, known: bool, at: float) -> str:
    words = {"time": at, "rank": rank, "known": known, "cause": f"cause {rank}", "mend": "mend", "traceback": "line 1"}
    return f"echo '{json.dumps(words)}' > error-{rank}.json"


KILLED = "echo '  exitcode  : -9 (pid: 77)'; echo '  exitcode  : -15 (pid: 78)'; exit 1"


@pytest.mark.parametrize(
    ("does", "kind", "words"),
    [
        # what others raise because the first one left comes after it, and may be no error of ours
        (f"{error(0, False, 1.0)}; {error(1, True, 2.0)}; exit 1", DereasonError, "cause 1 — mend"),
        (
            f"{error(0, False, 2.0)}; {error(1, False, 1.0)}; exit 1",
            RuntimeError,
            "training process 1: cause 1\nline 1",
        ),
        (f"{error(0, False, 1.0)}; {KILLED}", DereasonError, "ended by signal 9, most likely because memory ran out"),
        ("kill -9 $$", DereasonError, "ended by signal 9"),
        ("echo one; echo two >&2; exit 3", DereasonError, "exit code 3; their last words: one | two"),
        ("exit 0", DereasonError, "exit code 0"),
    ],
)
def test_how_processes_end_is_said(
    does: str,
    kind: type[Exception],
    words: str,
    job: Job,
    pool: pl.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replace_launcher(monkeypatch, ["sh", "-c", f"cd {job.folder}; {does}"])
    with pytest.raises(kind) as caught:
        launch_phase(Launch(processes=2), job, pool)
    assert words in str(caught.value)


def test_a_worker_refuses_to_train_alone_what_is_meant_for_two(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """`accelerate launch --cpu --num_processes 2` starts one process and says nothing."""
    for name in ("WORLD_SIZE", "RANK", launch_module.SUPERVISOR):
        monkeypatch.delenv(name, raising=False)
    path = job.folder / "job.json"
    path.write_text(job.model_dump_json())
    assert worker.main(path) == 1
    said = json.loads((job.folder / "error-0.json").read_text())
    assert said["known"]
    assert said["cause"] == "the job is for 2 processes, and there are 1"


def test_a_worker_that_starts_after_its_parent_is_gone_leaves(tmp_path: Path) -> None:
    """The file that the parent held is free, or gone already."""
    (tmp_path / "free").touch()
    for name in ("free", "gone"):
        program = (
            "import sys, time; from dereason.training.worker import leave_with; leave_with(sys.argv[1]); time.sleep(60)"
        )
        done = subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], timeout=30)
        assert done.returncode == 1


@pytest.mark.parametrize(
    ("config", "flag"),
    [
        ("ddp", "multi_gpu"),
        ("fsdp2", "use_fsdp"),
        ("deepspeed-zero2", "use_deepspeed"),
        ("deepspeed-zero3", "use_deepspeed"),
        ("multi-node", "use_fsdp"),
    ],
)
def test_accelerate_reads_the_shipped_configurations_and_our_line(config: str, flag: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    assert set(shipped_configs()) == {"ddp", "fsdp2", "deepspeed-zero2", "deepspeed-zero3", "multi-node"}
    load_config_from_file(str(find_config(config)))  # refuses unknown keys
    machines = 2 if config == "multi-node" else 1
    launch = Launch(processes=4, config=config, machines=machines, main_address="node0" if machines > 1 else None)
    line = command(launch, Path("job.json"), machines - 1)
    assert line[1:3] == ["-m", "accelerate.commands.launch"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(line[3:]))
    kinds = ("multi_gpu", "use_fsdp", "use_deepspeed")
    assert [kind for kind in kinds if getattr(args, kind)] == [flag]
    assert (args.num_processes, args.num_machines, args.machine_rank) == (4, machines, machines - 1)
    assert args.training_script == "dereason.training.worker"
    if flag == "use_fsdp":
        environment = prepare_multi_gpu_env(args)
        assert environment["FSDP_VERSION"] == "2"
        assert args.nproc_per_node == str(4 // machines)
    if machines > 1:
        assert (args.nnodes, args.node_rank, args.rdzv_endpoint) == ("2", 1, "node0:29500")
    if flag == "use_deepspeed":
        assert args.zero_stage == int(config[-1])


@pytest.mark.parametrize(
    ("settings", "device", "words"),
    [
        ({"processes": 2, "config": "fsdp2"}, "cpu", "shards the model by FSDP"),
        ({"processes": 2, "config": "deepspeed-zero2"}, "cuda", "needs DeepSpeed"),
        ({"processes": 2}, "mps", "takes one process"),
        ({"processes": 2}, "cuda", "there are 0 GPUs here"),
        ({"processes": 2, "config": "no-such"}, "cpu", "no accelerate configuration 'no-such'"),
    ],
)
def test_what_cannot_start_is_refused(
    settings: dict[str, object], device: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(launch_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DereasonError, match=words):
        check_launch(Launch.model_validate(settings), device)
    check_launch(Launch(processes=1, config="fsdp2"), device)  # of no meaning for one process


def test_sharded_checkpoints_are_not_read_by_another_sharding(tmp_path: Path) -> None:
    two, sharded = Launch(processes=2), Launch(processes=2, config="fsdp2")
    for launch in (Launch(), two, sharded, sharded, two):
        check_resume(launch, tmp_path)  # nothing to go on from yet
    check_resume(sharded, tmp_path)
    checkpoint = tmp_path / "checkpoints" / "checkpoint-2"
    checkpoint.mkdir()
    (checkpoint / "weights").write_text("w")
    mark(checkpoint)
    check_resume(sharded, tmp_path)
    for other in (Launch(), two, Launch(processes=4, config="fsdp2")):
        with pytest.raises(DereasonError, match="FSDP in 2 processes"):
            check_resume(other, tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_text("w")
    mark(checkpoint)
    for same in (Launch(), two, Launch(processes=4)):
        check_resume(same, tmp_path)
    with pytest.raises(DereasonError, match="no sharding"):
        check_resume(sharded, tmp_path)
