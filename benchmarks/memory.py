"""Memory of a phase as `--dry-run` estimates it, against the peak of torch's allocator.

    python benchmarks/memory.py [--models embedded random-0.19b random-0.24b] [--phases sft rl lora eval] [--tokens 128]

Each phase runs as a run would run it (two optimiser steps, saving included) inside torch's profiler, which sees every
allocation of the CPU's allocator; the largest sum is the peak. Weights are mapped from their file, which no allocator
sees: their bytes are added, once for the model and once for a reference. What Python and its libraries take is not in
it, nor what malloc keeps for itself: `resident` is the largest resident size of the process over that before, which
has both. The estimate gets the lengths of the longest texts as they came out.

The random models are a Llama and a Qwen3 with the embedded model's tokenizer, made when they are first asked for.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import torch

from dereason.lm.base import Sampling
from dereason.lm.local.footprint import GIB, Footprint, generation, words
from dereason.lm.local.model import LocalModel, ModelSettings, load_tokenizer, quiet_libraries
from dereason.lm.local.shape import shape_of
from dereason.lm.prompts import Prompt, encode_reply
from dereason.memory import begin_interval, interval_peak_bytes
from dereason.problems.schema import frame
from dereason.training.adapters import LoRA
from dereason.training.footprint import Lengths, training
from dereason.training.launch import Launch
from dereason.training.phase import Optimiser
from dereason.training.rl import RL, RLOptimiser, run_rl
from dereason.training.sft import SFT, run_sft

PROMPT = Prompt(suffix="")
RANDOM: dict[str, dict[str, Any]] = {
    "random-0.19b": {
        **{"model_type": "llama", "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 24},
        **{"num_attention_heads": 12, "num_key_value_heads": 4, "tie_word_embeddings": True},
    },
    "random-0.24b": {
        **{"model_type": "qwen3", "hidden_size": 896, "intermediate_size": 2688, "num_hidden_layers": 16},
        **{"num_attention_heads": 14, "num_key_value_heads": 7, "head_dim": 64, "tie_word_embeddings": False},
    },
}


def folder_of(name: str, work: Path) -> str:
    """A model by name: a random one is made in a folder."""
    if name not in RANDOM:
        return name
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = load_tokenizer(ModelSettings())
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**RANDOM[name], vocab_size=len(tokenizer), **ends))
    model.save_pretrained(work / name)
    tokenizer.save_pretrained(work / name)
    return str(work / name)


def measured(run: Callable[[], Any]) -> tuple[float, float, Any]:
    """Peak of the allocator and of the resident size, in bytes, and what the function returns."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        begin_interval()
        before = resident()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
            result = run()
        peak = interval_peak_bytes() - before
        profiler.export_chrome_trace(file.name)
        events = json.loads(Path(file.name).read_text())["traceEvents"]
    found = [event["args"] for event in events if event.get("name") == "[memory]"]
    held, first = [event["Total Allocated"] for event in found], found[0]
    start = held[0] - first["Bytes"]  # it goes on counting from what an earlier run left
    return float(max(held) - start), float(peak), result


def resident() -> int:
    """Present resident size in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def problems(count: int) -> pl.DataFrame:
    """Problems whose prompts are of about one length."""
    return frame(
        "problem",
        [
            {"id": f"p{i}", "question": f"Write the numbers from {i} to {i + 400}, one after the other.", "answer": "7"}
            for i in range(10, 10 + count)
        ],
    )


def responses(asked: pl.DataFrame, tokens: int) -> pl.DataFrame:
    """Targets of about as many tokens: a number takes three or so."""
    said = [" ".join(str(int(id[1:]) + k) for k in range(max(1, tokens // 3))) for id in asked["id"]]
    rows = zip(asked["id"], said, strict=True)
    return frame("target", [{"problem_id": i, "response": r, "origin": "human", "accepted": True} for i, r in rows])


def phase(kind: str, name: str, options: argparse.Namespace, work: Path) -> tuple[Footprint, float, float]:
    """Estimate, allocator's peak and resident peak of one phase."""
    model = ModelSettings(name=name, device="cpu")
    shape = shape_of(model)
    assert shape is not None
    tokenizer = load_tokenizer(model)
    asked = problems(2 * options.batch)
    targets = responses(asked, options.tokens)
    pairs = [
        encode_reply(tokenizer, PROMPT.messages(question), response, {})
        for question, response in zip(asked["question"], targets["response"], strict=True)
    ]
    prompt, mapped = max(len(head) for head, _ in pairs), 4.0 * shape.parameters
    places = {"out": work / "out", "work": work / "work", "seed": 0}
    if kind == "eval":
        sampling = Sampling(temperature=1.0, max_new_tokens=options.tokens, batch_size=2 * options.batch)

        def draw() -> int:
            lm = LocalModel(model)
            drawn = lm.generate([PROMPT.messages(q) for q in asked["question"]], 1, sampling, 0)
            return max(c.tokens for _, batch in drawn for c in batch)

        peak, resident_peak, longest = measured(draw)
        batch = sampling.batch_size
        moment = generation(model, shape, "cpu", places=batch, prompt=prompt, new_tokens=longest)
        return Footprint([moment]), peak + mapped, resident_peak
    if kind == "rl":
        rl = RL(
            **{"steps": 2, "prompts_per_generation": options.batch, "group_size": 4, "kl": 0.01},
            max_new_tokens=options.tokens,
            rollout_batch=4 * options.batch,
            optimiser=RLOptimiser(micro_batch=options.micro),
        )
        peak, resident_peak, _ = measured(lambda: run_rl(model, PROMPT, asked, rl, identity="x", **places))
        rollouts = pl.concat([pl.read_parquet(p) for p in (work / "work" / "rollouts").glob("*.parquet")])
        lengths = Lengths(prompt, int(rollouts["tokens"].max()))  # type: ignore[arg-type]
        return training(rl, model, shape, "cpu", lengths, Launch()), peak + 2 * mapped, resident_peak
    sft = SFT(
        batch=options.batch,
        adapter=LoRA(rank=16) if kind == "lora" else None,
        optimiser=Optimiser(micro_batch=options.micro, gradient_checkpointing=kind == "checkpointed"),
    )
    peak, resident_peak, _ = measured(lambda: run_sft(model, PROMPT, asked, targets, sft, **places))
    lengths = Lengths(prompt, max(len(tail) for _, tail in pairs))
    return training(sft, model, shape, "cpu", lengths, Launch()), peak + mapped, resident_peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", nargs="*", default=["embedded", *RANDOM], help="hub ids, folders or these names")
    parser.add_argument("--phases", nargs="*", default=["sft", "checkpointed", "lora", "rl", "eval"])
    parser.add_argument("--batch", type=int, default=4, help="targets, or problems with 4 rollouts each, of a step")
    parser.add_argument("--micro", type=int, default=4, help="rows of a pass")
    parser.add_argument("--tokens", type=int, default=128, help="of a response, about")
    options = parser.parse_args()
    quiet_libraries()
    print("| model | phase | estimate GiB | allocator GiB | ratio | resident GiB | the estimate's parts |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as top:
        for name in options.models:
            path = folder_of(name, Path(top))
            for kind in options.phases:
                with tempfile.TemporaryDirectory() as work:
                    found, peak, resident_peak = phase(kind, path, options, Path(work))
                said = [found.peak.total / GIB, peak / GIB, found.peak.total / peak, resident_peak / GIB]
                figures = " | ".join(f"{value:.2f}" for value in said)
                print(
                    f"| {Path(name).name} | {kind} | {figures} | {found.peak.name}: {words(found.peak.parts)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
