"""The `vllm` backend: seconds until it is ready, tokens per second, and how far its log-probabilities are off.

    .venv-vllm/bin/python benchmarks/vllm_backend.py [--eager] [--repeats 3]

The embedded model in float32 at temperature 1: 64 prompts, up to 64 tokens each, after one generation that is not
counted; each repetition has another seed. The gap is that of each sampled token's log-probability to the transformers
model's, over the last repetition.
"""

from __future__ import annotations

import argparse
import statistics
import time


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()

    began = time.perf_counter()
    import torch

    from dereason.lm.base import Sampling
    from dereason.lm.load import load_model
    from dereason.lm.local.model import ModelSettings, load_weights

    settings = ModelSettings(
        dtype="float32", backend="vllm", vllm={"eager": options.eager, "max_length": 1024, "memory": 0.2}
    )
    lm = load_model(settings)
    print(f"ready after {time.perf_counter() - began:.1f} s")
    chats = [[{"role": "user", "content": f"What is {i} + {3 * i}? Think step by step."}] for i in range(64)]
    rates = []
    for seed in range(options.repeats + 1):
        began = time.perf_counter()
        drawn = [c for _, batch in lm.generate(chats, 1, Sampling(max_new_tokens=64), seed) for c in batch]
        rates.append(sum(len(c.token_ids) for c in drawn) / (time.perf_counter() - began))
    print("tokens/s", [round(r) for r in rates[1:]], "median", round(statistics.median(rates[1:])))
    model = load_weights(ModelSettings(dtype="float32"))
    gaps: list[float] = []
    for c in drawn:
        prompt = lm.encode(chats[c.request])
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + list(c.token_ids)])).logits[0, len(prompt) - 1 : -1]
        logps = torch.log_softmax(logits, -1).gather(1, torch.tensor([c.token_ids]).T)[:, 0]
        gaps += (logps - torch.tensor(c.logps)).abs().tolist()
    print(f"|Δ log p| mean {statistics.mean(gaps):.1e}, max {max(gaps):.1e}, {len(gaps)} tokens")


if __name__ == "__main__":
    main()
