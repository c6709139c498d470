"""What an adapter costs while it is not merged, and what merging it leaves behind: one model, one process, no data.

    python benchmarks/adapter.py [--rank 32] [--prompts 8] [--samples 4] [--tokens 32] [--repeats 3] [--model embedded]

Prints the share of weights that are trained, the largest and the mean difference of logits between the adapted and the
merged model (float32), and tokens per second of the in-process engine with the adapter and without, in turns.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from dereason.lm.base import Sampling
from dereason.lm.local.model import LocalModel, ModelSettings, load_tokenizer, load_weights
from dereason.training.adapters import LoRA, attach, load_frozen, merged_state, whole_model
from dereason.training.hand_off import gap, probe_logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("rank", 32), ("prompts", 8), ("samples", 4), ("tokens", 32), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--model", default="embedded", help="hub id, folder or `embedded`")
    args = parser.parse_args()

    model = ModelSettings(name=args.model, device="cpu")
    settings, tokenizer = LoRA(rank=args.rank), load_tokenizer(model)
    adapted = attach(load_frozen(model, settings), settings, model, seed=0)
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:  # zero at first; as if it had been trained
            torch.nn.init.normal_(parameter, std=0.01)
    whole = load_weights(model)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    print(f"trained weights: {trained:,}, {100 * trained / sum(p.numel() for p in whole.parameters()):.1f} %")
    before = probe_logits(adapted, tokenizer)
    with adapted.disable_adapter():
        print(f"the adapter moves the logits by {gap(before, probe_logits(adapted, tokenizer)):.2g} of their size")
    merged = whole_model(adapted.get_base_model(), merged_state(adapted, adapted.state_dict()))
    whole.load_state_dict(merged.state_dict())
    after = probe_logits(whole, tokenizer)
    most = max(float((a - b).abs().max()) for a, b in zip(before, after, strict=True))
    print(f"merging moves them by {gap(before, after):.2g} of their size, by {most:.2g} at most")

    chats = [[{"role": "user", "content": f"Tell a long story about the number {i}."}] for i in range(args.prompts)]
    sampling = Sampling(max_new_tokens=args.tokens, batch_size=args.prompts * args.samples)
    speeds: dict[str, list[float]] = {"adapter": [], "merged": []}
    for seed in range(args.repeats):
        for name, weights in (("adapter", adapted), ("merged", whole)):
            lm = LocalModel(model, weights=weights)
            start = time.perf_counter()
            drawn = [c for _, batch in lm.generate(chats, args.samples, sampling, seed) for c in batch]
            speeds[name].append(sum(len(c.token_ids) for c in drawn) / (time.perf_counter() - start))
    for name, values in speeds.items():
        print(f"{name}: {statistics.median(values):.0f} tokens/s ({', '.join(f'{v:.0f}' for v in values)})")


if __name__ == "__main__":
    main()
