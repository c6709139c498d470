"""DYPO: the gradient of one step against autograd on the pair loss itself, and the value that is logged."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.func import functional_call

from dereason.training.adapters import LoRA
from dereason.training.joint.dypo import DYPO
from dereason.training.joint.settings import Joint
from dereason.training.rl import RLOptimiser
from joint_recorded import REWARDS, TOKENS, Script, advantages, logps, recorded, reward_every_third, run_tiny
from rounding import assert_same_gradient

UNDECIDED = {"a": [1.0, math.nan, 0.0, 1.0], "b": [0.0] * 4, "c": [1.0, 0.0, 1.0, 0.0]}
SOLVED = {"a": [1.0] * 4, "b": [0.0, 1.0, 1.0, 0.0], "c": [1.0, 0.0, 1.0, 0.0]}
HALF = {"a": [0.6, 0.5, 0.4, 0.5], "b": [0.0] * 4, "c": [0.0] * 4}
"""Rewards that are no verdicts: two rollouts have no advantage and are in pairs."""


def stepped(folder: Path, work: Path, method: DYPO, rewards: dict[str, list[float]], **kw: Any) -> Any:
    """A trainer after training, its reference not its start."""
    phase = Joint(
        prompts_per_generation=3,
        group_size=4,
        max_new_tokens=16,
        method=method,
        iterations=kw.pop("iterations", 1),
        optimiser=RLOptimiser(micro_batch=kw.pop("micro_batch", 4)),
    )
    trainer = recorded(
        folder, work, phase, method.trainer_class, script=Script(rewards=lambda id, i, given: rewards[id][i]), **kw
    )
    torch.manual_seed(5)
    with torch.no_grad():
        for p in trainer.ref_model.parameters():
            p += 0.02 * torch.randn_like(p)
    trainer.train()
    trainer.model.eval()  # recomputed activations would be those of the weights after the step
    return trainer


def formula(trainer: Any, rewards: dict[str, list[float]], beta: float, scale: float) -> tuple[dict[str, Any], float]:
    """Gradient by name, and GAL."""
    leaves = {name: p.clone().requires_grad_() for name, p in trainer.before.items()}
    model, tokenizer = trainer.model, trainer.processing_class
    mine = logps(lambda ids: functional_call(model, leaves, kwargs={"input_ids": ids}).logits, tokenizer)
    with torch.no_grad():
        reference = logps(lambda ids: trainer.ref_model(input_ids=ids).logits, tokenizer)["rollouts"]
    pairs, policy, shown = [], [], []
    for id, earned in rewards.items():
        judged = [i for i, r in enumerate(earned) if r == r]
        right = [i for i in judged if earned[i] > 0.5]
        demonstrated = id in mine["shown"]
        if demonstrated and len(right) == len(judged):
            continue
        if demonstrated and not right:
            shown.append(mine["shown"][id])
            continue
        known = [earned[i] for i in judged]
        centre = sum(known) / len(known)
        std = (sum((r - centre) ** 2 for r in known) / (len(known) - 1)) ** 0.5
        for i in judged:
            advantage = (earned[i] - centre) / (std + 1e-4) if std else 0.0
            policy.append(-(beta if demonstrated else 1.0) * advantage * mine["rollouts"][id][i])
        if demonstrated:
            log_ratio = [m.sum() - r.sum() for m, r in zip(mine["rollouts"][id], reference[id], strict=True)]
            wrong = [i for i in judged if i not in right]
            z = torch.stack([scale * (log_ratio[s] - log_ratio[f]) for s in right for f in wrong])
            assert z.abs().max() > 0.1
            pairs.append(-torch.nn.functional.logsigmoid(z))
    gal = torch.cat(pairs).mean() if pairs else torch.zeros(())
    loss = torch.cat(policy).mean() + (1 - beta) * gal
    if shown:
        loss = loss - torch.cat(shown).mean()
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True)), float(gal.detach())


@pytest.mark.parametrize(
    ("rewards", "pairs", "micro"), [(REWARDS, 4, 1), (REWARDS, 4, 8), (UNDECIDED, 2, 2), (SOLVED, 4, 3), (HALF, 3, 3)]
)
def test_the_gradient_is_that_of_the_pair_loss(
    rewards: dict[str, list[float]], pairs: int, micro: int, tiny_model: Path, tmp_path: Path
) -> None:
    trainer = stepped(tiny_model, tmp_path, DYPO(beta=0.3, pair_beta=0.4), rewards, micro_batch=micro)
    wanted, gal = formula(trainer, rewards, 0.3, 0.4)
    assert_same_gradient(trainer.grads, wanted, terms=TOKENS)  # each has an advantage in float32
    logged = trainer.state.log_history[0]
    assert (logged["gal"], logged["pairs"]) == (pytest.approx(gal, rel=1e-9), pairs)


def test_a_second_step_on_the_same_rollouts_weighs_pairs_by_the_policy_as_it_is(
    tiny_model: Path, tmp_path: Path
) -> None:
    rewards = {"a": REWARDS["a"], "b": [0.0] * 4, "c": [0.0] * 4}
    options = {"iterations": 2, "max_steps": 2, "learning_rate": 0.05, "lr_scheduler_type": "constant"}
    trainer = stepped(tiny_model, tmp_path, DYPO(beta=0, pair_beta=0.4), rewards, **options)
    wanted, gal = formula(trainer, rewards, 0, 0.4)
    assert_same_gradient(trainer.grads, wanted, terms=TOKENS)  # norms compute in float32
    first, second = (row["gal"] for row in trainer.state.log_history[:2])
    assert second == pytest.approx(gal, rel=1e-9)
    assert second < first - 1e-3


def test_without_demonstrations_it_is_grpo(tiny_model: Path, tmp_path: Path) -> None:
    trainer = stepped(tiny_model, tmp_path, DYPO(beta=0.3), REWARDS, shown=())
    leaves = {name: p.clone().requires_grad_() for name, p in trainer.before.items()}
    found = logps(
        lambda ids: functional_call(trainer.model, leaves, kwargs={"input_ids": ids}).logits, trainer.processing_class
    )["rollouts"]
    rows = [-a * row for id, rows in found.items() for row, a in zip(rows, advantages(REWARDS[id]), strict=True)]
    wanted = torch.autograd.grad(torch.cat(rows).mean(), list(leaves.values()))
    assert_same_gradient(trainer.grads, dict(zip(leaves, wanted, strict=True)), terms=TOKENS)
    assert "gal" not in trainer.state.log_history[0]


@pytest.mark.parametrize("adapter", [None, LoRA(rank=4)])
def test_a_phase_compares_with_the_model_it_began_with(
    adapter: LoRA | None, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reward_every_third(monkeypatch)
    run_tiny(tiny_model, tmp_path, DYPO(beta=0.0, pair_beta=1.0), steps=2, adapter=adapter)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert lines[0]["gal"] == pytest.approx(math.log(2), abs=1e-6)  # the policy is the reference
    assert abs(lines[1]["gal"] - math.log(2)) > 1e-3
    assert all(line["pairs"] > 0 for line in lines)
