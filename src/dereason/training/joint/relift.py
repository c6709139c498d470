"""ReLIFT (arXiv 2506.07527): what RL cannot solve is learned from demonstrations, a queue at a time.

Every step is RL on its problems. The demonstration of a problem whose rollouts are all wrong joins a queue, the newest
first. When ``queue.batch`` of them wait, an SFT update on so many follows the RL updates of the same batch, with an
AdamW, a learning rate and a clip of its own; the others wait on. So the two kinds of update share the weights and
nothing else, and a second set of moments is in memory.

Numbers and order are those of the released code (TheRoadQaQ/ReLIFT, ``relift/verl/verl/relift/trainer.py``,
``examples/*/train.sh``). Ours: a problem that waits already does not join again; the SFT loss is the mean over all
tokens of the update, where the release averages over micro-batches of two and adds 0.001 of entropy. The queue outlives
an interruption, and so do the moments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from dereason.training.joint.frame import JointRow, Method, Queue, rollout_rows, successes
from dereason.training.policy import Group


class ReLIFT(Method):
    """RL, and SFT on the demonstrations of problems that were not solved at all."""

    paper: ClassVar[str] = "2506.07527"
    rule: ClassVar[str] = "all-wrong problems wait; a full queue is an SFT update besides the RL update"

    name: Literal["relift"] = "relift"
    """Names this method."""
    queue: Queue = Queue()
    """The SFT updates; the paper's are of 128 demonstrations, at 1e-6, clipped to 1."""

    def rows(self, group: Group, advantages: Sequence[float], demonstration: Sequence[int]) -> list[JointRow]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return rollout_rows(group, advantages)

    @property
    def supervised(self) -> Queue | None:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return self.queue

    def buffers(self, group: Group) -> bool:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return successes(group) == 0 and any(c is not None for c in group.correct)
