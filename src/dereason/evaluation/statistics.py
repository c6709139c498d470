"""Estimates with intervals: accuracy, paired differences, means and ratios of means, pass@k, rank correlation.

Problems, not samples, are what was drawn at random, so every interval resamples problems (a bootstrap
clustered by problem): the samples of one problem stay together. Verifier errors are left out of n before the
counts come here.

Shapes: P problems, R resamples. A percentile bootstrap is somewhat narrow for few problems, so give P with
every interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dereason.errors import DereasonError

Floats = NDArray[np.float64]

# How many numbers of a bootstrap are held at once (32 MB).
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate, its interval, and what it rests on."""

    estimate: float
    low: float
    high: float
    level: float
    """The nominal coverage, 0.95 for 95 %."""
    n_problems: int
    """Problems that count."""
    n_samples: int
    """Samples behind them (for a difference: of both sides together)."""
    left_out: int = 0
    """Problems left out: no sample of theirs could be judged, or (paired) one side lacks them."""


def accuracy_interval(
    outcomes: Sequence[tuple[int, int]], level: float = 0.95, seed: int = 0, resamples: int = 10_000, *, k: int = 1
) -> Interval:
    """Mean over problems of each problem's share of correct samples, with a bootstrap interval over problems.

    Args:
        outcomes: for each problem (correct, n), verifier errors not in n; problems with n < k are left out.
        level: the nominal coverage.
        seed: of the resampling.
        resamples: R.
        k: above 1, the mean is that of :func:`pass_at_k`.

    Where all problems have the same share, every resample is the same and a bootstrap would claim a width of
    zero. The interval then rests on Wilson's bound on problems instead: 0 of P gives [0, z^2 / (P + z^2)].

    Raises:
        DereasonError: no problem has n >= k.
        ValueError: a count or the level is impossible.
    """
    rates = _rates(outcomes, k)
    if not rates.size:
        raise DereasonError(
            f"none of {len(outcomes)} problems has {'a sample' if k == 1 else f'{k} samples'} that could be judged",
            "look at the reasons of the verdicts 'error' in the samples table",
        )
    low, high = _mean_bounds(rates, 0.0, 1.0, level, seed, resamples)
    samples = sum(n for _, n in outcomes if n >= k)
    return Interval(float(rates.mean()), low, high, level, rates.size, samples, len(outcomes) - rates.size)


def paired_difference(
    a: Mapping[str, tuple[int, int]],
    b: Mapping[str, tuple[int, int]],
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 10_000,
    *,
    k: int = 1,
) -> Interval:
    """Accuracy of b minus accuracy of a on the problems that both have, with a paired bootstrap interval.

    Args:
        a: for each problem's id (correct, n) before, or of the first arm.
        b: the same after, or of the second arm.
        level: the nominal coverage.
        seed: of the resampling.
        resamples: R.
        k: above 1, the difference is that of :func:`pass_at_k`.

    A problem counts where both sides have n >= k; the others are counted in ``left_out``. Equal differences
    everywhere (two models that never differ) are treated as in :func:`accuracy_interval`.

    Raises:
        DereasonError: the two share no judged problem.
    """
    # Sorted, so that the result does not depend on the order of either mapping.
    shared = sorted(id for id in a.keys() & b.keys() if min(a[id][1], b[id][1]) >= k)
    if not shared:
        raise DereasonError(
            "the two results share no problem that could be judged in both",
            "evaluate both on the same problems",
        )
    differences = _rates([b[id] for id in shared], k) - _rates([a[id] for id in shared], k)
    low, high = _mean_bounds(differences, -1.0, 1.0, level, seed, resamples)
    samples = sum(a[id][1] + b[id][1] for id in shared)
    left_out = len(a.keys() | b.keys()) - len(shared)
    return Interval(float(differences.mean()), low, high, level, len(shared), samples, left_out)


