"""J_RL + μ J_SFT: the plainest mixture, a baseline of BRIDGE's paper (arXiv 2509.06948).

    L = L_RL + μ · mean over demonstration tokens of -log π(d_t)

Rollouts are all there, the demonstration beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from dereason.training.joint.frame import POLICY, SFT, JointRow, Method, View, demonstration_row, rollout_rows
from dereason.training.policy import Group

if TYPE_CHECKING:
    from torch import Tensor


class Weighted(Method):
    """The RL loss plus μ times the SFT loss."""

    rule: ClassVar[str] = "RL loss + mu * SFT loss"

    name: Literal["weighted"] = "weighted"
    """Names this method."""
    mu: float = Field(default=0.1, ge=0)
    """Weight of the SFT loss (ours)."""

    def rows(self, group: Group, advantages: Sequence[float], demonstration: Sequence[int]) -> list[JointRow]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return [*rollout_rows(group, advantages), demonstration_row(demonstration)]

    def terms(self, view: View) -> dict[str, Tensor]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return {POLICY: view.policy_loss, SFT: -self.mu * view.logp}
