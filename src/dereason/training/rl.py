"""Reinforcement learning: the settings of a phase, and :func:`run_rl`, which trains.

The parts: :mod:`~dereason.training.trainer` (TRL's trainer with our rollouts, advantages and loss),
:mod:`~dereason.training.losses`, :mod:`~dereason.training.rollouts` (judging and keeping) and the rewards in
:mod:`dereason.training.rewards`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, Self

import polars as pl
from pydantic import Field, model_validator

from dereason.errors import DereasonError
from dereason.lm.base import Progress
from dereason.lm.local.model import ModelSettings, stop_ids
from dereason.lm.prompts import Prompt
from dereason.problems.schema import Verdict
from dereason.settings import Settings
from dereason.training.losses import LossName, Scale
from dereason.training.phase import (
    Optimiser,
    PhaseResult,
    join_problems,
    load_student,
    save_model,
    train,
    trainer_arguments,
)
from dereason.training.rewards.rules import Combined
from dereason.training.rewards.settings import Correctness, Overlong, Reward, VeriFree, build, is_verifier_free
from dereason.training.rewards.verifier_free import Bound, RLPRReward
from dereason.training.rollouts import Rollouts, rollout_table
from dereason.training.trainer import make_trainer_class
from dereason.training.watch import guarded, last_checkpoint, make_callback
from dereason.verify.verifier import Verifier, default_verifier

METRICS = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "reward": "reward",
    "reward_std": "reward_std",
    "mixed_groups": "mixed_groups",
    "entropy": "entropy",
    "kl": "kl",
    "clip_ratio/region_mean": "clip_share",
    "completion_length": "completion_length",
    "trained_tokens": "trained_tokens",
    "dropped_groups": "dropped_groups",
    "std_threshold": "std_threshold",
    "judge/asked": "judge/asked",
    "judge/undecided": "judge/undecided",
    **{str(v): str(v) for v in Verdict},
}


class RLOptimiser(Optimiser):
    """The optimiser of an RL phase."""

    learning_rate: float = Field(default=1e-6, gt=0)
    """Peak learning rate."""


class RL(Settings):
    """A reinforcement-learning phase (GRPO)."""

    optimiser: RLOptimiser = RLOptimiser()
    """Learning rate, schedule, micro-batch (in rollouts), checkpoints."""
    steps: int = Field(default=100, gt=0)
    """Optimiser steps."""
    prompts_per_generation: int = Field(default=128, gt=0)
    """Problems whose rollouts are drawn at once, before any update on them."""
    group_size: int = Field(default=8, gt=1)
    """Rollouts per problem (G)."""
    updates_per_generation: int = Field(default=1, gt=0)
    """Optimiser steps made of one generation (mini-batches); 1 is fully on-policy."""
    max_new_tokens: int = Field(default=1024, gt=0)
    """Length limit of a rollout in tokens."""
    rollout_batch: int = Field(default=256, gt=0)
    """Rollouts decoded (or scored) at once; lower it when memory runs out: the result changes by rounding alone."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature of rollouts."""
    loss: LossName = "dapo"
    """How token losses are normalised (TRL's `bnpo` is not offered: it depends on the micro-batch)."""
    scale_rewards: Scale = "group"
    """What the advantage is divided by: the group's standard deviation, the batch's, or nothing."""
    leave_one_out: bool = False
    """Whether the advantage's baseline is the mean of the group's *other* rewards (RLOO); CER's paper uses it."""
    clip_low: float = Field(default=0.2, gt=0, le=1)
    """Lower clip of the probability ratio."""
    clip_high: float = Field(default=0.2, gt=0)
    """Upper clip of the probability ratio."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the KL term to the phase's starting model (TRL's `beta`); 0 loads no reference model."""
    rewards: list[Reward] = Field(default=[Correctness()], min_length=1)
    """What is rewarded: the weighted sum of these; a rollout for which one of them is undecided is left out."""
    rollouts: Literal["engine", "transformers"] = "engine"
    """Who samples: our in-process engine, or TRL's own fallback (`transformers.generate`)."""

    @model_validator(mode="after")
    def _rollouts_divide(self) -> Self:
        rollouts = self.prompts_per_generation * self.group_size
        if rollouts % self.updates_per_generation:
            raise ValueError(
                f"{rollouts} rollouts a generation do not divide into updates_per_generation "
                f"{self.updates_per_generation}"
            )
        if rollouts // self.updates_per_generation % self.optimiser.micro_batch:
            raise ValueError(
                f"{rollouts // self.updates_per_generation} rollouts an update are not a multiple of "
                f"optimiser.micro_batch {self.optimiser.micro_batch}"
            )
        return self

    @model_validator(mode="after")
    def _rewards_fit(self) -> Self:
        if self.verifree and len(self.rewards) > 1:
            raise ValueError("verifree is a method with its own loss term: it cannot be summed with other rewards")
        names = [reward.name for reward in self.rewards if is_verifier_free(reward)]
        if len(set(names)) < len(names):
            raise ValueError("two rewards without a verifier have the same name, and would share one line in the log")
        for reward in self.rewards:
            if isinstance(reward, Overlong) and reward.buffer > self.max_new_tokens:
                raise ValueError(
                    f"overlong.buffer is {reward.buffer} tokens, more than max_new_tokens {self.max_new_tokens}: "
                    "lower it, DAPO's is a fifth of the limit"
                )
        return self

    @property
    def verifree(self) -> bool:
        """Whether the phase trains by VeriFree, on the reference in place of the rollouts' own answers."""
        return any(isinstance(reward, VeriFree) for reward in self.rewards)

    @property
    def accumulation(self) -> int:
        """Micro-batches per optimiser step."""
        rollouts = self.prompts_per_generation * self.group_size
        return rollouts // self.updates_per_generation // self.optimiser.micro_batch


