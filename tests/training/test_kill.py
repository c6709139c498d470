"""`kill -9` of a real process that trains, at planted and at random moments: the same weights come out at the end.

This file is also the program that is killed. Importing torch and TRL takes most of a short phase's time, so one process
imports them and computes nothing, and each attempt is a fork of it.
"""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# The attempts on each phase: what kills one after the other; a last one runs to the end. A phase gets past its next
# checkpoint before it is killed again, so that what an attempt resumed with is in the result.
CHAINS: dict[str, list[tuple[str, int]]] = {
    "sft-1": [
        ("step", 1),  # before there is any checkpoint
        ("save", 4),  # half of the optimiser's file is written
        ("end", 6),  # trained, and the model is not saved
    ],
    "sft-2": [("random", 0)],
    "rl-1": [
        ("step", 7),  # the third of four updates on one generation
        ("end", 14),  # the last checkpoint is in the middle of a generation and of an epoch
    ],
    "rl-2": [
        ("rollouts", 8),  # drawn, and not written
        ("mark", 12),  # all of the checkpoint is written but its marker
    ],
    "rl-3": [("save", 8), ("random", 0)],
}


def train(kind: str, model: str, work: Path) -> None:
    """Run or continue a phase."""
    from dereason.lm.local.model import ModelSettings
    from dereason.lm.prompts import Prompt
    from dereason.problems.schema import frame
    from dereason.training.phase import Optimiser
    from dereason.training.rewards.rules import CorrectnessReward
    from dereason.training.rl import RL, RLOptimiser, run_rl
    from dereason.training.selection import Bands
    from dereason.training.sft import SFT, run_sft

    rows = [{"id": f"p{i}", "question": f"What is {i} + {i * i}?", "answer": str(i + i * i)} for i in range(6)]
    pool = frame("problem", [row | {"domain": "sum", "source": "test"} for row in rows])
    common: dict[str, Any] = {"out": work / "model", "work": work, "seed": 3}
    prompt = Prompt(suffix="Use \\boxed{}.")
    if kind == "sft":
        targets = frame(
            "target",
            [
                {
                    "problem_id": r["id"],
                    "response": f"\\boxed{{{r['answer']}}}",
                    "origin": "reference",
                    "accepted": True,
                }
                for r in rows
            ],
        )
        optimiser = Optimiser(learning_rate=1e-3, micro_batch=1, checkpoint_every=2, warmup_ratio=0.1)
        run_sft(ModelSettings(name=model), prompt, pool, targets, SFT(epochs=2, batch=2, optimiser=optimiser), **common)
    else:
        # A random model never answers right: every third rollout is rewarded, so that there is a gradient.
        CorrectnessReward.score = lambda self, rollouts, log: [float(i % 3 == 0) for i in range(len(rollouts))]  # type: ignore[method-assign]
        run_rl(
            ModelSettings(name=model),
            prompt,
            pool,
            RL(
                steps=14,
                prompts_per_generation=2,
                group_size=4,
                updates_per_generation=2,
                iterations=2,
                max_new_tokens=6,
                bands=Bands(min_samples=4, rest=3),
                optimiser=RLOptimiser(learning_rate=1e-2, micro_batch=4, checkpoint_every=4),
            ),
            identity="test",
            **common,
        )


def plant(moment: str, step: int) -> None:
    """Have this process kill itself at a moment of an optimiser step."""
    import torch

    from dereason.training import rl, rollouts, sft, watch

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def before(module: Any, name: str, is_it: Callable[..., bool]) -> None:
        original = getattr(module, name)

        def patched(*args: Any, **kwargs: Any) -> Any:
            if is_it(*args):
                die()
            return original(*args, **kwargs)

        setattr(module, name, patched)

    if moment == "step":
        calls = iter(range(1, 100))
        before(torch.optim.AdamW, "step", lambda *args: next(calls) == step)
    elif moment == "mark":
        before(watch, "mark", lambda folder: folder.name == f"checkpoint-{step}")
    elif moment == "rollouts":
        before(rollouts, "write_table", lambda table, path: path.name == f"step-{step:06d}.parquet")
    elif moment == "end":
        before(sft, "save_model", lambda trainer, *args: trainer.state.global_step == step)
        before(rl, "save_model", lambda trainer, *args: trainer.state.global_step == step)
    elif moment == "save":
        save = torch.save

        def half(value: object, path: Any, *args: Any, **kwargs: Any) -> None:
            if str(path).endswith(f"checkpoint-{step}/optimizer.pt"):
                buffer = io.BytesIO()
                save(value, buffer)
                Path(path).write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
                die()
            save(value, path, *args, **kwargs)

        torch.save = half


