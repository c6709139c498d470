"""Seconds of one GRPO step, rollouts and update, of our trainer against plain TRL's, in the same process.

    python benchmarks/rl_step.py [--flat 0.6] [--steps 2] [--prompts 5] [--group 8] [--tokens 48] [--micro 8]
        [--model embedded]

Both sides: the same model in float32, the same problems (sums that reasoning-gym makes), rollouts of a fixed length (no
end token), the same number of rows a micro-batch, gradient checkpointing off, rewards planted so that a share
``--flat`` of the groups has equal rewards. Plain TRL is GRPOTrainer with its defaults otherwise. The sides take turns
after one short warm-up each.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from dereason.lm.library_log import quiet_libraries
from dereason.lm.local.model import ModelSettings, load_tokenizer, load_weights
from dereason.lm.prompts import Prompt
from dereason.problems.sources import load_source
from dereason.training.rl import RL, RLOptimiser
from dereason.training.trainer import make_trainer_class


def problems(count: int) -> list[dict[str, Any]]:
    from pydantic import TypeAdapter

    from dereason.problems.sources import Source

    family = {
        "family": "chain_sum",
        "size": count,
        "args": {"min_terms": 2, "max_terms": 6, "max_digits": 1, "min_digits": 1},
    }
    source = TypeAdapter(Source).validate_python({"source": "reasoning_gym", "seed": 1, "families": [family]})
    prompt = Prompt(suffix="Put the final answer within \\boxed{}.")
    table = load_source(source)
    return [
        {"prompt": prompt.messages(r["question"], None), "problem_id": r["id"], "answer": r["answer"]}
        for r in table.iter_rows(named=True)
    ]


def seconds(kind: str, options: argparse.Namespace, steps: int, tokens: int) -> float:
    """Seconds per step of one side."""
    settings = ModelSettings(name=options.model, device="cpu")
    tokenizer, model = load_tokenizer(settings), load_weights(settings)
    rollouts = options.prompts * options.group
    flat_groups = round(options.flat * options.prompts)

    judged = SimpleNamespace(correct=[], mixed=[])  # what our trainer asks of a phase's rollouts

    def planted(completions: Any, **_: Any) -> list[float]:
        rewards = [float(i // options.group >= flat_groups and i % 2) for i in range(len(completions))]
        judged.correct = [reward == 1 for reward in rewards]
        judged.mixed = [group >= flat_groups for group in range(len(rewards) // options.group)]
        return rewards

    base = make_trainer_class() if kind == "ours" else GRPOTrainer
    with tempfile.TemporaryDirectory() as folder:
        trainer = base(
            model=model,
            reward_funcs=planted,
            args=GRPOConfig(
                output_dir=folder,
                per_device_train_batch_size=options.micro if kind == "trl" else rollouts,
                gradient_accumulation_steps=rollouts // options.micro if kind == "trl" else 1,
                steps_per_generation=rollouts // options.micro if kind == "trl" else 1,
                num_generations=options.group,
                max_completion_length=tokens,
                max_steps=steps,
                generation_kwargs={"min_new_tokens": tokens},
                activation_checkpointing=False,
                learning_rate=1e-6,
                bf16=False,
                use_cpu=True,
                report_to=[],
                disable_tqdm=True,
                save_strategy="no",
                logging_strategy="no",
                seed=0,
            ),
            train_dataset=Dataset.from_list(problems(options.prompts * steps)),
            processing_class=tokenizer,
        )
        if kind == "ours":
            trainer.phase = RL(
                prompts_per_generation=options.prompts,
                group_size=options.group,
                max_new_tokens=tokens,
                optimiser=RLOptimiser(micro_batch=options.micro),
            )
            trainer.rollouts = judged
            trainer.eos_token_ids = []  # rollouts of a fixed length
        started = time.perf_counter()
        trainer.train()
        return (time.perf_counter() - started) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--flat", type=float, default=0.6, help="share of groups with equal rewards")
    parser.add_argument("--steps", type=int, default=2, help="timed steps of each side")
    parser.add_argument("--prompts", type=int, default=5)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--micro", type=int, default=8)
    parser.add_argument("--model", default="embedded", help="hub id, folder or `embedded`")
    options = parser.parse_args()
    quiet_libraries()
    for kind in ("trl", "ours"):
        seconds(kind, options, 1, 2)
    times: dict[str, list[float]] = {"trl": [], "ours": []}
    for _ in range(options.steps):
        for kind, list_ in times.items():
            list_.append(seconds(kind, options, 1, options.tokens))
    print(
        f"{options.prompts} prompts x {options.group} rollouts x {options.tokens} tokens, {options.flat:.0%} of groups "
        f"flat, {torch.get_num_threads()} threads"
    )
    for kind, list_ in times.items():
        print(f"{kind:5} {statistics.mean(list_):6.1f} s a step (each: {', '.join(f'{t:.1f}' for t in list_)})")
    print(f"ratio {statistics.mean(times['ours']) / statistics.mean(times['trl']):.2f}")


if __name__ == "__main__":
    main()
