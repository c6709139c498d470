"""Reinforcement learning: the settings of a phase, and :func:`run_rl`, which trains.

The parts: :mod:`~dereason.training.trainer` (TRL's trainer with our rollouts, advantages and loss),
:mod:`~dereason.training.losses`, :mod:`~dereason.training.rollouts` (judging and keeping) and the rewards in
:mod:`dereason.training.rewards`.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import polars as pl
from pydantic import Field, model_validator

from dereason.errors import DereasonError
from dereason.lm.base import Progress
from dereason.lm.load import load_model
from dereason.lm.local.context import longest_target
from dereason.lm.local.model import ModelSettings, has_vllm, load_weights, on_cuda, resolve_device, stop_ids
from dereason.lm.local.room import check_length, check_room, encode_long, room_of
from dereason.lm.prompts import Prompt
from dereason.problems.schema import Verdict
from dereason.training.early_warning import EarlyWarning, Measures
from dereason.training.losses import LossName, RatioLevel, Scale
from dereason.training.phase import (
    Optimiser,
    PhaseResult,
    PhaseSettings,
    join_problems,
    load_student,
    logged_metrics,
    save_model,
    train,
    trainer_arguments,
)
from dereason.training.readings import Readings
from dereason.training.rewards.rules import Combined
from dereason.training.rewards.settings import RLPR, Correctness, Overlong, Reward, VeriFree, build, is_verifier_free
from dereason.training.rewards.verifier_free import Bound, RLPRReward
from dereason.training.rollouts import Rollouts
from dereason.training.selection import Bands, DynamicSampling, Selection
from dereason.training.trainer import BUFFER_FILE, SELECTION_FILE, make_trainer_class
from dereason.training.vllm_rollouts import VllmRollouts
from dereason.training.watch import guarded, last_checkpoint, make_callback
from dereason.verify.verifier import Verifier, default_verifier

METRICS = (
    "reward",
    "reward_std",
    "mixed_groups",
    "signal_groups",
    "draws",
    "unfilled_groups",
    "resting_problems",
    "entropy",
    "kl",
    "clip_share",
    "sampler_gap",
    "sampler_gap_max",
    "demonstrations",
    "demonstration_nll",
    "given_tokens",
    "completion_length",
    "generated_tokens",
    "trained_tokens",
    "dropped_groups",
    "std_threshold",
    "gain",
    "gain_ess",
    "lambda",
    "shadow_capped",
    "gal",
    "pairs",
    "judge/asked",
    "judge/undecided",
    *map(str, Verdict),
)
"""Names of an RL phase's own lines in its log."""

