"""ReLIFT (arXiv 2506.07527): what RL cannot solve is learned from demonstrations, a buffer at a time.

The demonstration of a problem whose rollouts are all wrong goes to a buffer. When it holds ``buffer`` of them, the next
optimiser step is SFT on them, and the buffer is empty again; every other step is plain RL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from dereason.training.joint.frame import JointRow, Method, rollout_rows, successes
from dereason.training.policy import Group


class ReLIFT(Method):
    """RL, interleaved with SFT on the demonstrations of problems that were not solved at all."""

    paper: ClassVar[str] = "2506.07527"
    rule: ClassVar[str] = "all-wrong problems are buffered; a full buffer is one SFT step"

    name: Literal["relift"] = "relift"
    """Names this method."""
    buffer: int = Field(default=64, gt=0)
    """Demonstrations of one SFT step (ours; a problem enters once until the buffer is used)."""

    def rows(self, group: Group, advantages: Sequence[float], demonstration: Sequence[int]) -> list[JointRow]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return rollout_rows(group, advantages)

    def buffers(self, group: Group) -> bool:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return successes(group) == 0

    def supervises(self, step: int, buffered: int) -> bool:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return buffered >= self.buffer
