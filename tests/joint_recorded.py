"""Trainers on recorded rollouts: a few optimiser steps whose gradients and weights a test can look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import GRPOConfig

from dereason.lm.local.model import ModelSettings, load_tokenizer
from dereason.lm.prompts import Prompt, encode_reply
from dereason.problems.schema import Verdict, frame
from dereason.training.joint.settings import Joint
from dereason.training.rl import RLOptimiser, run_rl
from dereason.verify.verdict import Judgement

PROMPT = Prompt(system="Add.", suffix="Use \\boxed{}.")
LIMIT = 16
TOKENS = 256
"""About the tokens of a recorded step: twelve rollouts and the demonstrations."""
TEXTS = {
    "a": [r"It is \boxed{7}", r"\boxed{8} I say", "no answer here", r"so 3 + 4 = \boxed{7} and more"],
    "b": [r"\boxed{9}", r"we add: \boxed{90}", "what?", r"one two three four five"],
    "c": [r"\boxed{2}", "hm", r"two, I think: \boxed{2}", r"\boxed{3} or so, no more"],
}
REWARDS = {"a": [1.0, 0.0, 0.0, 1.0], "b": [0.0, 0.0, 0.0, 0.0], "c": [1.0, 0.0, 1.0, 0.0]}
SHAPED = {id: [reward - 0.5 for reward in rewards] for id, rewards in REWARDS.items()}
RIGHT = {id: [reward == 1 for reward in rewards] for id, rewards in REWARDS.items()}
"""The same rollouts as `length_shaped` may pay them: a right answer that is much too long is worth exactly 0.5."""
SHOWN = {"a": r"3 + 4 = 7, that is \boxed{7}", "b": r"4 + 6 = 10 \boxed{10}"}


def tokens(tokenizer: Any) -> tuple[dict[str, list[int]], dict[str, list[list[int]]], dict[str, list[int]]]:
    """Prompts, rollouts and demonstrations as token ids, by problem."""
    prompts, rollouts, shown = {}, {}, {}
    for id, texts in TEXTS.items():
        prompts[id], shown[id] = encode_reply(tokenizer, PROMPT.messages(f"Problem {id}?"), SHOWN.get(id, "x"), {})
        rollouts[id] = [[*tokenizer.encode(t, add_special_tokens=False), tokenizer.eos_token_id][:LIMIT] for t in texts]
    return prompts, rollouts, {id: shown[id] for id in SHOWN}


class Planted:
    """In place of a phase's ``Rollouts``: rewards that are written down, and which rollouts are right.

    Args:
        pay: columns of the data -> rewards.
        right: the same -> whether each is right; None: what earns more than half of a point.
    """

    __name__ = "reward"

    def __init__(
        self, pay: Callable[..., list[float]], right: Callable[..., Sequence[bool | None]] | None = None
    ) -> None:
        self.pay, self.right = pay, right

    def __call__(self, *_: Any, **columns: Any) -> list[float]:
        rewards = self.pay(**columns)
        self.correct = list(self.right(**columns)) if self.right else [reward > 0.5 for reward in rewards]
        self.mixed = [True] * len(rewards)
        return rewards


def recorded(
    folder: Path,
    work: Path,
    phase: Any,
    make_class: Callable[[], Any],
    *,
    wrap: Callable[[Any], Any] = lambda model: model,
    rewards: dict[str, list[float]] = REWARDS,
    right: dict[str, list[bool]] | None = None,
    shown: Sequence[str] = ("a", "b"),
    **arguments: Any,
) -> Any:
    """A trainer in float64 that is given the recorded rollouts.

    Its ``before`` has the weights before its last step, ``grads`` the gradients of it.
    """
    tokenizer = load_tokenizer(ModelSettings(name=str(folder)))
    model = wrap(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64))
    prompts, rollouts, demonstrations = tokens(tokenizer)
    rows = [
        {"prompt": PROMPT.messages(f"Problem {id}?"), "problem_id": id, "answer": "0", "options": []} for id in TEXTS
    ]
    by_prompt = {tuple(ids): id for id, ids in prompts.items()}

    class Recorded(make_class()):  # type: ignore[misc]
        def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kw: Any) -> Any:
            return [rollouts[by_prompt[tuple(ids)]][i % 4] for i, ids in enumerate(prompt_ids)], None

        def training_step(self, *args: Any, **kw: Any) -> Any:
            self.before = {n: p.detach().clone() for n, p in self.model.named_parameters()}
            value = super().training_step(*args, **kw)
            self.grads = {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}
            return value

    def by_place(table: Any) -> Any:
        return lambda problem_id, **_: [table[id][i % 4] for i, id in enumerate(problem_id)]

    reward = Planted(by_place(rewards), right and by_place(right))
    options = {"optim": "sgd", "learning_rate": 1e-9, "max_grad_norm": 1e9, "max_steps": 1} | arguments
    trainer = Recorded(
        model=model,
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=str(work),
            per_device_train_batch_size=12,
            steps_per_generation=1,
            num_generations=4,
            max_completion_length=LIMIT,
            beta=0.0,
            use_cpu=True,
            bf16=False,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="steps",
            logging_steps=1,
            disable_dropout=True,
            **options,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.phase, trainer.rollouts, trainer.selection = phase, reward, None
    trainer.problems = {row["problem_id"]: row for row in rows}
    trainer.demonstrations = {id: demonstrations[id] for id in shown}
    trainer.buffer = []
    if phase.needs_reference:
        trainer.ref_model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    return trainer


def logps(run: Callable[[torch.Tensor], torch.Tensor], tokenizer: Any) -> dict[str, Any]:
    """Log-probabilities of each rollout's tokens by problem, and of the demonstrations', each sequence by itself.

    Args:
        run: token ids (1, T) to logits (1, T, V).
        tokenizer: of the model.
    """
    prompts, rollouts, shown = tokens(tokenizer)

    def of(prompt: list[int], reply: list[int]) -> torch.Tensor:
        logits = run(torch.tensor([prompt + reply]))[0, len(prompt) - 1 : -1]
        return torch.log_softmax(logits, -1)[range(len(reply)), reply]

    return {
        "rollouts": {id: [of(prompts[id], reply) for reply in rollouts[id]] for id in TEXTS},
        "shown": {id: of(prompts[id], reply) for id, reply in shown.items()},
    }


def advantages(rewards: list[float]) -> list[float]:
    """Of one group, as GRPO has them."""
    centre = sum(rewards) / 4
    std = (sum((r - centre) ** 2 for r in rewards) / 3) ** 0.5
    return [(r - centre) / (std + 1e-4) if std else 0.0 for r in rewards]


def judge_by(patch: pytest.MonkeyPatch, right: Callable[[int, str], bool]) -> None:
    """A phase's rollouts are right by their place among those that are judged at once, and by their text."""

    def judge_many(items: Sequence[Any]) -> list[Judgement]:
        found = [Verdict.CORRECT if right(i, item.response) else Verdict.WRONG for i, item in enumerate(items)]
        return [Judgement(verdict, None, "planted") for verdict in found]

    planted = SimpleNamespace(judge_many=judge_many, rewarded=lambda items, judged, marks: judged)
    patch.setattr("dereason.training.rl.default_verifier", lambda: planted)


