"""What a reinforcement-learning phase shares among several processes, and what it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dereason.errors import DereasonError

if TYPE_CHECKING:
    from dereason.training.rl import RL


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
    if processes > 1 and settings.redraws and not settings.by_engine:
        raise DereasonError(
            f"dynamic_sampling draws for some processes and not for others, and rollouts: {settings.rollouts} needs "
            "all of them",
            "set dynamic_sampling: null (and rlpr.drop_flat: false), or rollouts: engine, or launch one process",
        )
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    spread = trainer.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3)
    if spread and settings.by_engine:
        raise DereasonError(
            "rollouts: engine needs the whole weights on each process, and FSDP or ZeRO-3 spreads them",
            "set rollouts: vllm-colocate (or vllm-server), or launch with DDP or ZeRO-2",
        )