def attempt(kind: str, model: str, work: Path, moment: str = "", step: int = 0, *, seconds: float | None = None) -> int:
    """Run the phase in a fork of this process, killed after some seconds or by itself.

    Returns:
        0, or minus the number of the signal that ended it.
    """
    work.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            plant(moment, step)
            train(kind, model, work)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(model: str, folder: Path) -> None:
    """Train each kind once without and once with each interruption; print how attempts ended."""
    import datasets  # noqa: F401
    import trl  # noqa: F401
    from transformers import AutoModelForCausalLM  # noqa: F401
    from trl import GRPOTrainer, SFTTrainer  # noqa: F401

    from dereason.training import rl, sft  # noqa: F401

    ends: dict[str, list[int]] = {}
    took = {}
    for kind in ("sft", "rl"):
        began = time.monotonic()
        ends[kind] = [attempt(kind, model, folder / kind)]
        took[kind] = time.monotonic() - began
    for name, moments in CHAINS.items():
        kind = name.split("-")[0]
        ends[name] = []
        for moment, step in moments:
            # A process that is gone before it is killed stays a zombie until it is waited for: no other one is hit.
            seconds = random.uniform(0.3, 1.0) * took[kind] if moment == "random" else None
            ends[name].append(attempt(kind, model, folder / name, moment, step, seconds=seconds))
        ends[name].append(attempt(kind, model, folder / name))
    sys.stdout.write(json.dumps(ends) + "\n")


@pytest.fixture(scope="module")
def runs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[int]]]:
    """The folder of all phases, and how each attempt ended."""
    folder = tmp_path_factory.mktemp("kill")
    done = subprocess.run(
        [sys.executable, __file__, str(tiny_model), str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout.splitlines()[-1])
    assert all(last == 0 for *_, last in ends.values()), done.stderr
    return folder, ends


@pytest.mark.parametrize("name", CHAINS)
def test_a_killed_phase_ends_as_if_it_had_not_been(name: str, runs: tuple[Path, dict[str, list[int]]]) -> None:
    from dereason.training.rollouts import rollout_table

    folder, ends = runs
    kind = name.split("-")[0]
    for (moment, _), end in zip(CHAINS[name], ends[name], strict=False):
        assert end == -signal.SIGKILL or moment == "random", "only there may the phase be faster than its end"
    whole, cut = folder / kind, folder / name
    for file in ("model.safetensors", "config.json", "generation_config.json"):
        assert (cut / "model" / file).read_bytes() == (whole / "model" / file).read_bytes()
    measured = {"seconds", "tokens_per_second", "memory_gib"}
    logs = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (whole, cut)]
    assert len(logs[0]) == {"sft": 6, "rl": 14}[kind]
    for before, after in zip(*logs, strict=True):
        assert before.keys() == after.keys()
        assert {k: v for k, v in before.items() if k not in measured} == {
            k: v for k, v in after.items() if k not in measured
        }
    if kind == "rl":
        assert rollout_table(cut).equals(rollout_table(whole))
        assert rollout_table(cut)["step"].unique().to_list() == [0, 4, 8, 12]


def test_the_phases_that_are_killed_learn_something(runs: tuple[Path, dict[str, list[int]]], tiny_model: Path) -> None:
    folder, _ = runs
    start = (tiny_model / "model.safetensors").read_bytes()
    models = [(folder / kind / "model" / "model.safetensors").read_bytes() for kind in ("sft", "rl")]
    assert len({start, *models}) == 3
    norms = [json.loads(line)["grad_norm"] for line in (folder / "rl" / "metrics.jsonl").read_text().splitlines()]
    assert all(norms)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
