"""Our trainer against plain TRL on the same rollouts, verifier errors, and the verifier-free methods in training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch
from datasets import Dataset
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer

from dereason.lm.local.engine import Drawn
from dereason.lm.local.forward import TokenScores
from dereason.lm.local.model import ModelSettings, load_tokenizer
from dereason.lm.local.packing import Batch, Row, Segment, make_batch
from dereason.lm.prompts import Prompt
from dereason.problems.schema import Verdict, frame
from dereason.training import trainer as trainer_module
from dereason.training.adapters import LoRA
from dereason.training.losses import BatchCounts
from dereason.training.policy import Group, Update, make_update, policy_loss
from dereason.training.rewards.scoring import encode_answer, split_at_box
from dereason.training.rewards.settings import CER, RLPR, Correctness, Format, Rewards, RuleThenCER, VeriFree
from dereason.training.rl import RL, RLOptimiser, run_rl
from dereason.training.rollouts import rollout_table
from dereason.training.trainer import make_trainer_class
from dereason.verify.verdict import Judgement
from rounding import assert_same_gradient

PROMPT = Prompt(system="Add.", suffix="Use \\boxed{}.")
NAN = float("nan")

# Recorded rollouts of two problems, four each, of different lengths; the last is cut at the limit.
TEXTS = [
    [r"It is \boxed{7}", r"\boxed{8} I say", "no answer here", r"so 3 + 4 = \boxed{7} and nothing else"],
    [r"\boxed{9}", r"we add: \boxed{90}", "what?", r"one two three four five \boxed{9} six seven eight nine"],
]
ANSWERS = ["7", "9"]
LIMIT = 24


def problems() -> pl.DataFrame:
    return frame(
        "problem",
        [
            {"id": f"p{i}", "question": q, "answer": a, "domain": "sum", "source": "test"}
            for i, (q, a) in enumerate(zip(["What is 3 + 4?", "What is 4 + 5? Think."], ANSWERS, strict=True))
        ],
    )


def recorded(tokenizer: Any) -> dict[str, list[list[int]]]:
    """Problem's answer -> token ids of its rollouts."""
    return {
        answer: [[*tokenizer.encode(t, add_special_tokens=False), tokenizer.eos_token_id][:LIMIT] for t in texts]
        for answer, texts in zip(ANSWERS, TEXTS, strict=True)
    }


