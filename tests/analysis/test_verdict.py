"""The verdict on a phase: planted effects are named, nothing is named where nothing happened."""

from __future__ import annotations

import numpy as np
import pytest

from dereason.analysis.verdict import FOLLOWING, MEASURES, Reading, read

PROBLEMS = 16


def _measures(seed: int, **factors: float) -> dict[str, np.ndarray]:
    """Every measure on each problem: a problem's own size, noise, and a factor."""
    size = np.random.default_rng(0).uniform(2, 12, PROBLEMS)
    rng = np.random.default_rng(seed)
    return {m: size * rng.lognormal(0, 0.15, PROBLEMS) * factors.get(m, 1.0) for m in (*FOLLOWING, *MEASURES)}


def _read(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> Reading:
    return read(before, after, level=0.95, seed=0, resamples=2000)


@pytest.mark.parametrize(
    ("factors", "verdict", "named"),
    [
        ({"diversity_incorrect": 0.5}, "squeezed", "equally many incorrect responses ×0.5"),
        ({"visits": 2.5}, "squeezed", "decay of visits by rank ×2."),
        ({"diversity_correct": 0.6}, "squeezed", "equally many correct responses ×0.6"),
        ({"diversity_correct": 2.0}, "expanded", "equally many correct responses ×2."),
        ({"betweenness": 1 / 3}, "expanded", "decay of betweenness by rank ×0.3"),
        ({"diversity_incorrect": 0.5, "visits": 0.5}, "both", "decay of visits by rank ×0.5"),
        ({"diversity_incorrect": 2.0}, "neither", "besides: unique trajectories among equally many incorrect"),
        ({"incorrect": 0.5, "correct": 2.0}, "neither", "Following accuracy: unique incorrect trajectories ×0.5"),
    ],
)
def test_planted_effects_are_named(factors: dict[str, float], verdict: str, named: str) -> None:
    reading = _read(_measures(1), _measures(2, **factors))
    assert reading.verdict == verdict
    assert named in reading.because.replace("×1.9", "×2.").replace("×2.0", "×2.").replace("×0.49", "×0.5")
    for measure, factor in factors.items():
        effect = reading.effects[measure]
        assert effect is not None
        assert effect.low < factor < effect.high


def test_without_an_effect_a_verdict_is_rare() -> None:
    """Two draws from the same process, 100 times: 5 % of the readings may name something, over 12 % would be odd."""
    named = sum(
        read(_measures(2 * i), _measures(2 * i + 1), level=0.95, seed=0, resamples=5000).verdict != "neither"
        for i in range(100)
    )
    assert named <= 12


def test_too_few_problems_say_nothing() -> None:
    """Seven problems that all halve could be chance (2^-6 > 0.05 / 6); eight could not."""
    for problems, verdict in ((7, "neither"), (8, "squeezed")):
        before = {m: np.arange(2.0, 2 + problems) for m in MEASURES}
        after = {m: before[m] * (0.5 if m == "diversity_incorrect" else 1.0) for m in MEASURES}
        reading = _read(before, after)
        assert reading.verdict == verdict
        assert reading.n_problems == problems
    # Nor could seven of many, of which the others have nothing before and nothing after.
    for moved, verdict in ((7, "neither"), (8, "squeezed")):
        planted = np.repeat([4.0, 0.0], [moved, 20 - moved])
        before = {m: np.arange(2.0, 22) for m in MEASURES} | {"diversity_incorrect": planted}
        after = before | {"diversity_incorrect": planted / 2}
        reading = _read(before, after)
        assert reading.verdict == verdict
    assert "too few" in _read({"visits": [1.0, 2.0]}, {"visits": [3.0, 4.0]}).because


def test_undefined_measures_are_left_out() -> None:
    nothing = np.full(PROBLEMS, np.nan)
    before, after = _measures(1), _measures(2, diversity_incorrect=0.4)
    before["diversity_correct"] = after["visits"] = nothing
    reading = _read(before, after)
    assert reading.verdict == "squeezed"
    assert reading.effects["diversity_correct"] is None
    assert reading.effects["visits"] is None
    assert "98.3 %" in reading.because  # 1 - 0.05 / 3 measures
    empty = _read({m: nothing for m in MEASURES}, {m: nothing for m in MEASURES})
    assert (empty.verdict, empty.because) == ("neither", "no measure is defined on these samples")
