"""Reinforcement learning with verifiable rewards: TRL's ``GRPOTrainer``, rollouts by our in-process engine.

The subclass below changes one thing: where the tokens come from. TRL's fallback without vLLM calls
``transformers.generate`` with every prompt repeated G times; ours runs each prompt once and drops finished
rows (see :mod:`dereason.lm.local.engine`). Loss, advantages and optimiser are TRL's.

What is left out here: leaving rows without gradient out of the update, dynamic sampling, vLLM, LoRA. A
verifier ``error`` is passed to TRL as None: it leaves the group's mean and std, and TRL still counts its
tokens in the loss normaliser.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import polars as pl
from pydantic import Field, model_validator

from dereason.errors import DereasonError
from dereason.lm.base import Progress
from dereason.lm.local.engine import decode
from dereason.lm.local.model import ModelSettings, stop_ids
from dereason.lm.prompts import Prompt
from dereason.problems.schema import Verdict, frame, write_table
from dereason.settings import Settings
from dereason.training.phase import (
    Optimiser,
    PhaseResult,
    guarded,
    join_problems,
    last_checkpoint,
    load_student,
    make_callback,
    save_model,
    train,
    trainer_arguments,
)
from dereason.training.rewards import REWARDS
from dereason.verify.verdict import judge_response

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
    "completions/mean_length": "completion_length",
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
    """Rollouts decoded at once by our engine; lower it when memory runs out: the result changes by rounding alone."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature of rollouts."""
    loss: Literal["grpo", "dapo", "dr_grpo"] = "dapo"
    """TRL's `loss_type`: how token losses are normalised (`bnpo` is not offered: it depends on the micro-batch)."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What the advantage is divided by: the group's standard deviation, the batch's, or nothing."""
    clip_low: float = Field(default=0.2, gt=0, le=1)
    """Lower clip of the probability ratio."""
    clip_high: float = Field(default=0.2, gt=0)
    """Upper clip of the probability ratio."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the KL term to the phase's starting model (TRL's `beta`); 0 loads no reference model."""
    reward: Literal["correctness"] = "correctness"
    """What is rewarded: 1 for a correct answer, 0 otherwise, verifier errors left out."""
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
        tally = Rollouts(work / "rollouts", identity, stop_ids(student, tokenizer), REWARDS[settings.reward])
        trainer = make_trainer_class()(
            model=student,
            reward_funcs=tally,
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
            callbacks=[make_callback(work, METRICS, progress, resumed_at)],
        )
        trainer.rollout_batch = settings.rollout_batch
        trainer.use_engine = settings.rollouts == "engine"
        train(trainer, resume)
        save_model(trainer, tokenizer, out)
    table = rollout_table(work)
    generated = int(table["tokens"].sum())
    return PhaseResult(
        model=out,
        steps=trainer.state.global_step,
        tokens_trained=generated + int(table["prompt_tokens"].sum()),
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


def rollout_table(work: Path) -> pl.DataFrame:
    """All rollouts of a phase as a SAMPLE table, in step order."""
    files = sorted((work / "rollouts").glob("step-*.parquet"))
    return pl.concat([pl.read_parquet(f) for f in files]) if files else frame("sample", [])


class Rollouts:
    """TRL's reward function: judges each completion once, keeps it as a sample, logs verdict shares."""

    def __init__(self, folder: Path, identity: str, stops: tuple[int, ...], reward: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.identity = identity
        self.stops = stops
        self.reward = reward
        self.prompt_lengths: list[int] = []
        self.__name__ = "reward"

    def __call__(self, **batch: Any) -> list[float | None]:
        """Rewards of one generation; see TRL's custom reward functions for the arguments."""
        texts = [completion[0]["content"] for completion in batch["completions"]]
        limits = [ids[-1] not in self.stops for ids in batch["completion_ids"]]
        judged = [
            judge_response(text, limit, answer, options or None)
            for text, limit, answer, options in zip(texts, limits, batch["answer"], batch["options"], strict=True)
        ]
        rows = [{"answer": a, "options": o} for a, o in zip(batch["answer"], batch["options"], strict=True)]
        self._keep(batch, texts, limits, judged)
        self._log(batch, judged)
        return list(self.reward(judged, rows))

    def _keep(self, batch: dict[str, Any], texts: list[str], limits: list[bool], judged: list[Any]) -> None:
        step = batch["trainer_state"].global_step
        seen: dict[str, int] = {}
        samples: list[dict[str, object]] = []
        for i, problem_id in enumerate(batch["problem_id"]):
            index = seen[problem_id] = seen.get(problem_id, -1) + 1
            samples.append(
                {
                    "problem_id": problem_id,
                    "model": self.identity,
                    "purpose": "rollout",
                    "index": index,
                    "step": step,
                    "response": texts[i],
                    "prompt_tokens": self.prompt_lengths[i] if self.prompt_lengths else None,
                    "tokens": len(batch["completion_ids"][i]),
                    "hit_limit": limits[i],
                    "verdict": str(judged[i].verdict),
                    "extracted": judged[i].extracted,
                    "reason": judged[i].reason,
                }
            )
        write_table(frame("sample", samples), self.folder / f"step-{step:06d}.parquet")

    def _log(self, batch: dict[str, Any], judged: list[Any]) -> None:
        for verdict in Verdict:
            batch["log_metric"](str(verdict), sum(j.verdict is verdict for j in judged) / len(judged))
        groups: dict[str, list[bool]] = {}
        for problem_id, j in zip(batch["problem_id"], judged, strict=True):
            if j.verdict is not Verdict.ERROR:
                groups.setdefault(problem_id, []).append(j.verdict is Verdict.CORRECT)
        mixed = sum(any(g) and not all(g) for g in groups.values())
        batch["log_metric"]("mixed_groups", mixed / max(1, len(groups)))


def make_trainer_class() -> Any:
    """``GRPOTrainer`` whose rollouts come from our engine (made here: importing TRL takes seconds)."""
    from trl import GRPOTrainer

    class EngineGRPOTrainer(GRPOTrainer):  # type: ignore[misc,unused-ignore]
        """See the module's docstring."""

        use_engine = True
        rollout_batch = 256

        def _generate_single_turn(
            self,
            prompt_ids: Any,
            images: Any,
            multimodal_fields: Any,
            num_generations: int,
            *args: Any,
            **kw: Any,
        ) -> Any:
            for reward in self.reward_funcs:
                if isinstance(reward, Rollouts):
                    reward.prompt_lengths = [len(ids) for ids in prompt_ids]
            heads = prompt_ids[::num_generations]
            whole = len(prompt_ids) % num_generations == 0 and all(
                prompt_ids[i] == heads[i // num_generations] for i in range(len(prompt_ids))
            )  # several processes may share a group; then TRL's own path is used
            if not (self.use_engine and whole):
                return super()._generate_single_turn(
                    prompt_ids, images, multimodal_fields, num_generations, *args, **kw
                )
            model = self.accelerator.unwrap_model(self.model)
            training = model.training
            model.eval()
            at_once = max(1, self.rollout_batch // num_generations)
            drawn = [
                group
                for start in range(0, len(heads), at_once)
                for group in decode(
                    model,
                    [list(ids) for ids in heads[start : start + at_once]],
                    num_generations,
                    temperature=self.args.temperature,
                    max_new_tokens=self.args.max_completion_length,
                    stop_ids=self.eos_token_ids,
                    pad_id=self.processing_class.pad_token_id,
                    # one stream per generation and process: resuming at a step draws what was drawn then
                    seed=(self.args.seed * 1_000_003 + self.state.global_step) * 1024 + self.accelerator.process_index,
                )
            ]
            model.train(training)
            return [ids for group in drawn for ids in group], None

    return EngineGRPOTrainer
