"""SuperRL (arXiv 2506.01096, version 2): policy gradient for a problem with any success, else SFT on its demonstration.

This is version 2 of the paper, whose switch is the problem's: each problem weighs the same (``per: problem``), as in
HPT with a gate of 0. Version 1 was another method, a weighted sum of both losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from dereason.training.joint.frame import JointRow, Method, demonstration_row, rollout_rows, successes
from dereason.training.policy import Group


class SuperRL(Method):
    """RL on problems with a success, SFT on the others."""

    paper: ClassVar[str] = "2506.01096"
    rule: ClassVar[str] = "any success: RL, else SFT (version 2 of the paper)"

    name: Literal["superrl"] = "superrl"
    """Names this method."""
    per: Literal["problem", "term"] = "problem"
    """Whether each problem weighs the same, or each of the two losses is a mean of its own."""

    @property
    def per_problem(self) -> bool:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return self.per == "problem"

    def rows(self, group: Group, advantages: Sequence[float], demonstration: Sequence[int]) -> list[JointRow]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return rollout_rows(group, advantages) if successes(group) else [demonstration_row(demonstration)]
