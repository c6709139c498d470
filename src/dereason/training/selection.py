"""Which problems an RL step draws rollouts for, beyond the data order: difficulty bands and dynamic sampling.

Both replace problems that would teach nothing. Replacements come from a *reserve*, an order of the whole set made of
seed and step alone, so that a resumed phase draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from dereason.settings import Settings


class DynamicSampling(Settings):
    """Draw further problems in place of those whose group is not mixed (DAPO, arXiv 2503.14476)."""

    max_draws: int = Field(default=3, gt=1)
    """Draws of rollouts for one generation at most, the first included; then it goes on with what it has (ours)."""


class Bands(Settings):
    """Leave out problems that the model, as it is now, always or never solves (online difficulty filtering; ours)."""

    low: float = Field(default=0.05, ge=0, le=1)
    """Problems whose running pass rate is below this rest."""
    high: float = Field(default=0.95, ge=0, le=1)
    """Problems whose running pass rate is above this rest."""
    min_samples: int = Field(default=16, gt=0)
    """Rollouts of a problem before it may rest."""
    rest: int = Field(default=10, gt=0)
    """Optimiser steps after which a resting problem is tried again."""
    decay: float = Field(default=0.5, ge=0, lt=1)
    """Weight of the older rollouts in the running pass rate, at each new group."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"bands.low {self.low} is not below bands.high {self.high}")
        return self


class Selection:
    """Chooses problems by id, alike on every process; its state goes into each checkpoint.

    Args:
        ids: the RL set.
        seed: of the reserve.
        bands: None admits every problem.
    """

    def __init__(self, ids: Sequence[str], *, seed: int, bands: Bands | None = None) -> None:
        self.ids = list(ids)
        self.seed = seed
        self.bands = bands
        self._rates: dict[str, list[float]] = {}  # id -> weighted correct, weighted n, n, last step

    def rate(self, problem_id: str) -> float | None:
        """Running pass rate of a problem, None before its first rollout."""
        known = self._rates.get(problem_id)
        return known[0] / known[1] if known else None

    def resting(self, problem_id: str, step: int) -> bool:
        """Whether the problem is left out at an optimiser step."""
        rate = self.rate(problem_id)
        if self.bands is None or rate is None:
            return False
        _, _, seen, last = self._rates[problem_id]
        enough = seen >= self.bands.min_samples
        return enough and not self.bands.low <= rate <= self.bands.high and step < last + self.bands.rest

    def choose(self, batch: Sequence[str], step: int) -> list[str]:
        """The batch with resting problems replaced, as far as there are problems to take their places."""
        taken = set(batch)
        places = [i for i, problem_id in enumerate(batch) if self.resting(problem_id, step)]
        chosen = list(batch)
        for i, problem_id in zip(places, self.more(taken, len(places), step), strict=False):
            chosen[i] = problem_id
        return chosen

    def more(self, taken: set[str], count: int, step: int) -> list[str]:
        """Up to ``count`` further problems that are neither taken nor resting."""
        order = np.random.default_rng([self.seed, step, 1]).permutation(len(self.ids))
        found: list[str] = []
        for at in order:
            if len(found) == count:
                break
            if self.ids[at] not in taken and not self.resting(self.ids[at], step):
                found.append(self.ids[at])
        return found

    def observe(self, step: int, outcomes: Mapping[str, tuple[int, int]]) -> None:
        """Take in the rollouts of a step: problem -> (correct, judged)."""
        decay = self.bands.decay if self.bands else 0.0
        for problem_id, (correct, judged) in outcomes.items():
            if judged:
                c, n, total, _ = self._rates.get(problem_id, [0.0, 0.0, 0, 0])
                self._rates[problem_id] = [c * decay + correct, n * decay + judged, total + judged, step]

    def share_resting(self, step: int) -> float:
        """Share of the set that is left out at an optimiser step."""
        return sum(self.resting(i, step) for i in self.ids) / max(1, len(self.ids))

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` restores; plain JSON."""
        return {"rates": self._rates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._rates = {key: list(value) for key, value in state["rates"].items()}
