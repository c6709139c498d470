r"""UFT, unified fine-tuning (arXiv 2505.16984): rollouts go on from a hint, which is imitated at the same time::

    hint:  the first k of 5 equal parts of the demonstration, k ~ Binomial(5, p), the same for all rollouts of a group
           p = low + (high - low) · (1 + cos(π t / T)) / 2  for steps t <= T, then no hint;  T = share · all steps
    loss:  the RL loss on what the rollouts drew  +  β · mean over hint tokens of -log π(d_t)

The hint begins the reply. The paper's objective has a KL term too, on drawn tokens: set the phase's ``kl``. Behind all
five parts little but the end token is left to draw: a group whose rollouts all take it teaches by the imitation alone.
Each hint token counts once, not once for each rollout, in sum and normaliser alike: the mean is the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from dereason.training.joint.frame import POLICY, SFT, JointRow, Method, View, demonstration_row, rollout_rows
from dereason.training.policy import Group

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class UFT(Method):
    """Rollouts behind a hint that gets shorter, and likelihood of the hint."""

    paper: ClassVar[str] = "2505.16984"
    rule: ClassVar[str] = "rollouts continue a hint of Binomial(5, p) fifths of the demonstration; + NLL of the hint"
    prefixes: ClassVar[bool] = True

    name: Literal["uft"] = "uft"
    """Names this method."""
    parts: int = Field(default=5, gt=0)
    """Parts that the demonstration is cut into; the paper's 5 (of sentences; here of tokens)."""
    high: float = Field(default=0.95, ge=0, le=1)
    """Chance p of each part at the first step; the paper's is 0.95."""
    low: float = Field(default=0.05, ge=0, le=1)
    """Chance p of each part when hints end; the paper's is 0.05."""
    share: float = Field(default=0.6, ge=0, le=1)
    """Share of the steps with hints; the paper's are 300 of 500."""
    sft_weight: float = Field(default=0.001, ge=0)
    """Weight β of the hint's negative log-likelihood; the paper's is 0.001."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"uft.low {self.low} is above uft.high {self.high}")
        return self

    def chance(self, progress: float) -> float:
        """The chance of each part, where the phase is so far (0..1)."""
        if progress > self.share or not self.share:
            return 0.0
        return self.low + (self.high - self.low) * 0.5 * (1 + math.cos(math.pi * progress / self.share))

    def given(self, length: int, size: int, progress: float, stream: np.random.Generator) -> list[int]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        shown = int(stream.binomial(self.parts, self.chance(progress)))
        return [round(shown * length / self.parts)] * size

    def rows(self, group: Group, advantages: Sequence[float], demonstration: Sequence[int]) -> list[JointRow]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        rows = rollout_rows(group, advantages)
        hint = demonstration[: max(row.given for row in rows)]
        return [*rows, demonstration_row(hint)] if hint else rows

    def terms(self, view: View) -> dict[str, Tensor]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return {POLICY: view.policy_loss, SFT: -self.sft_weight * view.logp}
