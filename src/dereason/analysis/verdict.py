"""Did a phase squeeze reasoning, expand it, both, or neither? From per-problem measures before and after it.

arXiv 2509.21128 finds that RL leaves fewer unique incorrect trajectories and steeper rank curves (it squeezes), and
that SFT adds unique correct ones and flattens the curves (it expands). It has no decision rule; this one is ours.

Numbers of unique trajectories follow accuracy: a model that solves more, in ways no more and no less varied, has fewer
incorrect and more correct ones, which would look like a squeeze and an expansion at once. So they are stated with every
verdict and do not decide it. What decides is *diversity* (unique trajectories among equally many correct, or equally
many incorrect, responses) and the decay of the rank curves:

- squeezed: the ratio after / before is below 1 for a diversity, or above 1 for the decay of a rank curve;
- expanded: it is above 1 for the diversity of correct responses, or below 1 for the decay of a rank curve;
- both: some measure says one and another the other;
- neither: none says anything: no effect, or too few problems and responses to see it.

A measure speaks only where its interval excludes 1. The measures are looked at together, so those intervals are at the
level 1 - (1 - level) / (number of measures) (Bonferroni): if training did nothing, a verdict other than "neither" has
a chance of at most 1 - level, as far as a bootstrap over few problems keeps its level. A percentile bootstrap over n
problems that all moved the same way excludes 1 whatever n is, and by chance they all do with probability 2^(1-n): a
measure whose n leaves that above its share of 1 - level does not speak (at five measures and 95 %: below 8 problems).
Problems that did not move at all (without a correct response before and after, say) are not among these n. The
verdicts on the difficulty bands are each held to the same level, and not corrected for being several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dereason.evaluation.statistics import Floats, Interval, ratio_interval

MEASURES: dict[str, tuple[str, int, bool]] = {
    "diversity_incorrect": ("unique trajectories among equally many incorrect responses", 1, False),
    "diversity_correct": ("unique trajectories among equally many correct responses", 1, True),
    "visits": ("decay of visits by rank", -1, True),
    "degree": ("decay of degree by rank", -1, True),
    "betweenness": ("decay of betweenness by rank", -1, True),
}
"""Measure that decides -> its words, the sign with which its growth means more variety, and whether that is an
expansion (more varied errors are not: nobody asks a model for more ways to be wrong)."""

FOLLOWING = {"incorrect": "unique incorrect trajectories", "correct": "unique correct trajectories"}
"""Measure that follows accuracy, and is stated but does not decide -> its words."""

Values = Mapping[str, Floats | Sequence[float]]
"""Measure -> one number for each problem, NaN where undefined."""


@dataclass(frozen=True)
class Reading:
    """A verdict and what it rests on.

    Attributes:
        verdict: ``squeezed``, ``expanded``, ``both`` or ``neither``.
        because: the measures that decided, in words with their numbers.
        effects: measure -> ratio after / before at the nominal level, None where undefined.
        n_problems: problems that were compared.
    """

    verdict: str
    because: str
    effects: dict[str, Interval | None]
    n_problems: int


def _moved(before: Floats | Sequence[float], after: Floats | Sequence[float]) -> int:
    """Problems whose number is known before and after, and not the same."""
    change = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    return int((np.isfinite(change) & (change != 0)).sum())


def read(before: Values, after: Values, level: float, seed: int, resamples: int) -> Reading:
    """The verdict on what came between two models.

    Args:
        before, after: the measures of :data:`MEASURES` and :data:`FOLLOWING` that there are, for the same problems in
            the same order.
        level: confidence level of the effects, and of the verdict as a whole.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """
    known = [m for m in (*FOLLOWING, *MEASURES) if m in before]
    effects = {m: ratio_interval(before[m], after[m], level, seed, resamples) for m in known}
    defined = [m for m in MEASURES if effects.get(m) is not None]
    problems = max((np.asarray(v).size for v in before.values()), default=0)
    if not defined:
        return Reading("neither", "no measure is defined on these samples", effects, problems)
    joint_level = 1 - (1 - level) / len(defined)
    squeezing: list[str] = []
    expanding: list[str] = []
    wider: list[str] = []
    speaking = [m for m in defined if 2.0 ** (1 - _moved(before[m], after[m])) <= 1 - joint_level]
    if not speaking:
        return Reading(
            "neither",
            f"of {problems} problems too few changed for a verdict on {len(defined)} measures",
            effects,
            problems,
        )
    for measure in speaking:
        words, sign, expands = MEASURES[measure]
        effect = ratio_interval(before[measure], after[measure], joint_level, seed, resamples)
        if effect is None or effect.low <= 1 <= effect.high:
            continue
        said = f"{words} {_said(effect)}"
        more = (effect.estimate > 1) == (sign > 0)
        (expanding if more and expands else wider if more else squeezing).append(said)
    verdict = {(True, True): "both", (True, False): "squeezed", (False, True): "expanded", (False, False): "neither"}[
        bool(squeezing), bool(expanding)
    ]
    parts = [f"squeezed: {'; '.join(squeezing)}"] * bool(squeezing) + [f"expanded: {'; '.join(expanding)}"] * bool(
        expanding
    )
    if not parts:
        parts = [
            f"none of {len(speaking)} measures has an interval at {100 * joint_level:.1f} % that excludes no change"
            if not wider
            else "no measure speaks for either"
        ]
    if wider:
        parts.append(f"besides: {'; '.join(wider)}")
    at = f" (intervals at {100 * joint_level:.1f} %)" if squeezing or expanding or wider else ""
    followed = [f"{words} {_said(effect)}" for m, words in FOLLOWING.items() if (effect := effects.get(m)) is not None]
    beside = f". Following accuracy: {'; '.join(followed)} (at {100 * level:.0f} %)" if followed else ""
    return Reading(verdict, ". ".join(parts) + at + beside, effects, problems)


def _said(effect: Interval) -> str:
    return f"×{effect.estimate:.2f} [{effect.low:.2f}, {effect.high:.2f}]"
