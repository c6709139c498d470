r"""CHORD (arXiv 2508.11408): (1 - μ) L_RL + μ L_SFT, with a μ that decays; and CHORD-φ::

    μ(s): rises linearly from 0 to ``peak`` over the first ``warmup`` share of the steps, then falls by a cosine to
    ``floor``

    CHORD-μ:  from 0.9 to 0.05, no warm-up
    CHORD-φ:  0.1 throughout; each demonstration token's likelihood is weighted by p(1 - p), detached: little for tokens
              that the policy is sure of, and little for those that it finds impossible

These are the published values (modelscope/Trinity-RFT, ``examples/mix_chord/mix_chord.yaml``). There the decay takes
200 steps; here it takes the phase. At μ = 0 it is GRPO, at μ = 1 SFT.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from dereason.training.joint.frame import POLICY, SFT, JointRow, Method, View, demonstration_row, rollout_rows
from dereason.training.policy import Group

if TYPE_CHECKING:
    from torch import Tensor


class CHORD(Method):
    """RL and SFT with weights that add up to one and shift during training."""

    paper: ClassVar[str] = "2508.11408"
    rule: ClassVar[str] = "(1 - mu) * RL loss + mu * SFT loss, mu scheduled; phi: SFT tokens weighted by p(1 - p)"

    name: Literal["chord"] = "chord"
    """Names this method."""
    phi: bool = False
    """CHORD-phi: weight each demonstration token by p(1 - p)."""
    peak: float = Field(default=0.9, ge=0, le=1)
    """Highest mu; with `phi: true` the default is 0.1."""
    floor: float = Field(default=0.05, ge=0, le=1)
    """Last mu; with `phi: true` the default is that of `peak`, a constant mu."""
    warmup: float = Field(default=0.0, ge=0, lt=1)
    """Share of the steps in which mu rises from 0; the published runs have no warm-up."""

    @model_validator(mode="before")
    @classmethod
    def _phi_is_constant(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not data.get("phi"):
            return data
        peak = data.get("peak", 0.1)
        return {"peak": peak, "floor": peak, **data}

    def mu(self, progress: float) -> float:
        """The weight of the SFT loss where the phase is so far (0..1)."""
        if progress < self.warmup:
            return self.peak * progress / self.warmup
        done = (progress - self.warmup) / (1 - self.warmup)
        return self.floor + (self.peak - self.floor) * 0.5 * (1 + math.cos(math.pi * done))

    def rows(self, group: Group, advantages: Sequence[float], demonstration: Sequence[int]) -> list[JointRow]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return [*rollout_rows(group, advantages), demonstration_row(demonstration)]

    def terms(self, view: View) -> dict[str, Tensor]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        import torch

        mu, p = self.mu(view.progress), torch.exp(view.logp.detach())
        likelihood = -view.logp * p * (1 - p) if self.phi else -view.logp
        return {
            POLICY: torch.where(view.supervised, (1 - mu) * view.policy_loss, view.policy_loss),
            SFT: mu * likelihood,
        }
