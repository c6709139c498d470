"""What is compared: two models, and the phase that made the second of the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dereason.evaluation.statistics import Interval

Info = dict[str, Any]
Progress = Callable[[int, int, str], None]
"""Told of finished work: (done, total, words)."""


@dataclass(frozen=True)
class Comparison:
    """A model before and a model after.

    Attributes:
        before: name of the model before.
        after: name of the model after.
        phase: ``sft``, ``rl`` or ``joint``: what made the second of the first; None where it was more than one phase,
            or is not known.
    """

    before: str
    after: str
    phase: str | None = None


def as_json(interval: Interval | None) -> Info | None:
    """An interval as ``findings.json`` has it: estimate, low, high and n, the problems that count."""
    if interval is None:
        return None
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high, "n": interval.n_problems}
