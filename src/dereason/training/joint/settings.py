"""Settings of a joint phase: those of RL, and the method that adds demonstrations to it. Imports no tables."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from dereason.errors import DereasonError
from dereason.training.joint.methods import JointMethod
from dereason.training.joint.weighted import Weighted
from dereason.training.rl import RL


class Joint(RL):
    """A phase whose updates mix SFT on demonstrations and RL."""

    method: JointMethod = Weighted()
    """How demonstrations enter; its `name` selects it."""
    max_length: int | None = Field(default=None, gt=0)
    """Longest prompt + demonstration in tokens; a longer one is refused, not cut. null takes 4096, or the model's
    context where that is less."""

    @model_validator(mode="after")
    def _fits_the_frame(self) -> Self:
        if self.verifree:
            raise ValueError("verifree trains on spliced responses: no joint method has a rule for them")
        if self.entropy_bonus:
            raise ValueError("entropy_bonus has no part in joint methods: set it to 0")
        if self.method.name in ("alternating", "relift") and self.updates_per_generation * self.iterations > 1:
            raise ValueError(
                f"{self.method.name} puts SFT steps between RL steps: set updates_per_generation and iterations to 1"
            )
        if self.method.name == "bridge":
            self._fits_bridge()
        if self.method.prefixes and not self.by_engine:
            raise ValueError(f"{self.method.name} has rollouts continue demonstrations: set rollouts to engine")
        if self.method.prefixes and self.ratio == "sequence":
            raise ValueError(f"{self.method.name}'s rollouts are not the policy's as a whole: set ratio to token")
        if self.method.name == "luffy" and self.method.std != (self.scale_rewards == "group"):
            raise ValueError(
                f"luffy.std is {str(self.method.std).lower()} and scale_rewards is {self.scale_rewards!r}: the "
                "demonstration would be on another scale than the rollouts; set std: true with group, false with none"
            )
        return self

    def _fits_bridge(self) -> None:
        if self.adapter is not None:
            raise ValueError("bridge has a LoRA of its own beside the weights: set adapter: null, and method.rank")
        if not self.by_engine:
            raise ValueError("bridge draws from weights and LoRA together in this process: set rollouts: engine")
        if self.updates_per_generation * self.iterations > 1:
            raise ValueError("bridge takes one step a batch: set updates_per_generation and iterations to 1")

    @property
    def engine_alone(self) -> bool:
        """Whether the settings ask for what our engine alone can draw."""
        return super().engine_alone or self.method.prefixes or self.method.name == "bridge"

    @property
    def needs_reference(self) -> bool:
        """Whether the loss has the starting model in it."""
        return self.kl > 0 or self.method.needs_reference


def check_processes_of(phase: Joint, processes: int) -> None:
    """Refuse, before any work, a method that cannot share its step among processes.

    Raises:
        DereasonError: BRIDGE in several processes.
    """
    if phase.method.name == "bridge" and processes > 1:
        raise DereasonError(
            f"method bridge keeps two sets of weights in step in one process, and launch.processes is {processes}",
            "set launch.processes=1, or take another method",
        )
