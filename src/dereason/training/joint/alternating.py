"""Naive alternating: an SFT step, an RL step, and so on; a baseline of BRIDGE's paper (arXiv 2509.06948).

Every ``period``-th optimiser step trains on the demonstrations of its problems, without drawing rollouts; the others
are plain RL. Both kinds of step share the optimiser and its moments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from dereason.training.joint.frame import JointRow, Method, rollout_rows
from dereason.training.policy import Group


class Alternating(Method):
    """SFT steps and RL steps by turns."""

    rule: ClassVar[str] = "one SFT step, then RL steps, by turns"

    name: Literal["alternating"] = "alternating"
    """Names this method."""
    period: int = Field(default=2, gt=1)
    """Of so many optimiser steps the first is SFT."""

    def rows(self, group: Group, advantages: Sequence[float], demonstration: Sequence[int]) -> list[JointRow]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return rollout_rows(group, advantages)

    def supervises(self, step: int) -> bool:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return step % self.period == 0
