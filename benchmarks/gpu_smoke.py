"""On one GPU, in one go: the engine, vLLM where it is installed, an SFT and an RL phase; time, peak memory, warnings.

    python benchmarks/gpu_smoke.py [--model Qwen/Qwen3-0.6B] [--problems 64] [--samples 8] [--tokens 512] [--steps 3]

Problems are sums that reasoning-gym makes. Each part prints a line; one that fails says why, the others go on, and the
exit code is 1. The peak is the allocator's on the GPU, on a CPU the process's; vLLM's own processes are not in it.
Warnings of this package (a model that falls back, a prompt that is not shared) stand under the part that they are of.
On a CPU it runs too, which shows that it can be run and nothing else.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import TypeAdapter

from dereason.errors import DereasonError
from dereason.lm.base import Sampling
from dereason.lm.load import load_model
from dereason.lm.local.model import ModelSettings, has_vllm, quiet_libraries, resolve_device
from dereason.lm.prompts import Prompt
from dereason.memory import begin_interval, interval_peak_bytes
from dereason.problems.schema import frame
from dereason.problems.sources import Source, load_source
from dereason.training.phase import Optimiser, logged_metrics
from dereason.training.rewards.settings import Correctness, Format
from dereason.training.rl import RL, RLOptimiser, run_rl
from dereason.training.sft import SFT, run_sft
from dereason.training.stops import Stops

PROMPT = Prompt(suffix="Put the final answer within \\boxed{}.")


class Smoke:
    """The parts. Each returns what it has to say."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        family = {"family": "chain_sum", "size": options.problems, "args": {"min_terms": 2, "max_terms": 4}}
        source = {"source": "reasoning_gym", "seed": 1, "families": [family]}
        self.problems = load_source(TypeAdapter(Source).validate_python(source))
        self.model = ModelSettings(name=options.model, device=options.device)
        self.options, self.folder = options, folder

    def generate(self, backend: str) -> str:
        """Tokens a second of a backend, the second call timed."""
        lm = load_model(self.model.model_copy(update={"backend": backend}), PROMPT.chat_template_kwargs)
        chats = [PROMPT.messages(q, None) for q in self.problems["question"]]
        sequences = self.options.problems * self.options.samples
        sampling = Sampling(max_new_tokens=self.options.tokens, batch_size=min(1024, sequences))
        for seed in (0, 1):
            began = time.perf_counter()
            drawn = [c for _, batch in lm.generate(chats, self.options.samples, sampling, seed) for c in batch]
            took = time.perf_counter() - began
        if backend == "vllm":
            lm.close()
        tokens = sum(len(c.token_ids) for c in drawn)
        return f"{tokens:,} tokens of {sequences} responses, {tokens / took:,.0f} tokens/s"

    def sft(self) -> str:
        """Some optimiser steps on bare answers."""
        size = self.options.problems
        targets = [
            {"problem_id": r["id"], "response": f"\\boxed{{{r['answer']}}}", "origin": "reference", "accepted": True}
            for r in self.problems.iter_rows(named=True)
        ]
        phase = SFT(epochs=self.options.steps, batch=size, optimiser=Optimiser(micro_batch=min(8, size)))
        work = self.folder / "sft"
        run_sft(self.model, PROMPT, self.problems, frame("target", targets), phase, out=work / "m", work=work, seed=0)
        return self._steps(work)

    def rl(self, rollouts: str) -> str:
        """Some optimiser steps on rollouts."""
        size = self.options.problems
        phase = RL(
            steps=self.options.steps,
            prompts_per_generation=size,
            group_size=self.options.samples,
            max_new_tokens=self.options.tokens,
            rollouts=rollouts,
            kl=1e-3,
            rewards=[Correctness(), Format(weight=0.1)],
            stops=Stops(zero_reward_steps=0),
            optimiser=RLOptimiser(micro_batch=min(8, size)),
        )
        work = self.folder / rollouts
        run_rl(self.model, PROMPT, self.problems, phase, identity="smoke", out=work / "m", work=work, seed=0)
        gap = [line["sampler_gap"] for line in logged_metrics(work) if "sampler_gap" in line]
        return self._steps(work) + (f", sampler_gap {max(gap):.1e}" if gap else "")

    def _steps(self, work: Path) -> str:
        seconds = [line["seconds"] for line in logged_metrics(work)]
        each = [after - before for before, after in zip([0.0, *seconds], seconds, strict=False)]
        return f"{len(each)} steps, seconds of each: {', '.join(f'{s:.1f}' for s in each)}"


def run(name: str, part: Callable[[], str], device: str) -> bool:
    """Run a part and print its line; whether it went through."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("dereason").addHandler(handler)
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.init()
    begin_interval()
    try:
        words = part()
        done = True
    except DereasonError as exc:
        words, done = f"FAILED: {exc}", False
    except Exception:  # of any library: it is what this script is to find
        words, done = f"FAILED\n{traceback.format_exc()}", False
    finally:
        logging.getLogger("dereason").removeHandler(handler)
    print(f"{name:20} {words}; peak {interval_peak_bytes() / 2**30:.2f} GiB", flush=True)
    for warning in dict.fromkeys(said):
        print(f"{'':20} warning: {warning}")
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="Qwen/Qwen3-0.6B", help="hub id, folder or `embedded`")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    quiet_libraries()
    device = resolve_device(options.device)
    print(f"{torch.cuda.get_device_name() if device == 'cuda' else device}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        smoke = Smoke(options, Path(folder))
        parts: dict[str, Callable[[], str]] = {
            "engine": lambda: smoke.generate("local"),
            "sft": smoke.sft,
            "rl, engine": lambda: smoke.rl("engine"),
        }
        if has_vllm():
            parts["vllm"] = lambda: smoke.generate("vllm")
            parts["rl, vllm-colocate"] = lambda: smoke.rl("vllm-colocate")
        done = [run(name, part, device) for name, part in parts.items()]
    if not has_vllm():
        print("vLLM is not installed: not run")
    print(f"{sum(done)} of {len(done)} parts went through")
    if not all(done):
        sys.exit(1)


if __name__ == "__main__":
    main()
