"""Drift alarm: whether the answers of an RL phase's rollouts change in kind while they are rewarded.

A reward that can be met without a marked answer teaches to leave the mark out; then the same model scores well by one
extraction and badly by another. What is logged of each generation of rollouts, as shares of those that have a verdict:

- ``lenient`` and ``strict``: right by an answer found by any rule, and by a marked one; ``gap``, the first less the
  second;
- ``several_answers``: rollouts that mark several different answers;
- ``how/RULE``: rollouts whose answer was found by that rule of :mod:`dereason.verify.locate` (``how/response``: a check
  read the whole of them), and ``how/none``; ``unmarked``, those found without a mark;
- ``at_limit``: rollouts that reached the length limit.

An alarm compares the last generations with the phase's first ones. The rule and its numbers are ours. All of it is pure
and fed with lines of ``metrics.jsonl``, so that a phase that goes on from a checkpoint has the alarm that it had.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any, get_args

from pydantic import Field

from dereason.problems.schema import Verdict
from dereason.settings import Settings
from dereason.training.stops import advice
from dereason.verify.span import MARKS, How
from dereason.verify.verdict import WHOLE

LEAST = 5
"""Generations in a window at least: a standard error of fewer says little."""
WATCHED = {
    "gap": "right answers without a mark (lenient less strict accuracy)",
    "unmarked": "answers without a mark",
    "several_answers": "responses with several different marked answers",
    "at_limit": "responses at the length limit",
}
"""What warns when it rises, and what it is."""
HOW = tuple(f"how/{rule}" for rule in (*get_args(How), WHOLE, "none"))
NAMES = ("lenient", "strict", *WATCHED, *HOW)
"""Names of what :func:`drift_shares` gives."""


class Drift(Settings):
    """When the log of rollouts warns that their answers drift; nothing of what is learned depends on it."""

    window: int = Field(default=10, ge=LEAST)
    """Generations of rollouts whose mean is compared with the mean of the phase's first so many; in a phase that has
    had fewer than twice as many, half of them, from 10 on."""
    rise: float = Field(default=0.05, ge=0, le=1)
    """A share has moved where it rose by more than this (0.05: five rollouts of a hundred),"""
    errors: float = Field(default=4.0, ge=0)
    """and by more than so many standard errors of the difference of the two means, as generations in a row differ."""


def drift_shares(samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The shares of a generation, by their names in the log; empty where no sample has a verdict.

    Samples that go on from the beginning of a demonstration (``guided``) do not count: their answers are not the
    policy's own.

    Args:
        samples: rows of the SAMPLE table, with ``several``: whether it marks several different answers.
    """
    judged = [s for s in samples if s["verdict"] != Verdict.ERROR and s["purpose"] != "guided"]
    if not judged:
        return {}

    def share(flags: Sequence[bool]) -> float:
        return sum(flags) / len(judged)

    lenient, strict = share([s["verdict"] == Verdict.CORRECT for s in judged]), share([s["strict"] for s in judged])
    rules = [s["how"] for s in judged]
    return {
        "lenient": lenient,
        "strict": strict,
        "gap": lenient - strict,
        "unmarked": share([rule not in (*MARKS, WHOLE, None) for rule in rules]),
        "several_answers": share([s["several"] for s in judged]),
        "at_limit": share([s["hit_limit"] for s in judged]),
        **{name: share([name == f"how/{rule or 'none'}" for rule in rules]) for name in HOW},
    }


class Alarm:
    """What the log of a phase says of drift.

    Attributes:
        moved: name of each share that has moved as things stand -> the sentence that says so.
    """

    def __init__(self, settings: Drift) -> None:
        self.settings = settings
        self.moved: dict[str, str] = {}
        self._steps: list[int] = []
        self._values: dict[str, list[float]] = {name: [] for name in WATCHED}
        self._last: dict[str, tuple[int, str]] = {}

    def see(self, row: Mapping[str, Any]) -> list[str]:
        """Take in one line of ``metrics.jsonl``.

        Returns:
            the sentences of the shares that have moved and had not at the generation before.
        """
        if any(row.get(name) is None for name in WATCHED):  # no rollouts were drawn for this step
            return []
        self._steps.append(row["step"])
        for name in WATCHED:
            self._values[name].append(float(row[name]))
        size = min(self.settings.window, len(self._steps) // 2)
        if size < LEAST:
            return []
        before, self.moved = self.moved, {}
        for name in WATCHED:
            words = self._compare(name, size)
            if words is not None:
                self.moved[name] = words
                self._last[name] = (row["step"], words)
        return [words for name, words in self.moved.items() if name not in before]

    def _compare(self, name: str, size: int) -> str | None:
        first, last = self._values[name][:size], self._values[name][-size:]
        before, after = fmean(first), fmean(last)
        rise = after - before
        # From successive differences (von Neumann): a share that is already drifting within a window would hide itself
        # in the variance around the window's mean.
        squares = sum((b - a) ** 2 for part in (first, last) for a, b in pairwise(part))
        error = math.sqrt(squares / 2 / (size - 1) / size)
        if rise <= max(self.settings.rise, self.settings.errors * error):
            return None
        steps = self._steps
        return (
            f"{WATCHED[name]} rose from {100 * before:.1f} to {100 * after:.1f} % of the rollouts (steps "
            f"{steps[0]}-{steps[size - 1]} and {steps[-size]}-{steps[-1]}): {_MENDS[name]}"
        )

    def brief(self) -> str:
        """What has moved, for a progress line; empty where nothing has."""
        return f"drift: {', '.join(self.moved)}" if self.moved else ""

    def report(self) -> list[str]:
        """What a finished phase leaves to be said: each share that ever moved, and whether it came back."""
        back = "; at the end it no longer is so"
        return [f"{words}{'' if name in self.moved else back}" for name, (_, words) in self._last.items()]


_MENDS = {
    "gap": "the two accuracies part, so compare models by the strict one; rewards.marks: all pays marked answers alone",
    "unmarked": "ask for a mark in prompt.suffix, and leave rewards.marks at all",
    "several_answers": "the last one counts, so this guesses: look at rollouts, and reward one answer (format: boxed)",
    "at_limit": "raise max_new_tokens, or add the reward overlong",
}


def drift_warnings(rows: Sequence[Mapping[str, Any]], settings: Drift) -> list[str]:
    """What the lines of a finished phase's log leave to be said of drift."""
    alarm = Alarm(settings)
    for row in rows:
        alarm.see(row)
    return alarm.report()


def signal_warnings(rows: Sequence[Mapping[str, Any]], *, joint: bool) -> list[str]:
    """What is to be said of a phase in which no group of rollouts had signal: all advantages were zero.

    Args:
        rows: lines of its log.
        joint: whether demonstrations were trained on beside the rollouts.
    """
    drawn = [row for row in rows if row.get("signal_groups") is not None]
    if not drawn or any(row["signal_groups"] for row in drawn):
        return []
    shares = {v: fmean(row.get(v) or 0.0 for row in drawn) for v in map(str, Verdict)}
    taught = "the rewards taught nothing" + (" and the model learned from demonstrations alone" if joint else "")
    paid = any((row.get("reward") or 0.0) > 0 for row in drawn)
    mend = "the problems are too easy for this model (or all responses earn the same): route harder ones to RL"
    n = len(drawn)
    return [
        f"no group of rollouts had signal in any of {n} generation{'s' * (n > 1)} (no two rollouts of a problem earned "
        f"differently), so {taught}: {mend if paid else advice(shares)}"
    ]
