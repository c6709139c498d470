"""BRIDGE: its update rule where the optimum is known, its gradients by the formula, its limits, and resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from pydantic import ValidationError
from safetensors.torch import load_file
from torch.func import functional_call

from dereason.errors import DereasonError
from dereason.lm.local.model import ModelSettings, load_tokenizer
from dereason.training.joint.bridge import Bridge, Gradient, cooperative_gain, directions, shadow_loss
from dereason.training.joint.settings import Joint
from dereason.training.rl import RL, RLOptimiser
from dereason.training.trainer import make_trainer_class as make_rl_class
from dereason.training.watch import _sizes
from joint_recorded import REWARDS, TOKENS, advantages, logps, recorded, reward_every_third, run_tiny
from rounding import assert_same_gradient

# -- the rule -------------------------------------------------------------------------------------------------------


def settle(weight: Callable[[int], float], change: Callable[[Gradient], Gradient] = lambda g: g) -> tuple[float, float]:
    """(w, θ) after many updates on J_SFT = -½(θ-2)² - ½(w+1)² and J_RL = -½(θ-w)² - ½(w-3)²."""
    at = {"theta": 0.3, "shadow": -0.4, "w": 0.1}

    def gradient(sft: float, rl: float, at_shadow: bool) -> tuple[list[float], list[float]]:
        theta, w = at["shadow" if at_shadow else "theta"], at["w"]
        return [sft * (2 - theta) + rl * (w - theta)], [sft * (-1 - w) + rl * ((theta - w) + (3 - w))]

    for step in range(20_000):
        theta, shadow, w = directions(change(gradient), weight(step))
        at = {
            "theta": at["theta"] + 0.05 * theta[0],
            "shadow": at["shadow"] + 0.05 * shadow[0],
            "w": at["w"] + 0.02 * w[0],
        }
    return at["w"], at["theta"]


@pytest.mark.parametrize(("weight", "w", "theta"), [(0.5, 0.0, 1.0), (0.9, 0.42105, 0.57895), (0.99, 0.49246, 0.50754)])
def test_the_rule_converges_to_the_penalty_s_optimum(weight: float, w: float, theta: float) -> None:
    assert settle(lambda step: weight) == pytest.approx((w, theta), abs=1e-4)
    assert (w, theta) == pytest.approx(((2 * weight - 1) / (1 + weight), 2 * (1 - weight) + weight * w), abs=1e-4)


def test_a_growing_weight_ends_at_the_bilevel_optimum() -> None:
    assert settle(lambda step: min(0.999, step / 10_000)) == pytest.approx((0.5, 0.5), abs=1e-2)


def test_the_gain_is_what_makes_it_bilevel() -> None:
    def no_gain(gradient: Gradient) -> Gradient:
        def changed(sft: float, rl: float, at_shadow: bool) -> tuple[list[float], list[float]]:
            return gradient(sft, rl, at_shadow)[0], [0.0] if at_shadow else gradient(sft, 0.0, False)[1]

        return changed

    def no_shadow(gradient: Gradient) -> Gradient:
        def changed(sft: float, rl: float, at_shadow: bool) -> tuple[list[float], list[float]]:
            theta, w = gradient(sft, rl, at_shadow)
            return theta, [0.0] if at_shadow else w

        return changed

    assert settle(lambda step: 0.9, no_gain)[0] == pytest.approx(-1, abs=1e-4)
    assert settle(lambda step: 0.9, no_shadow)[0] == pytest.approx(2.78 / 1.09, abs=1e-4)


def test_the_gain_is_zero_where_the_copy_is_the_model_and_bounded_by_the_rewards() -> None:
    assert cooperative_gain([[0.0] * 4], [[1.0, 0.0, 0.0, 1.0]]) == (0.0, 1.0)
    gain, share = cooperative_gain([[50.0, 0.0, 0.0, 0.0]], [[1.0, 0.0, 0.0, 0.0]])
    assert (gain, share) == pytest.approx((0.25 - 1.0, 0.25))


def test_a_token_counts_at_most_the_cap() -> None:
    log_ratio = torch.tensor([0.0, 5.0, -1.0], dtype=torch.float64, requires_grad=True)
    loss, _ = shadow_loss(log_ratio, torch.tensor([1.0, 1.0, -2.0], dtype=torch.float64), cap=2.0)
    loss.sum().backward()
    torch.testing.assert_close(log_ratio.grad, torch.tensor([-1.0, -2.0, 2 * torch.tensor(-1.0).exp()]).double())


# -- the trainer ----------------------------------------------------------------------------------------------------


def phase(method: Bridge, **settings: Any) -> Joint:
    micro = settings.pop("micro_batch", 4)
    return Joint(
        steps=3,
        prompts_per_generation=3,
        group_size=4,
        max_new_tokens=16,
        method=method,
        optimiser=RLOptimiser(micro_batch=micro),
        **settings,
    )


def bridge(folder: Path, work: Path, method: Bridge, moved: bool = True, **kw: Any) -> Any:
    """A trainer whose copy and LoRA, where ``moved``, are somewhere else than at the start."""
    settings = phase(method, **{k: kw.pop(k) for k in ("micro_batch", "kl", "ratio") if k in kw})
    wrap = lambda model: method.wrap(model, ModelSettings(name=str(folder)), 1)  # noqa: E731
    trainer = recorded(folder, work, settings, method.trainer_class, wrap=wrap, **kw)
    if moved:
        torch.manual_seed(2)
        with torch.no_grad():
            for p in trainer.lora + trainer.shadow:
                p += 0.02 * torch.randn_like(p)
    return trainer


def expected(trainer: Any, cap: float, kl: float) -> dict[str, Any]:
    """Gradients of each objective's loss, by the formula, at (θ, w) and at (θ', w)."""
    model, tokenizer = trainer.model, trainer.processing_class
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    copies = {name: p.detach().clone() for name, p in zip(trainer.theta, trainer.shadow, strict=True)}

    def at(weights: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        leaves = {name: p.clone().requires_grad_() for name, p in weights.items()}
        return leaves, logps(lambda ids: functional_call(model, leaves, kwargs={"input_ids": ids}).logits, tokenizer)

    def flat(found: dict[str, Any]) -> torch.Tensor:
        return torch.cat([torch.cat(rows) for rows in found["rollouts"].values()])

    with torch.no_grad():
        reference = None
        if kl:
            reference = flat(logps(lambda ids: trainer.ref_model(input_ids=ids).logits, tokenizer))
    leaves, here = at(start)
    advantage = torch.cat(
        [
            torch.full((len(row),), a, dtype=torch.float64)
            for id, rows in here["rollouts"].items()
            for row, a in zip(rows, advantages(REWARDS[id]), strict=True)
        ]
    )

    def penalty(logp: torch.Tensor) -> Any:
        return kl * (torch.exp(reference - logp) - (reference - logp) - 1) if kl else 0.0

    def grads(loss: torch.Tensor, of: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = torch.autograd.grad(loss, list(of.values()), retain_graph=True)
        return dict(zip(of, found, strict=True))

    sft = grads(-torch.cat(list(here["shown"].values())).mean(), leaves)
    rl = grads((-advantage * flat(here) + penalty(flat(here))).mean(), leaves)
    copied, there = at(start | copies)
    weight = (flat(there) - flat(here)).exp().detach().clamp(max=cap)
    assert cap == 1.0 or ((weight == cap).any() and (weight < cap).any())
    shadow = grads((weight * (-advantage * flat(there) + penalty(flat(there)))).mean(), copied)
    gain = 0.0
    for id, rewards in REWARDS.items():
        pairs = zip(there["rollouts"][id], here["rollouts"][id], strict=True)
        ratio = torch.stack([(t - h).sum().exp().detach() for t, h in pairs])
        values = torch.tensor(rewards, dtype=torch.float64)
        gain += float(values.mean() - (ratio * values).sum() / ratio.sum()) / 3
    return {"sft": sft, "rl": rl, "shadow": shadow, "gain": gain}


@pytest.mark.parametrize(("weight", "kl", "micro"), [(0.3, 0.0, 1), (0.3, 0.0, 8), (0.8, 0.4, 3), (0.0, 0.0, 4)])
def test_the_three_gradients_are_those_of_the_formulas(
    weight: float, kl: float, micro: int, tiny_model: Path, tmp_path: Path
) -> None:
    method = Bridge(start=weight, end=weight, rank=4, ratio_cap=1.3)
    trainer = bridge(tiny_model, tmp_path, method, micro_batch=micro, kl=kl)
    wanted = expected(trainer, 1.3, kl)
    trainer.train()
    sft, rl, shadow = (wanted[name] for name in ("sft", "rl", "shadow"))
    every = {}
    for name in trainer.grads:
        every[name] = sft[name] if weight == 0 else (1 - weight) * sft[name] + weight * rl[name]
        if "lora_" in name:
            every[name] = every[name] - weight * shadow[name]
    assert_same_gradient(trainer.grads, every, terms=TOKENS)  # each has an advantage in float32
    copies = {name: copy.grad for name, copy in zip(trainer.theta, trainer.shadow, strict=True)}
    assert_same_gradient(copies, {name: shadow[name] for name in copies}, terms=TOKENS)
    assert len(trainer.grads) == len(trainer.theta) + len(trainer.lora)
    logged = trainer.state.log_history[0]
    assert logged["gain"] == pytest.approx(wanted["gain"], abs=1e-6)
    assert logged["gain"] != 0
    assert logged["lambda"] == weight


@pytest.mark.parametrize("shown", [("a", "b"), ()])
def test_at_one_or_without_demonstrations_it_is_full_parameter_rl(
    shown: tuple[str, ...], tiny_model: Path, tmp_path: Path
) -> None:
    options = {"optim": "adamw_torch", "learning_rate": 1e-3, "max_grad_norm": 0.05, "max_steps": 3}
    weight = 1.0 if shown else 0.4
    method = Bridge(start=weight, end=weight, rank=4, lora_learning_rate=0.1, resync_every=2)
    trainer = bridge(tiny_model, tmp_path / "bridge", method, moved=False, shown=shown, **options)
    lora = [p.detach().clone() for p in trainer.lora]
    trainer.train()
    plain = RL(prompts_per_generation=3, group_size=4, max_new_tokens=16, optimiser=RLOptimiser(micro_batch=4))
    rl = recorded(tiny_model, tmp_path / "rl", plain, make_rl_class, **options)
    start = {name: p.detach().clone() for name, p in rl.model.named_parameters()}
    rl.train()
    assert all(torch.equal(before, after) for before, after in zip(lora, trainer.lora, strict=True))
    found = {name.removeprefix("base_model.model.").replace(".base_layer", ""): p for name, p in trainer.theta.items()}
    for name, p in rl.model.named_parameters():
        torch.testing.assert_close(found[name], p, rtol=0, atol=1e-12)
    assert not torch.equal(start["model.norm.weight"], rl.model.model.norm.weight)
    assert [row["gain"] for row in trainer.state.log_history if "gain" in row] == [0.0] * 3


def test_each_set_of_weights_is_clipped_by_itself(tiny_model: Path, tmp_path: Path) -> None:
    trainer = bridge(
        tiny_model, tmp_path, Bridge(rank=4, lora_learning_rate=0.5), learning_rate=0.25, max_grad_norm=0.1
    )
    sets = [list(trainer.theta.values()), trainer.shadow, trainer.lora]
    before = [[p.detach().clone() for p in members] for members in sets]
    trainer.train()
    for members, old, rate in zip(sets, before, (0.25, 0.25, 0.5), strict=True):
        moved = torch.cat([(p.detach() - q).flatten() for p, q in zip(members, old, strict=True)]).norm()
        assert float(moved) == pytest.approx(rate * 0.1, rel=1e-4)


def test_the_copy_starts_again_with_the_weights_and_their_moments(tiny_model: Path, tmp_path: Path) -> None:
    trainer = bridge(tiny_model, tmp_path, Bridge(rank=4), optim="adamw_torch")
    trainer.train()
    pairs = list(zip(trainer.theta.values(), trainer.shadow, strict=True))
    states = trainer.optimizer.state
    assert not any(torch.equal(live, copy) for live, copy in pairs)
    assert not any(torch.equal(states[live]["exp_avg"], states[copy]["exp_avg"]) for live, copy in pairs)
    trainer._resync()
    for live, copy in pairs:
        assert torch.equal(live, copy)
        assert live.data_ptr() != copy.data_ptr()
        for name, value in states[live].items():
            assert torch.equal(states[copy][name], value)
            assert states[copy][name].data_ptr() != value.data_ptr()


def test_the_disk_that_a_checkpoint_takes_counts_the_copy(tiny_model: Path, tmp_path: Path) -> None:
    trainer = bridge(tiny_model, tmp_path, Bridge(rank=4), optim="adamw_torch")
    trainer.train()
    trainer._save_checkpoint(trainer.model, None)
    names = ("optimizer.pt", "bridge.safetensors", "adapter_model.safetensors")
    taken = sum((tmp_path / "checkpoint-1" / name).stat().st_size for name in names)
    assert _sizes(trainer.model)[0] == pytest.approx(taken, rel=0.02)


def test_several_processes_are_refused(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    with pytest.raises(DereasonError, match=r"several processes.*\n?.*launch.processes=1"):
        bridge(tiny_model, tmp_path, Bridge(rank=4))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"adapter": {}}, "LoRA of its own"),
        ({"rollouts": "transformers"}, "rollouts: engine"),
        ({"updates_per_generation": 2}, "one step a batch"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        Joint(method=Bridge(), **settings)


# -- a phase --------------------------------------------------------------------------------------------------------


def run(folder: Path, work: Path, stop_after: int | None = None) -> None:
    method = Bridge(start=0, end=1, rank=4, lora_learning_rate=1e-2, resync_every=3)
    run_tiny(folder, work, method, steps=4, learning_rate=1e-2, stop_after=stop_after)


def test_a_stopped_phase_resumes_to_the_same_weights_and_is_merged(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reward_every_third(monkeypatch)
    run(tiny_model, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tiny_model, tmp_path / "stopped", stop_after=1)
    assert [p.name for p in (tmp_path / "stopped" / "checkpoints").glob("checkpoint-*")] == ["checkpoint-1"]
    run(tiny_model, tmp_path / "stopped")
    whole, resumed = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "stopped"))
    start = load_file(tiny_model / "model.safetensors")
    assert whole.keys() == resumed.keys() == start.keys()
    for name in whole:
        torch.testing.assert_close(whole[name], resumed[name], rtol=0, atol=0)
        assert not torch.equal(whole[name], start[name])
    lines = [[json.loads(x) for x in (tmp_path / n / "metrics.jsonl").open()] for n in ("whole", "stopped")]
    for name in ("gain", "lambda", "loss"):
        assert [row[name] for row in lines[0]] == [row[name] for row in lines[1]]
    assert [row["lambda"] for row in lines[0]] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    gains = [row["gain"] for row in lines[0]]
    assert gains[0] == gains[3] == 0  # at the start and after the copy began anew, here after three steps
    assert gains[1] != 0
    assert gains[2] != 0
    facts = json.loads((tmp_path / "whole" / "model" / "hand-off.json").read_text())
    assert facts["adapter"] == "merged"
    assert facts["adapter_moves_logits"] > 1e-3
    assert facts["logits_gap"] < 1e-4
    assert not (tmp_path / "whole" / "model" / "adapter_config.json").exists()
    assert load_tokenizer(ModelSettings(name=str(tmp_path / "whole" / "model")))
