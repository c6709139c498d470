"""Statistics, against enumeration, closed forms and simulated coverage."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from dereason.errors import DereasonError
from dereason.evaluation.statistics import (
    accuracy_interval,
    mean_interval,
    paired_difference,
    pass_at_k,
    ratio_interval,
    spearman,
)


def exact_bootstrap_cdf(values: list[float], at: float) -> float:
    """P(mean of a resample <= at), by enumerating all resamples."""
    means = [sum(chosen) / len(values) for chosen in itertools.product(values, repeat=len(values))]
    return sum(mean <= at + 1e-12 for mean in means) / len(means)


@pytest.mark.parametrize("outcomes", [[(0, 4), (1, 4), (4, 4), (2, 4)], [(0, 1), (1, 1), (1, 1), (1, 2), (3, 4)]])
def test_accuracy_against_enumeration(outcomes: list[tuple[int, int]]) -> None:
    rates = [c / n for c, n in outcomes]
    interval = accuracy_interval(outcomes, level=0.8, resamples=100_000)
    assert interval.estimate == pytest.approx(sum(rates) / len(rates))
    # A quantile q of a discrete distribution is a point at which its CDF passes q.
    for end, q in ((interval.low, 0.1), (interval.high, 0.9)):
        assert exact_bootstrap_cdf(rates, end - 1e-6) <= q + 0.005
        assert exact_bootstrap_cdf(rates, end) >= q - 0.005


def test_problems_count_equally_whatever_their_samples() -> None:
    interval = accuracy_interval([(1, 1), (0, 99)])
    assert interval.estimate == 0.5
    assert (interval.n_problems, interval.n_samples, interval.left_out) == (2, 100, 0)


def test_unjudged_problems_are_left_out_and_counted() -> None:
    with_gaps = accuracy_interval([(0, 0), (1, 2), (2, 2), (0, 0), (0, 2)])
    without = accuracy_interval([(1, 2), (2, 2), (0, 2)])
    assert (with_gaps.low, with_gaps.estimate, with_gaps.high) == (
        without.low,
        without.estimate,
        without.high,
    )
    assert (with_gaps.n_problems, with_gaps.left_out) == (3, 2)


def wilson(successes: float, n: int, z: float) -> tuple[float, float]:
    p = successes / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return centre - half, centre + half


@pytest.mark.parametrize("n", [1, 10, 240])
def test_all_right_or_all_wrong_gives_wilson(n: int) -> None:
    z = 1.959963984540054
    for correct in (0, 3):
        interval = accuracy_interval([(correct, 3)] * n)
        low, high = wilson(n * correct / 3, n, z)
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-12)
        assert interval.low < interval.high


def test_one_shared_rate_has_width_too() -> None:
    interval = accuracy_interval([(2, 4)] * 20)
    assert interval.low < 0.5 < interval.high
    assert interval.low >= 0
    assert interval.high <= 1
    wider = accuracy_interval([(2, 4)] * 5)
    assert wider.low < interval.low


def test_the_seed_decides_and_the_level_widens() -> None:
    outcomes = [(i % 5, 4) for i in range(50)]
    assert accuracy_interval(outcomes, seed=1) == accuracy_interval(outcomes, seed=1)
    assert accuracy_interval(outcomes, seed=1) != accuracy_interval(outcomes, seed=2)
    wide, narrow = accuracy_interval(outcomes, level=0.99), accuracy_interval(outcomes, level=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_accuracy_coverage() -> None:
    # Problems with their own chance of success, drawn from Beta(1, 2): the mean to be covered is 1/3.
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(400):
        chances = rng.beta(1, 2, size=60)
        outcomes = [(int(c), 4) for c in rng.binomial(4, chances)]
        interval = accuracy_interval(outcomes, seed=trial, resamples=1000)
        covered += interval.low <= 1 / 3 <= interval.high
    assert 0.91 <= covered / 400 <= 0.98


def test_ignoring_the_clusters_would_be_too_narrow() -> None:
    # Each problem is always right or always wrong: 16 samples say no more than one.
    clustered = accuracy_interval([(16 * (i % 2), 16) for i in range(40)])
    single = accuracy_interval([(i % 2, 1) for i in range(40)])
    assert clustered.high - clustered.low == pytest.approx(single.high - single.low)


def test_paired_difference_against_enumeration() -> None:
    a = {"p": (0, 2), "q": (1, 2), "r": (2, 2), "s": (0, 2)}
    b = {"p": (2, 2), "q": (1, 2), "r": (1, 2), "s": (1, 2)}
    interval = paired_difference(a, b, level=0.8, resamples=100_000)
    differences = [1.0, 0.0, -0.5, 0.5]
    assert interval.estimate == pytest.approx(0.25)
    assert (interval.n_problems, interval.n_samples) == (4, 16)
    for end, q in ((interval.low, 0.1), (interval.high, 0.9)):
        assert exact_bootstrap_cdf(differences, end - 1e-6) <= q + 0.005
        assert exact_bootstrap_cdf(differences, end) >= q - 0.005


def test_pairing_uses_shared_judged_problems_only() -> None:
    a = {"p": (0, 1), "q": (0, 1), "only a": (1, 1), "error in b": (1, 1), "error in a": (0, 0)}
    b = {"q": (1, 1), "p": (0, 1), "only b": (1, 1), "error in b": (0, 0), "error in a": (1, 1)}
    interval = paired_difference(a, b)
    assert (interval.estimate, interval.n_problems, interval.left_out) == (0.5, 2, 4)
    with pytest.raises(DereasonError, match="share no problem"):
        paired_difference({"p": (1, 1)}, {"q": (1, 1)})


def test_pairing_is_antisymmetric_and_does_not_depend_on_order() -> None:
    rng = np.random.default_rng(3)
    a = {f"p{i}": (int(rng.integers(0, 5)), 4) for i in range(30)}
    b = {f"p{i}": (int(rng.integers(0, 5)), 4) for i in reversed(range(30))}
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there.estimate == pytest.approx(-back.estimate)
    assert there.low == pytest.approx(-back.high, abs=0.02)
    assert there == paired_difference(dict(sorted(a.items(), reverse=True)), b)


def test_pairing_is_narrower_than_the_two_apart_where_problems_differ() -> None:
    a = {f"p{i}": (4 * (i % 2), 4) for i in range(100)}
    b = {f"p{i}": (min(4, 4 * (i % 2) + (i % 10 == 0)), 4) for i in range(100)}
    paired = paired_difference(a, b)
    alone = accuracy_interval(list(b.values()))
    assert paired.high - paired.low < (alone.high - alone.low) / 3


@pytest.mark.parametrize(("before", "after", "estimate"), [(1, 1, 0.0), (0, 1, 1.0), (1, 0, -1.0)])
def test_constant_differences_have_width(before: int, after: int, estimate: float) -> None:
    a = {f"p{i}": (before, 1) for i in range(50)}
    b = {f"p{i}": (after, 1) for i in range(50)}
    interval = paired_difference(a, b)
    assert interval.estimate == estimate
    assert -1 <= interval.low <= estimate <= interval.high <= 1
    assert 0.05 < interval.high - interval.low < 0.2


def test_paired_coverage() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(400):
        chances = rng.uniform(0, 0.8, size=60)
        a = {str(i): (int(rng.binomial(2, p)), 2) for i, p in enumerate(chances)}
        b = {str(i): (int(rng.binomial(2, p + 0.2)), 2) for i, p in enumerate(chances)}
        interval = paired_difference(a, b, seed=trial, resamples=500)
        covered += interval.low <= 0.2 <= interval.high
    assert 0.91 <= covered / 400 <= 0.98


def test_impossible_input() -> None:
    for outcomes in ([(2, 1)], [(-1, 1)], [(1, 1), (1, 0)]):
        with pytest.raises(ValueError, match="between 0 and n"):
            accuracy_interval(outcomes)
    for level in (0.0, 1.0, 95.0):
        with pytest.raises(ValueError, match="level"):
            accuracy_interval([(1, 2), (0, 2)], level=level)
    for empty in ([], [(0, 0)]):
        with pytest.raises(DereasonError, match="none of"):
            accuracy_interval(empty)


def test_pass_at_k_against_enumeration() -> None:
    for n in range(1, 7):
        for c in range(n + 1):
            samples = [1] * c + [0] * (n - c)
            for k in range(1, n + 1):
                draws = list(itertools.combinations(samples, k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-12)


def test_pass_at_k_is_stable() -> None:
    for n, c, k in ((100_000, 3, 1000), (5000, 4000, 900), (10_000, 1, 1)):
        exact = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
        assert pass_at_k(n, c, k) == pytest.approx(float(exact), rel=1e-9)
    for n, c, k in ((4, 5, 1), (4, 1, 5), (4, 1, 0), (4, -1, 1), (0, 0, 1)):
        with pytest.raises(ValueError, match="pass@k"):
            pass_at_k(n, c, k)


def test_spearman_against_the_definition() -> None:
    x, y = [1.0, 2.0, 2.0, 4.0, 5.0, 7.0], [3.0, 1.0, 5.0, 4.0, 9.0, 8.0]
    ranks_x, ranks_y = [1, 2.5, 2.5, 4, 5, 6], [2, 1, 4, 3, 6, 5]
    interval = spearman(x, y)
    assert interval is not None
    assert interval.estimate == pytest.approx(float(np.corrcoef(ranks_x, ranks_y)[0, 1]))
    assert -1 <= interval.low < interval.estimate < interval.high <= 1
    assert interval == spearman(x, y)
    turned = spearman(x, [-value for value in y])
    assert turned is not None
    assert turned.estimate == pytest.approx(-interval.estimate)


def test_spearman_only_sees_ranks() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=80)
    y = x + rng.normal(size=80)
    plain, stretched = spearman(list(x), list(y)), spearman(list(np.exp(x)), list(y**3))
    assert plain is not None
    assert stretched is not None
    assert (plain.estimate, plain.low, plain.high) == pytest.approx((stretched.estimate, stretched.low, stretched.high))


def test_spearman_coverage() -> None:
    # For a bivariate normal with correlation r, Spearman's rho is 6/pi * asin(r/2).
    rng = np.random.default_rng(5)
    r = 0.5
    truth = 6 / math.pi * math.asin(r / 2)
    covered = 0
    for trial in range(150):
        x = rng.normal(size=80)
        y = r * x + math.sqrt(1 - r**2) * rng.normal(size=80)
        interval = spearman(list(x), list(y), seed=trial, resamples=300)
        assert interval is not None
        covered += interval.low <= truth <= interval.high
    assert 0.88 <= covered / 150 <= 0.99


def test_spearman_where_there_is_none() -> None:
    assert spearman([1, 2], [2, 1]) is None
    assert spearman([1, 1, 1, 1], [1, 2, 3, 4]) is None
    assert spearman([1, 1, 1, 2], [1, 2, 3, 4]) is not None  # some resamples are constant, and are skipped
    with pytest.raises(ValueError, match="equally long"):
        spearman([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="finite"):
        spearman([1, 2, math.nan], [1, 2, 3])


def test_ratio_of_means_and_its_interval_by_enumeration() -> None:
    before, after = [1.0, 2.0, 4.0], [2.0, 1.0, 3.0]
    found = ratio_interval(before, after, level=0.8, resamples=200_000)
    assert found is not None
    assert found.estimate == pytest.approx(6 / 7)
    every = sorted(
        sum(after[i] for i in drawn) / sum(before[i] for i in drawn) for drawn in itertools.product(range(3), repeat=3)
    )
    # At 3 problems Student's t (2 degrees of freedom) widens 10 % to Phi(-sqrt(3 / 2) 1.886).
    tail = 0.5 * math.erfc(math.sqrt(3 / 2) * 1.88562 / math.sqrt(2))
    exact = np.quantile(every, [tail, 1 - tail], method="inverted_cdf")
    assert (found.low, found.high) == pytest.approx(tuple(exact))
    assert found.n_problems == 3


def test_ratio_pairs_problems_and_refuses_what_is_undefined() -> None:
    paired = ratio_interval([1.0, 10.0, 100.0, np.nan], [2.0, 20.0, 200.0, 5.0])
    assert paired is not None
    assert (paired.estimate, paired.low, paired.high) == pytest.approx((2.0, 2.0, 2.0))  # every resample has it
    assert (paired.n_problems, paired.left_out) == (3, 1)
    assert ratio_interval([0.0, 0.0, 0.0], [1.0, 2.0, 3.0]) is None
    assert ratio_interval([0.0, 0.0, 1.0], [1.0, 2.0, 3.0]) is None  # 8 of 27 resamples have no denominator
    assert ratio_interval([1.0], [2.0]) is None
    with pytest.raises(ValueError, match="equally long"):
        ratio_interval([1.0, 2.0], [1.0])


def test_mean_interval_of_two_problems_spans_both() -> None:
    """Student's t of one degree of freedom is so wide that the ends are those of the resamples."""
    found = mean_interval([1.0, 3.0])
    assert found is not None
    assert (found.estimate, found.low, found.high, found.n_problems) == (2.0, 1.0, 3.0, 2)


def test_mean_interval_leaves_out_what_is_undefined() -> None:
    values = np.random.default_rng(0).normal(3, 1, size=200)
    found = mean_interval(np.append(values, np.nan))
    assert found is not None
    assert (found.n_problems, found.left_out) == (200, 1)
    assert found.estimate == pytest.approx(values.mean())
    half = 1.972 * values.std(ddof=1) / np.sqrt(200)  # Student's t, good at this size
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    same = mean_interval([2.0, 2.0, 2.0])
    assert same is not None
    assert (same.low, same.high) == (2.0, 2.0)
    assert mean_interval([1.0, np.nan]) is None
