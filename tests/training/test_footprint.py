"""The estimate of a phase's memory: parts by hand, and the whole against torch's allocator (`benchmarks/memory.py`)."""

from __future__ import annotations

import argparse
import runpy
from pathlib import Path
from typing import Any

import pytest

from dereason.lm.local.model import ModelSettings
from dereason.lm.local.shape import shape_of
from dereason.training.adapters import LoRA
from dereason.training.footprint import Lengths, training
from dereason.training.joint.settings import Joint
from dereason.training.launch import Launch
from dereason.training.rl import RL
from dereason.training.sft import SFT

MODEL = ModelSettings(
    name="somebody/nothing-here",
    config={
        **{"model_type": "llama", "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 3},
        **{"num_attention_heads": 4, "vocab_size": 32000},
    },
    device_memory=40,
)
LENGTHS = Lengths(100, 300)


def parts(phase: Any, device: str = "cuda", moment: str = "update", **launch: Any) -> dict[str, float]:
    shape = shape_of(MODEL)
    assert shape is not None
    found = training(phase, MODEL, shape, device, LENGTHS, Launch(**launch))
    return next(m.parts for m in found.moments if m.name == moment)


def small(**more: Any) -> dict[str, Any]:
    return {"optimiser": {"micro_batch": 2}, **more}


def test_state_is_shared_among_processes_as_the_configuration_says() -> None:
    shape = shape_of(MODEL)
    assert shape is not None
    p = shape.parameters
    alone = parts(SFT(**small()))
    assert (alone["weights"], alone["gradients"], alone["moments"]) == (4 * p, 4 * p, 8 * p)
    ddp = parts(SFT(**small()), processes=4, config="ddp")
    assert (ddp["weights"], ddp["gradients"], ddp["gradients to exchange"]) == (4 * p, 4 * p, 4 * p)
    fsdp = parts(SFT(**small()), processes=4, config="fsdp2")
    assert (fsdp["weights"], fsdp["gradients"], fsdp["moments"]) == (p, p, 2 * p)
    assert fsdp["gathered weights"] > 0
    two = parts(SFT(**small()), processes=4, config="deepspeed-zero2")
    assert (two["weights"], two["gradients"], two["moments"], two["float32 weights"]) == (2 * p, p / 2, 2 * p, p)
    three = parts(SFT(**small()), processes=4, config="deepspeed-zero3")
    assert (three["weights"], three["gradients"], three["moments"]) == (p / 2, p / 2, 2 * p)


def test_adapters_references_and_copies_are_counted() -> None:
    shape = shape_of(MODEL)
    assert shape is not None
    p, learned = shape.parameters, 8 * shape.edges
    adapter = parts(SFT(**small(adapter=LoRA(rank=8))))
    assert (adapter["weights"], adapter["moments"]) == (2 * p + 4 * learned, 8 * learned)
    quantised = parts(SFT(**small(adapter=LoRA(rank=8, quantise="nf4"))))
    assert quantised["weights"] < adapter["weights"]
    assert parts(RL(**small(kl=0.1)))["reference"] == 2 * p
    assert "reference" not in parts(RL(**small(kl=0.1, adapter=LoRA(rank=8))))
    bridge = parts(Joint(**small(method={"name": "bridge", "rank": 8})))
    assert bridge["weights"] == 4 * (2 * p + learned)
    served = parts(RL(**small(rollouts="vllm-colocate", vllm={"memory": 0.25})), moment="rollouts")
    assert served["vllm"] == 10 * 2**30
    assert "cache" not in served


def test_rows_and_checkpointing_move_activations_and_logits() -> None:
    def of(**optimiser: Any) -> dict[str, float]:
        return parts(SFT(batch=16, optimiser=optimiser))

    one, four = of(micro_batch=1), of(micro_batch=4)
    assert four["logits"] == 4 * one["logits"]
    assert of(micro_batch=4, gradient_checkpointing=True)["activations"] < four["activations"]
    shape = shape_of(MODEL)
    assert shape is not None
    rollouts = parts(RL(**small(prompts_per_generation=4, group_size=8, rollout_batch=16)), moment="rollouts")
    half = parts(RL(**small(prompts_per_generation=4, group_size=8, rollout_batch=8)), moment="rollouts")
    assert rollouts["cache"] == 2 * half["cache"] > 16 * (100 + 300) * shape.cache * 2


@pytest.mark.parametrize("kind", ["sft", "rl"])
def test_the_estimate_is_within_a_fifth_of_the_allocators_peak(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    benchmark = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "memory.py"), run_name="benchmark")
    options = argparse.Namespace(batch=2, micro=2, tokens=24)
    found, peak, _ = benchmark["phase"](kind, str(tiny_model), options, tmp_path)
    assert found.peak.total == pytest.approx(peak, rel=0.2)
