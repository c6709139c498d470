"""Seconds to score every answer of a CER group after every reasoning: ours against one sequence a pair, in one run.

    python benchmarks/cer_scoring.py [--group 16] [--answers 6] [--repeats 3] [--model embedded]

The model in float32; a question, reasonings of 20 to 60 tokens, answers of one to four digits. "One a pair" is
the straightforward way: a padded batch of prompt + reasoning + answer for each of the G x U pairs.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from typing import Any

import torch

from dereason.lm.library_log import quiet_libraries
from dereason.lm.local.model import ModelSettings, load_tokenizer, load_weights
from dereason.training.rewards.scoring import answer_logps


def one_a_pair(model: Any, prefixes: list[list[int]], answers: list[list[int]], pad_id: int) -> list[list[float]]:
    """Log-probabilities of whole answers, sixteen padded sequences at a time."""
    pairs = [(prefix, answer) for prefix in prefixes for answer in answers]
    out: list[float] = []
    for start in range(0, len(pairs), 16):
        some = pairs[start : start + 16]
        width = max(len(p) + len(a) for p, a in some)
        ids = torch.tensor([[*p, *a] + [pad_id] * (width - len(p) - len(a)) for p, a in some])
        mask = torch.tensor([[1] * (len(p) + len(a)) + [0] * (width - len(p) - len(a)) for p, a in some])
        keep = max(len(a) for _, a in some) + max(map(len, prefixes)) - min(map(len, prefixes)) + 1
        with torch.inference_mode():
            logp = model(input_ids=ids, attention_mask=mask, logits_to_keep=keep).logits.log_softmax(-1)
        first = width - keep
        for row, (p, a) in enumerate(some):
            out.append(sum(float(logp[row, len(p) + k - 1 - first, t]) for k, t in enumerate(a)))
    return [out[i : i + len(answers)] for i in range(0, len(out), len(answers))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--group", type=int, default=16)
    parser.add_argument("--answers", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="embedded", help="hub id, folder or `embedded`")
    options = parser.parse_args()
    quiet_libraries()
    settings = ModelSettings(name=options.model, device="cpu")
    tokenizer, model = load_tokenizer(settings), load_weights(settings)
    draw = random.Random(0)
    chat = [{"role": "user", "content": "What is 4 + 7 - 3 + 12? Put the final answer within \\boxed{}."}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=True)
    words = tokenizer.encode(" so we add seven and take three away then twelve more", add_special_tokens=False)
    box = tokenizer.encode("\\boxed{", add_special_tokens=False)
    prefixes = [
        [*prompt["input_ids"], *draw.choices(words, k=draw.randint(20, 60)), *box] for _ in range(options.group)
    ]
    answers = [
        tokenizer.encode(str(draw.randrange(10 ** (1 + i % 4))), add_special_tokens=False)
        for i in range(options.answers)
    ]
    times: dict[str, list[float]] = {"ours": [], "one a pair": []}
    for turn in range(options.repeats + 1):  # the first turn warms up
        started = time.perf_counter()
        scored = answer_logps(model, prefixes, answers, temperature=1.0, pad_id=tokenizer.pad_token_id)
        middle = time.perf_counter()
        plain = one_a_pair(model, prefixes, answers, tokenizer.pad_token_id)
        if turn:
            times["ours"].append(middle - started)
            times["one a pair"].append(time.perf_counter() - middle)
    gap = max(
        abs(float(a.sum()) - b)
        for ours, theirs in zip(scored, plain, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )
    print(f"{options.group} reasonings x {options.answers} answers, largest difference {gap:.1e} nats")
    for name, list_ in times.items():
        print(f"{name:11} {statistics.mean(list_):6.2f} s (each: {', '.join(f'{t:.2f}' for t in list_)})")
    print(f"ratio {statistics.mean(times['one a pair']) / statistics.mean(times['ours']):.1f}")


if __name__ == "__main__":
    main()
