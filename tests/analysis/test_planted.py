"""Planted effects: responses drawn from rank curves whose decay is known, and what the estimator makes of them.

A node is drawn with a probability proportional to 10^(-beta R), R its rank; a planted model multiplies every problem's
beta. benchmarks/planted_decay.py prints how the error depends on the number of visits, of nodes and on the curve.
"""

import numpy as np
import pytest

from dereason.analysis.graphs import build, limited
from dereason.analysis.ranks import fit, quantities
from dereason.analysis.settings import Graphs
from dereason.evaluation.statistics import ratio_interval

NODES = 2000


def exponential(beta, nodes=NODES):
    return 10 ** (-beta * np.arange(1, nodes + 1))


def power_law(nodes=NODES):
    return 1 / np.arange(1, nodes + 1)


def responses(rng, curve, count, steps):
    """Paths whose nodes have no order: which one has which rank is drawn too."""
    names = rng.permutation(len(curve))
    return [names[path] for path in rng.choice(len(curve), size=(count, steps), p=curve / curve.sum())]


def visit_decay(paths):
    decay = fit(build(paths, None, Graphs()).visits)
    assert decay is not None
    return decay.beta


@pytest.mark.parametrize("beta", [0.005, 0.02, 0.05])
def test_one_graph_of_256_responses_recovers_beta(beta):
    rng = np.random.default_rng(1)
    graph = build(responses(rng, exponential(beta), 256, 40), None, Graphs())
    decay = fit(quantities(graph, Graphs())["visits"])
    assert decay is not None
    assert decay.beta == pytest.approx(beta, rel=0.06)
    assert decay.r2 > 0.97
    # The rarest nodes are not met: the curve ends where less than about one visit is expected.
    assert 0.5 < decay.n * beta / np.log10(10240 * beta * np.log(10)) < 1.5


@pytest.mark.parametrize("count", [32, 256])
@pytest.mark.parametrize("ratio", [2.5, 1 / 3, 1.0])
def test_the_ratio_of_two_models_is_recovered(ratio, count):
    rng = np.random.default_rng(2)
    betas = 0.015 * np.exp(rng.normal(0, 0.4, size=30))  # problems differ, and so does the effect on them
    effects = ratio * np.exp(rng.normal(0, 0.2, size=30) - 0.02)  # with mean ratio
    before = [visit_decay(responses(rng, exponential(beta), count, 20)) for beta in betas]
    after = [visit_decay(responses(rng, exponential(b), count, 20)) for b in betas * effects]
    interval = ratio_interval(before, after, resamples=2000)
    assert interval is not None
    assert interval.estimate == pytest.approx(ratio, rel=0.1)
    assert interval.low < ratio < interval.high
    assert ratio == 1 or not interval.low <= 1 <= interval.high


@pytest.mark.parametrize("ratio", [2.5, 1 / 3])
def test_degree_and_betweenness_go_the_same_way(ratio):
    rng = np.random.default_rng(3)
    found = {}
    for beta in (0.02, 0.02 * ratio):
        decays = []
        for _ in range(6):
            graph = build(responses(rng, exponential(beta), 64, 20), None, Graphs())
            decays.append([fit(values).beta for values in quantities(graph, Graphs()).values()])
        found[beta] = np.mean(decays, axis=0)
    ratios = found[0.02 * ratio] / found[0.02]
    assert ratios[0] == pytest.approx(ratio, rel=0.1)
    assert ((ratios[1:] > 1.5) & (ratios[1:] < ratio) if ratio > 1 else ratios[1:] < 0.6).all()


def test_longer_responses_alone_look_like_an_effect_unless_visits_are_equal():
    rng = np.random.default_rng(4)
    short = [responses(rng, power_law(), 64, 15) for _ in range(30)]
    long = [responses(rng, power_law(), 64, 30) for _ in range(30)]
    before = [visit_decay(paths) for paths in short]
    at_responses = ratio_interval(before, [visit_decay(paths) for paths in long], resamples=2000)
    visits = [int(build(paths, None, Graphs()).visits.sum()) for paths in short]
    cut = [limited(paths, number, seed=0) for paths, number in zip(long, visits, strict=True)]
    at_visits = ratio_interval(before, [visit_decay(paths) for paths in cut], resamples=2000)
    assert at_responses is not None
    assert at_visits is not None
    assert at_responses.high < 0.8
    assert at_visits.low < 1 < at_visits.high
    assert at_visits.estimate == pytest.approx(1, abs=0.05)


def test_few_nodes_and_few_visits_shrink_an_effect_and_make_none():
    rng = np.random.default_rng(5)
    flat = (
        0.5 / 40
    )  # half a decade from the first to the last of 40 nodes: chance alone makes a curve steeper than that
    mean = {
        ratio: np.mean([visit_decay(responses(rng, exponential(flat * ratio, 40), 20, 10)) for _ in range(60)])
        for ratio in (1, 1 / 3, 2.5)
    }
    again = np.mean([visit_decay(responses(rng, exponential(flat, 40), 20, 10)) for _ in range(60)])
    assert again / mean[1] == pytest.approx(1, abs=0.08)
    assert 0.6 < mean[1 / 3] / mean[1] < 0.95
    assert 1.2 < mean[2.5] / mean[1] < 2
