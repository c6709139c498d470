"""GRPO with rollouts from vLLM in the training process: run by `make test-vllm`, skipped without vLLM."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import polars as pl
import pytest
import torch

pytest.importorskip("vllm", reason="vLLM has an environment of its own: make test-vllm")

from dereason.lm.local.model import ModelSettings, load_weights
from dereason.lm.prompts import Prompt
from dereason.problems.schema import frame
from dereason.training.rewards.settings import Format, Rewards
from dereason.training.rl import RL, RLOptimiser, run_rl


def test_vllm_gets_the_weights_of_each_step(tmp_path: Path) -> None:
    """After each update the engine's log-probabilities are again those of the model in training.

    The learning rate is large enough that an engine with the weights of the step before would miss by far more.
    """
    problems = frame(
        "problem",
        [
            {"id": f"p{i}", "question": f"What is {i} + {i + 1}?", "answer": str(2 * i + 1), "source": "test"}
            for i in range(4)
        ],
    )
    settings = RL(
        steps=3,
        prompts_per_generation=2,
        group_size=8,
        max_new_tokens=16,
        rollouts="vllm-colocate",
        vllm={"memory": 0.2, "max_length": 256, "eager": True},
        rewards=Rewards(of=[Format(shape="regex", pattern="(?s).*[a-m]")]),  # true of about half of the responses
        optimiser=RLOptimiser(learning_rate=1e-4, micro_batch=8, checkpoint_every=3),
    )
    seen: list[tuple[float, int]] = []
    began = time.perf_counter()
    run_rl(
        ModelSettings(dtype="float32"),
        Prompt(),
        problems,
        settings,
        identity="test",
        out=tmp_path / "model",
        work=tmp_path / "work",
        seed=3,
        progress=lambda done, total, words: seen.append((time.perf_counter() - began, done)),
    )
    lines = [json.loads(line) for line in (tmp_path / "work" / "metrics.jsonl").read_text().splitlines()]
    gaps, largest = ([line[name] for line in lines] for name in ("sampler_gap", "sampler_gap_max"))
    start, end = load_weights(ModelSettings()), load_weights(ModelSettings(name=str(tmp_path / "model")))
    with torch.inference_mode():
        ids = torch.tensor([[1, 4093, 198, 1780, 314, 216, 34, 1232, 216, 35, 47]])
        before, after = (torch.log_softmax(m(ids).logits, -1) for m in (start, end))
    moved = (before - after).abs().mean().item()
    print(f"\nfirst step done after {seen[1][0]:.1f} s, the last after {seen[-1][0]:.1f} s")
    print(f"|Δ log p| of the steps: mean {gaps}, max {largest}; start and end differ by {moved:.1e} in the mean")
    assert len(gaps) == 3
    assert max(gaps) < 1e-4
    assert max(largest) < 1e-3
    assert moved > 100 * max(gaps)
    assert not torch.distributed.is_initialized()
    assert "RANK" not in os.environ
    assert pl.read_parquet(sorted((tmp_path / "work" / "rollouts").glob("*.parquet"))[0]).height == 16
