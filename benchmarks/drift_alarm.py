"""How often the drift alarm warns: of a share that does not move, and of one that does.

    python benchmarks/drift_alarm.py [--phases 300] [--generations 200] [--prompts 8 32 128] [--group 8]
        [--shares 0.02 0.1 0.3] [--rises 0.1 0.2]

Simulated phases. Each problem has a share of its own (a beta distribution around the mean whose variance is a third of
a coin's), and each generation draws other problems. Columns: phases that warn, ever, of one share that is watched: one
that stays, and ones that rise evenly over the phase by so much. The settings of the alarm are its defaults.
"""

from __future__ import annotations

import argparse

import numpy as np

from dereason.training.drift import WATCHED, Drift, drift_warnings


def phase(stream: np.random.Generator, share: float, rise: float, options: argparse.Namespace, prompts: int) -> bool:
    """Whether a phase warns."""
    means = share + rise * np.linspace(0, 1, options.generations)[:, None]
    solved = stream.beta(2 * means, 2 * (1 - means), size=(options.generations, prompts))
    values = stream.binomial(options.group, solved).mean(1) / options.group
    rows = [{"step": i, **dict.fromkeys(WATCHED, 0.0), "gap": value} for i, value in enumerate(values)]
    return bool(drift_warnings(rows, Drift()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--phases", type=int, default=300)
    parser.add_argument("--generations", type=int, default=200)
    parser.add_argument("--prompts", type=int, nargs="+", default=[8, 32, 128], help="problems of a generation")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.02, 0.1, 0.3], help="at the beginning")
    parser.add_argument("--rises", type=float, nargs="+", default=[0.1, 0.2])
    options = parser.parse_args()
    print(f"% of {options.phases} phases of {options.generations} generations that warn")
    print("| rollouts | share | still | " + " | ".join(f"+{rise:g}" for rise in options.rises) + " |")
    for prompts in options.prompts:
        for share in options.shares:
            stream = np.random.default_rng([prompts, round(1000 * share)])
            found = [
                sum(phase(stream, share, rise, options, prompts) for _ in range(options.phases)) / options.phases
                for rise in (0.0, *options.rises)
            ]
            cells = " | ".join(f"{100 * part:.1f}" for part in found)
            print(f"| {prompts * options.group} | {share:g} | {cells} |")


if __name__ == "__main__":
    main()
