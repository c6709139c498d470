"""ReLIFT: an SFT update besides the RL update, with an optimiser of its own, from a queue that keeps the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.func import functional_call

from dereason.training.joint.frame import Queue
from dereason.training.joint.relift import ReLIFT
from dereason.training.joint.settings import Joint
from dereason.training.joint.trainer import make_trainer_class
from dereason.training.rl import RLOptimiser
from joint_recorded import LIMIT, Script, advantages, logps, paid, recorded, run_tiny
from trajectories import make_models

WRONG = {"a": [0.0] * 4, "b": [0.0] * 4, "c": [1.0, 0.0, 1.0, 0.0]}


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_models(tmp_path_factory.mktemp("models"))["dense"]


def relift(folder: Path, work: Path, script: Script, queue: Queue, *, steps: int = 1, kl: float = 0.0) -> Any:
    phase = Joint(
        steps=steps,
        prompts_per_generation=3,
        group_size=4,
        max_new_tokens=LIMIT,
        method=ReLIFT(queue=queue),
        kl=kl,
        optimiser=RLOptimiser(micro_batch=4),
    )
    options = {"optim": "adamw_torch", "learning_rate": 1e-3, "max_steps": steps, "lr_scheduler_type": "constant"}
    return recorded(folder, work, phase, make_trainer_class, script=script, max_grad_norm=0.05, **options)


def test_both_updates_are_made_each_by_its_own_optimiser(small_model: Path, tmp_path: Path) -> None:
    """Two steps by hand: RL by one AdamW, then a demonstration by another; each has moments, rate and clip."""
    queue = Queue(batch=1, learning_rate=0.02, max_grad_norm=0.3)
    trainer = relift(small_model, tmp_path, paid(WRONG), queue, steps=2)
    weights = {name: p.detach().clone().requires_grad_() for name, p in trainer.model.named_parameters()}
    model, tokenizer = trainer.model, trainer.processing_class
    rl = torch.optim.AdamW(weights.values(), lr=1e-3, weight_decay=0.0)
    sft = torch.optim.AdamW(weights.values(), lr=0.02, weight_decay=0.0)

    def update(optimiser: Any, clip: float, loss_of: Callable[[dict[str, Any]], torch.Tensor]) -> None:
        optimiser.zero_grad()
        run = lambda ids: functional_call(model, weights, kwargs={"input_ids": ids}).logits  # noqa: E731
        loss_of(logps(run, tokenizer)).backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), clip)
        optimiser.step()

    def policy(scored: dict[str, Any]) -> torch.Tensor:
        pairs = zip(scored["rollouts"]["c"], advantages(WRONG["c"]), strict=True)
        every = sum(len(row) for rows in scored["rollouts"].values() for row in rows)
        return -sum(a * torch.exp(row - row.detach()).sum() for row, a in pairs) / every

    # a and b join at the first step, in the order of the batch, and at the second, where one of them waits still
    order: list[str] = []
    leave = trainer.waiting.leave
    trainer.waiting.leave = lambda: order.extend(chosen := leave()) or chosen
    trainer.model.eval()
    for problem in trained_on(small_model, tmp_path, queue):
        update(rl, 0.05, policy)
        update(sft, 0.3, lambda scored, id=problem: -scored["shown"][id].mean())
    trainer.train()
    assert len(order) == 2
    assert trainer.waiting.problems == [p for p in "ab" if p != order[-1]] or order[0] == order[-1]
    for name, p in trainer.model.named_parameters():
        torch.testing.assert_close(p.detach(), weights[name].detach(), rtol=0, atol=1e-7, msg=name)


def trained_on(folder: Path, work: Path, queue: Queue) -> list[str]:
    """The demonstrations of the SFT updates, as another run of the same trainer takes them."""
    other = relift(folder, work / "other", paid(WRONG), queue, steps=2)
    order: list[str] = []
    leave = other.waiting.leave
    other.waiting.leave = lambda: order.extend(chosen := leave()) or chosen
    other.train()
    return order


def test_what_waits_is_newest_first_and_the_rest_waits_on(small_model: Path, tmp_path: Path) -> None:
    trainer = relift(small_model, tmp_path, Script(), Queue(batch=2))
    waiting = trainer.waiting
    waiting.join(["a"])
    assert waiting.leave() == []
    waiting.join(["b", "a", "c"])
    assert waiting.problems == ["b", "c", "a"]
    assert waiting.leave() == ["b", "c"]
    assert waiting.problems == ["a"]


def test_kl_and_sft_updates_go_together(small_model: Path, tmp_path: Path) -> None:
    trainer = relift(small_model, tmp_path, paid(WRONG), Queue(batch=2), kl=0.1)
    trainer.train()
    logged = trainer.state.log_history[0]
    assert (float(logged["sft_demonstrations"]), float(logged["demonstrations"])) == (2, 0)
    assert float(logged["sft_loss"]) > 0
    assert trainer.waiting.problems == []


def test_a_stopped_phase_goes_on_with_its_queue_and_its_moments(tiny_model: Path, tmp_path: Path) -> None:
    """A random model is never right: two problems join a step, and three leave where there are three."""
    method = ReLIFT(queue=Queue(batch=3, learning_rate=1e-2))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_tiny(tiny_model, whole, method, steps=5)
    with pytest.raises(KeyboardInterrupt):
        run_tiny(tiny_model, parts, method, steps=5, stop_after=2)
    assert json.loads((parts / "checkpoints" / "checkpoint-2" / "waiting.json").read_text())
    run_tiny(tiny_model, parts, method, steps=5)
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert sum(line.get("sft_demonstrations", 0) for line in lines) >= 6
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)
