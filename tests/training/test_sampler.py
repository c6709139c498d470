"""What the loss makes of the sampler's probabilities, of the reference's precision, and of problems with one text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM

from dereason.lm.local.model import ModelSettings
from dereason.lm.local.sampling import filtered_logps
from dereason.lm.prompts import Prompt
from dereason.problems.schema import frame
from dereason.training import policy, trainer
from dereason.training.phase import logged_metrics
from dereason.training.rl import RL, RLOptimiser, run_rl
from dereason.training.rollouts import rollout_table

PROMPT = Prompt(suffix="Say it.")


def run(folder: Path, model: ModelSettings, questions: list[str], **settings: Any) -> list[dict[str, float]]:
    pool = frame(
        "problem",
        [{"id": f"p{i}", "question": q, "answer": "1", "domain": "d", "source": "t"} for i, q in enumerate(questions)],
    )
    phase = RL(
        steps=1,
        prompts_per_generation=len(questions),
        group_size=4,
        max_new_tokens=6,
        optimiser=RLOptimiser(learning_rate=1e-9, micro_batch=4),
        **settings,
    )
    run_rl(model, PROMPT, pool, phase, identity="t", out=folder / "model", work=folder, seed=1)
    return logged_metrics(folder)


@pytest.mark.parametrize("rollouts", ["engine", "transformers"])
def test_filtered_rollouts_are_weighed_by_the_share_that_was_left(
    rollouts: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each token's weight is the policy's probability of what the filters left before it, by a plain forward pass."""
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    plain = policy.sampler_weights

    def recorded(old: Any, said: Any, *, cap: float) -> Any:
        seen.append((old, said, plain(old, said, cap=cap)))
        return seen[-1][2]

    monkeypatch.setattr(policy, "sampler_weights", recorded)
    monkeypatch.setattr(policy, "clipped_policy_loss", lambda ratio, *_, **__: (ratio, ratio.detach() > 1))
    groups: list[Any] = []
    make = trainer.make_update
    monkeypatch.setattr(trainer, "make_update", lambda of, *args, **kw: groups.extend(of) or make(of, *args, **kw))
    model = ModelSettings(name=str(tiny_model), device="cpu")
    # a KL term runs every row, whatever its reward
    (line,) = run(tmp_path, model, ["One?"], rollouts=rollouts, temperature=0.8, top_k=5, top_p=0.9, kl=1e-6)
    old, said, weights = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert not said.isnan().any()
    assert line["sampler_gap"] == pytest.approx(float((said - old).abs().mean()), rel=1e-4)
    weights_of = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    (group,) = groups
    shares = []
    filters = RL(top_k=5, top_p=0.9)
    for response in group.responses:
        with torch.no_grad():
            logits = weights_of(torch.tensor([[*group.prompt, *response]])).logits[0, len(group.prompt) - 1 : -1]
        tokens = torch.tensor(response)
        whole = torch.log_softmax(logits / 0.8, -1).gather(1, tokens[:, None])[:, 0]
        shares.append((whole - filtered_logps(logits, tokens, 0.8, filters)).exp())
    assert sorted(weights.tolist()) == pytest.approx(sorted(torch.cat(shares).tolist()), abs=1e-4)
    assert 0 < float(weights.min()) < 0.9
    assert float(weights.max()) < 1 + 1e-4


def test_the_reference_is_as_precise_as_the_policy_and_twins_have_rollouts_of_their_own(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Before the first update policy and reference are one model, whatever type it has outside training."""
    model = ModelSettings(name=str(tiny_model), dtype="bfloat16", device="cpu")
    (line,) = run(tmp_path, model, ["One?", "Two?", "One?"], kl=0.1)
    assert line["kl"] == 0
    drawn = rollout_table(tmp_path).group_by("problem_id", maintain_order=True).agg(pl.col("response"))
    groups = dict(drawn.iter_rows())
    assert not set(groups["p0"]) & set(groups["p2"]), "two problems with one text"
