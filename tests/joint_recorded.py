"""Trainers on recorded rollouts: a few optimiser steps whose gradients and weights a test can look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import GRPOConfig

from dereason.lm.local.model import ModelSettings, load_tokenizer
from dereason.lm.local.sampling import Drawn
from dereason.lm.prompts import Prompt, encode_reply
from dereason.problems.schema import Verdict, frame
from dereason.training.joint.queue import Waiting
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


@dataclass(frozen=True)
class Script:
    """What is drawn, what it earns and what is shown, by problem.

    Attributes:
        texts: four rollouts of each problem.
        rewards: of them, by (problem, number of the rollout, tokens that it was given).
        right: whether they are right, by the same; None: see :class:`Planted`.
        shown: demonstrations.
        limit: of a rollout's tokens.
        said: log-probabilities of drawn tokens by the engine; NaN: no sampler drew them.
        worth: what a demonstration is paid.
    """

    texts: Mapping[str, Sequence[str]] = field(default_factory=lambda: TEXTS)
    rewards: Callable[[str, int, int], float | None] = lambda id, i, given: REWARDS[id][i]
    right: Callable[[str, int, int], bool | None] | None = None
    shown: Mapping[str, str] = field(default_factory=lambda: SHOWN)
    limit: int = LIMIT
    said: float = math.nan
    worth: float = 1.0

    def tokens(self, tokenizer: Any) -> tuple[dict[str, list[int]], dict[str, list[list[int]]], dict[str, list[int]]]:
        """Prompts, rollouts and demonstrations as token ids, by problem."""
        prompts, rollouts, shown = {}, {}, {}
        for id, texts in self.texts.items():
            chat = PROMPT.messages(f"Problem {id}?")
            prompts[id], shown[id] = encode_reply(tokenizer, chat, self.shown.get(id, "x"), {})
            every = [[*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id] for text in texts]
            rollouts[id] = [ids[: self.limit] for ids in every]
        return prompts, rollouts, {id: shown[id] for id in self.shown}


def paid(rewards: Mapping[str, Sequence[float]], right: Mapping[str, Sequence[bool]] | None = None) -> Script:
    """The plain script with other rewards."""
    return Script(
        rewards=lambda id, i, given: rewards[id][i], right=(lambda id, i, given: right[id][i]) if right else None
    )


def tokens(tokenizer: Any) -> tuple[dict[str, list[int]], dict[str, list[list[int]]], dict[str, list[int]]]:
    """Those of the plain script."""
    return Script().tokens(tokenizer)


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
        paid = [None if reward is None else reward > 0.5 for reward in rewards]
        self.correct = list(self.right(**columns)) if self.right else paid
        self.mixed = [True] * len(rewards)
        return rewards


def recorded(
    folder: Path,
    work: Path,
    phase: Any,
    make_class: Callable[[], Any],
    *,
    wrap: Callable[[Any], Any] = lambda model: model,
    reference: Callable[[Any], Any] = lambda model: model,
    script: Script | None = None,
    shown: Sequence[str] = ("a", "b"),
    **arguments: Any,
) -> Any:
    """A trainer in float64 that is given the recorded rollouts; ``arguments`` are TRL's.

    Its ``before`` has the weights before its last step, ``grads`` the gradients of it.
    """
    script = script or Script()
    tokenizer = load_tokenizer(ModelSettings(name=str(folder)))
    model = wrap(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64))
    prompts, rollouts, demonstrations = script.tokens(tokenizer)
    rows = [
        {"prompt": PROMPT.messages(f"Problem {id}?"), "problem_id": id, "answer": "7", "options": []}
        for id in script.texts
    ]

    class Recorded(make_class()):  # type: ignore[misc]
        def _decode(self, asked: Any, n: int, limits: Any, *_: Any) -> list[list[Drawn]]:
            drawn = []
            for k, ids in enumerate(asked):
                id = next(id for id, head in prompts.items() if ids[: len(head)] == head)
                limit = [limits] * n if isinstance(limits, int) else limits[k]
                replies = [rollouts[id][i][: limit[i]] for i in range(n)]
                drawn.append([Drawn(reply, [script.said] * len(reply)) for reply in replies])
            return drawn

        def training_step(self, *args: Any, **kw: Any) -> Any:
            self.before = {n: p.detach().clone() for n, p in self.model.named_parameters()}
            value = super().training_step(*args, **kw)
            self.grads = {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}
            return value

    def by_place(table: Any) -> Any:
        return lambda problem_id, given, **_: [table(id, i % 4, given[i]) for i, id in enumerate(problem_id)]

    reward = Planted(by_place(script.rewards), script.right and by_place(script.right))
    options = {
        "output_dir": str(work),
        "optim": "sgd",
        "learning_rate": 1e-9,
        "max_grad_norm": 1e9,
        "max_steps": 1,
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": 1,
    }
    fixed = {
        "per_device_train_batch_size": 4 * len(rows),
        "steps_per_generation": 1,
        "num_generations": 4,
        "max_completion_length": script.limit,
        "beta": 0.0,
        "disable_dropout": True,
    }
    trainer = Recorded(
        model=model,
        reward_funcs=reward,
        args=GRPOConfig(**{**options, **arguments, **fixed}),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.phase, trainer.rollouts, trainer.selection = phase, reward, None
    trainer.problems = {row["problem_id"]: row for row in rows}
    trainer.demonstrations = {id: demonstrations[id] for id in shown}
    trainer.worth = dict.fromkeys(shown, script.worth)
    if getattr(phase, "method", None) is not None and phase.method.supervised is not None:
        trainer.waiting = Waiting(trainer, phase.method.supervised)
    if phase.needs_reference and phase.adapter is None:
        trainer.ref_model = reference(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)).eval()
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