def reward_every_third(patch: pytest.MonkeyPatch) -> None:
    """A random model never answers right: every third rollout is taken for right, so that there is a gradient."""
    judge_by(patch, lambda place, text: place % 3 == 0)


def run_tiny(
    folder: Path,
    work: Path,
    method: Any,
    *,
    steps: int,
    learning_rate: float = 1e-2,
    stop_after: int | None = None,
    **settings: Any,
) -> None:
    """A joint phase on four sums, checkpointed at each step; interrupted in the step after ``stop_after``."""
    rows = [{"id": f"p{i}", "question": f"What is {i} + {i * i}?", "answer": str(i + i * i)} for i in range(4)]
    pool = frame("problem", [row | {"domain": "sum", "source": "test"} for row in rows])
    shown = [{"problem_id": r["id"], "response": f"\\boxed{{{r['answer']}}}"} for r in rows]
    targets = frame("target", [row | {"origin": "reference", "accepted": True} for row in shown])

    def progress(done: int, total: int, words: str) -> None:
        if stop_after is not None and done > stop_after:
            raise KeyboardInterrupt

    run_rl(
        ModelSettings(name=str(folder)),
        PROMPT,
        pool,
        Joint(
            steps=steps,
            prompts_per_generation=2,
            group_size=4,
            max_new_tokens=6,
            method=method,
            optimiser=RLOptimiser(learning_rate=learning_rate, micro_batch=4, checkpoint_every=1),
            **settings,
        ),
        identity="test",
        out=work / "model",
        work=work,
        seed=3,
        progress=progress,
        demonstrations=targets,
    )
