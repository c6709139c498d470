"""A second opinion on pairs of answers: math-verify's, in the killable workers. It decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dereason.verify.symbolic import math_verify_opinion
from dereason.verify.workers import Pool

TIME_LIMIT = 2.0
"""Seconds a pair; beyond it math-verify has no opinion."""
MEMORY_LIMIT = 1024
"""MiB a pair."""


def load() -> Callable[[list[str]], bool | None]:
    """What a worker does with a task ``[answer, reference]``, with its parser's tables built."""
    math_verify_opinion("x", "x")
    return lambda task: math_verify_opinion(task[0], task[1])


class Opinions:
    """math-verify in worker processes, which start with the first question and end with :meth:`close`."""

    def __init__(self) -> None:
        self._pool = Pool(time_limit=TIME_LIMIT, memory_limit=MEMORY_LIMIT, target=f"{__name__}:load")

    def ask(self, pairs: Sequence[tuple[str, str]]) -> list[bool | None]:
        """Whether each answer equals its reference; None where math-verify reads one of them as no mathematics."""
        return [outcome.value for outcome in self._pool.run([list(pair) for pair in pairs])]

    def close(self) -> None:
        """End the workers."""
        self._pool.close()
