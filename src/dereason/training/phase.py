"""What SFT and RL phases share: checkpoints that resume, metrics on file, guards, and the hand-off.

A phase works in a folder of its own (``work``): trainer checkpoints, ``metrics.jsonl``, rollouts. A checkpoint
counts only when its marker is there, so a half-written one is never chosen. Killed and started again, a
phase continues from its last marked checkpoint with the same data order, RNG and optimiser state.

Checkpoints are transformers' own (``optimizer.pt``, ``rng_state.pth``): files that this run wrote itself.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field

from dereason.errors import DereasonError
from dereason.lm.endings import reply_end, stop_ids
from dereason.lm.local.model import ModelSettings, load_tokenizer, load_weights, resolve_device
from dereason.lm.local.room import check_room
from dereason.lm.prompts import Prompt, check_template, template_hash
from dereason.settings import Settings
from dereason.training import stack
from dereason.training.adapters import LoRA, attach, check_adapter, float32_adapter, load_frozen
from dereason.training.hand_off import probe_logits, write_model
from dereason.training.stops import Stops
from dereason.training.watch import Tracker, check_trackers, read_line


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
    adam_betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """AdamW's decay of the gradient's running mean, and of its square's."""
    adam_epsilon: float = Field(default=1e-8, gt=0)
    """Added to the square root that AdamW divides by."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    micro_batch: int = Field(default=8, gt=0)
    """Sequences per forward pass and device; lower it when memory runs out: the result changes by rounding alone (and
    by the router's own loss, in a mixture of experts)."""
    gradient_checkpointing: bool = False
    """Trade computation for memory."""
    checkpoint_every: int = Field(default=50, gt=0)
    """Optimiser steps between checkpoints; each costs the model and two optimiser moments on disk."""


class PhaseSettings(Settings):
    """What every kind of phase can be told."""

    optimiser: Optimiser = Optimiser()
    """Learning rate, schedule, micro-batch, checkpoints."""
    adapter: LoRA | None = None
    """Train a low-rank adapter (LoRA, QLoRA) in place of the weights; null trains all weights."""
    stops: Stops = Stops()
    """When a phase that goes wrong is stopped."""
    report_to: list[Tracker] = []
    """Trackers that get the metrics too, beside `metrics.jsonl`."""
    run_name: str | None = None
    """What trackers call the phase; null takes the name of its folder."""


@dataclass(frozen=True)
class PhaseResult:
    """What a finished phase leaves behind.

    Attributes:
        model: folder of the trained model.
        steps: optimiser steps.
        tokens_trained: tokens forwarded and backwarded, prompts included, padding left out.
        tokens_generated: tokens sampled in rollouts, 0 for SFT.
        template_hash: of the saved tokenizer.
        left_out: targets longer than the phase takes; 0 for RL.
        longest: tokens of the longest prompt + target that it takes; 0 for RL.
    """

    model: Path
    steps: int
    tokens_trained: int
    tokens_generated: int
    template_hash: str
    left_out: int = 0
    longest: int = 0


def load_student(
    model: ModelSettings, prompt: Prompt, expected_hash: str | None, *, adapter: LoRA | None = None, seed: int = 0
) -> tuple[Any, Any, str]:
    """Model and tokenizer for training, and the template hash, checked at the hand-off.

    Trained weights are float32 whatever ``model.dtype`` says (GPU phases compute in bfloat16 by autocast): AdamW in
    bfloat16 loses small updates. Weights that an adapter leaves as they are have ``model.dtype``.

    Args:
        model: what the phase begins with.
        prompt: how questions are put.
        expected_hash: template hash of the run; None skips the check.
        adapter: trained in place of the weights; the model is then peft's.
        seed: of a new adapter.

    Raises:
        DereasonError: the model's chat template differs from the one the run began with or writes nothing behind a
            reply that ends it, the adapter cannot be trained here, or the ends of a text have no embedding.
    """
    stack.check()
    check_adapter(adapter, model)
    tokenizer = load_tokenizer(model, prompt.date)
    found = template_hash(tokenizer, dict(prompt.chat_template_kwargs))
    check_template(model.name, found, expected_hash)
    if reply_end(tokenizer, prompt.chat_template_kwargs) is None:
        raise DereasonError(
            f"the chat template of {model.name} writes no end token behind a reply: what it trains would never stop",
            "put one there in the template, such as {{ message['content'] + eos_token }}, and see that the tokenizer "
            "has it as one token",
        )
    if adapter is not None:
        weights = load_frozen(model, adapter)
    else:
        weights = load_weights(model.model_copy(update={"dtype": "float32"}))
    stops = stop_ids(weights.generation_config, tokenizer, prompt.chat_template_kwargs)
    check_room(weights, tokenizer, [[i] for i in (tokenizer.pad_token_id, *stops)], model)
    weights.generation_config.eos_token_id = list(stops)  # where TRL looks for what ends a rollout
    student = weights if adapter is None else attach(weights, adapter, model, seed)
    return student, tokenizer, found


def trainer_arguments(settings: PhaseSettings, model: ModelSettings, work: Path, *, seed: int) -> dict[str, Any]:
    """Arguments that SFTConfig and GRPOConfig share.

    To transformers' trainer a step is one batch of one row; the update (:mod:`dereason.training.update`) knows better.
    """
    from transformers import TrainingArguments

    device = resolve_device(model.device)
    optimiser = settings.optimiser
    # vLLM 0.32 wants a transformers that knows the older name alone
    kind = "activation" if hasattr(TrainingArguments, "activation_checkpointing") else "gradient"
    return {
        "output_dir": str(work / "checkpoints"),
        "learning_rate": optimiser.learning_rate,
        "lr_scheduler_type": optimiser.schedule,
        "warmup_steps": optimiser.warmup_ratio,
        "weight_decay": optimiser.weight_decay,
        "adam_beta1": optimiser.adam_betas[0],
        "adam_beta2": optimiser.adam_betas[1],
        "adam_epsilon": optimiser.adam_epsilon,
        "max_grad_norm": optimiser.max_grad_norm,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        f"{kind}_checkpointing": optimiser.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": optimiser.checkpoint_every,
        "save_total_limit": 2,  # the newest may lack its marker
        "logging_steps": 1,
        "logging_strategy": "steps",
        "report_to": check_trackers(settings.report_to),
        "project": "dereason",
        "run_name": settings.run_name or work.name.removesuffix(".partial"),
        "logging_nan_inf_filter": False,  # it would log a NaN as the last loss that was none
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

    float32_adapter(trainer.model)
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)


def save_model(trainer: Any, tokenizer: Any, out: Path, start: ModelSettings, *, adapter: LoRA | None = None) -> None:
    """Write weights (safetensors), config, generation config and tokenizer to ``out``, read them again, and compare.

    Every process of the phase calls it; the main one writes. See :mod:`dereason.training.hand_off`.

    Args:
        trainer: after training, or in the middle of it.
        tokenizer: of the phase.
        out: folder of the trained model.
        start: what the phase began with.
        adapter: the phase's adapter, added to the weights unless it is to be kept.

    Raises:
        DereasonError: what was saved is not what was trained.
    """
    accelerator = trainer.accelerator
    live = accelerator.unwrap_model(trainer.model)
    spread = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    state = accelerator.get_state_dict(trainer.model_wrapped) if spread else None  # all processes have to ask
    if accelerator.is_main_process:
        write_model(
            live,
            live.state_dict() if state is None else state,
            tokenizer,
            out,
            start,
            merge=adapter is None or adapter.merge,
            logits=None if spread else probe_logits(live, tokenizer),
        )
    accelerator.wait_for_everyone()


def keep_models(
    trainer: Any, tokenizer: Any, work: Path, count: int, start: ModelSettings, *, adapter: LoRA | None = None
) -> None:
    """Have the trainer save ``count`` models, evenly spaced over its steps; the last is the phase's own.

    The others go to ``work/model-<step>``, in the same way as the last (:func:`save_model`) and by atomic rename.

    Args:
        trainer: before training.
        tokenizer: of the phase.
        work: the phase's folder.
        count: models in all; 1 adds nothing, and so does a step that falls together with another.
        start: what the phase begins with.
        adapter: the phase's adapter.
    """
    from transformers import TrainerCallback

    class Keeper(TrainerCallback):
        """See :func:`keep_models`."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            last = state.max_steps
            if state.global_step not in {round(last * i / count) for i in range(1, count)} - {0, last}:
                return
            folder = work / f"model-{state.global_step}"
            part = folder.with_name(folder.name + ".part")
            main = trainer.accelerator.is_main_process
            if main:
                shutil.rmtree(part, ignore_errors=True)
            save_model(trainer, tokenizer, part, start, adapter=adapter)
            if main:
                shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed after it
                part.rename(folder)

    if count > 1:
        trainer.add_callback(Keeper())


def kept_models(work: Path) -> list[str]:
    """Names of the model folders of a finished phase, in the order of their steps, the last one's at the end."""
    found = [p.name for p in work.glob("model-*") if p.name.removeprefix("model-").isdigit()]
    return [*sorted(found, key=lambda name: int(name.removeprefix("model-"))), "model"]


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


def logged_metrics(work: Path) -> list[dict[str, float]]:
    """The lines of a phase's ``metrics.jsonl``."""
    path = work / "metrics.jsonl"
    found = map(read_line, path.read_text().splitlines()) if path.is_file() else ()
    return [line for line in found if line]
