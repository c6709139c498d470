"""Prefix-RFT, UFT and BREAD: what rollouts are given, what is drawn again, and gradients against their formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import GRPOConfig

from dereason.errors import DereasonError
from dereason.lm.local.model import ModelSettings, load_tokenizer
from dereason.lm.local.sampling import Drawn
from dereason.lm.prompts import Prompt, encode_reply
from dereason.problems.schema import frame
from dereason.training.joint.bread import BREAD
from dereason.training.joint.frame import Method
from dereason.training.joint.prefix_rft import PrefixRFT
from dereason.training.joint.settings import Joint
from dereason.training.joint.trainer import make_trainer_class
from dereason.training.joint.uft import UFT
from dereason.training.losses import LossName
from dereason.training.policy import Group
from dereason.training.rl import RLOptimiser, run_rl
from dereason.training.rollouts import rollout_table
from dereason.training.trainer import make_trainer_class as make_rl_class
from joint_recorded import TOKENS, Planted, judge_by
from rounding import assert_same_gradient

PROMPT = Prompt(system="Add.", suffix="Use \\boxed{}.")
LIMIT = 24
SHOWN = {"a": r"First we add 3 and 4, so it is \boxed{7}", "b": r"We take 4, then 6 more: that is 10, \boxed{10}"}
TEXTS = [r"so 3 + 4 = \boxed{7} and more", r"\boxed{8} I say", "no answer here", r"It is \boxed{7}"]
IDS = "abc"  # c has no demonstration
CASES: dict[str, tuple[Method, dict[str, Any]]] = {
    "prefix_rft": (PrefixRFT(high=0.7, floor=0.7), {}),
    "prefix_rft, again": (PrefixRFT(high=0.7, floor=0.7), {"iterations": 2}),  # stored probabilities
    "prefix_rft, grpo": (PrefixRFT(high=0.7, floor=0.7, top=0.5), {"loss": "grpo"}),
    "prefix_rft, guided outside": (
        PrefixRFT(high=0.7, floor=0.7, baseline="rollouts"),
        {"scale_rewards": "none"},
    ),
    "prefix_rft, kl": (PrefixRFT(high=0.7, floor=0.7), {"kl": 0.1}),
    "uft": (UFT(sft_weight=0.7, high=0.5, low=0.5), {}),
    "bread": (BREAD(), {}),
}


class Scripted:
    """A trainer whose engine and rewards are written down, and what it was asked."""

    def __init__(
        self,
        folder: Path,
        work: Path,
        method: Method,
        *,
        shown: bool = True,
        plain: bool = False,
        right: Callable[[str, int, int], float] | None = None,
        said: float = math.nan,  # the engine's log-probabilities: no sampler drew the tokens
        **settings: Any,
    ) -> None:
        tokenizer = load_tokenizer(ModelSettings(name=str(folder)))
        encoded = {id: encode_reply(tokenizer, PROMPT.messages(f"Problem {id}?"), SHOWN.get(id, "x"), {}) for id in IDS}
        self.prompts = {id: head for id, (head, _) in encoded.items()}
        self.shown = {id: encoded[id][1] for id in SHOWN}
        self.lengths = {id: tail.index(tokenizer.eos_token_id) for id, tail in self.shown.items()}
        replies = [[*tokenizer.encode(t, add_special_tokens=False), tokenizer.eos_token_id] for t in TEXTS]
        self.calls: list[tuple[str, int, int, list[int]]] = []
        self.groups: list[Group] = []
        self.update: Any = None
        self.grads: dict[str, torch.Tensor] = {}
        outer = self

        class Recorded((make_rl_class if plain else make_trainer_class)()):  # type: ignore[misc]
            def _decode(self, prompts: Any, n: int, limits: Any, twin: Any) -> list[list[Drawn]]:
                drawn = []
                for k, ids in enumerate(prompts):
                    id = next(id for id, head in outer.prompts.items() if ids[: len(head)] == head)
                    limit = [limits] * n if isinstance(limits, int) else limits[k]
                    outer.calls.append((id, len(ids) - len(outer.prompts[id]), n, limit))
                    cut = [replies[j][: limit[j]] for j in range(n)]
                    drawn.append([Drawn(ids, [said] * len(ids)) for ids in cut])
                return drawn

            def _make_update(self, groups: Any, places: Any, advantages: Any) -> Any:
                outer.groups = list(groups)
                outer.update = super()._make_update(groups, places, advantages)
                return outer.update

            def training_step(self, *args: Any, **kw: Any) -> Any:
                value = super().training_step(*args, **kw)
                outer.grads = {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}
                return value

        def reward(problem_id: list[str], given: list[int], **_: Any) -> list[float]:
            return [(right or success)(id, i % 4, given[i]) for i, id in enumerate(problem_id)]

        rollouts = Planted(reward)
        rows = [
            {"prompt": PROMPT.messages(f"Problem {id}?"), "problem_id": id, "answer": "0", "options": []} for id in IDS
        ]
        phase = Joint(
            steps=1,
            prompts_per_generation=3,
            group_size=4,
            max_new_tokens=LIMIT,
            method=method,
            optimiser=RLOptimiser(micro_batch=settings.pop("micro_batch", 4)),
            **settings,
        )
        self.trainer = Recorded(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64),
            reward_funcs=rollouts,
            args=GRPOConfig(
                output_dir=str(work),
                per_device_train_batch_size=12,
                steps_per_generation=1,
                num_generations=4,
                max_steps=1,
                optim="sgd",
                max_completion_length=LIMIT,
                beta=0.0,
                learning_rate=1e-9,
                max_grad_norm=1e9,
                use_cpu=True,
                bf16=False,
                report_to=[],
                disable_tqdm=True,
                save_strategy="no",
                disable_dropout=True,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        self.trainer.phase, self.trainer.rollouts, self.trainer.selection = phase, rollouts, None
        self.trainer.problems = {row["problem_id"]: row for row in rows}
        self.trainer.demonstrations = self.shown if shown else {}
        if phase.kl:
            self.trainer.ref_model = other(folder)

    def train(self) -> Scripted:
        self.trainer.train()
        return self


def success(id: str, index: int, given: int) -> float:
    """Rewards: b is never solved without a good part of its demonstration."""
    return float(index == 1 and given > 6) if id == "b" else float(index in (0, 3))


def other(folder: Path) -> Any:
    """A reference that is not the policy."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    return model