PRESETS: dict[str, dict[str, Any]] = {
    "grpo": {"loss": "grpo"},
    "dapo": {"loss": "dapo", "clip_high": 0.28, "dynamic_sampling": {}},
    "dr_grpo": {"loss": "dr_grpo", "scale_rewards": "none"},
    "rloo": {"loss": "rloo", "scale_rewards": "none", "leave_one_out": True},
    "gspo": {"loss": "grpo", "ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4},
}
"""What naming an algorithm sets, where the phase does not say otherwise. None of them sets `kl`."""


class RLOptimiser(Optimiser):
    """The optimiser of an RL phase."""

    learning_rate: float = Field(default=1e-6, gt=0)
    """Peak learning rate."""


class RL(PhaseSettings):
    """A reinforcement-learning phase (GRPO and its relatives)."""

    algorithm: Literal["grpo", "dapo", "dr_grpo", "rloo", "gspo"] | None = None
    """Sets the fields below that the phase does not set itself, by an algorithm's name; null sets none."""
    optimiser: RLOptimiser = RLOptimiser()
    """Learning rate, schedule, micro-batch (in rollouts), checkpoints."""
    steps: int = Field(default=100, gt=0)
    """Optimiser steps."""
    prompts_per_generation: int = Field(default=128, gt=0)
    """Problems whose rollouts are drawn at once, before any update on them; over all processes."""
    group_size: int = Field(default=8, gt=1)
    """Rollouts per problem (G)."""
    updates_per_generation: int = Field(default=1, gt=0)
    """Optimiser steps that share a generation (mini-batches of whole groups); 1 is fully on-policy."""
    iterations: int = Field(default=1, gt=0)
    """Times that each generation is gone through."""
    max_new_tokens: int = Field(default=1024, gt=0)
    """Length limit of a rollout in tokens."""
    rollout_batch: int = Field(default=256, gt=0)
    """Rollouts decoded (or scored) at once; lower it when memory runs out: the result changes by rounding alone."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature of rollouts."""
    loss: LossName = "dapo"
    """How token losses are normalised (TRL's `bnpo` is not offered: it depends on the micro-batch)."""
    ratio: RatioLevel = "token"
    """Whether the probability ratio is a token's or its geometric mean over the response (GSPO)."""
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
    entropy_bonus: float = Field(default=0.0, ge=0)
    """Weight of the mean entropy of the sampled tokens' distributions, which is then maximised."""
    mask_truncated: bool = False
    """Leave rollouts that hit the length limit out of the loss (DAPO's overlong filtering), not out of the baseline."""
    dynamic_sampling: DynamicSampling | None = None
    """Draw further problems in place of groups that are not mixed; null draws once."""
    bands: Bands | None = None
    """Let problems rest that the model always or never solves; null takes every problem."""
    early_warning: EarlyWarning | None = None
    """Log whether correct responses become alike while pass@k stands still; null logs nothing of it."""
    rollouts: Literal["auto", "engine", "transformers", "vllm-colocate", "vllm-server"] = "auto"
    """Who samples: our in-process engine, `transformers.generate`, or vLLM in the same process or as a server. `auto`
    is `vllm-colocate` on CUDA where vLLM is installed, and `engine` elsewhere, with `dynamic_sampling`, VeriFree, and
    joint methods whose rollouts only the engine can draw."""
    vllm: VllmRollouts = VllmRollouts()
    """How vLLM is reached; for `rollouts: vllm-…` only."""
    sampler_cap: float = Field(default=2.0, ge=1)
    """Cap of the weight that corrects for vLLM's probabilities, which differ from the training model's."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        preset = PRESETS.get(str(data.get("algorithm")), {})
        return {**preset, **data}

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        if self.prompts_per_generation % self.updates_per_generation:
            raise ValueError(
                f"prompts_per_generation {self.prompts_per_generation} is not a multiple of updates_per_generation "
                f"{self.updates_per_generation}: an update takes whole groups"
            )
        return self

    @model_validator(mode="after")
    def _warning_fits(self) -> Self:
        if self.early_warning is None:
            return self
        k, samples = self.early_warning.k_of(self.group_size), self.early_warning.samples
        if k > self.group_size:
            raise ValueError(f"early_warning.k is {k}, and a group has {self.group_size} rollouts")
        if k > samples and self.early_warning.probe_problems(self.prompts_per_generation):
            raise ValueError(f"early_warning.samples is {samples}: pass@{k} needs at least {k} responses a problem")
        return self

    @model_validator(mode="after")
    def _methods_fit(self) -> Self:
        if self.verifree and self.ratio == "sequence":
            raise ValueError("verifree trains on a response that no policy drew as a whole: set ratio to token")
        if self.verifree and self.samples_elsewhere:
            raise ValueError("verifree's responses are not vLLM's, whose probabilities the loss would correct for")
        return self

    @model_validator(mode="after")
    def _no_dropout(self) -> Self:
        if self.adapter is not None and self.adapter.dropout:
            raise ValueError(
                "adapter.dropout must be 0 in an RL phase: rollouts come from the network without dropout, and the "
                "gradient would be that of another policy than the one that drew them"
            )
        return self

    @model_validator(mode="after")
    def _rewards_fit(self) -> Self:
        if self.verifree and len(self.rewards) > 1:
            raise ValueError("verifree is a method with its own loss term: it cannot be summed with other rewards")
        if self.dynamic_sampling and any(isinstance(reward, RLPR) and reward.drop_flat for reward in self.rewards):
            raise ValueError("rlpr.drop_flat and dynamic_sampling both deal with flat groups: switch one of them off")
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
    def engine_alone(self) -> bool:
        """Whether the settings ask for what our engine alone can draw, in however many processes."""
        return self.verifree or self.dynamic_sampling is not None

    def settled(self, model: ModelSettings) -> Self:
        """These settings with ``rollouts: auto`` replaced by what it is on this machine."""
        if self.rollouts != "auto":
            return self
        there = has_vllm() and on_cuda(model.device)
        return self.model_copy(update={"rollouts": "vllm-colocate" if there and not self.engine_alone else "engine"})

    @property
    def by_engine(self) -> bool:
        """Whether our engine draws the rollouts; `auto` that was not settled is the engine too."""
        return self.rollouts in ("auto", "engine")

    @property
    def needs_reference(self) -> bool:
        """Whether the loss has the starting model in it."""
        return self.kl > 0

    @property
    def samples_elsewhere(self) -> bool:
        """Whether another engine's probabilities drew the rollouts, which the loss corrects for."""
        return self.rollouts.startswith("vllm")


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
    demonstrations: pl.DataFrame | None = None,
    measures: Measures | None = None,
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
        demonstrations: TARGET table, for the settings of a joint phase
            (:class:`~dereason.training.joint.settings.Joint`); None for RL alone.
        measures: what ``early_warning`` measures with, e.g. ``dereason.pipeline.early_warning.MEASURES``.

    Raises:
        ValueError: the settings have an early warning, and there are no measures.
        DereasonError: a set too small for one generation, a template that differs, out of memory.
    """
    from datasets import Dataset
    from trl import GRPOConfig

    if settings.early_warning is not None and measures is None:
        raise ValueError("early_warning needs measures: pass dereason.pipeline.early_warning.MEASURES")
    settings = settings.settled(model)
    problems = join_problems(problems, problems["id"], "the RL set")
    check_set_size(problems.height, settings)
    student, tokenizer, found_hash = load_student(model, prompt, expected_hash, adapter=settings.adapter, seed=seed)
    rows = [
        {
            "prompt": prompt.messages(r["question"], r["options"]),
            "problem_id": r["id"],
            "question": r["question"],
            "answer": r["answer"],
            "options": r["options"] or [],
            "source": r["source"],
            "metadata": r["metadata"] or "",
        }
        for r in problems.select("id", "question", "answer", "options", "source", "metadata").iter_rows(named=True)
    ]
    chats = {row["problem_id"]: row["prompt"] for row in rows}
    limit = settings.max_new_tokens
    asked = encode_long(student, tokenizer, chats, prompt.chat_template_kwargs, model, new_tokens=limit)
    check_room(student, tokenizer, asked.values(), model, new_tokens=limit, setting="max_new_tokens")
    # A checkpoint between two updates of one generation would lose the rollouts of the second.
    whole = settings.updates_per_generation * settings.iterations
    every = -(-settings.optimiser.checkpoint_every // whole) * whole
    rounded = settings.model_copy(
        update={"optimiser": settings.optimiser.model_copy(update={"checkpoint_every": every})}
    )
    with guarded(settings.optimiser.micro_batch), settings.vllm.colocated(settings.rollouts, model):
        resume = last_checkpoint(work)
        resumed_at = int(resume.name.rsplit("-", 1)[-1]) if resume else 0
        stops = stop_ids(student, tokenizer)
        functions = build(
            settings.rewards,
            tokenizer=tokenizer,
            max_new_tokens=settings.max_new_tokens,
            stop_ids=stops,
            load=partial(load_model, day=prompt.date),
        )
        names = ("loss", "learning_rate", "grad_norm", *METRICS, *(f"rewards/{f.__name__}/mean" for f in functions))
        rollouts = Rollouts(
            work / "rollouts",
            identity,
            stops,
            Combined(functions, [reward.weight for reward in settings.rewards]),
            verifier or default_verifier(),
            group_size=settings.group_size,
            by_spread=any(map(is_verifier_free, settings.rewards)),
        )
        readings = None
        if settings.early_warning is not None and measures is not None:
            judge = rollouts.verifier
            readings = Readings(settings, measures, judge, work, identity=identity, seed=seed, resumed_at=resumed_at)
            progress = readings.tell(progress)
        arguments = trainer_arguments(rounded, model, work, seed=seed)
        arguments["per_device_train_batch_size"] = settings.prompts_per_generation * settings.group_size
        make_class, shown = make_trainer_class, None
        if demonstrations is not None:
            from dereason.training.joint.demonstrations import encode_demonstrations
            from dereason.training.joint.settings import Joint

            assert isinstance(settings, Joint)
            make_class = settings.method.trainer_class
            room = room_of(student, model)
            check_length(model.name, room, settings.max_length, 0, "max_length")
            longest = longest_target(settings.max_length, room)
            shown = encode_demonstrations(tokenizer, problems, demonstrations, prompt, settings, longest)
            check_room(student, tokenizer, shown.values(), model)
            student = settings.method.wrap(student, model, seed)
        trainer = make_class()(
            model=student,
            reward_funcs=rollouts,
            args=GRPOConfig(
                **arguments,
                max_steps=settings.steps,
                steps_per_generation=1,
                num_generations=settings.group_size,
                max_completion_length=settings.max_new_tokens,
                temperature=settings.temperature,
                disable_dropout=True,  # rollouts come from the network without it
                beta=0.0,  # the KL term is ours, and so is its reference
                chat_template_kwargs=dict(prompt.chat_template_kwargs),
                **settings.vllm.arguments(settings.rollouts, resolve_device(model.device)),
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[make_callback(work, {name: name for name in names}, progress, resumed_at, stops=settings.stops)],
        )
        check_processes(trainer, settings)
        # with an adapter the reference is the model without it
        if settings.needs_reference and settings.adapter is None:
            trainer.ref_model = prepare_reference(trainer, load_weights(model))
        trainer.phase, trainer.rollouts = settings, rollouts
        if shown is not None:
            trainer.demonstrations = shown
            trainer.buffer = json.loads((resume / BUFFER_FILE).read_text()) if resume else []
        trainer.problems = {row["problem_id"]: row for row in rows}
        if readings is not None:
            readings.watch(trainer, rows)
        trainer.selection = Selection(list(trainer.problems), seed=seed, bands=settings.bands)
        if resume:
            trainer.selection.load_state_dict(json.loads((resume / SELECTION_FILE).read_text()))
        for function in functions:
            if isinstance(function, Bound):
                function.bind(trainer)
            if isinstance(function, RLPRReward):
                function.threshold = last_threshold(work, resumed_at)
        train(trainer, resume)
        save_model(trainer, tokenizer, out, model, adapter=settings.adapter)
    logged = logged_metrics(work)
    return PhaseResult(
        model=out,
        steps=trainer.state.global_step,
        tokens_trained=round(sum(row["trained_tokens"] for row in logged)),
        tokens_generated=round(sum(row.get("generated_tokens", 0) for row in logged)),
        template_hash=found_hash,
    )


def prepare_reference(trainer: Any, model: Any) -> Any:
    """The reference of the KL term, as the trainer's processes share it."""
    from trl.models import prepare_deepspeed, prepare_fsdp

    if trainer.is_deepspeed_enabled:
        return prepare_deepspeed(model, trainer.accelerator)
    if trainer.is_fsdp_enabled:
        return prepare_fsdp(model, trainer.accelerator)
    return trainer.accelerator.prepare_model(model, evaluation_mode=True)


def check_processes(trainer: Any, settings: RL) -> None:
    """Refuse what several processes cannot do.

    Raises:
        DereasonError: a generation does not divide among them, or the engine's weights are spread over them.
    """
    processes = trainer.accelerator.num_processes
    if settings.prompts_per_generation % processes:
        raise DereasonError(
            f"prompts_per_generation {settings.prompts_per_generation} is not a multiple of the {processes} processes",
            "change one of the two: a process draws whole groups",
        )
    if processes > 1 and settings.dynamic_sampling and not settings.by_engine:
        raise DereasonError(
            f"dynamic_sampling draws for some processes and not for others, and rollouts: {settings.rollouts} needs "
            "all of them",
            "set dynamic_sampling: null, or rollouts: engine, or launch one process",
        )
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    spread = trainer.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3)
    if spread and settings.by_engine:
        raise DereasonError(
            "rollouts: engine needs the whole weights on each process, and FSDP or ZeRO-3 spreads them",
            "set rollouts: vllm-colocate (or vllm-server), or launch with DDP or ZeRO-2",
        )


def draw_warnings(work: Path) -> list[str]:
    """What a finished phase's draws of rollouts leave to be said."""
    unfilled = [row["unfilled_groups"] for row in logged_metrics(work) if "unfilled_groups" in row]
    if not any(unfilled):
        return []
    return [
        f"dynamic sampling left {100 * sum(unfilled) / len(unfilled):.0f} % of the groups without a mixed one "
        f"({sum(u > 0 for u in unfilled)} of {len(unfilled)} generations): the problems are too hard or too easy for "
        "this model, or dynamic_sampling.max_draws is low"
    ]


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
