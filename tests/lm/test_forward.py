"""Log-probabilities of a packed pass against plain ones, on several architectures, and their gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from dereason.lm.local.forward import attention_pair_cost, can_share_prompts, score_tokens, token_logps
from dereason.lm.local.packing import Row, make_batch, plan_micro_batches

SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
}
KINDS: dict[str, dict[str, Any]] = {
    "llama": SMALL,
    "qwen3": SMALL,
    "granite": {**SMALL, "logits_scaling": 3.0},  # scales logits after its head
    "gpt2": {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "pad_token_id": 0},
    "gemma2": {**SMALL, "sliding_window": 4, "final_logit_softcapping": 2.0},
}
ROWS = [
    Row([3, 4, 5, 6], [7, 8, 9], 0),
    Row([3, 4, 5, 6], [10], 0),
    Row([3, 4, 5, 6], [11, 12, 13, 14, 15], 0),
    Row([20, 21], [22, 23], 1),
    Row([30, 31, 32], [33, 34, 35], 2),
]


def model_of(kind: str, attention: str = "sdpa") -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **KINDS[kind])
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).double().eval()


def plain(model: Any, row: Row, temperature: float) -> torch.Tensor:
    whole = torch.tensor([[*row.prompt, *row.response]])
    logp = (model(input_ids=whole).logits[0] / temperature).log_softmax(-1)
    start = len(row.prompt)
    return torch.stack([logp[t - 1, whole[0, t]] for t in range(start, whole.size(1))])


def packed(model: Any, share: bool, temperature: float = 1.0) -> dict[int, torch.Tensor]:
    found: dict[int, torch.Tensor] = {}
    for segments in plan_micro_batches(ROWS, range(5), micro_batch=3, pair_cost=0.0 if share else None):
        batch = make_batch(ROWS, segments, pad_id=0)
        scores = score_tokens(model, model.get_output_embeddings(), batch, temperature=temperature)
        found.update(zip(batch.rows, scores.logp.split(list(batch.lengths)), strict=True))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_has_its_own_log_probabilities_and_gradient(kind: str) -> None:
    """Rows of several lengths together, prompts shared where the model allows it: as each row alone, in float64."""
    for attention in ("eager",) if kind == "gemma2" else ("sdpa", "eager"):
        model = model_of(kind, attention)
        why = can_share_prompts(model, model.get_output_embeddings())
        assert (why is not None) == (kind == "gemma2"), why
        alone = [plain(model, row, 0.7) for row in ROWS]
        sum(value.sum() for value in alone).backward()
        want = {name: p.grad.clone() for name, p in model.named_parameters()}
        for share in (False, True) if why is None else (False,):
            model.zero_grad()
            found = packed(model, share, 0.7)
            for i, value in enumerate(alone):
                torch.testing.assert_close(found[i], value, rtol=1e-5, atol=1e-6)  # softmax and norms are float32
            sum(value.sum() for value in found.values()).backward()
            for name, p in model.named_parameters():
                torch.testing.assert_close(p.grad, want[name], rtol=1e-4, atol=2e-6)


def test_models_that_cannot_share_prompts_say_why() -> None:
    assert "sliding" in str(can_share_prompts(model_of("gemma2", "eager"), None))
    mamba = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("mamba", vocab_size=60, hidden_size=16, num_hidden_layers=1, state_size=4)
    )
    assert "attention" in str(can_share_prompts(mamba, mamba.get_output_embeddings()))


def test_logits_are_made_only_where_a_response_token_is_predicted() -> None:
    model = model_of("llama")
    head = model.get_output_embeddings()
    shapes: list[tuple[int, ...]] = []
    head.register_forward_hook(lambda module, args, out: shapes.append(tuple(out.shape)))
    packed(model, share=True)
    assert sum(shape[0] * shape[1] for shape in shapes) == sum(len(row.response) for row in ROWS)


def test_entropy_and_hits_by_hand() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 3, 6, 2, 2])
    logp, entropy = token_logps(logits, targets, temperature=0.5, entropy="gradient")
    full = (logits / 0.5).log_softmax(-1)
    torch.testing.assert_close(logp, full[range(5), targets])
    want = -(full.exp() * full).sum(-1)
    torch.testing.assert_close(entropy, want)
    assert entropy is not None
    grads = [torch.autograd.grad(value.sum(), logits, retain_graph=True)[0] for value in (entropy, want)]
    torch.testing.assert_close(*grads)
    assert not token_logps(logits, targets, entropy="value")[1].requires_grad  # type: ignore[union-attr]


def test_pair_cost_is_attention_against_the_rest() -> None:
    model = model_of("llama")
    rest = sum(p.numel() for p in model.parameters()) - 60 * 32
    assert attention_pair_cost(model) == pytest.approx(2 * 2 * 32 / rest)
