"""What SFT and RL phases share: checkpoints that resume, metrics on file, guards, and the hand-off.

A phase works in a folder of its own (``work``): trainer checkpoints, ``metrics.jsonl``, rollouts. A checkpoint
counts only when its marker is there, so a half-written one is never chosen. Killed and started again, a
phase continues from its last marked checkpoint with the same data order, RNG and optimiser state.

Checkpoints are transformers' own (``optimizer.pt``, ``rng_state.pth``): files that this run wrote itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import Field

from dereason.errors import DereasonError
from dereason.lm.local.model import (
    ModelSettings,
    load_tokenizer,
    load_weights,
    resolve_device,
)
from dereason.lm.prompts import Prompt, check_template, template_hash
from dereason.settings import Settings


class Optimiser(Settings):
    """AdamW, its schedule, and how a batch is cut; shared by SFT and RL."""

    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak learning rate."""
    schedule: Literal["constant_with_warmup", "constant", "linear", "cosine", "inverse_sqrt"] = "constant_with_warmup"
    """Learning-rate schedule, by transformers' name."""
    warmup_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of the optimiser steps that warm up."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    micro_batch: int = Field(default=8, gt=0)
    """Sequences per forward pass and device; lower it when memory runs out: the result changes by rounding alone."""
    gradient_checkpointing: bool = False
    """Trade computation for memory."""
    checkpoint_every: int = Field(default=50, gt=0)
    """Optimiser steps between checkpoints; each costs the model and two optimiser moments on disk."""


@dataclass(frozen=True)
class PhaseResult:
    """What a finished phase leaves behind.

    Attributes:
        model: folder of the trained model.
        steps: optimiser steps.
        tokens_trained: tokens forwarded and backwarded, prompts included, padding left out.
        tokens_generated: tokens sampled in rollouts, 0 for SFT.
        template_hash: of the saved tokenizer.
    """

    model: Path
    steps: int
    tokens_trained: int
    tokens_generated: int
    template_hash: str


def load_student(model: ModelSettings, prompt: Prompt, expected_hash: str | None) -> tuple[Any, Any, str]:
    """Model and tokenizer for training, and the template hash, checked at the hand-off.

    Weights are float32 whatever ``model.dtype`` says (GPU phases compute in bfloat16 by autocast): AdamW in
    bfloat16 loses small updates.

    Raises:
        DereasonError: the model's chat template differs from the one the run began with.
    """
    tokenizer = load_tokenizer(model)
    found = template_hash(tokenizer, dict(prompt.chat_template_kwargs))
    check_template(model.name, found, expected_hash)
    return load_weights(model.model_copy(update={"dtype": "float32"})), tokenizer, found


def trainer_arguments(optimiser: Optimiser, model: ModelSettings, work: Path, *, seed: int) -> dict[str, Any]:
    """Arguments that SFTConfig and GRPOConfig share."""
    device = resolve_device(model.device)
    return {
        "output_dir": str(work / "checkpoints"),
        "learning_rate": optimiser.learning_rate,
        "lr_scheduler_type": optimiser.schedule,
        "warmup_steps": optimiser.warmup_ratio,
        "weight_decay": optimiser.weight_decay,
        "max_grad_norm": optimiser.max_grad_norm,
        "per_device_train_batch_size": optimiser.micro_batch,
        "activation_checkpointing": optimiser.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": optimiser.checkpoint_every,
        "save_total_limit": 2,  # the newest may lack its marker
        "logging_steps": 1,
        "logging_strategy": "steps",
        "report_to": [],
        "disable_tqdm": True,
        "seed": seed,
        "data_seed": seed,
        "use_cpu": device == "cpu",
        "bf16": device == "cuda",
        "dataloader_pin_memory": device == "cuda",
    }


def train(trainer: Any, resume: Path | None) -> None:
    """Train, from the checkpoint where there is one; what transformers would print goes to ``metrics.jsonl``."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)


def save_model(trainer: Any, tokenizer: Any, out: Path) -> None:
    """Write weights (safetensors), config, generation config and tokenizer to ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def join_problems(problems: pl.DataFrame, ids: pl.Series, where: str) -> pl.DataFrame:
    """The problems with these ids, in the ids' order.

    Raises:
        DereasonError: there are none, or an id is unknown.
    """
    if len(ids) == 0:
        raise DereasonError(f"{where} is empty", "look at the routes: another policy or other fractions fill it")
    table = pl.DataFrame({"id": ids}).join(problems, on="id", how="left", maintain_order="left")
    unknown = table.filter(pl.col("question").is_null())["id"].to_list()
    if unknown:
        raise DereasonError(f"{where}: no problem has the id {unknown[0]!r}", "use the pool that was routed")
    return table