def formula(model: Any, groups: list[Group], shown: dict[str, list[int]], method: Method, folder: Path, s: Any) -> Any:
    """The loss of a step, token by token, each sequence run by itself."""

    def of(who: Any, prompt: list[int], reply: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        logits = who(input_ids=torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
        logs = torch.log_softmax(logits, -1)
        return logs[range(len(reply)), reply], -(logs.exp() * logs).sum(-1)

    reference = other(folder) if s.get("kl") else None
    rows: list[list[torch.Tensor]] = []
    hints: list[torch.Tensor] = []
    spread = [
        (value.item(), id(response), t)
        for group in groups
        for response, given in zip(group.responses, group.given, strict=True)
        for t, value in enumerate(of(model, group.prompt, response)[1][:given])
    ]
    count = math.ceil(getattr(method, "top", 0) * len(spread) - 1e-9)
    taken = {place for _, *place in sorted(spread, reverse=True)[:count] for place in [tuple(place)]}
    outside = isinstance(method, PrefixRFT) and method.baseline == "rollouts"
    for group in groups:
        plain = [r for r, g in zip(group.rewards, group.given, strict=True) if not (outside and g)]
        centre = sum(plain) / len(plain)
        std = (sum((r - centre) ** 2 for r in group.rewards) / 3) ** 0.5 if not outside else 1 - 1e-4
        for response, reward, given in zip(group.responses, group.rewards, group.given, strict=True):
            advantage = (reward - centre) / (std + 1e-4)
            logp, _ = of(model, group.prompt, response)
            loss = -torch.exp(logp - logp.detach()) * advantage
            if reference is not None:
                d = of(reference, group.prompt, response)[0].detach() - logp
                kl = torch.exp(d) - d - 1
                loss = loss + s["kl"] * torch.cat([0 * kl[:given], kl[given:]])
            counted = [t for t in range(len(response)) if t >= given or (id(response), t) in taken]
            rows.append([loss[t] for t in counted])
        if isinstance(method, UFT) and group.problem in shown:
            hints.append(-of(model, group.prompt, shown[group.problem][: group.given[0]])[0])
    if s.get("loss") == "grpo":
        return sum(sum(row) / len(row) for row in rows) / len(rows)
    total = sum(map(sum, rows)) / sum(map(len, rows))
    return total + method.sft_weight * torch.cat(hints).mean() if isinstance(method, UFT) else total


def same(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert_same_gradient(mine, theirs, terms=TOKENS)  # each has an advantage in float32


@pytest.mark.parametrize("name", list(CASES))
def test_the_gradient_is_that_of_the_formula(name: str, tiny_model: Path, tmp_path: Path) -> None:
    method, settings = CASES[name]
    runs = [Scripted(tiny_model, tmp_path / str(m), method, micro_batch=m, **settings).train() for m in (1, 8)]
    given = {group.problem: group.given for group in runs[0].groups}
    assert given == {group.problem: group.given for group in runs[1].groups}
    assert given["c"] == [0, 0, 0, 0]
    assert 0 < given["b"][-1] < runs[0].lengths["b"]
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64)
    formula(model, runs[0].groups, runs[0].shown, method, tiny_model, settings).backward()
    expected = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert max(float(g.abs().max()) for g in expected.values()) > 1e-3
    for run in runs:
        same(run.grads, expected)


def test_without_demonstrations_the_three_are_grpo(tiny_model: Path, tmp_path: Path) -> None:
    plain = Scripted(tiny_model, tmp_path / "plain", BREAD(), plain=True).train()
    for method in (PrefixRFT(), UFT(), BREAD()):
        run = Scripted(tiny_model, tmp_path / method.name, method, shown=False).train()
        assert run.calls == plain.calls
        same(run.grads, plain.grads)


def test_responses_hold_what_was_given_and_stay_within_the_limit(tiny_model: Path, tmp_path: Path) -> None:
    run = Scripted(tiny_model, tmp_path, PrefixRFT(high=0.7, floor=0.7), said=-1.0).train()
    for group in run.groups:
        given, response = group.given[-1], group.responses[-1]
        assert group.given[:-1] == [0, 0, 0]
        assert response[:given] == run.shown.get(group.problem, [])[:given]
        assert max(map(len, group.responses)) <= LIMIT
        assert group.logps is not None
        assert [math.isnan(v) for v in group.logps[-1]] == [t < given for t in range(len(response))]
        assert given == int(0.7 * run.lengths.get(group.problem, 0))
    guided = [(id, given, n, limit) for id, given, n, limit in run.calls if given]
    assert [(n, limit) for _, given, n, limit in guided] == [(1, [LIMIT - given]) for _, given, *_ in guided]
    assert sorted((id, n) for id, given, n, _ in run.calls if not given) == [("a", 3), ("b", 3), ("c", 4)]


def test_prefix_lengths_belong_to_seed_step_and_problem(tiny_model: Path, tmp_path: Path) -> None:
    """What a resumed phase and every process must draw alike."""
    trainer = Scripted(tiny_model, tmp_path, UFT(parts=12, high=0.5, low=0.5, share=1)).trainer
    trainer.demonstrations = dict.fromkeys("ab", trainer.demonstrations["b"])
    trainer.state.max_steps = 50
    drawn: dict[tuple[str, int], int] = {}
    for id, step in [(id, step) for id in "ab" for step in range(25)] * 2:
        trainer.state.global_step = step
        lengths = {len(prefix) for prefix in trainer._prefixes(id)}
        assert lengths == {drawn.setdefault((id, step), *lengths)}
    assert [drawn["a", s] for s in range(25)] != [drawn["b", s] for s in range(25)]
    assert len({drawn["a", s] for s in range(25)}) > 3
    trainer.args.seed += 1
    trainer.state.global_step = 0
    moved = 0
    for step in range(25):
        trainer.state.global_step = step
        moved += len(trainer._prefixes("a")[0]) != drawn["a", step]
    assert moved > 5


def test_prefix_rft_gives_one_rollout_a_share_that_falls() -> None:
    method, stream = PrefixRFT(), np.random.default_rng(3)
    assert [method.low(x) for x in (0, 0.5, 1)] == pytest.approx([0.95, 0.5, 0.05])
    assert method.given(1000, 4, 0.0, stream) == [0, 0, 0, 950]
    for progress, low in ((0.5, 500), (1.0, 50)):
        lengths = [method.given(1000, 4, progress, stream)[-1] for _ in range(400)]
        assert low <= min(lengths) < low + 20
        assert 930 < max(lengths) < 950
        assert np.mean(lengths) == pytest.approx((low + 950) / 2, abs=50)  # 4 standard errors
    with pytest.raises(ValueError, match="above"):
        PrefixRFT(high=0.1, floor=0.2)


def test_uft_gives_all_rollouts_a_binomial_number_of_fifths_until_hints_end() -> None:
    method, stream = UFT(), np.random.default_rng(3)
    assert [method.chance(x) for x in (0, 0.3, 0.6, 0.61)] == pytest.approx([0.95, 0.5, 0.05, 0])
    counts = np.zeros(6)
    for _ in range(600):
        lengths = method.given(100, 4, 0.3, stream)
        assert len(set(lengths)) == 1
        counts[lengths[0] // 20] += 1
    np.testing.assert_allclose(counts / 600, [math.comb(5, k) / 32 for k in range(6)], atol=0.07)
    assert method.given(100, 4, 0.7, stream) == [0, 0, 0, 0]
    assert method.given(7, 2, 0.0, np.random.default_rng(0)) == [7, 7]
    assert UFT(share=0).chance(0) == 0


def test_bread_searches_for_the_shortest_prefix_with_signal(tiny_model: Path, tmp_path: Path) -> None:
    """b is solved by one of four behind more than six tokens: what a search through all tenths finds."""
    run = Scripted(tiny_model, tmp_path, BREAD(), said=-1.0).train()
    cuts = [round(0.1 * k * run.lengths["b"]) for k in range(1, 10)]
    shortest = next(given for given in cuts if given > 6)
    assert shortest > cuts[0]
    tried = [given for id, given, *_ in run.calls if id == "b" and given]
    assert tried[0] == cuts[4]
    assert len(tried) <= 4
    assert sorted(group.problem for group in run.groups) == [id for id, given, *_ in sorted(run.calls) if not given]
    group = next(group for group in run.groups if group.problem == "b")
    assert group.given == [shortest] * 4
    assert group.rewards == [0, 1, 0, 0]
    # what was given is run once, as part of the prompt that the four share
    rows = [row for row in run.update.rows if row.prompt == [*run.prompts["b"], *run.shown["b"][:shortest]]]
    assert [row.response for row in rows] == [response[shortest:] for response in group.responses]
    assert len({row.group for row in rows}) == 1
    assert {v for values in run.update.sampler.values() for v in values} == {-1.0}
    assert len({row.group for row in run.update.rows}) == 3


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_bread_keeps_the_first_group_where_no_prefix_gives_signal(
    reward: float, tiny_model: Path, tmp_path: Path
) -> None:
    """All wrong behind every prefix, or all right behind every one: neither is a gain."""
    right = lambda id, index, given: float(id == "a" or (given and reward))  # noqa: E731
    run = Scripted(tiny_model, tmp_path, BREAD(), right=right).train()
    tried = [given for id, given, *_ in run.calls if id == "b" and given]
    assert 3 <= len(tried) <= 4
    assert tried == sorted(tried, reverse=bool(reward))
    assert all(not any(group.given) for group in run.groups)
    assert [given for id, given, *_ in run.calls if id == "c"] == [0]  # all wrong too, and nothing to show


def test_bread_leaves_groups_that_need_nothing() -> None:
    def group(*correct: bool | None) -> Group:
        n = len(correct)
        return Group("q", [1], [[2]] * n, [0] * n, [False] * n, None, [0.0] * n, [*correct], True)

    assert BREAD().search({0: group(False, False)}, 10) == 5
    assert BREAD().search({0: group(False, None)}, 3) == 1
    assert BREAD().search({0: group(False, False)}, 1) is None  # its only token would be all of it
    assert BREAD().search({0: group(False, True)}, 10) is None
    assert BREAD().search({0: group(None, None)}, 10) is None  # the verifier failed: that is no wrong answer
    tried = {0: group(False, False), 50: group(True, True), 20: group(False, False), 30: group(True, False)}
    assert BREAD().search(tried, 100) is None
    assert BREAD().settle(tried) is tried[30]
    assert [BREAD(episodes=n).searches for n in (2, 4, 8, 10, 16)] == [1, 2, 3, 4, 4]  # what the plan counts
    with pytest.raises(ValueError, match="above"):
        BREAD(low=0.6, high=0.5)


@pytest.mark.parametrize("change", [{"rollouts": "transformers"}, {"ratio": "sequence"}])
def test_settings_that_do_not_fit_prefixes_are_refused(change: dict[str, Any]) -> None:
    assert Joint(**change).method.name == "weighted"
    with pytest.raises(ValueError, match="uft"):
        Joint(method=UFT(), **change)


# -- whole phases --------------------------------------------------------------------------------------------------


def phase(folder: Path, work: Path, method: Method, loss: LossName = "dapo", **settings: Any) -> pl.DataFrame:
    """Two real steps on demonstrations of two of three problems; its rollouts."""
    problems = frame(
        "problem",
        [{"id": id, "question": f"Problem {id}?", "answer": "7", "domain": "add", "source": "test"} for id in IDS],
    )
    shown = frame(
        "target",
        [{"problem_id": id, "response": text, "origin": "human", "accepted": True} for id, text in SHOWN.items()],
    )
    options = {"steps": 2, "prompts_per_generation": 3, "group_size": 3, "max_new_tokens": 30} | settings
    result = run_rl(
        ModelSettings(name=str(folder), device="cpu"),
        PROMPT,
        problems,
        Joint(method=method, loss=loss, optimiser=RLOptimiser(micro_batch=4, learning_rate=1e-3), **options),
        identity="test",
        out=work / "out",
        work=work,
        seed=1,
        demonstrations=shown,
    )
    table = rollout_table(work)
    assert result.steps == 2
    assert result.tokens_generated == table["tokens"].sum()
    assert table.select("step", "problem_id", "index").is_unique().all()
    return table


def test_a_phase_of_prefix_rft(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge_by(monkeypatch, lambda place, text: place % 3 == 2)
    table = phase(tiny_model, tmp_path, PrefixRFT())
    guided = table.filter(purpose="guided")
    assert sorted(guided["problem_id"]) == ["a", "a", "b", "b"]
    assert guided["index"].unique().to_list() == [2]
    for row in guided.iter_rows(named=True):
        assert row["response"][:10] == SHOWN[row["problem_id"]][:10]
    assert table.height == 18


def test_a_phase_of_uft(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge_by(monkeypatch, lambda place, text: place % 3 == 2)
    table = phase(tiny_model, tmp_path, UFT(share=0.4, sft_weight=0.1))
    hinted = table.filter(purpose="guided")
    assert set(hinted["step"]) == {0}  # the second step is past the share
    assert hinted.group_by("problem_id").len()["len"].to_list() == [3, 3]


def test_a_phase_of_bread(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge_by(monkeypatch, lambda place, text: place % 3 == 0 and text.startswith("We take 4"))
    table = phase(tiny_model, tmp_path, BREAD())
    guided = table.filter(purpose="guided").group_by("problem_id", "step").len().sort("problem_id", "step")
    # a is drawn again to the bound; b is solved behind a half, a third, and not behind less
    assert guided.rows() == [("a", 0, 12), ("a", 1, 12), ("b", 0, 9), ("b", 1, 9)]
    assert table.filter(purpose="rollout").height == 18


def test_a_demonstration_that_no_rollout_could_hold_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(DereasonError, match="12 with what it continues"):
        phase(tiny_model, tmp_path, UFT(), max_new_tokens=12)
