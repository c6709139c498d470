"""What an RL phase's early warning costs, as a share of the phase's time, on one model.

    python benchmarks/early_warning.py [--steps 100] [--prompts 8] [--group 8] [--tokens 64] [--every 10]
        [--model embedded]

One phase of GRPO on sums that reasoning-gym makes, with readings as they are by default; the share is the phase's own
`early_warning_share`, and the line above it says what each reading took. The time of a step does not depend on what is
rewarded, so the number of correct responses decides only how many texts are compared.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from pydantic import TypeAdapter

from dereason.lm.library_log import quiet_libraries
from dereason.lm.local.model import ModelSettings
from dereason.lm.prompts import Prompt
from dereason.pipeline.early_warning import MEASURES
from dereason.problems.sources import Source, load_source
from dereason.training.early_warning import EarlyWarning, readings
from dereason.training.phase import logged_metrics
from dereason.training.rl import RL, RLOptimiser, run_rl
from dereason.training.stops import Stops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--prompts", type=int, default=8, help="problems of a generation")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--model", default="embedded", help="hub id, folder or `embedded`")
    options = parser.parse_args()
    quiet_libraries()
    family = {
        "family": "chain_sum",
        "size": 64,
        "args": {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 1},
    }
    source = TypeAdapter(Source).validate_python({"source": "reasoning_gym", "seed": 1, "families": [family]})
    warning = EarlyWarning(every=options.every)
    phase = RL(
        steps=options.steps,
        prompts_per_generation=options.prompts,
        group_size=options.group,
        max_new_tokens=options.tokens,
        temperature=options.temperature,
        stops=Stops(zero_reward_steps=0),
        optimiser=RLOptimiser(checkpoint_every=options.steps),
        early_warning=warning,
    )
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run_rl(
            ModelSettings(name=options.model, device="cpu"),
            Prompt(suffix="Put the final answer within \\boxed{}."),
            load_source(source),
            phase,
            identity="benchmark",
            out=work / "model",
            work=work,
            seed=0,
            measures=MEASURES,
        )
        lines, seconds = readings(work), logged_metrics(work)[-1]["seconds"]
    for line in lines:
        probe = f"{line['probe/seconds']:6.2f} s of it the probe" if "probe/seconds" in line else "no probe"
        print(f"step {line['step']:4}: {line['seconds']:6.2f} s, {probe}")
    drawn = sum("probe/seconds" in line for line in lines)
    print(
        f"{options.steps} steps of {options.prompts} x {options.group} rollouts x {options.tokens} tokens in "
        f"{seconds:.0f} s; {len(lines)} readings, {drawn} with a probe of {warning.probe_problems(options.prompts)} x "
        f"{warning.samples}: {100 * lines[-1]['early_warning_share']:.2f} % of the time"
    )


if __name__ == "__main__":
    main()
