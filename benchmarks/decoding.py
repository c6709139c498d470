"""Tokens per second of our engine against `transformers.generate`, and against vLLM's CPU build where there is one.

    python benchmarks/decoding.py mixed [--lengths exponential|uniform] [--repeats 3]
    python benchmarks/decoding.py fixed [--repeats 3] [--vllm /path/to/its/python] [--without-transformers]
    python benchmarks/decoding.py greedy
        each: [--model embedded] [--places 64]

All on one model in float32 at temperature 1, on made word problems. `mixed`: 16 prompts × 8 samples, 64 sequences at
once (`--places` scales both with what follows), every
sample with a length limit of its own (exponential: mean 32, cut to 4..128; uniform: 4..60) and no other end.
`fixed`: 64 prompts × 1 sample of 64 tokens. `greedy`: 64 prompts × 64 tokens at temperature 0, tokens compared;
where the sides part, the gap of the top two logits there. transformers runs with a dynamic cache, left padding, and in
batches of 64 sequences; each of its rows ends by a stopping criterion, and its batch when all rows have. Sides take
turns, every repetition has new prompts, and each side is warmed up first. The time is all of the call, prefill
included.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

WORDS = ["apples", "coins", "marbles", "tickets", "stamps", "shells", "pencils"]


def make_chats(count: int, start: int) -> list[list[dict[str, str]]]:
    """Different word problems of slightly different lengths."""
    return [
        [
            {
                "role": "user",
                "content": f"Ann has {3 * i + 7} {WORDS[i % 7]} and buys {i + 2} boxes of {i % 9 + 2} more. "
                + ("She gives half of them to her brother. " if i % 3 == 0 else "")
                + "How many does she have now? Think step by step.",
            }
        ]
        for i in range(start, start + count)
    ]


def make_limits(kind: str, prompts: int, n: int, seed: int) -> list[list[int]]:
    import numpy as np

    rng = np.random.default_rng(seed)
    if kind == "exponential":
        drawn = np.clip(np.round(rng.exponential(32, (prompts, n))), 4, 128)
    else:
        drawn = rng.integers(4, 61, (prompts, n))
    return [[int(x) for x in row] for row in drawn]


def run_transformers(
    model: Any, prompts: list[list[int]], limits: list[list[int]], pad: int, places: int, **kw: Any
) -> list[Any]:
    """`generate` in batches of at most so many sequences; returns generated ids of each sequence."""
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    class Limit(StoppingCriteria):  # type: ignore[misc,unused-ignore]
        def __init__(self, limits: list[int], width: int) -> None:
            self.limits, self.width = torch.tensor(limits), width

        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
            return input_ids.size(1) - self.width >= self.limits

    sequences = [(p, limit) for p, row in zip(prompts, limits, strict=True) for limit in row]
    out = []
    for start in range(0, len(sequences), places):
        batch = sequences[start : start + places]
        width = max(len(p) for p, _ in batch)
        ids = torch.tensor([[pad] * (width - len(p)) + p for p, _ in batch])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p, _ in batch])
        generated = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=max(limit for _, limit in batch),
            eos_token_id=None,
            pad_token_id=pad,
            stopping_criteria=StoppingCriteriaList([Limit([limit for _, limit in batch], width)]),
            **kw,
        )
        out += [row[width : width + limit].tolist() for row, (_, limit) in zip(generated, batch, strict=True)]
    return out


def timed(name: str, run: Callable[[int], int], repeat: int) -> float:
    start = time.perf_counter()
    tokens = run(repeat)
    rate = tokens / (time.perf_counter() - start)
    print(f"{name:13s} {tokens} tokens  {rate:6.1f} tokens/s", flush=True)
    return rate


def compare(
    options: argparse.Namespace, model: Any, tokens_of: Callable[[int, int], list[list[int]]], pad: int
) -> None:
    from dereason.lm.local.engine import decode

    mixed, places = options.task == "mixed", options.places
    shape = (max(1, places // 4), 8) if mixed else (places, 1)

    def work(repeat: int) -> tuple[list[list[int]], list[list[int]]]:
        limits = make_limits(options.lengths, *shape, seed=repeat) if mixed else [[64]] * places
        return tokens_of(shape[0], 1000 * (repeat + 1)), limits

    def ours(repeat: int) -> int:
        prompts, limits = work(repeat)
        drawn = decode(
            model, prompts, shape[1], temperature=1.0, max_new_tokens=limits, stop_ids=[], pad_id=pad, seed=repeat,
            batch_size=places,
        )  # fmt: skip
        return sum(len(s.ids) for group in drawn for s in group)

    def theirs(repeat: int) -> int:
        prompts, limits = work(repeat)
        rows = run_transformers(
            model, prompts, limits, pad, places, do_sample=True, temperature=1.0, top_k=0, top_p=1.0
        )
        return sum(map(len, rows))

    warm = tokens_of(2, 0)
    decode(
        model,
        warm,
        1,
        temperature=1.0,
        max_new_tokens=600,
        stop_ids=list(range(2000)),
        pad_id=pad,
        seed=0,
        batch_size=2,
    )
    run_transformers(model, warm, [[4], [4]], pad, places, do_sample=True, top_k=0)
    sides: dict[str, Callable[[int], int]] = {"ours": ours}
    if not options.without_transformers:
        sides["transformers"] = theirs
    with ExitStack() as stack:
        if options.vllm:
            worker = stack.enter_context(VLLM(options.vllm, model.name_or_path, warm, places))
            sides["vllm"] = lambda repeat: worker.run(*work(repeat))
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for repeat in range(options.repeats):
            for name, run in sides.items():
                rates[name].append(timed(name, run, repeat))
    for name, values in rates.items():
        print(f"{name}: median {statistics.median(values):.0f} tokens/s, {min(values):.0f} to {max(values):.0f}")
    for name in list(rates)[1:]:
        ratio = statistics.median(rates["ours"]) / statistics.median(rates[name])
        print(f"ours / {name}: {ratio:.2f}")


class VLLM:
    """vLLM in another environment's process, asked over pipes, so that the sides can take turns."""

    def __init__(self, python: str, model: str, warm: list[list[int]], places: int) -> None:
        self.process = subprocess.Popen(
            [python, __file__, "vllm-worker", "--model", model, "--places", str(places)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.run(warm, [[16]] * len(warm))

    def __enter__(self) -> VLLM:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)

    def run(self, prompts: list[list[int]], limits: list[list[int]]) -> int:
        """Generates; returns the number of tokens."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([prompts, limits]) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


def vllm_worker(model: str, places: int) -> None:
    """Runs in vLLM's own environment: no import of ours."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM logs to stdout
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    from vllm import LLM, SamplingParams

    llm = LLM(model=model, dtype="float32", max_model_len=1024, seed=0, max_num_seqs=places)
    for line in sys.stdin:
        prompts, limits = json.loads(line)
        requests = [{"prompt_token_ids": p} for p, row in zip(prompts, limits, strict=True) for _ in row]
        params = [
            SamplingParams(temperature=1.0, max_tokens=limit, min_tokens=limit, ignore_eos=True, logprobs=0)
            for row in limits
            for limit in row
        ]
        done = llm.generate(requests, params, use_tqdm=False)
        print(sum(len(o.outputs[0].token_ids) for o in done), file=answers, flush=True)


def greedy(model: Any, prompts: list[list[int]], pad: int, places: int) -> None:
    import torch

    from dereason.lm.local.engine import decode

    drawn = decode(
        model, prompts, 1, temperature=0, max_new_tokens=64, stop_ids=[], pad_id=pad, seed=0, batch_size=places
    )
    expected = run_transformers(model, prompts, [[64]] * len(prompts), pad, places, do_sample=False)
    parted, near = 0, 0
    for prompt, (ours,), theirs in zip(prompts, drawn, expected, strict=True):
        at = next((k for k, (a, b) in enumerate(zip(ours.ids, theirs, strict=True)) if a != b), None)
        if at is None:
            continue
        parted += 1
        with torch.inference_mode():
            top = model(torch.tensor([prompt + theirs[:at]])).logits[0, -1].topk(2).values
        gap = float(top[0] - top[1])
        near += gap < 1e-4
        print(f"parted at token {at}, top two logits {gap:.1e} apart")
    print(f"{len(prompts)} prompts × 64 greedy tokens: {parted} parted, {near} of them with a gap below 1e-4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["mixed", "fixed", "greedy", "vllm-worker"])
    parser.add_argument("--lengths", choices=["exponential", "uniform"], default="exponential")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--vllm", help="python of an environment with vLLM")
    parser.add_argument("--without-transformers", action="store_true")
    parser.add_argument("--model", default="embedded", help="hub id, folder or `embedded`")
    parser.add_argument("--places", type=int, default=64, help="sequences at once")
    options = parser.parse_args()
    if options.task == "vllm-worker":
        return vllm_worker(options.model, options.places)
    import torch

    from dereason.lm.local.model import ModelSettings, load_tokenizer, load_weights

    torch.set_num_threads(2)
    settings = ModelSettings(name=options.model, device="cpu")
    tokenizer, model = load_tokenizer(settings), load_weights(settings)

    def tokens_of(count: int, start: int) -> list[list[int]]:
        return [
            list(
                tokenizer.apply_chat_template(c, add_generation_prompt=True, tokenize=True, return_dict=True)[
                    "input_ids"
                ]
            )
            for c in make_chats(count, start)
        ]

    if options.task == "greedy":
        return greedy(model, tokens_of(options.places, 5000), tokenizer.pad_token_id, options.places)
    return compare(options, model, tokens_of, tokenizer.pad_token_id)


if __name__ == "__main__":
    main()