def mean_interval(
    values: Floats | Sequence[float], level: float = 0.95, seed: int = 0, resamples: int = 10_000
) -> Interval | None:
    """Mean over problems of any one number each, with a bootstrap interval over problems (expanded percentile).

    Args:
        values: one number for each problem; NaN where it is not defined, and the problem is left out.
        level: the nominal coverage.
        seed: of the resampling.
        resamples: R.

    Returns:
        The interval (``n_samples`` is the number of problems too), None where fewer than 2 problems count. Where all
        have the same value it has no width, which is no certainty.
    """
    _check_level(level)
    every = np.asarray(values, dtype=np.float64)
    finite = every[np.isfinite(every)]
    if finite.size < 2:
        return None
    low, high = float(finite[0]), float(finite[0])
    if np.ptp(finite):
        low, high = _resampled_bounds(finite, _wider_tail(level, finite.size), seed, resamples)
    return Interval(float(finite.mean()), low, high, level, finite.size, finite.size, every.size - finite.size)


def ratio_interval(
    before: Floats | Sequence[float],
    after: Floats | Sequence[float],
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 10_000,
) -> Interval | None:
    """Mean of ``after`` by the mean of ``before``, with a bootstrap interval over problems (expanded percentile).

    A problem enters or leaves a resample with both of its numbers. The ratio of means weighs problems by their size
    and, unlike a mean of ratios, is defined where single problems have 0 before.

    Args:
        before, after: one number each for every problem, in the same order; a problem with a NaN on either side is
            left out.
        level: the nominal coverage.
        seed: of the resampling.
        resamples: R.

    Returns:
        The interval, None where there is none: fewer than 2 problems, or a mean before of 0 (or below) in so many
        resamples that an end of the interval would rest on them.

    Raises:
        ValueError: the two differ in length.
    """
    _check_level(level)
    a, b = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"before and after must be equally long, not {a.shape} and {b.shape}")
    kept = np.isfinite(a) & np.isfinite(b)
    x, y = a[kept], b[kept]
    if x.size < 2 or x.mean() <= 0:
        return None
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // x.size)
    parts = []
    for start in range(0, resamples, rows):
        chosen = rng.integers(0, x.size, size=(min(rows, resamples - start), x.size))
        below = x[chosen].sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            parts.append(np.where(below > 0, y[chosen].sum(axis=1) / below, np.inf))
    tail = _wider_tail(level, x.size)
    low, high = np.quantile(np.concatenate(parts), [tail, 1 - tail], method="inverted_cdf")
    if not np.isfinite(high):
        return None
    return Interval(float(y.mean() / x.mean()), float(low), float(high), level, x.size, 2 * x.size, a.size - x.size)


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate of the chance that one of k samples is correct: 1 - C(n-c, k) / C(n, k).

    arXiv 2107.03374, equation 1, by the product of 1 - k/i over i = n-c+1..n, which does not overflow.

    Args:
        n: samples of the problem.
        c: correct ones among them.
        k: at most n.

    Raises:
        ValueError: unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


