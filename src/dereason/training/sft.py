"""Supervised fine-tuning on targets: the settings of a phase, and :func:`run_sft`, which trains.

The loss is on the response only (:mod:`~dereason.training.sft_trainer`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from dereason.errors import DereasonError
from dereason.lm.base import Message, Progress
from dereason.lm.local.context import longest_target
from dereason.lm.local.model import ModelSettings
from dereason.lm.local.packing import Row
from dereason.lm.local.room import check_length, check_room, room_of
from dereason.lm.prompts import Prompt, encode_reply
from dereason.training.phase import (
    PhaseResult,
    PhaseSettings,
    join_problems,
    keep_models,
    load_student,
    logged_metrics,
    save_model,
    train,
    trainer_arguments,
)
from dereason.training.sft_trainer import make_trainer_class
from dereason.training.watch import guarded, last_checkpoint, make_callback

METRICS = ("loss", "learning_rate", "grad_norm", "token_accuracy", "entropy", "trained_tokens")


class SFT(PhaseSettings):
    """A supervised phase."""

    epochs: float = Field(default=1.0, gt=0)
    """Passes over the targets."""
    batch: int = Field(default=128, gt=0)
    """Targets per optimiser step, over all processes."""
    max_length: int | None = Field(default=None, gt=0)
    """Longest prompt + response in tokens; a longer target is left out and counted, not cut. null takes 4096, or the
    model's context where that is less."""
    keep_checkpoints: int = Field(default=1, gt=0)
    """Models kept, evenly spaced over the steps, the last among them; an RL phase can choose its start among them."""


def run_sft(
    model: ModelSettings,
    prompt: Prompt,
    problems: pl.DataFrame,
    targets: pl.DataFrame,
    settings: SFT,
    *,
    out: Path,
    work: Path,
    seed: int,
    expected_hash: str | None = None,
    progress: Progress = lambda done, total, words: None,
) -> PhaseResult:
    """Train a model on targets and save it to ``out``.

    Args:
        model: where the phase starts.
        prompt: how questions are put; the same in every phase.
        problems: PROBLEM table that holds the targets' problems.
        targets: TARGET table; every row is trained on.
        settings: see :class:`SFT`.
        out: folder of the trained model.
        work: folder for checkpoints and metrics; a phase that was killed continues from there.
        seed: of data order and dropout.
        expected_hash: template hash of the run; None skips the check.
        progress: told of each optimiser step.

    Raises:
        DereasonError: no target within ``max_length``, a ``max_length`` beyond the model's context, a template that
            differs, out of memory.
    """
    from datasets import Dataset
    from trl import SFTConfig

    asked = join_problems(problems, targets["problem_id"], "the SFT set")
    chats = [
        prompt.messages(question, options) if own is None else prompt.wrap(own)
        for question, options, own in zip(asked["question"], asked["options"], targets["prompt"], strict=True)
    ]
    student, tokenizer, found_hash = load_student(model, prompt, expected_hash, adapter=settings.adapter, seed=seed)
    every = [
        make_row(tokenizer, chat, response, prompt, problem_id, prefix)
        for chat, (response, problem_id, prefix) in zip(
            chats, targets.select("response", "problem_id", "prefix").iter_rows(), strict=True
        )
    ]
    room = room_of(student, model)
    check_length(model.name, room, settings.max_length, 0, "max_length")
    longest = longest_target(settings.max_length, room)
    rows = [row for row in every if len(row.prompt) + len(row.response) <= longest]
    if not rows:
        shortest = min(len(row.prompt) + len(row.response) for row in every)
        if room is not None and longest == room.tokens:
            raise DereasonError(
                f"{model.name} has {room.words}, and all {len(every)} targets are longer with their prompts (the "
                f"shortest has {shortest} tokens)",
                "take shorter targets, or a model with a longer context",
            )
        raise DereasonError(
            f"all {len(every)} targets are longer with their prompts than max_length {longest} (the shortest has "
            f"{shortest} tokens)",
            "raise max_length; a cut target would teach the model not to answer",
        )
    check_room(student, tokenizer, [[*r.prompt, *r.response] for r in rows], model, setting="max_length")
    with guarded(settings.optimiser.micro_batch, work):
        resume = last_checkpoint(work)
        resumed_at = int(resume.name.rsplit("-", 1)[-1]) if resume else 0
        trainer = make_trainer_class()(
            model=student,
            args=SFTConfig(
                **trainer_arguments(settings, model, work, seed=seed),
                num_train_epochs=settings.epochs,
                max_length=None,
                dataset_kwargs={"skip_prepare_dataset": True},
            ),
            train_dataset=Dataset.from_list(
                [{"row": i, "input_ids": list(row.prompt), "labels": list(row.prompt)} for i, row in enumerate(rows)]
            ),
            processing_class=tokenizer,
            callbacks=[
                make_callback(work, {name: name for name in METRICS}, progress, resumed_at, stops=settings.stops)
            ],
        )
        trainer.phase, trainer.rows = settings, rows
        keep_models(trainer, tokenizer, work, settings.keep_checkpoints, model, adapter=settings.adapter)
        train(trainer, resume)
        save_model(trainer, tokenizer, out, model, adapter=settings.adapter)
    return PhaseResult(
        model=out,
        steps=trainer.state.global_step,
        tokens_trained=round(sum(line["trained_tokens"] for line in logged_metrics(work))),
        tokens_generated=0,
        template_hash=found_hash,
        left_out=len(every) - len(rows),
        longest=longest,
    )


def make_row(
    tokenizer: Any,
    chat: list[Message],
    response: str,
    prompt: Prompt,
    problem_id: str,
    prefix: str | None = None,
) -> Row:
    """Token ids of a target: its prompt as generation begins with it (and the prefix), and what is to be predicted.

    Raises:
        DereasonError: the template does not continue the prompt.
    """
    try:
        head, tail = encode_reply(tokenizer, chat, response, prompt.chat_template_kwargs, prefix or "")
    except DereasonError as exc:
        raise DereasonError(f"the target of problem {problem_id!r}: {exc.cause}", exc.mend) from exc
    return Row(head, tail)
