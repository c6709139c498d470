"""What SFT and RL phases share: checkpoints that resume, metrics on file, guards, and the hand-off.

A phase works in a folder of its own (``work``): trainer checkpoints, ``metrics.jsonl``, rollouts. A checkpoint
counts only when its marker is there, so a half-written one is never chosen. Killed and started again, a
phase continues from its last marked checkpoint with the same data order, RNG and optimiser state.

Checkpoints are transformers' own (``optimizer.pt``, ``rng_state.pth``): files that this run wrote itself.
"""

from __future__ import annotations

import json
import logging
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import Field

from dereason.errors import DereasonError, out_of_memory
from dereason.lm.base import Progress
from dereason.lm.local.model import (
    ModelSettings,
    load_tokenizer,
    load_weights,
    quiet_libraries,
    resolve_device,
)
from dereason.lm.prompts import Prompt, check_template, template_hash
from dereason.settings import Settings

_MARKER = "checkpoint-complete"


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


def last_checkpoint(work: Path) -> Path | None:
    """The newest checkpoint whose marker was written."""
    found = [p.parent for p in (work / "checkpoints").glob(f"checkpoint-*/{_MARKER}")]
    return max(found, key=lambda p: int(p.name.rsplit("-", 1)[-1]), default=None)


def make_callback(work: Path, names: dict[str, str], progress: Progress, resumed_at: int) -> Any:
    """Trainer callback: metrics to ``metrics.jsonl``, progress, checkpoint markers, and a stop on NaN.

    Args:
        work: the phase's folder.
        names: trainer's metric name -> ours; metrics not named are left out.
        progress: told of each step.
        resumed_at: step of the checkpoint that the phase resumes from; later lines of the file are dropped.
    """
    from transformers import TrainerCallback

    work.mkdir(parents=True, exist_ok=True)
    path = work / "metrics.jsonl"
    kept = []
    if path.is_file():
        kept = [x for x in map(_json_line, path.read_text().splitlines()) if x and x["step"] <= resumed_at]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))
    spent = kept[-1]["seconds"] if kept else 0.0

    class PhaseCallback(TrainerCallback):
        """See :func:`make_callback`."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.started = time.monotonic()
            progress(state.global_step, state.max_steps, "")

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
            values = {ours: logs[theirs] for theirs, ours in names.items() if logs.get(theirs) is not None}
            if "loss" not in logs:  # the summary at the end of training
                return
            seconds = round(spent + time.monotonic() - self.started, 3)
            with path.open("a") as handle:
                handle.write(json.dumps({"step": state.global_step, "seconds": seconds, **values}) + "\n")
            shown = "reward" if "reward" in values else "loss"
            progress(state.global_step, state.max_steps, f"{shown} {values.get(shown, math.nan):.3f}")
            for key in ("loss", "grad_norm"):
                if key in values and not math.isfinite(values[key]):
                    raise DereasonError(
                        f"{key} became {values[key]} at optimiser step {state.global_step}",
                        f"lower optimiser.learning_rate; the last good checkpoint is in {args.output_dir}",
                    )

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / _MARKER).touch()

    return PhaseCallback()


def _json_line(line: str) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None  # the line that a kill cut short
    return value


@contextmanager
def guarded(micro_batch: int) -> Iterator[None]:
    """Turn running out of memory into one line with a mend; keep library chatter off the screen."""
    import datasets

    quiet_libraries()
    logging.getLogger("trl").setLevel(logging.ERROR)  # it warns of every reward of None; our log has their share
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    except (RuntimeError, MemoryError) as exc:
        if not out_of_memory(exc):
            raise
        raise DereasonError(
            f"the phase ran out of memory at micro_batch {micro_batch}",
            "lower optimiser.micro_batch or set optimiser.gradient_checkpointing=true (neither changes the result "
            "beyond rounding), in RL also rollout_batch; the same run goes on from the last checkpoint",
        ) from exc


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