def gradients(
    kind: str,
    model_folder: Path,
    work: Path,
    rewards: Callable[[str, int], float | None],
    *,
    phase: RL,
    keep: Callable[[str, int], bool] = lambda answer, index: True,
) -> tuple[dict[str, torch.Tensor], float]:
    """Gradient and loss of one optimiser step on the recorded rollouts: ``kind`` ours or trl.

    Args:
        kind: which trainer.
        model_folder: the model.
        work: folder for the trainer.
        rewards: (problem's answer, index) -> reward.
        phase: settings.
        keep: rollouts that are in the generation at all (all groups must stay equally large).
    """
    tokenizer = load_tokenizer(ModelSettings(name=str(model_folder)))
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float64)
    rows = [
        {"prompt": PROMPT.messages(r["question"], None), "problem_id": r["id"], "answer": r["answer"], "options": []}
        for r in problems().iter_rows(named=True)
    ]
    kept = {a: [i for i in range(4) if keep(a, i)] for a in ANSWERS}
    size = len(kept[ANSWERS[0]])
    drawn = recorded(tokenizer)

    def reward(completions: Any, answer: list[str], **_: Any) -> list[float | None]:
        return [rewards(a, kept[a][i % size]) for i, a in enumerate(answer)]

    base = make_trainer_class() if kind == "ours" else GRPOTrainer

    class Recorded(base):  # type: ignore[misc,valid-type]
        def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kw: Any) -> Any:
            order = [
                next(a for a, text in zip(ANSWERS, ("3 + 4", "4 + 5"), strict=True) if text in p)
                for p in tokenizer.batch_decode(prompt_ids)
            ]
            ids = [drawn[a][kept[a][i % size]] for i, a in enumerate(order)]
            return ids, None

        def training_step(self, *args: Any, **kw: Any) -> Any:
            value = super().training_step(*args, **kw)
            found.append(float(value))
            grads.update({n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None})
            return value

    found: list[float] = []
    grads: dict[str, torch.Tensor] = {}
    rollouts = 2 * size
    micro = rollouts if kind == "ours" else phase.optimiser.micro_batch  # ours cuts the step itself
    trainer = Recorded(
        model=model,
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=str(work),
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=rollouts // micro,
            steps_per_generation=rollouts // micro,
            num_generations=size,
            max_steps=phase.iterations,
            num_iterations=1 if kind == "ours" else phase.iterations,
            optim="sgd",  # Adam would make much of a tiny gradient's sign
            importance_sampling_level=phase.ratio,
            epsilon=phase.clip_low,
            epsilon_high=phase.clip_high,
            max_completion_length=LIMIT,
            loss_type=phase.loss,
            scale_rewards=phase.scale_rewards,
            beta=phase.kl,
            learning_rate=1e-9 if phase.iterations == 1 else 0.03,
            lr_scheduler_type="constant",
            max_grad_norm=1e9,
            report_to=[],
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            save_strategy="no",
            seed=0,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.phase = phase
    trainer.rollouts = SimpleNamespace(correct=[None] * rollouts, mixed=[True] * 2)
    trainer.train()
    return grads, sum(found)


def settings(loss: str = "dapo", micro: int = 4, **kw: Any) -> RL:
    return RL(
        prompts_per_generation=2,
        group_size=4,
        max_new_tokens=LIMIT,
        loss=loss,  # type: ignore[arg-type]
        optimiser=RLOptimiser(micro_batch=micro),
        **kw,
    )


def known(answer: str, index: int) -> float:
    return [[1.0, 0.0, -0.5, 1.0], [1.0, 0.3, 0.0, 0.0]][ANSWERS.index(answer)][index]


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], factor: float = 1.0) -> None:
    assert max(float(g.abs().max()) for g in a.values()) > 1e-4
    vocabulary = max(g.shape[0] for g in a.values())
    assert_same_gradient(a, b, terms=vocabulary, factor=factor)  # TRL's logits are float32


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo"])
@pytest.mark.parametrize("options", [{}, {"scale_rewards": "none"}, {"scale_rewards": "batch", "kl": 0.3}])
def test_the_gradient_is_trls(loss: str, options: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    phase = settings(loss, **options)
    ours, our_loss = gradients("ours", tiny_model, tmp_path / "a", known, phase=phase)
    theirs, their_loss = gradients("trl", tiny_model, tmp_path / "b", known, phase=phase)
    assert_same(ours, theirs)
    assert our_loss == pytest.approx(their_loss, abs=1e-5)  # in float32 a log-probability of -20 is off by 2e-6


@pytest.mark.parametrize(
    "options",
    [{}, {"ratio": "sequence", "loss": "grpo", "clip_low": 0.5, "clip_high": 0.5}],
    ids=["token", "sequence"],
)
def test_the_second_pass_over_a_generation_is_trls(options: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    """After a large step the ratio is far from 1 and partly clipped; the rows without advantage have no old values."""

    def flat(answer: str, index: int) -> float:
        return 0.3 if answer == "9" else known(answer, index)

    phase = settings(**{"loss": "dapo", "iterations": 2, "clip_low": 0.02, "clip_high": 0.03, **options})
    ours, our_loss = gradients("ours", tiny_model, tmp_path / "a", flat, phase=phase)
    theirs, their_loss = gradients("trl", tiny_model, tmp_path / "b", flat, phase=phase)
    assert_same(ours, theirs)
    assert our_loss == pytest.approx(their_loss, abs=1e-5)
    assert abs(our_loss) > 1e-3, "on policy it would be almost nothing"


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo"])
def test_a_verifier_error_is_as_if_the_rollout_had_not_been_drawn(loss: str, tiny_model: Path, tmp_path: Path) -> None:
    """One failed verification a group: the gradient of the generation without those two rollouts.

    TRL keeps them in the normaliser: its gradient is smaller by their share of tokens or rows.
    """
    failed = {("7", 1), ("9", 3)}

    def with_errors(answer: str, index: int) -> float | None:
        return None if (answer, index) in failed else known(answer, index)

    phase = settings(loss, micro=2)
    ours, _ = gradients("ours", tiny_model, tmp_path / "a", with_errors, phase=phase)
    without, _ = gradients(
        "ours", tiny_model, tmp_path / "b", known, phase=phase, keep=lambda a, i: (a, i) not in failed
    )
    assert_same(ours, without)
    theirs, _ = gradients("trl", tiny_model, tmp_path / "c", with_errors, phase=phase)
    tokenizer = load_tokenizer(ModelSettings(name=str(tiny_model)))
    lengths = {(a, i): len(ids) for a, rows in recorded(tokenizer).items() for i, ids in enumerate(rows)}
    share = 6 / 8
    if loss == "dapo":
        share = sum(n for key, n in lengths.items() if key not in failed) / sum(lengths.values())
    assert_same(theirs, ours, share)


def test_a_batch_of_errors_moves_nothing(tiny_model: Path, tmp_path: Path) -> None:
    found, loss = gradients("ours", tiny_model, tmp_path, lambda answer, index: None, phase=settings())
    assert loss == 0
    assert all(float(g.abs().max()) == 0 for g in found.values())


@pytest.mark.parametrize("micro", [1, 4])
@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo"])
def test_rows_without_gradient_are_not_run_and_the_gradient_is_trls(
    loss: str, micro: int, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second group's rewards are all equal: half of the rows, and one row of the first group at its mean."""

    def flat(answer: str, index: int) -> float:
        return 0.3 if answer == "9" else [1.0, 0.5, 0.0, 0.5][index]

    run: list[Batch] = []
    original = trainer_module.score_tokens

    def watched(model: Any, head: Any, batch: Batch, **kw: Any) -> TokenScores:
        run.append(batch)
        return original(model, head, batch, **kw)

    monkeypatch.setattr(trainer_module, "score_tokens", watched)
    phase = settings(loss, micro=micro)
    ours, our_loss = gradients("ours", tiny_model, tmp_path / "a", flat, phase=phase)
    theirs, their_loss = gradients("trl", tiny_model, tmp_path / "b", flat, phase=phase)
    assert_same(ours, theirs)
    assert our_loss == pytest.approx(their_loss, abs=1e-5)  # in float32 a log-probability of -20 is off by 2e-6
    assert sum(len(batch.rows) for batch in run) == 2
    assert len(run) == (2 if micro == 1 else 1)
    assert all(batch.input_ids.numel() == batch.tokens for batch in run), "no padding"


def test_a_step_without_any_gradient_is_taken_as_trl_takes_it(tiny_model: Path, tmp_path: Path) -> None:
    """All groups flat: zero gradients, not missing ones, so that Adam's moments decay and weight decay acts."""
    found = {
        kind: gradients(kind, tiny_model, tmp_path / kind, lambda answer, index: 1.0, phase=settings())[0]
        for kind in ("ours", "trl")
    }
    assert found["ours"].keys() == found["trl"].keys()
    assert all(float(g.abs().max()) == 0 for g in found["ours"].values())


@pytest.mark.parametrize("micro", [1, 2, 8])
@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo"])
def test_the_micro_batch_does_not_change_the_gradient(micro: int, loss: str, tiny_model: Path, tmp_path: Path) -> None:
    def one_error(answer: str, index: int) -> float | None:
        return None if (answer, index) == ("9", 0) else known(answer, index)

    reference, _ = gradients("ours", tiny_model, tmp_path / "a", one_error, phase=settings(loss, micro=4))
    mine, _ = gradients("ours", tiny_model, tmp_path / "b", one_error, phase=settings(loss, micro=micro))
    assert_same(mine, reference)


def test_verifree_is_its_equation(tiny_model: Path, tmp_path: Path) -> None:
    """-Σ [A log π(s|q) + r log π(a*|q, s)] / N in float64, r and A constants; N the tokens of s and a*."""
    phase = settings(rewards=Rewards(of=[VeriFree()]), scale_rewards="none", leave_one_out=True)
    planted = {("7", 0): 0.5, ("7", 1): 0.25, ("7", 2): 0.0, ("7", 3): 0.75, ("9", 0): 0.1, ("9", 1): 0.4}
    reward = lambda a, i: planted.get((a, i), 0.0)  # noqa: E731
    ours, loss = gradients("ours", tiny_model, tmp_path, reward, phase=phase)

    tokenizer = load_tokenizer(ModelSettings(name=str(tiny_model)))
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64)
    total, count = torch.zeros((), dtype=torch.float64), 0
    for row in problems().iter_rows(named=True):
        chat = PROMPT.messages(row["question"], None)
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=True)
        values = [reward(row["answer"], i) for i in range(4)]
        for i, ids in enumerate(recorded(tokenizer)[row["answer"]]):
            others = [v for j, v in enumerate(values) if j != i]
            advantage = values[i] - sum(others) / 3
            cut = split_at_box(tokenizer, ids)
            s = cut[0] if cut else ids
            star = encode_answer(tokenizer, row["answer"]) if cut else []
            whole = [*prompt["input_ids"], *s, *star]
            logp = model(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
            start = len(prompt["input_ids"])
            at = [logp[t - 1, whole[t]] for t in range(start, len(whole))]
            total = total - advantage * sum(at[: len(s)]) - values[i] * sum(at[len(s) :])
            count += len(s) + len(star)
    (total / count).backward()
    assert loss != 0
    want = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert_same(ours, want)


def run(
    model: Path, folder: Path, rewards: list[Any], pool: pl.DataFrame | None = None, **kw: Any
) -> list[dict[str, float]]:
    phase = RL(
        steps=kw.pop("steps", 3),
        prompts_per_generation=2,
        group_size=4,
        max_new_tokens=12,
        rewards=Rewards(of=rewards),
        optimiser=RLOptimiser(learning_rate=1e-2, schedule="constant", micro_batch=4, checkpoint_every=1),
        **kw,
    )
    run_rl(
        ModelSettings(name=str(model)),
        PROMPT,
        problems() if pool is None else pool,
        phase,
        identity="test",
        out=folder / "model",
        work=folder,
        seed=3,
    )
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def boxing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model never writes a box: let the engine's rollouts of one step be recorded ones."""
    import random

    from dereason.training import trainer

    def decode(model: Any, prompts: Any, n: int, *, seed: int, **kw: Any) -> list[list[Drawn]]:
        tokenizer = load_tokenizer(ModelSettings(name=model.config.name_or_path))
        rows = list(recorded(tokenizer).values())
        picked = random.Random(seed)
        return [
            [Drawn(ids := picked.choice(rows[i % 2])[:12], [-1.0] * len(ids)) for _ in range(n)]
            for i in range(len(prompts))
        ]

    monkeypatch.setattr(trainer, "decode", decode)


@pytest.mark.usefixtures("boxing")
@pytest.mark.parametrize("reward", [CER(), RuleThenCER(), RLPR(), VeriFree()], ids=lambda r: r.name)
@pytest.mark.parametrize("updates", [1, 2])
def test_verifier_free_methods_train(reward: Any, updates: int, tiny_model: Path, tmp_path: Path) -> None:
    logged = run(tiny_model, tmp_path, [reward], updates_per_generation=updates, steps=4, leave_one_out=True)
    assert len(logged) == 4
    assert max(row["grad_norm"] for row in logged) > 0
    assert all(0 <= row["reward"] <= 1 for row in logged if "reward" in row)
    before, after = (load_file(f / "model.safetensors") for f in (tiny_model, tmp_path / "model"))
    assert any(not torch.equal(before[k], after[k]) for k in before)
    tokenizer = load_tokenizer(ModelSettings(name=str(tiny_model)))
    drawn = {tokenizer.decode(i[:12], skip_special_tokens=True) for r in recorded(tokenizer).values() for i in r}
    kept = set(rollout_table(tmp_path)["response"])
    assert kept <= drawn, "the samples are the rollouts as drawn, also where VeriFree trains on something else"
    assert len(kept) > 2


@pytest.mark.usefixtures("boxing")
@pytest.mark.parametrize("reward", [CER(), VeriFree()], ids=lambda r: r.name)
def test_rewards_without_a_verifier_train_an_adapter(reward: Any, tiny_model: Path, tmp_path: Path) -> None:
    """References of several tokens: scoring has to keep the cache, which peft's own forward hides."""
    pool = problems().with_columns(pl.Series("answer", ["seven and a half", "nine"]))
    logged = run(tiny_model, tmp_path, [reward], steps=1, adapter=LoRA(rank=2), pool=pool)
    assert logged[0]["grad_norm"] >= 0
    assert 0 <= logged[0]["reward"] <= 1


def test_the_reference_of_a_kl_term_is_what_the_phase_began_with(tiny_model: Path, tmp_path: Path) -> None:
    """Also where that is a base with an adapter that was kept: TRL would load the base."""
    run(tiny_model, tmp_path / "1", [Format(shape="boxed")], steps=2, adapter=LoRA(rank=2, merge=False), kl=0.1)
    assert (tmp_path / "1" / "model" / "adapter_config.json").is_file()
    weights = load_file(tmp_path / "1" / "model" / "adapter_model.safetensors")
    moved = {k: torch.randn_like(v) if "lora_B" in k else v for k, v in weights.items()}
    save_file(moved, tmp_path / "1" / "model" / "adapter_model.safetensors")
    logged = run(tmp_path / "1" / "model", tmp_path / "2", [Correctness()], steps=1, kl=0.1)
    assert logged[0]["kl"] == pytest.approx(0, abs=1e-5)


@pytest.mark.usefixtures("boxing")
def test_the_threshold_of_rlpr_survives_a_kill(tiny_model: Path, tmp_path: Path) -> None:
    """A phase that stops after two of three steps and goes on: the same threshold as an uninterrupted one."""
    whole = run(tiny_model, tmp_path / "whole", [RLPR(decay=0.5)])
    run(tiny_model, tmp_path / "cut", [RLPR(decay=0.5)], steps=2)
    resumed = run(tiny_model, tmp_path / "cut", [RLPR(decay=0.5)])
    assert [row["std_threshold"] for row in resumed] == [row["std_threshold"] for row in whole]
    assert len({row["std_threshold"] for row in whole}) == 3


@pytest.mark.usefixtures("boxing")
def test_a_group_is_mixed_by_verdict_or_by_the_rewards_spread(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shaped score does not make an all-wrong group mixed; CER has only its score."""
    wrong = SimpleNamespace(
        judge_many=lambda items: [Judgement(Verdict.WRONG, None, "planted")] * len(items),
        rewarded=lambda items, judged, marks: judged,
    )
    monkeypatch.setattr("dereason.training.rl.default_verifier", lambda: wrong)
    shaped = run(tiny_model, tmp_path / "shaped", [Correctness(), Format(shape="boxed")], steps=1)[0]
    assert shaped["reward_std"] > 0
    assert shaped["mixed_groups"] == 0
    planted = [0.1, 0.9, 0.1, 0.1, 0.5, 0.5004, 0.5, 0.5]  # the second group's rewards hardly differ
    monkeypatch.setattr("dereason.training.rewards.verifier_free.CERReward.score_groups", lambda *_: planted)
    free = run(tiny_model, tmp_path / "free", [CER()], steps=1)[0]
    assert free["mixed_groups"] == 0.5


def test_an_error_row_is_kept_as_a_sample(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = [Judgement(v, None, "planted") for v in [Verdict.CORRECT, Verdict.ERROR, *[Verdict.WRONG] * 6]]
    planted = SimpleNamespace(judge_many=lambda items: judged, rewarded=lambda *_: judged)
    monkeypatch.setattr("dereason.training.rl.default_verifier", lambda: planted)
    logged = run(tiny_model, tmp_path, [Correctness()], steps=1)[0]
    assert logged["reward"] == pytest.approx(1 / 7)
    assert rollout_table(tmp_path)["verdict"].to_list().count("error") == 1


def test_an_update_counts_what_it_keeps_and_runs_what_has_a_gradient() -> None:
    """A failed verification leaves both; a row at its group's mean, and one that was cut, are told apart."""
    group = Group(
        "q",
        [5],
        [[7], [7, 8], [7, 8, 9], [7] * 4],
        [0] * 4,
        [False, False, False, True],
        None,
        [1.0, NAN, 0.5, 0.0],
        [True, None, False, False],
        True,
    )
    advantages = [[0.5, 0.0, 0.0, -0.5]]
    plain = make_update([group], [3], advantages, RL(), router=False)
    assert (plain.run, plain.totals()) == ([0, 3], [8.0, 3.0])
    assert [row.group for row in plain.rows] == [3] * 4
    masked = make_update([group], [3], advantages, RL(mask_truncated=True), router=False)
    assert (masked.run, masked.totals()) == ([0], [4.0, 2.0])
    for more in ({"kl": 0.1}, {"entropy_bonus": 0.1}):
        assert make_update([group], [3], advantages, RL(**more), router=False).run == [0, 2, 3]
    assert make_update([group], [3], advantages, RL(rewards=Rewards(of=[VeriFree()])), router=False).run == [0, 2, 3]


def test_kl_and_clip_are_about_sampled_tokens_alone() -> None:
    """Two tokens of a reasoning and one of VeriFree's reference, which the policy did not draw."""
    logp = torch.tensor([-1.0, -2.0, -9.0], dtype=torch.float64)
    rows = [Row([4], [7, 8, 9])]
    update = Update(rows, [True], [0], [-1.0], [0.25], [1], {}, BatchCounts(3, 1))
    update.old = {0: logp + torch.tensor([1.0, 0.0, 1.0])}
    update.reference = {0: torch.tensor([-1.5, -2.0, -3.0])}
    batch = make_batch(rows, [Segment((0,), 4, 3)], pad_id=0)
    phase = RL(kl=0.5, loss="dapo", rewards=Rewards(of=[VeriFree()]))
    loss, seen = policy_loss(update, batch, TokenScores(logp, torch.zeros(3)), phase)
    k3 = math.exp(-0.5) + 0.5 - 1
    assert float(loss) == pytest.approx((0.8 + 1 + 0.5 * k3 + 0.25 * 9) / 3)  # a ratio of exp(-1) is clipped at 0.8
    means = {name: float((value * mask).sum() / mask.sum()) for name, (value, mask) in seen.items()}
    assert means == pytest.approx({"kl": k3 / 2, "entropy": 0, "clip_share": 0.5})


def test_verifree_stands_alone() -> None:
    with pytest.raises(ValidationError, match="cannot be summed"):
        RL(rewards=Rewards(of=[VeriFree(), Correctness()]))
    with pytest.raises(ValidationError, match="at least 1 item"):
        RL(rewards=Rewards(of=[]))
    with pytest.raises(ValidationError, match="same name"):
        RL(rewards=Rewards(of=[RLPR(), RLPR(weight=2)]))
