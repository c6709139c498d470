"""Intervals for one problem's pass rate."""

from __future__ import annotations


def beta_interval(correct: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The equal-tailed interval of Beta(1/2 + c, 1/2 + n - c), the Jeffreys posterior of a pass rate.

    Args:
        correct: c, samples judged correct.
        n: samples judged at all, verifier errors left out; 0 gives the prior's own, almost empty, interval.
        level: the share of the posterior between the two ends.

    Raises:
        ValueError: unless 0 <= correct <= n and 0 < level < 1.
    """
    from scipy.special import betaincinv

    if not 0 <= correct <= n:
        raise ValueError(f"correct must lie between 0 and n, not {correct} of {n}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    tail = (1 - level) / 2
    a, b = 0.5 + correct, 0.5 + n - correct
    return float(betaincinv(a, b, tail)), float(betaincinv(a, b, 1 - tail))
