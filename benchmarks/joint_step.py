"""What an optimiser step of each joint method costs against plain RL: time, tokens and peak memory, one model.

    python benchmarks/joint_step.py [--methods rl,weighted,bridge] [--steps 4] [--prompts 4] [--group 4] [--tokens 48]
        [--model embedded]

Every method runs in a process of its own, on the same problems and demonstrations, which are made here. The reward is
planted (every third response), so that every group has a gradient whatever the model answers: this times steps, it
teaches nothing. The first step, which warms up, is left out of the times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from dereason.lm import embedded
from dereason.lm.local.model import ModelSettings
from dereason.lm.prompts import Prompt
from dereason.problems.schema import frame
from dereason.training.joint.methods import JointMethod
from dereason.training.joint.settings import Joint
from dereason.training.rewards.rules import CorrectnessReward
from dereason.training.rl import RL, RLOptimiser, run_rl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="rl,weighted,bridge", help="rl, and names that `dereason methods` lists")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--model", default="embedded", help="hub id, folder or `embedded`")
    for name, value in (("steps", 4), ("prompts", 4), ("group", 4), ("tokens", 48)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(_run(args.only, args)))
        return
    print(
        "| method | s a step, median (least to most) | to rl | tokens trained a step | generated | peak GiB | to rl |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    plain: dict[str, float] | None = None
    for method in args.methods.split(","):
        command = [sys.executable, __file__, "--only", method]
        command += [f"--{name}={getattr(args, name)}" for name in ("steps", "prompts", "group", "tokens", "model")]
        out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows = json.loads(out.stdout.splitlines()[-1])
        seconds = [row["took"] for row in rows[1:]]
        found = {
            "seconds": statistics.median(seconds),
            "trained": statistics.mean(row["trained_tokens"] for row in rows[1:]),
            "generated": statistics.mean(row["generated_tokens"] for row in rows[1:]),
            "memory": max(row["memory_gib"] for row in rows),
        }
        plain = plain or found
        print(
            f"| `{method}` | {found['seconds']:.1f} ({min(seconds):.1f} to {max(seconds):.1f}) "
            f"| {found['seconds'] / plain['seconds']:.2f} | {found['trained']:,.0f} | {found['generated']:,.0f} "
            f"| {found['memory']:.1f} | {found['memory'] / plain['memory']:.2f} |",
            flush=True,
        )


def _run(method: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """One phase; its metrics, with the seconds that each step took."""
    CorrectnessReward.score = lambda self, responses, log: [float(i % 3 == 0) for i in range(len(responses))]
    numbers = range(2 * args.prompts)
    question = "Tom has {} apples and buys {} more, then gives away {}. How many has he?"
    problems = [
        {"id": f"p{i}", "question": question.format(i + 3, 2 * i + 5, i), "answer": str(2 * i + 8)}
        | {"domain": "sum", "source": "made"}
        for i in numbers
    ]
    shown = "Tom has {} apples. With {} more that is {}. He gives away {}, which leaves {}: \\boxed{{{}}}"
    targets = [
        {"problem_id": f"p{i}", "response": shown.format(i + 3, 2 * i + 5, 3 * i + 8, i, 2 * i + 8, 2 * i + 8)}
        | {"origin": "reference", "accepted": True}
        for i in numbers
    ]
    common: dict[str, Any] = {
        "steps": args.steps,
        "prompts_per_generation": args.prompts,
        "group_size": args.group,
        "max_new_tokens": args.tokens,
        "optimiser": RLOptimiser(learning_rate=1e-6, micro_batch=4, checkpoint_every=10_000),
    }
    given = {}
    settings = RL(**common)
    if method != "rl":
        settings = Joint(**common, method=TypeAdapter(JointMethod).validate_python({"name": method}))
        given = {"demonstrations": frame("target", targets)}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run_rl(
            ModelSettings(name=str(embedded.ensure()) if args.model == embedded.NAME else args.model, device="cpu"),
            Prompt(suffix="Put the final answer within \\boxed{}."),
            frame("problem", problems),
            settings,
            identity="embedded",
            out=work / "model",
            work=work,
            seed=1,
            progress=lambda *_: None,
            **given,
        )
        rows = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    before = 0.0
    for row in rows:
        row["took"], before = row["seconds"] - before, row["seconds"]
    return rows


if __name__ == "__main__":
    main()