def spearman(
    x: Sequence[float], y: Sequence[float], level: float = 0.95, seed: int = 0, resamples: int = 2_000
) -> Interval | None:
    """Spearman's rank correlation (ties share their mean rank) with a bootstrap interval over pairs.

    Args:
        x, y: one number each for every problem, in the same order.
        level: the nominal coverage.
        seed: of the resampling.
        resamples: R; those in which one side is constant have no correlation and are skipped.

    Returns:
        The interval (``n_samples`` is the number of pairs too), or None where there is no rank correlation:
        fewer than 3 pairs, or one side constant. A perfect order gives an interval without width, which is no
        certainty.

    Raises:
        ValueError: the two differ in length, or a value is not finite.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if xs.shape != ys.shape or xs.ndim != 1:
        raise ValueError(f"x and y must be equally long, not {xs.shape} and {ys.shape}")
    if not (np.isfinite(xs).all() and np.isfinite(ys).all()):
        raise ValueError("x and y must be finite; leave out the problems without a score")
    _check_level(level)
    pairs = xs.size
    if pairs < 3 or np.ptp(xs) == 0 or np.ptp(ys) == 0:
        return None
    estimate = _rank_correlations(xs[None], ys[None])[0]
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // pairs)
    values = []
    for start in range(0, resamples, rows):
        chosen = rng.integers(0, pairs, size=(min(rows, resamples - start), pairs))
        values.append(_rank_correlations(xs[chosen], ys[chosen]))
    tail = (1 - level) / 2
    low, high = np.nanquantile(np.concatenate(values), [tail, 1 - tail])
    return Interval(float(estimate), float(low), float(high), level, pairs, pairs)


def _rank_correlations(x: Floats, y: Floats) -> Floats:
    """Spearman's rho of each row of x and y, both (R, P); NaN where a side is constant."""
    from scipy.stats import rankdata

    rank_x, rank_y = rankdata(x, axis=1), rankdata(y, axis=1)
    centre = (x.shape[1] + 1) / 2
    rank_x, rank_y = rank_x - centre, rank_y - centre
    scale = np.sqrt((rank_x**2).sum(axis=1) * (rank_y**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        rho: Floats = (rank_x * rank_y).sum(axis=1) / scale
    return np.clip(rho, -1.0, 1.0)


def _rates(outcomes: Sequence[tuple[int, int]], k: int) -> Floats:
    for correct, n in outcomes:
        if not 0 <= correct <= n:
            raise ValueError(f"correct must lie between 0 and n, not {correct} of {n}")
    rates = [correct / n if k == 1 else pass_at_k(n, correct, k) for correct, n in outcomes if n >= k]
    return np.array(rates, dtype=np.float64)


def _wider_tail(level: float, problems: int) -> float:
    """Tail share of a percentile interval that is as wide for few problems as Student's t would make it.

    A resample of P problems spreads by (P - 1) / P too little and knows nothing of the t distribution's tails; this is
    the expanded percentile interval of Hesterberg (arXiv 1411.5279): Phi(-sqrt(P / (P - 1)) t_{P-1}).
    """
    from scipy.special import ndtr, stdtrit

    quantile = float(stdtrit(problems - 1, 0.5 + level / 2))
    return float(ndtr(-math.sqrt(problems / (problems - 1)) * quantile))


def _mean_bounds(
    values: Floats, least: float, most: float, level: float, seed: int, resamples: int
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of values, which lie in [least, most] by their nature."""
    _check_level(level)
    if not np.ptp(values):
        return _constant_interval(float(values[0]), values.size, least, most, level)
    return _resampled_bounds(values, (1 - level) / 2, seed, resamples)


def _resampled_bounds(values: Floats, tail: float, seed: int, resamples: int) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean, which leaves this share of the resamples out at each end."""
    distinct, counts = np.unique(values, return_counts=True)
    # Drawing P problems with replacement, seen by their values, is one multinomial draw over the distinct
    # values: the same distribution at a cost that does not grow with P.
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // distinct.size)
    means = []
    for start in range(0, resamples, rows):
        drawn = rng.multinomial(values.size, counts / values.size, size=min(rows, resamples - start))
        means.append(drawn @ distinct / values.size)
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def _constant_interval(value: float, problems: int, least: float, most: float, level: float) -> tuple[float, float]:
    """The interval where all problems have one value: others may differ, but not many of them.

    By Wilson's bound for 0 of P, at most a share w = z^2 / (P + z^2) of all problems differs from the value;
    the ends suppose that this share lies at the least and at the most possible value. For accuracies of 0 and
    1 this is Wilson's interval itself.
    """
    from scipy.special import ndtri

    z = float(ndtri(0.5 + level / 2))
    other = z**2 / (problems + z**2)
    return value + other * (least - value), value + other * (most - value)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
