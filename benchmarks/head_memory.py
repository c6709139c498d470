"""Peak memory of log-probabilities and their gradient, in units of tokens x vocabulary x 4 bytes.

    python benchmarks/head_memory.py [--model embedded] [--tokens 512] [--blocks 1 4 16]

One forward and backward pass over targets of as many tokens in all, in float32 on the CPU: plain torch (logits, a
log-softmax and its entropy, as trainers compute them), and ours with the head run on so many blocks of tokens. Peaks
are torch's profiler's, beyond what was there before the pass; gradients are there already. The CPU time of the pass,
the mean of two, says what running blocks again costs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dereason.lm.local import head as head_module
from dereason.lm.local.forward import score_tokens
from dereason.lm.local.model import ModelSettings, load_weights, quiet_libraries
from dereason.lm.local.packing import Row, Segment, make_batch

ROWS, PROMPT = 4, 8


def peak_bytes(work: Callable[[], object]) -> int:
    """Most bytes of tensors at once while something runs, beyond those before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        seen.export_chrome_trace(str(trace))
        events = [e for e in json.loads(trace.read_text())["traceEvents"] if e["name"] == "[memory]"]
    totals = [(e["ts"], e["args"]["Total Allocated"], e["args"]["Bytes"]) for e in events]
    first = min(totals)
    return max(total for _, total, _ in totals) - (first[1] - first[2])


def plain(model: Any, batch: Any) -> None:
    """Logits of the response tokens, log-softmax, entropy."""
    logits = model(input_ids=batch.input_ids, use_cache=False).logits.flatten(0, 1)[batch.predictors]
    logp = logits.log_softmax(-1)
    with torch.no_grad():
        (-(logp.exp() * logp).sum(-1)).mean()
    (-logp.gather(1, batch.targets[:, None]).mean()).backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="embedded", help="hub id, folder or `embedded`")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--blocks", type=int, nargs="*", default=[1, 4, 16])
    options = parser.parse_args()
    quiet_libraries()
    model = load_weights(ModelSettings(name=options.model, device="cpu"))
    head = model.get_output_embeddings()
    vocabulary, each = int(head.weight.shape[0]), options.tokens // ROWS
    rows = [Row([*range(5, 5 + PROMPT)], [*range(100, 100 + each)]) for _ in range(ROWS)]
    batch = make_batch(rows, [Segment((i,), PROMPT + each, each) for i in range(ROWS)], pad_id=0)

    def ours() -> None:
        scores = score_tokens(model, head, batch, entropy="value", hits=True)
        (-scores.logp.mean()).backward()

    def measure(name: str, work: Callable[[], object]) -> None:
        work()
        began = time.process_time()
        work()
        work()
        took = (time.process_time() - began) / 2
        unit = 4 * options.tokens * vocabulary
        print(f"{name:20} peak {peak_bytes(work) / unit:5.2f} x N x V x 4 bytes, {took:6.2f} s of CPU", flush=True)

    size = 4 * ROWS * each * vocabulary / 2**20
    print(f"N = {ROWS * each} tokens, V = {vocabulary:,}: N x V x 4 bytes are {size:.0f} MiB")
    measure("plain torch", lambda: plain(model, batch))
    whole = head_module.block_tokens
    for blocks in options.blocks:
        head_module.block_tokens = lambda vocabulary, device, blocks=blocks: max(1, options.tokens // blocks)
        measure(f"ours, {blocks} blocks", ours)
    head_module.block_tokens = whole


if __name__ == "__main__":
    main()
