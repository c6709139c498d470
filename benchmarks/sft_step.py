"""Target tokens a second of SFT: our trainer against plain TRL's, in the same process, on the same targets.

    python benchmarks/sft_step.py [--data gsm8k-train.jsonl] [--mixed] [--steps 3] [--batch 16] [--model embedded]

Data: JSON Lines with `question`, `solution` and `answer`; the documented numbers are of GSM8K's training half (hub id
openai/gsm8k, MIT; its `answer` is the worked solution with the answer behind ####). Without `--data`: word problems
with worked solutions that reasoning-gym's gsm_symbolic makes.

One model in float32, gradient checkpointing off, one optimiser step a batch. TRL is SFTTrainer with its
defaults otherwise (the loss on the response, the batch as one forward pass), then with its `group_by_length`, then with
its packing (rows as long as the longest target). Ours may take as many rows a micro-batch, but no more than
`update.CPU_TOKENS` tokens, which `--tokens` changes. Sides take turns, after a short warm-up each; what is timed is the
whole of `train()`. `--mixed` replaces every other target by the bare answer, so that lengths differ more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import reasoning_gym
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from dereason.lm.library_log import quiet_libraries
from dereason.lm.local.model import ModelSettings, load_tokenizer, load_weights
from dereason.lm.prompts import Prompt
from dereason.training import update
from dereason.training.phase import Optimiser
from dereason.training.sft import SFT, make_row
from dereason.training.sft_trainer import make_trainer_class

SIDES = ("trl", "trl group_by_length", "trl packing", "ours")
PROMPT = Prompt()


def targets(path: Path | None, count: int, mixed: bool) -> list[tuple[str, str]]:
    """Questions and responses."""
    if path is None:
        made = reasoning_gym.create_dataset("gsm_symbolic", size=count, seed=1)
        rows = [row | {"solution": row["metadata"]["answer_cot"]} for row in made]
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()[:count]]
    return [
        (r["question"], f"\\boxed{{{r['answer']}}}" if mixed and i % 2 else r["solution"]) for i, r in enumerate(rows)
    ]


def run(side: str, pairs: list[tuple[str, str]], batch: int, name: str) -> tuple[float, int, float]:
    """Seconds, target tokens and the first step's loss of one pass over the pairs."""
    settings = ModelSettings(name=name, device="cpu")
    tokenizer, model = load_tokenizer(settings), load_weights(settings)
    rows = [make_row(tokenizer, PROMPT.messages(q, None), r, PROMPT, str(i)) for i, (q, r) in enumerate(pairs)]
    longest = max(len(row.prompt) + len(row.response) for row in rows)
    shared: dict[str, Any] = {
        "num_train_epochs": 1,
        "learning_rate": 1e-6,
        "activation_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "seed": 0,
    }
    with tempfile.TemporaryDirectory() as folder:
        if side == "ours":
            trainer = make_trainer_class()(
                model=model,
                args=SFTConfig(
                    output_dir=folder,
                    per_device_train_batch_size=1,
                    max_length=None,
                    dataset_kwargs={"skip_prepare_dataset": True},
                    **shared,
                ),
                train_dataset=Dataset.from_list(
                    [{"row": i, "input_ids": list(r.prompt), "labels": list(r.prompt)} for i, r in enumerate(rows)]
                ),
                processing_class=tokenizer,
            )
            trainer.phase, trainer.rows = SFT(batch=batch, optimiser=Optimiser(micro_batch=batch)), rows
        else:
            packing = side == "trl packing"
            trainer = SFTTrainer(
                model=model,
                args=SFTConfig(
                    output_dir=folder,
                    # packed rows hold several targets: as many rows as make about the same step
                    per_device_train_batch_size=max(1, round(batch * _mean(rows) / longest)) if packing else batch,
                    max_length=longest,
                    packing=packing,
                    completion_only_loss=True,
                    train_sampling_strategy="group_by_length" if side == "trl group_by_length" else "random",
                    **shared,
                ),
                train_dataset=Dataset.from_list(
                    [
                        {"prompt": PROMPT.messages(q, None), "completion": [{"role": "assistant", "content": r}]}
                        for q, r in pairs
                    ]
                ),
                processing_class=tokenizer,
            )
        started = time.perf_counter()
        trainer.train()
        took = time.perf_counter() - started
        first = next(line["loss"] for line in trainer.state.log_history if "loss" in line)
    return took, sum(len(row.response) for row in rows), float(first)


def _mean(rows: list[Any]) -> float:
    return statistics.mean(len(row.prompt) + len(row.response) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="JSON Lines with question, solution and answer")
    parser.add_argument("--model", default="embedded", help="hub id, folder or `embedded`")
    parser.add_argument("--mixed", action="store_true", help="every other target is the bare answer")
    parser.add_argument("--steps", type=int, default=3, help="optimiser steps of each side in a turn")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=update.CPU_TOKENS, help="tokens of a micro-batch of ours")
    parser.add_argument("--sides", nargs="*", default=list(SIDES))
    options = parser.parse_args()
    quiet_libraries()
    update.CPU_TOKENS = options.tokens
    pairs = targets(options.data, options.steps * options.batch, options.mixed)
    for side in options.sides:
        run(side, [("1 + 1", "2")] * 4, 4, options.model)
    found: dict[str, list[float]] = {side: [] for side in options.sides}
    for _ in range(options.turns):
        for side in options.sides:
            took, tokens, loss = run(side, pairs, options.batch, options.model)
            found[side].append(tokens / took)
            print(f"{side:20} {tokens / took:6.1f} target tokens/s, {took:5.1f} s, loss of its first step {loss:.4f}")
    print(f"{len(pairs)} targets, batch {options.batch}, {torch.get_num_threads()} threads")
    if "trl" in found and "ours" in found:
        ours = statistics.mean(found["ours"])
        for side in (s for s in options.sides if s != "ours"):
            print(f"ours / {side}: {ours / statistics.mean(found[side]):.2f}")


if __name__ == "__main__":
    main()
