"""How often a phase that did nothing gets a verdict other than "neither": simulated, by the number of problems.

    python benchmarks/verdict_rate.py [--problems 8,12,16,32] [--simulations 300]

Both models draw all measures from the same process: a size of each problem, the same for both, times lognormal noise
of 15 %.
Nominal are 5 %; a bootstrap over few problems does not quite keep it.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from dereason.analysis.verdict import MEASURES, read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", default="8,12,16,32")
    parser.add_argument("--simulations", type=int, default=300)
    args = parser.parse_args()
    for problems in map(int, args.problems.split(",")):
        named = sum(_named(problems, seed) for seed in range(args.simulations))
        share = named / args.simulations
        error = math.sqrt(share * (1 - share) / args.simulations)
        print(
            f"{problems} problems: {100 * share:.1f} % named something (standard error {100 * error:.1f})", flush=True
        )


def _named(problems: int, seed: int) -> bool:
    size = np.random.default_rng(0).uniform(2, 12, problems)
    rng = np.random.default_rng(seed)
    before, after = ({m: size * rng.lognormal(0, 0.15, problems) for m in MEASURES} for _ in range(2))
    return read(before, after, level=0.95, seed=0, resamples=10_000).verdict != "neither"


if __name__ == "__main__":
    main()
