"""SuperRL (arXiv 2506.01096): policy gradient for a problem with any success, else SFT on its demonstration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from dereason.training.joint.frame import JointRow, Method, demonstration_row, rollout_rows, successes
from dereason.training.policy import Group


class SuperRL(Method):
    """RL on problems with a success, SFT on the others."""

    paper: ClassVar[str] = "2506.01096"
    rule: ClassVar[str] = "any success: RL, else SFT"

    name: Literal["superrl"] = "superrl"
    """Names this method."""

    def rows(self, group: Group, advantages: Sequence[float], demonstration: Sequence[int]) -> list[JointRow]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return rollout_rows(group, advantages) if successes(group) else [demonstration_row(demonstration)]
