"""Does a model drift to answers without a mark where RL pays them? Lenient against strict rewards from one start.

    python benchmarks/reward_drift.py [--keep FOLDER] [--seeds 0 1 2] [--steps 12] [--prompts 4] [--group 8]
        [--tokens 24] [--held-out 64] [--learning-rate 1.5e-5] [--model embedded]

One recipe with two arms, each one phase of GRPO on the same sums (reasoning-gym) from the same model: `lenient` pays
every right answer (`marks: any`), `strict` marked ones alone (the default). Printed are both verdicts of the rollouts,
step by step, and of one answer each to held-out problems before and after: means over seeds, and the standard deviation
between them. With ``--keep`` the run stays in that folder, with its report, and one that was killed goes on there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import polars as pl
import yaml

from dereason.cli.main import main as dereason

ARMS = {"lenient": "any", "strict": "all"}
SUFFIX = "Write the sum with its result. Then say: The answer is X."
"""Asks for a mark, and the embedded model gives it in about two answers of five."""


def recipe(options: argparse.Namespace) -> dict[str, Any]:
    def problems(seed: int, size: int) -> dict[str, Any]:
        args = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
        return {
            "source": "reasoning_gym",
            "seed": seed,
            "families": [{"family": "chain_sum", "size": size, "args": args}],
        }

    sampling = {"temperature": options.temperature, "max_new_tokens": options.tokens, "batch_size": 96}
    phase = {
        "kind": "rl",
        "set": "rl",
        "steps": options.steps,
        "prompts_per_generation": options.prompts,
        "group_size": options.group,
        "max_new_tokens": options.tokens,
        "temperature": options.temperature,
        "stops": {"zero_reward_steps": 0},
        "optimiser": {
            "learning_rate": options.learning_rate,
            "schedule": "constant",
            "micro_batch": 8,
            "checkpoint_every": 4,
        },
    }
    return {
        "name": "reward-drift",
        "model": {"name": options.model, "device": "cpu"},
        "prompt": {"system": "You are good at arithmetic.", "suffix": options.suffix},
        "problems": {"train": problems(1, 64), "test": problems(2, options.held_out)},
        "profile": {"judge": {"enabled": False}, "pass_rate": {"enabled": False}},
        "arms": [
            {
                "name": name,
                "route": {"policy": "all", "set": "rl"},
                "phases": [phase | {"rewards": {"marks": marks, "of": [{"name": "correctness"}]}}],
            }
            for name, marks in ARMS.items()
        ],
        "seeds": options.seeds,
        "evaluation": {"samples": 1, "sampling": sampling},
    }


def shares(samples: pl.DataFrame) -> tuple[float, float]:
    """Right by any answer, and right by a marked one."""
    judged = samples.filter(pl.col("verdict") != "error")
    return float((judged["verdict"] == "correct").mean()), float(judged["strict"].mean())  # type: ignore[arg-type]


def spread(values: list[float]) -> str:
    """Mean and standard deviation, percent."""
    return f"{100 * fmean(values):.1f}" + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--prompts", type=int, default=4, help="problems of a generation")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--held-out", type=int, default=64, help="problems, fewer where some are alike")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--learning-rate", type=float, default=1.5e-5)
    parser.add_argument("--suffix", default=SUFFIX, help="what the prompt asks for")
    parser.add_argument("--model", default="embedded", help="hub id, folder or `embedded`")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(options, options.keep or Path(folder))


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Run the recipe in a folder and print what became of the two verdicts."""
    folder.mkdir(parents=True, exist_ok=True)
    path, run_dir = folder / "reward-drift.yaml", folder / "run"
    path.write_text(yaml.safe_dump(recipe(options), sort_keys=False), encoding="utf-8")
    if code := dereason(["run", str(path), "--run-dir", str(run_dir)]):
        sys.exit(code)
    artifacts = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))["artifacts"]
    print("\nrollouts, % right by any answer and by a marked one, mean ± SD over seeds:")
    print("| step | " + " | ".join(f"{arm}: lenient | {arm}: strict" for arm in ARMS) + " |")
    curves: dict[str, list[list[tuple[float, float]]]] = {arm: [] for arm in ARMS}
    for curve in artifacts["curves"]:
        rollouts = pl.read_parquet((run_dir / curve["path"]).with_name("samples.parquet"))
        curves[curve["arm"]].append([shares(of) for _, of in rollouts.group_by("step", maintain_order=True)])
    for step in range(options.steps):
        cells = [spread([seed[step][k] for seed in curves[arm]]) for arm in ARMS for k in (0, 1)]
        print(f"| {step + 1} | " + " | ".join(cells) + " |")
    stages: dict[str, list[tuple[float, float]]] = {}
    for of in artifacts["samples"]:
        answers = pl.read_parquet(run_dir / of["path"])
        stages.setdefault("before" if of["stage"] == "base" else of["arm"], []).append(shares(answers))
    print(f"\n{answers.height} held-out problems, one answer each, at temperature {options.temperature}:")
    for arm, found in stages.items():
        if arm == "before":
            found = found[:1]  # one model answers once, for all arms and seeds
        each = ", ".join(f"{100 * lenient:.0f}/{100 * strict:.0f}" for lenient, strict in found)
        lenient, strict = ([pair[k] for pair in found] for k in (0, 1))
        gap = [a - b for a, b in found]
        print(f"{arm}: lenient {spread(lenient)}, strict {spread(strict)}, gap {spread(gap)} ({each})")


if __name__ == "__main__":
    main()
