"""The rewards inside plain ``trl.GRPOTrainer``: what a verifier error does there, in exact numbers.

Completions are planted, so that every reward, advantage and length is known; all else is TRL's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dereason.problems.schema import Verdict
from dereason.training.rewards.rules import CorrectnessReward, JudgedReward, Judging
from dereason.training.rewards.settings import Correctness, Format, LengthShaped, Overlong, Rewards, build, combine
from dereason.verify.verdict import Judgement
from dereason.verify.verifier import Item, default_verifier

ROOT = Path(__file__).parents[2]
TEXTS = [
    r"Two and two: \boxed{4}",
    r"BROKEN \boxed{4} with many more tokens than the others have",
    r"\boxed{5}",
    "no idea",
]
SETTINGS = [Correctness(), Format(weight=0.5), Overlong(buffer=8), LengthShaped()]
LIMIT = 32


def planted_judge(items: Sequence[Item]) -> list[Judgement]:
    """The default verifier, which fails on one text."""
    judged = default_verifier().judge_many(items)
    return [
        Judgement(Verdict.ERROR, None, "planted") if "BROKEN" in item.response else j
        for item, j in zip(items, judged, strict=True)
    ]


class Run:
    """One optimiser step of plain TRL at learning rate 0, and what passed through it."""

    def __init__(
        self, model: Path, folder: Path, functions: list[Any], texts: list[str] = TEXTS, **config: Any
    ) -> None:
        from datasets import Dataset
        from transformers import AutoTokenizer
        from trl import GRPOConfig, GRPOTrainer

        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.ids = [[*self.tokenizer.encode(t), self.tokenizer.eos_token_id] for t in texts]
        settings: dict[str, Any] = {
            "output_dir": str(folder),
            "learning_rate": 0.0,
            "max_steps": 1,
            "per_device_train_batch_size": len(texts),
            "num_generations": len(texts),
            "max_completion_length": LIMIT,
            "max_grad_norm": 1e9,
            "logging_steps": 1,
            "report_to": [],
            "disable_tqdm": True,
            "use_cpu": True,
            "bf16": False,
            "save_strategy": "no",
        }
        row = {"prompt": [{"role": "user", "content": "What is 2 + 2?"}], "answer": "4", "options": []}
        self.trainer = GRPOTrainer(
            model=str(model),
            reward_funcs=list(functions),
            args=GRPOConfig(**{**settings, **config}),
            train_dataset=Dataset.from_list([row] * 2),
            processing_class=self.tokenizer,
        )
        self.trainer._generate_single_turn = lambda *args, **kw: (self.ids, None)
        calculate, compute = self.trainer._calculate_rewards, self.trainer._compute_loss

        def calculate_rewards(*args: Any) -> Any:
            self.rewards = calculate(*args)
            return self.rewards

        def compute_loss(model: Any, inputs: Any) -> Any:
            self.inputs = inputs
            loss = compute(model, inputs)
            self.loss = loss.item()
            return loss

        self.trainer._calculate_rewards = calculate_rewards
        self.trainer._compute_loss = compute_loss
        self.trainer.train()
        self.log = {k: v for entry in self.trainer.state.log_history for k, v in entry.items()}

    def row_of(self, text: str) -> int:
        """Where a planted text ended up in the update (TRL shuffles a generation's rows)."""
        wanted = [*self.tokenizer.encode(text), self.tokenizer.eos_token_id]
        lengths = self.inputs["completion_mask"].sum(1).tolist()
        rows = [ids[:n].tolist() for ids, n in zip(self.inputs["completion_ids"], lengths, strict=True)]
        return rows.index(wanted)

    def gradient_norm(self, weights: list[float]) -> float:
        """Norm of the gradient of -sum_i weights_i * A_i * sum_t log p_it, from the model itself."""
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        model.zero_grad()
        inputs = self.inputs
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        start = inputs["prompt_ids"].shape[1] - 1
        logps = torch.log_softmax(logits[:, start:], -1).gather(2, inputs["completion_ids"].unsqueeze(2)).squeeze(2)
        sums = (logps * inputs["completion_mask"]).sum(1)
        (-(torch.tensor(weights) * inputs["advantages"] * sums).sum()).backward()
        return float(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm())


def planted(model: Path) -> list[JudgedReward]:
    """The four rewards with a verifier that fails on the second text."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    judging = Judging(stop_ids=(tokenizer.eos_token_id,), max_new_tokens=LIMIT, judge=planted_judge)
    return build(Rewards(of=SETTINGS), tokenizer=tokenizer, max_new_tokens=LIMIT, judging=judging)  # type: ignore[return-value]


def test_an_error_leaves_every_column_the_mean_and_the_deviation(tiny_model: Path, tmp_path: Path) -> None:
    functions = planted(tiny_model)
    run = Run(tiny_model, tmp_path, functions, reward_weights=[1.0, 0.5, 1.0, 1.0])
    # rows: right and boxed; error; wrong and boxed; no answer. Columns: the four of SETTINGS.
    assert run.rewards[1].isnan().all()
    kept = run.rewards[[0, 2, 3]].tolist()
    assert kept == [[1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, -0.5]]
    sums = torch.tensor([2.5, 0.5, -0.5])  # 1 + 0.5 + 1; 0.5; -0.5
    expected = (sums - sums.mean()) / (sums.std() + 1e-4)
    for text, advantage in zip((TEXTS[0], TEXTS[2], TEXTS[3]), expected.tolist(), strict=True):
        assert run.inputs["advantages"][run.row_of(text)].item() == pytest.approx(advantage, rel=1e-5)
    assert run.inputs["advantages"][run.row_of(TEXTS[1])].item() == 0
    assert run.log["reward"] == pytest.approx(2.5 / 3, rel=1e-5)
    assert run.log["rewards/correctness/mean"] == pytest.approx(1 / 3, rel=1e-5)


def test_one_function_with_a_number_undoes_it(tiny_model: Path, tmp_path: Path) -> None:
    """Why every reward is None for an error: beside a constant reward, TRL counts the failed row as a 0."""

    def constant(completions: list[Any], **_: Any) -> list[float]:
        return [0.0] * len(completions)

    run = Run(tiny_model, tmp_path, [CorrectnessReward(Judging(judge=planted_judge)), constant])
    assert run.rewards[1].isnan().tolist() == [True, False]
    assert run.log["reward"] == pytest.approx(1 / 4)
    assert run.inputs["advantages"][run.row_of(TEXTS[1])].item() < 0


def test_a_judge_that_fails_beside_the_rules_counts_as_a_zero_unless_combined(tiny_model: Path, tmp_path: Path) -> None:
    """TRL sums what is left of a row; our combined reward leaves the row out."""

    def undecided(completions: list[Any], **_: Any) -> list[float | None]:
        return [1.0, None, 1.0, 1.0]

    from dereason.training.rewards.rules import Combined

    rules = CorrectnessReward(Judging(judge=lambda items: [Judgement(Verdict.CORRECT, "4", "planted")] * len(items)))
    apart = Run(tiny_model, tmp_path / "apart", [rules, undecided])
    assert apart.log["reward"] == pytest.approx((2 + 1 + 2 + 2) / 4)
    together = Run(tiny_model, tmp_path / "together", [Combined([rules, undecided], [1.0, 1.0], rules.judging)])
    assert together.rewards[:, 0].isnan().tolist() == [False, True, False, False]
    assert together.log["reward"] == pytest.approx(2)


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo", "bnpo"])
def test_what_trl_still_counts_of_an_error(loss: str, tiny_model: Path, tmp_path: Path) -> None:
    """The advantage is 0, yet the row's tokens (dapo, bnpo) or the row (grpo, dr_grpo) stay in the divisor."""
    run = Run(tiny_model, tmp_path, planted(tiny_model)[:1], loss_type=loss)
    lengths = run.inputs["completion_mask"].sum(1).tolist()
    broken = run.row_of(TEXTS[1])
    assert lengths[broken] == max(lengths)
    assert run.inputs["num_items_in_batch"].item() == sum(lengths)

    def weights(rows: list[int]) -> list[float]:
        tokens = sum(lengths[i] for i in rows)
        of_a_token = {
            "dapo": [1 / tokens] * 4,
            "bnpo": [1 / tokens] * 4,
            "grpo": [1 / (len(rows) * n) for n in lengths],
            "dr_grpo": [1 / (len(rows) * LIMIT)] * 4,
        }
        return of_a_token[loss]

    everyone, without = [0, 1, 2, 3], [i for i in range(4) if i != broken]
    assert run.log["grad_norm"] == pytest.approx(run.gradient_norm(weights(everyone)), rel=1e-3)
    ratio = run.gradient_norm(weights(without)) / run.log["grad_norm"]
    by_tokens = sum(lengths) / (sum(lengths) - lengths[broken])
    assert ratio == pytest.approx(by_tokens if loss in ("dapo", "bnpo") else 4 / 3, rel=1e-3)
    if loss == "dapo":  # on policy every ratio is 1, so the loss itself is -sum_i A_i len_i / tokens
        advantages = run.inputs["advantages"].tolist()
        by_hand = -sum(a * n for a, n in zip(advantages, lengths, strict=True)) / sum(lengths)
        assert run.loss == pytest.approx(by_hand, rel=1e-4)


def test_rewards_run_on_trls_own_completions(tiny_model: Path, tmp_path: Path) -> None:
    """Nothing planted: a random model's text, judged and combined, as a user would."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    reward = combine(Rewards(of=[Correctness(), Overlong(buffer=4, weight=0.5)]), tokenizer=tokenizer, max_new_tokens=6)
    trainer = GRPOTrainer(
        model=str(tiny_model),
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=str(tmp_path),
            max_steps=1,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=6,
            logging_steps=1,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
            save_strategy="no",
        ),
        train_dataset=Dataset.from_list([{"prompt": "2 + 2 =", "answer": "4", "options": None}] * 4),
        processing_class=tokenizer,
    )
    trainer.train()
    log = {k: v for entry in trainer.state.log_history for k, v in entry.items()}
    assert log["rewards/reward/mean"] == pytest.approx(log["reward"])
    parts = log["rewards/correctness/mean"] + 0.5 * log["rewards/overlong/mean"]
    assert log["reward"] == pytest.approx(parts, abs=1e-6)
    assert log["rewards/overlong/mean"] < 0


def fenced(language: str, page: str = "rewards.md") -> list[str]:
    text = (ROOT / "docs" / "guide" / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_guides_trl_example_runs(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = [c for c in fenced("python") if "GRPOTrainer" in c]
    for shown, small in {
        '"Qwen/Qwen2.5-0.5B-Instruct"': repr(str(tiny_model)),
        "limit = 1024": "limit = 24",
        "buffer=256": "buffer=8",
        'output_dir="out"': f"output_dir={str(tmp_path)!r}, max_steps=1, use_cpu=True, bf16=False, report_to=[]",
    }.items():
        assert code.count(shown) == 1
        code = code.replace(shown, small)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, "rewards.md", "exec"), names)
    assert names["trainer"].state.global_step == 1


def test_the_guides_recipe_parses() -> None:
    import yaml

    shown = [Rewards.model_validate(yaml.safe_load(text)["rewards"]) for text in fenced("yaml")]
    assert {r.name for rewards in shown for r in rewards.of} >= {"correctness", "overlong", "judge"}
