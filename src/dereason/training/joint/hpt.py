"""HPT, hybrid post-training (arXiv 2509.04419): problem by problem, RL where it is solved often enough, else SFT.

    solved(q) > gate:   the rollouts, by the RL loss
    solved(q) <= gate:  the demonstration, by c · mean over demonstration tokens of -log π(d_t); rollouts are dropped

With a gate of -1 it is GRPO, with one of G it is SFT on the demonstrations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from dereason.training.joint.frame import (
    POLICY,
    SFT,
    JointRow,
    Method,
    View,
    demonstration_row,
    rollout_rows,
    successes,
)
from dereason.training.policy import Group

if TYPE_CHECKING:
    from torch import Tensor


class HPT(Method):
    """SFT on problems that are solved at most ``gate`` times, RL on the others."""

    paper: ClassVar[str] = "2509.04419"
    rule: ClassVar[str] = "solved at most gate times: SFT, else RL"

    name: Literal["hpt"] = "hpt"
    """Names this method."""
    gate: int = Field(default=0, ge=-1)
    """Most correct rollouts of a problem that goes to SFT; the paper has 0, and 2 for Llama."""
    sft_weight: float = Field(default=1.0, ge=0)
    """Weight c of the SFT loss (ours)."""

    def rows(self, group: Group, advantages: Sequence[float], demonstration: Sequence[int]) -> list[JointRow]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        if successes(group) <= self.gate:
            return [demonstration_row(demonstration)]
        return rollout_rows(group, advantages)

    def terms(self, view: View) -> dict[str, Tensor]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return {POLICY: view.policy_loss, SFT: -self.sft_weight * view.logp}
