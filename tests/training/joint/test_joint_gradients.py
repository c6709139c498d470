"""Every joint method's gradient against its formula, written out anew in float64 over single sequences."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from dereason.lm.local.model import ModelSettings, load_tokenizer
from dereason.training.joint.alternating import Alternating
from dereason.training.joint.chord import CHORD
from dereason.training.joint.frame import Method
from dereason.training.joint.hpt import HPT
from dereason.training.joint.luffy import LUFFY
from dereason.training.joint.relift import ReLIFT
from dereason.training.joint.settings import Joint
from dereason.training.joint.srft import SRFT
from dereason.training.joint.superrl import SuperRL
from dereason.training.joint.trainer import make_trainer_class
from dereason.training.joint.weighted import Weighted
from dereason.training.policy import Group
from dereason.training.rewards.settings import LengthShaped, Rewards
from dereason.training.rl import RLOptimiser
from joint_recorded import (
    LIMIT,
    REWARDS,
    RIGHT,
    SHAPED,
    TEXTS,
    TOKENS,
    Script,
    advantages,
    judge_by,
    paid,
    recorded,
    run_tiny,
    tokens,
)
from rounding import assert_same_gradient


def trained(
    folder: Path, work: Path, method: Method, shown: bool = True, shaped: bool = False, **settings: Any
) -> dict[str, torch.Tensor]:
    """The gradient of one optimiser step of our trainer on the recorded rollouts."""
    phase = Joint(
        steps=1,
        prompts_per_generation=3,
        group_size=4,
        max_new_tokens=LIMIT,
        method=method,
        optimiser=RLOptimiser(micro_batch=settings.pop("micro_batch", 4)),
        **settings,
    )
    script, heat = paid(SHAPED, RIGHT) if shaped else Script(), {"temperature": phase.temperature}
    trainer = recorded(
        folder, work, phase, make_trainer_class, shown=("a", "b") if shown else (), script=script, **heat
    )
    trainer.train()
    return dict(trainer.grads)


Scored = dict[str, Any]
"""By problem: logps of each rollout, and of the demonstration; entropies likewise."""


def scored(model: Any, tokenizer: Any, temperature: float = 1.0) -> Scored:
    """Log-probabilities and entropies, each sequence run by itself; rollouts' at a temperature."""
    prompts, rollouts, shown = tokens(tokenizer)

    def of(prompt: list[int], reply: list[int], divisor: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        logits = model(input_ids=torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1] / divisor
        logs = torch.log_softmax(logits, -1)
        return logs[range(len(reply)), reply], -(logs.exp() * logs).sum(-1)

    return {
        id: {
            "rollouts": [of(prompts[id], reply, temperature) for reply in rollouts[id]],
            "shown": of(prompts[id], shown[id]) if id in shown else None,
        }
        for id in TEXTS
    }


def mean(parts: list[torch.Tensor]) -> torch.Tensor:
    """The mean over all tokens of several sequences."""
    return torch.cat(parts).mean()


def surrogate(logp: torch.Tensor, advantage: float) -> torch.Tensor:
    """On-policy: the ratio is 1, its gradient that of the log-probability."""
    return -torch.exp(logp - logp.detach()) * advantage


def on_policy(s: Scored, ids: str = "abc") -> list[torch.Tensor]:
    return [
        surrogate(logp, a)
        for id in ids
        for (logp, _), a in zip(s[id]["rollouts"], advantages(REWARDS[id]), strict=True)
    ]


def nll(s: Scored, ids: str = "ab") -> list[torch.Tensor]:
    return [-s[id]["shown"][0] for id in ids]


def luffy(s: Scored, pooled: bool) -> torch.Tensor:
    rollouts, shaped = on_policy(s, "c"), []
    for id in "ab":
        earned = [*REWARDS[id], 1.0]
        centre = sum(earned) / 5
        std = (sum((r - centre) ** 2 for r in earned) / 4) ** 0.5
        *own, given = [(r - centre) / (std + 1e-4) for r in earned]
        rollouts += [surrogate(logp, a) for (logp, _), a in zip(s[id]["rollouts"], own, strict=True)]
        p = s[id]["shown"][0].exp()
        shaped.append(-given * p / (p + 0.1))
    return mean(rollouts + shaped) if pooled else mean(rollouts) + mean(shaped)


def per_problem(s: Scored, gated: str, weight: float = 1.0) -> torch.Tensor:
    """Each of the three problems is a third of the step: its demonstration, or its share of the rollouts."""
    trained = [id for id in "abc" if id not in gated]
    shown = [weight * mean(nll(s, id)) for id in gated]
    return len(trained) / 3 * mean(on_policy(s, "".join(trained))) + sum(shown) / 3


def srft(s: Scored, sft: float) -> torch.Tensor:
    own, likelihood, off = [], [], []
    for id in "ab":
        for (logp, entropy), reward in zip(s[id]["rollouts"], REWARDS[id], strict=True):
            own.append(-0.1 * math.exp(float(entropy.detach().mean())) * logp if reward else logp)
        logp, entropy = s[id]["shown"]
        likelihood.append(-sft * math.exp(-float(entropy.detach().mean())) * logp)
        signs = [*(1.0 if r else -1.0 for r in REWARDS[id]), 1.0]
        centre = sum(signs) / 5
        off.append(-(1 - centre) / ((sum((x - centre) ** 2 for x in signs) / 4) ** 0.5 + 1e-4) * logp.exp())
    return mean(own + on_policy(s, "c")) + mean(likelihood) + mean(off)


def chord(s: Scored, mu: float, phi: bool) -> torch.Tensor:
    rollouts = [(1 - mu) * x for x in on_policy(s, "ab")] + on_policy(s, "c")
    weights = [-x.detach().neg().exp() for x in nll(s)]  # -p
    likelihood = [x * (-w * (1 + w)) for x, w in zip(nll(s), weights, strict=True)] if phi else nll(s)
    return mean(rollouts) + mu * mean(likelihood)


CASES: list[tuple[str, Method, Callable[[Scored], torch.Tensor]]] = [
    ("weighted", Weighted(mu=0.3), lambda s: mean(on_policy(s)) + 0.3 * mean(nll(s))),
    ("alternating", Alternating(), lambda s: mean(nll(s))),
    ("relift", ReLIFT(), lambda s: mean(on_policy(s))),
    ("hpt", HPT(gate=0, sft_weight=0.7), lambda s: per_problem(s, "b", 0.7)),
    ("hpt, gate -1", HPT(gate=-1), lambda s: mean(on_policy(s))),
    ("hpt, gate G", HPT(gate=4), lambda s: per_problem(s, "ab")),
    ("hpt, by term", HPT(gate=4, per="term"), lambda s: mean(on_policy(s, "c")) + mean(nll(s))),
    ("superrl", SuperRL(), lambda s: per_problem(s, "b")),
    ("superrl, by term", SuperRL(per="term"), lambda s: mean(on_policy(s, "ac")) + mean(nll(s, "b"))),
    ("luffy", LUFFY(), lambda s: luffy(s, pooled=True)),
    ("luffy, two normalisers", LUFFY(pooled=False), lambda s: luffy(s, pooled=False)),
    ("srft", SRFT(), lambda s: srft(s, 0.5)),
    ("srft without sft", SRFT(sft_weight=0), lambda s: srft(s, 0.0)),
    ("chord", CHORD(peak=0.4, floor=0.4, warmup=0), lambda s: chord(s, 0.4, False)),
    ("chord phi", CHORD(peak=0.4, floor=0.4, warmup=0, phi=True), lambda s: chord(s, 0.4, True)),
    ("chord, mu 0", CHORD(peak=0, floor=0, warmup=0), lambda s: mean(on_policy(s))),
    ("chord, mu 1", CHORD(peak=1, floor=1, warmup=0), lambda s: mean_of_plain(s) + mean(nll(s))),
]


def mean_of_plain(s: Scored) -> torch.Tensor:
    """What is left of RL at μ = 1: the problem without a demonstration, under the normaliser of all rollouts."""
    return mean([0 * x for x in on_policy(s, "ab")] + on_policy(s, "c"))


@pytest.fixture(scope="module")
def expected(tiny_model: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The gradient of each case's formula."""
    tokenizer = load_tokenizer(ModelSettings(name=str(tiny_model)))
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64)
    found = {}
    for name, _, formula in CASES:
        model.zero_grad()
        formula(scored(model, tokenizer)).backward()
        found[name] = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return found


def same(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert_same_gradient(mine, theirs, terms=TOKENS)  # each has an advantage in float32


@pytest.mark.parametrize("name", [name for name, *_ in CASES])
def test_the_gradient_is_that_of_the_formula(
    name: str, tiny_model: Path, tmp_path: Path, expected: dict[str, dict[str, torch.Tensor]]
) -> None:
    method = next(method for n, method, _ in CASES if n == name)
    for micro in (1, 8):
        same(trained(tiny_model, tmp_path / str(micro), method, micro_batch=micro), expected[name])


def test_luffys_demonstration_is_a_member_of_its_group(tiny_model: Path, tmp_path: Path) -> None:
    """The released run: seven rollouts and the demonstration, no std; with a bonus of 0.2 for a right format."""

    def group(problem: str, reward: float) -> Group:
        return Group(problem, [1], [[2]] * 7, [0] * 7, [False] * 7, None, [reward] * 7, [reward > 0] * 7, False)

    phase = Joint(method=LUFFY(), scale_rewards="none", group_size=7, max_new_tokens=LIMIT)
    trainer = recorded(tiny_model, tmp_path, phase, make_trainer_class, script=Script(worth=1.2))
    trainer.num_generations = 7
    found = trainer._advantages([group("a", 0.0), group("b", 1.2), group("b", 1.0), group("c", 0.0)])
    assert found[0] == pytest.approx([-0.15] * 7 + [1.05])
    assert found[1] == [0.0] * 8  # all right, and paid alike: nothing is learned of any, nothing unlearned
    assert found[2] == pytest.approx([-0.025] * 7 + [0.175])  # the bonus is learned
    assert found[3] == [0.0] * 8
    trainer.worth = {"a": 1.0}
    assert trainer._advantages([group("a", 0.0)])[0] == [-0.125] * 7 + [0.875]


def test_a_demonstration_has_no_temperature(tiny_model: Path, tmp_path: Path) -> None:
    """Rollouts are scored at the temperature that drew them; nobody drew a demonstration at it."""
    tokenizer = load_tokenizer(ModelSettings(name=str(tiny_model)))
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64)
    s = scored(model, tokenizer, 0.6)
    (mean(on_policy(s)) + 0.3 * mean(nll(s))).backward()
    wanted = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    same(trained(tiny_model, tmp_path, Weighted(mu=0.3), temperature=0.6), wanted)


@pytest.mark.parametrize("name", ["hpt", "superrl", "srft"])
def test_a_right_answer_is_right_whatever_it_is_paid(
    name: str, tiny_model: Path, tmp_path: Path, expected: dict[str, dict[str, torch.Tensor]]
) -> None:
    """Rewards of 0.5 and -0.5 have the advantages of 1 and 0, so each method has to do the same with them."""
    method = next(method for n, method, _ in CASES if n == name)
    same(trained(tiny_model, tmp_path, method, shaped=True), expected[name])


def test_a_problem_solved_at_half_pay_is_solved(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole phase with a shaped reward: every problem has right rollouts, and none goes to SFT."""
    judge_by(monkeypatch, lambda place, text: place % 2 == 0)
    shaped = LengthShaped(per_token=0.5, max_difference=1)  # nothing is extracted: every right answer is too short
    run_tiny(tiny_model, tmp_path, HPT(), steps=1, rewards=Rewards(of=[shaped]))
    logged = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert (logged["reward"], logged["mixed_groups"]) == (0.25, 1)
    assert logged["demonstrations"] == 0


@pytest.mark.parametrize("method", [Weighted(mu=3), LUFFY(), SRFT(), CHORD(peak=0.5, floor=0.5, warmup=0), HPT(gate=4)])
def test_without_demonstrations_every_method_is_grpo(
    method: Method, tiny_model: Path, tmp_path: Path, expected: dict[str, dict[str, torch.Tensor]]
) -> None:
    same(trained(tiny_model, tmp_path, method, shown=False), expected["hpt, gate -1"])
