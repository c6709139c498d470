"""Supervised fine-tuning on targets: TRL's ``SFTTrainer``, loss on the response only.

What is left out here: packing, LoRA, logits only where there is loss.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import polars as pl
from pydantic import Field, model_validator

from dereason.errors import DereasonError
from dereason.lm.base import Progress
from dereason.lm.local.model import ModelSettings
from dereason.lm.prompts import Prompt
from dereason.settings import Settings
from dereason.training.phase import (
    Optimiser,
    PhaseResult,
    join_problems,
    load_student,
    save_model,
    train,
    trainer_arguments,
)
from dereason.training.watch import guarded, last_checkpoint, make_callback

METRICS = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "mean_token_accuracy": "token_accuracy",
    "entropy": "entropy",
}


class SFT(Settings):
    """A supervised phase."""

    optimiser: Optimiser = Optimiser()
    """Learning rate, schedule, micro-batch, checkpoints."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the targets."""
    batch: int = Field(default=128, gt=0)
    """Sequences per optimiser step and device."""
    max_length: int = Field(default=4096, gt=0)
    """Longest prompt + response in tokens; a longer target is refused, not cut."""
    order: Literal["random", "group_by_length"] = "random"
    """Data order; `group_by_length` pads less."""

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.batch % self.optimiser.micro_batch:
            raise ValueError(
                f"batch {self.batch} is not a multiple of optimiser.micro_batch {self.optimiser.micro_batch}"
            )
        return self


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
        DereasonError: no targets, a target longer than ``max_length``, a template that differs, out of memory.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    asked = join_problems(problems, targets["problem_id"], "the SFT set")
    chats = [prompt.messages(q, o) for q, o in asked.select("question", "options").iter_rows()]
    student, tokenizer, found_hash = load_student(model, prompt, expected_hash)
    rows: list[dict[str, Any]] = [
        {
            "prompt": chat,
            "completion": [{"role": "assistant", "content": response}],
            **({"chat_template_kwargs": prompt.chat_template_kwargs} if prompt.chat_template_kwargs else {}),
        }
        for chat, response in zip(chats, targets["response"], strict=True)
    ]
    lengths = []
    for row, problem_id in zip(rows, targets["problem_id"], strict=True):
        ids = tokenizer.apply_chat_template(
            row["prompt"] + row["completion"], tokenize=True, return_dict=True, **prompt.chat_template_kwargs
        )["input_ids"]
        lengths.append(len(ids))
        if len(ids) > settings.max_length:
            raise DereasonError(
                f"the target of problem {problem_id!r} is {len(ids)} tokens long with its prompt, over max_length "
                f"{settings.max_length}",
                "raise max_length or drop the target; a cut target teaches the model not to answer",
            )
    with guarded(settings.optimiser.micro_batch):
        resume = last_checkpoint(work)
        trainer = SFTTrainer(
            model=student,
            args=SFTConfig(
                **trainer_arguments(settings.optimiser, model, work, seed=seed),
                num_train_epochs=settings.epochs,
                gradient_accumulation_steps=settings.batch // settings.optimiser.micro_batch,
                max_length=max(lengths),
                completion_only_loss=True,
                train_sampling_strategy=settings.order,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[make_callback(work, METRICS, progress, int(resume.name.rsplit("-", 1)[-1]) if resume else 0)],
        )
        train(trainer, resume)
        save_model(trainer, tokenizer, out)
    return PhaseResult(
        model=out,
        steps=trainer.state.global_step,
        tokens_trained=round(sum(lengths) * settings.epochs),
        tokens_generated=0,
        template_hash=found_hash,
    )
