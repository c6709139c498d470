"""How well the decay of a rank curve is recovered: visits drawn from known curves, no model.

    python benchmarks/planted_decay.py [--draws 100] [--seed 0]

A node's visits are a multinomial draw with probabilities proportional to 10^(-beta R). "Decades" is beta times the
number of nodes: how far the curve falls from the first node to the last that there is. Prints the mean fitted beta by
the true one (its standard deviation over graphs), the ratio of two models whose true ratio is 2.5, 1/3 and 1, and what
becomes of a ratio of 1 where the second model has twice the visits, for these curves and for power laws.
"""

from __future__ import annotations

import argparse

import numpy as np

from dereason.analysis.graphs import Floats
from dereason.analysis.ranks import fit

VISITS = (100, 200, 640, 1280, 5120, 10240)


def betas(rng: np.random.Generator, curve: Floats, visits: int, draws: int) -> Floats:
    """(draws,) fitted decays; a draw with fewer than 3 nodes is left out."""
    fits = (fit(drawn) for drawn in rng.multinomial(visits, curve / curve.sum(), size=draws).astype(np.float64))
    return np.array([decay.beta for decay in fits if decay is not None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("draws", 100), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)

    print("| nodes | decades | visits | fitted / true (sd) | 2.5 | 1/3 | 1 | 1, twice the visits |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for nodes, decades in ((2000, 100), (2000, 10), (2000, 4), (125, 4), (125, 2), (125, 1), (40, 2), (40, 1)):
        rank, beta = np.arange(1, nodes + 1), decades / nodes
        for visits in VISITS:
            base = betas(rng, 10 ** (-beta * rank), visits, args.draws)
            cells = [f"{base.mean() / beta:.2f} ({base.std() / beta:.2f})"]
            for ratio, times in ((2.5, 1), (1 / 3, 1), (1, 1), (1, 2)):
                other = betas(rng, 10 ** (-beta * ratio * rank), visits * times, args.draws)
                cells.append(f"{other.mean() / base.mean():.2f}")
            print(f"| {nodes} | {decades} | {visits} | {' | '.join(cells)} |")
    print("\n| power | visits | 1 | 1, twice the visits |\n| ---: | ---: | ---: | ---: |")
    for power in (0.7, 1.0, 1.5):
        curve = 1 / np.arange(1, 2001) ** power
        for visits in VISITS:
            base = betas(rng, curve, visits, args.draws).mean()
            again, twice = (betas(rng, curve, visits * times, args.draws).mean() / base for times in (1, 2))
            print(f"| {power} | {visits} | {again:.2f} | {twice:.2f} |")


if __name__ == "__main__":
    main()
