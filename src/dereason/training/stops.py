"""When a phase stops by itself: loss or gradient not finite, gradient exploding, no reward at all.

Pure: :class:`Health` is fed one logged line after the other and answers with a :class:`Diagnosis` or None. All
processes of a phase see the same values (losses, norms and rewards are logged globally), so all stop together.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from pydantic import Field

from dereason.settings import Settings

_WINDOW = 50
_LEAST = 10
_NORMAL = 1.0


class Stops(Settings):
    """When a phase ends itself with a diagnosis; the numbers are ours. A loss or gradient that is not finite always
    ends it."""

    gradient_ratio: float = Field(default=100.0, gt=1)
    """A gradient norm explodes above this many times the median of the last 50 that were not 0 (at least 10 of them),
    and above this number itself."""
    gradient_steps: int = Field(default=5, gt=0)
    """Exploding optimiser steps in a row that end the phase; no checkpoint is saved during them."""
    zero_reward_steps: int = Field(default=50, ge=0)
    """Optimiser steps in a row without any reward that end an RL phase; 0 never does."""


@dataclass(frozen=True)
class Diagnosis:
    """Why a phase stops.

    Attributes:
        cause: what is wrong.
        mend: what to do.
        spoilt_from: optimiser step from which on checkpoints are not to be trusted, None where all are good.
    """

    cause: str
    mend: str
    spoilt_from: int | None = None


def not_finite(name: str, value: float, step: int) -> Diagnosis:
    """The diagnosis of a loss or gradient norm that is NaN or infinite.

    Args:
        name: of the quantity.
        value: it.
        step: the optimiser step, from 1, that it belongs to. It was computed with the weights after ``step - 1``
            steps, so a checkpoint of those is suspect.
    """
    return Diagnosis(
        f"{name} became {value} at optimiser step {step}",
        "lower optimiser.learning_rate, or raise optimiser.warmup_ratio",
        spoilt_from=step - 1,
    )


class Health:
    """What the log of a phase says about it.

    Attributes:
        exploding: steps in a row, up to now, whose gradient norm exploded.
    """

    def __init__(self, stops: Stops) -> None:
        self.stops = stops
        self.exploding = 0
        self._first_exploding = 0
        self._norms: deque[float] = deque(maxlen=_WINDOW)
        self._unrewarded: list[dict[str, Any]] = []

    def see(self, row: dict[str, Any]) -> Diagnosis | None:
        """Take in one line of ``metrics.jsonl``: ``step`` and what was logged."""
        for name in ("loss", "grad_norm"):
            value = row.get(name, 0.0)
            if not math.isfinite(value):
                return not_finite(name, value, row["step"])
        return self._gradient(row) or self._reward(row)

    def _gradient(self, row: dict[str, Any]) -> Diagnosis | None:
        norm = row.get("grad_norm", 0.0)
        if norm == 0:  # nothing to learn in this step: it neither continues nor ends an explosion
            return None
        usual = median(self._norms) if len(self._norms) >= _LEAST else math.inf
        # Without the floor, an RL phase whose flat groups leave it a KL gradient of 1e-7 would explode at its first
        # reward.
        if norm <= self.stops.gradient_ratio * max(usual, _NORMAL):
            self._norms.append(norm)
            self.exploding = 0
            return None
        self.exploding += 1
        if self.exploding == 1:
            self._first_exploding = row["step"]
        if self.exploding < self.stops.gradient_steps:
            return None
        return Diagnosis(
            f"the gradient norm is {norm:.3g} at optimiser step {row['step']}, and has been above "
            f"{self.stops.gradient_ratio:g} times its median of {usual:.3g} for {self.exploding} steps",
            "lower optimiser.learning_rate, or raise optimiser.warmup_ratio; stops.gradient_ratio moves this bound",
            spoilt_from=self._first_exploding - 1,
        )

    def _reward(self, row: dict[str, Any]) -> Diagnosis | None:
        reward = row.get("reward", math.nan)
        unknown = math.isnan(reward)
        if unknown and "error" not in row:  # a further update on the same rollouts, or no RL at all
            if self._unrewarded:
                self._unrewarded.append({})
        elif unknown or (reward <= 0 and row.get("reward_std", 0.0) == 0):
            self._unrewarded.append(row)
        else:
            self._unrewarded = []
        steps = len(self._unrewarded)
        if not self.stops.zero_reward_steps or steps < self.stops.zero_reward_steps:
            return None
        shares = {v: self._share(v) for v in ("truncated", "unparsable", "wrong", "error", "correct")}
        found = ", ".join(f"{100 * share:.0f} % {name}" for name, share in shares.items() if share)
        return Diagnosis(
            f"no rollout of the last {steps} optimiser steps earned a reward (step {row['step']}; their verdicts: "
            f"{found or 'none'})",
            f"{advice(shares)}; stops.zero_reward_steps moves this bound",
        )

    def _share(self, verdict: str) -> float:
        values = [float(row[verdict]) for row in self._unrewarded if row.get(verdict) is not None]
        return sum(values) / len(values) if values else 0.0


def advice(shares: Mapping[str, float]) -> str:
    """What to do where no rollout earns anything, by the shares of their verdicts; lenient ones."""
    if shares["correct"]:  # a lenient verdict
        return (
            "rollouts are right and not rewarded: where they do not mark their answers, ask for it in prompt.suffix, "
            "begin with SFT or set rewards.marks; else look at the phase's rewards and their weights"
        )
    most = max(shares, key=lambda name: shares[name])
    if most == "truncated":
        return "most rollouts reach the length limit before they answer: raise max_new_tokens"
    if most == "unparsable":
        return "most rollouts hold no answer that can be read: ask for one in prompt.suffix, or begin with SFT"
    if most == "error":
        return "the verifier fails on most rollouts: the column `reason` of rollouts/step-*.parquet says why"
    return "the problems are too hard for this model: route easier ones to RL, or begin with SFT"