def run_rl(
    model: ModelSettings,
    prompt: Prompt,
    problems: pl.DataFrame,
    settings: RL,
    *,
    identity: str,
    out: Path,
    work: Path,
    seed: int,
    expected_hash: str | None = None,
    verifier: Verifier | None = None,
    progress: Progress = lambda done, total, words: None,
) -> PhaseResult:
    """Train a model on its own rollouts and save it to ``out``.

    Every rollout is kept as a sample with its verdict: ``work/rollouts/step-*.parquet``.

    Args:
        model: where the phase starts.
        prompt: how questions are put; the same in every phase.
        problems: PROBLEM table: the RL set.
        settings: see :class:`RL`.
        identity: name of the phase, written into the rollouts' ``model`` column.
        out: folder of the trained model.
        work: folder for checkpoints, metrics and rollouts; a phase that was killed continues from there.
        seed: of data order and sampling.
        expected_hash: template hash of the run; None skips the check.
        verifier: judges the rollouts; None takes the process-wide one.
        progress: told of each optimiser step.

    Raises:
        DereasonError: a set too small for one generation, a template that differs, out of memory.
    """
    from datasets import Dataset
    from trl import GRPOConfig

    problems = join_problems(problems, problems["id"], "the RL set")
    check_set_size(problems.height, settings)
    student, tokenizer, found_hash = load_student(model, prompt, expected_hash)
    rows = [
        {
            "prompt": prompt.messages(r["question"], r["options"]),
            "problem_id": r["id"],
            "question": r["question"],
            "answer": r["answer"],
            "options": r["options"] or [],
        }
        for r in problems.select("id", "question", "answer", "options").iter_rows(named=True)
    ]
    # A checkpoint between two updates of one generation would lose the rollouts of the second.
    every = -(-settings.optimiser.checkpoint_every // settings.updates_per_generation)
    optimiser = settings.optimiser.model_copy(update={"checkpoint_every": every * settings.updates_per_generation})
    with guarded(settings.optimiser.micro_batch):
        resume = last_checkpoint(work)
        resumed_at = int(resume.name.rsplit("-", 1)[-1]) if resume else 0
        stops = stop_ids(student, tokenizer)
        functions = build(settings.rewards, tokenizer=tokenizer, max_new_tokens=settings.max_new_tokens, stop_ids=stops)
        parts = {name: name for name in (f"rewards/{f.__name__}/mean" for f in functions)}
        rollouts = Rollouts(
            work / "rollouts",
            identity,
            stops,
            Combined(functions, [reward.weight for reward in settings.rewards]),
            verifier or default_verifier(),
            tokenizer,
            by_spread=any(map(is_verifier_free, settings.rewards)),
        )
        trainer = make_trainer_class()(
            model=student,
            reward_funcs=rollouts,
            args=GRPOConfig(
                **trainer_arguments(optimiser, model, work, seed=seed),
                max_steps=settings.steps,
                gradient_accumulation_steps=settings.accumulation,
                steps_per_generation=settings.accumulation * settings.updates_per_generation,
                num_generations=settings.group_size,
                max_completion_length=settings.max_new_tokens,
                temperature=settings.temperature,
                loss_type=settings.loss,
                scale_rewards=settings.scale_rewards,
                epsilon=settings.clip_low,
                epsilon_high=settings.clip_high,
                beta=settings.kl,
                chat_template_kwargs=dict(prompt.chat_template_kwargs),
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[make_callback(work, METRICS | parts, progress, resumed_at)],
        )
        trainer.phase, trainer.rollouts = settings, rollouts
        for function in functions:
            if isinstance(function, Bound):
                function.bind(trainer)
            if isinstance(function, RLPRReward):
                function.threshold = last_threshold(work, resumed_at)
        train(trainer, resume)
        save_model(trainer, tokenizer, out)
    table = rollout_table(work)
    generated = int(table["tokens"].sum())
    return PhaseResult(
        model=out,
        steps=trainer.state.global_step,
        tokens_trained=round(sum(row["trained_tokens"] for row in logged_metrics(work))),
        tokens_generated=generated,
        template_hash=found_hash,
    )


def check_set_size(size: int, settings: RL) -> None:
    """Refuse an RL set too small for one generation.

    Raises:
        DereasonError: it has fewer problems than ``prompts_per_generation``.
    """
    if size < settings.prompts_per_generation:
        raise DereasonError(
            f"the RL set has {size} problems, fewer than prompts_per_generation {settings.prompts_per_generation}",
            "lower prompts_per_generation or route more problems to it",
        )


def last_threshold(work: Path, step: int) -> float | None:
    """RLPR's moving threshold as it stood after an optimiser step, from the phase's log; None before the first."""
    values = [row["std_threshold"] for row in logged_metrics(work) if row["step"] <= step and "std_threshold" in row]
    return values[-1] if values else None


def logged_metrics(work: Path) -> list[dict[str, float]]:
    """The lines of a phase's ``metrics.jsonl``."""
    path = work / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
