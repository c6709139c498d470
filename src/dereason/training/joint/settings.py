"""Settings of a joint phase: those of RL, and the method that adds demonstrations to it. Imports no tables."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from dereason.training.joint.methods import JointMethod
from dereason.training.joint.weighted import Weighted
from dereason.training.rl import RL


class Joint(RL):
    """A phase whose updates mix SFT on demonstrations and RL."""

    method: JointMethod = Weighted()
    """How demonstrations enter; its `name` selects it."""
    max_length: int = Field(default=4096, gt=0)
    """Longest prompt + demonstration in tokens; a longer one is refused, not cut."""

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
        if self.method.name == "luffy" and self.method.std != (self.scale_rewards == "group"):
            raise ValueError(
                f"luffy.std is {str(self.method.std).lower()} and scale_rewards is {self.scale_rewards!r}: the "
                "demonstration would be on another scale than the rollouts; set std: true with group, false with none"
            )
        return self
