"""Rotary positions that depend on the longest row of a pass: every row is what it is alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Phi3Config, Phi3ForCausalLM

from dereason.errors import DereasonError
from dereason.lm.local.engine import decode
from dereason.lm.local.forward import score_tokens
from dereason.lm.local.packing import Row, make_batch, plan_micro_batches
from dereason.lm.local.rope import rope_edge

EDGE = 12
PROMPTS = [[7, 8, 9], [5] * 9, [3] * 15, [6, 4]]


@pytest.fixture(scope="module")
def longrope() -> Any:
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,
        pad_token_id=0,
        original_max_position_embeddings=EDGE,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "short_factor": [1.0] * 4,
            "long_factor": [1.0, 2.0, 4.0, 8.0],
            "original_max_position_embeddings": EDGE,
        },
    )
    return Phi3ForCausalLM(config).double().eval()


def alone(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(input_ids=torch.tensor([ids])).logits[0])


def test_the_premise_that_a_long_neighbour_changes_a_row(longrope: Any) -> None:
    with torch.no_grad():
        both = longrope(input_ids=torch.tensor([PROMPTS[0] + [0] * 12, PROMPTS[2]])).logits[0, 2]
    assert not torch.allclose(both, alone(longrope, PROMPTS[0])[-1])


def test_what_is_decoded_does_not_depend_on_the_longest_neighbour(longrope: Any) -> None:
    """Rows that stay below the edge, cross it, and begin beyond it, together; each against ``generate`` alone."""
    how: dict[str, Any] = {"temperature": 0.0, "stop_ids": [], "pad_id": 0, "seed": 0}
    limits = [[4], [9], [5], [2]]
    together = decode(longrope, PROMPTS, 1, max_new_tokens=limits, batch_size=4, **how)
    for prompt, (limit,), (sample,) in zip(PROMPTS, limits, together, strict=True):
        ids = torch.tensor([prompt])
        plain = longrope.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=limit, eos_token_id=None
        )
        assert sample.ids == plain[0, len(prompt) :].tolist()
    # whether a sample is drawn with others or not, at any temperature
    drawn = decode(longrope, PROMPTS, 2, max_new_tokens=8, batch_size=8, **how | {"temperature": 1.0})
    for k, prompt in enumerate(PROMPTS):
        (one,) = decode(longrope, [prompt], 2, max_new_tokens=8, batch_size=8, **how | {"temperature": 1.0})
        assert [s.ids for s in one] == [s.ids for s in drawn[k]]


def test_rows_of_a_step_are_what_they_are_alone(longrope: Any) -> None:
    rows = [Row(prompt, [1, 2, 3, 4], k) for k, prompt in enumerate(PROMPTS)]
    edge = rope_edge(longrope, 19)
    assert edge == EDGE
    plan = plan_micro_batches(rows, range(4), micro_batch=4, pair_cost=None, edge=edge)
    for segments in plan:
        batch = make_batch(rows, segments, pad_id=0, device=longrope.device)
        with torch.no_grad():
            found = score_tokens(longrope, longrope.get_output_embeddings(), batch).logp.split(list(batch.lengths))
        for i, logp in zip(batch.rows, found, strict=True):
            row = rows[i]
            plain = alone(longrope, [*row.prompt, *row.response])[len(row.prompt) - 1 : -1].log_softmax(-1)
            torch.testing.assert_close(logp, plain[range(4), list(row.response)], rtol=1e-9, atol=1e-9)
    assert sorted(i for segments in plan for s in segments for i in s.rows) == [0, 1, 2, 3]
    assert rope_edge(longrope, EDGE) is None


def test_positions_that_remember_are_refused_beyond_their_edge(longrope: Any) -> None:
    config = Phi3Config(**longrope.config.to_dict() | {"max_position_embeddings": 16})
    config.rope_parameters = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    model = AutoModelForCausalLM.from_config(config)
    assert rope_edge(model, 16) is None
    with pytest.raises(DereasonError, match="type dynamic, which beyond 16 tokens depend on what the model was shown"):
        decode(model, [[1]], 1, temperature=0, max_new_tokens=16, stop_ids=[], pad_id=0, seed=0, batch_size=1)
