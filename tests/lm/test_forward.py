"""Log-probabilities of a packed pass against plain ones, on several architectures, and their gradients."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from dereason.lm.local import head as head_module
from dereason.lm.local.forward import attention_pair_cost, can_share_prompts, score_tokens
from dereason.lm.local.head import token_logps
from dereason.lm.local.packing import Row, Segment, make_batch, plan_micro_batches

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
    "cohere": {**SMALL, "logit_scale": 0.25},
    "phi": {**SMALL, "tie_word_embeddings": False},  # its head has a bias
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


@pytest.mark.parametrize("block", [2, 512])
@pytest.mark.parametrize("kind", KINDS)
def test_every_row_has_its_own_log_probabilities_and_gradient(
    kind: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of several lengths together, prompts shared where the model allows it: as each row alone, in float64.

    The head runs on all tokens at once, or on two at a time.
    """
    monkeypatch.setattr(head_module, "block_tokens", lambda vocabulary, device: block)
    for attention in ("eager",) if kind == "gemma2" else ("sdpa", "eager"):
        model = model_of(kind, attention)
        head = model.get_output_embeddings()
        if kind == "phi":
            torch.nn.init.normal_(head.bias)
        why = can_share_prompts(model, head)
        assert head_module.behind_head(model, head, torch.tensor([[3, 4]])) is not None
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


class MaskIgnored(LlamaForCausalLM):
    """Attention is causal, whatever it is told."""

    def forward(self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None, **more: Any) -> Any:
        return super().forward(input_ids, position_ids=position_ids, **more)


@pytest.mark.parametrize("spread", [0.02, 0.5])
@pytest.mark.parametrize("way", ["autocast", "weights"])
def test_a_shared_prompt_is_tried_in_float32_and_a_model_that_ignores_the_mask_is_caught(
    spread: float, way: str
) -> None:
    """Weights of every size: those of a fresh model make responses that see each other differ by little."""
    torch.manual_seed(0)
    honest, ignores = (
        kind(LlamaConfig(**SMALL, initializer_range=spread)).eval() for kind in (LlamaForCausalLM, MaskIgnored)
    )
    for model in (honest, ignores):
        if way == "weights":
            model.bfloat16()
        else:  # as accelerate prepares a model on a GPU
            model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    assert can_share_prompts(honest, honest.get_output_embeddings()) is None
    assert "see each other" in str(can_share_prompts(ignores, ignores.get_output_embeddings()))


def test_models_that_cannot_share_prompts_say_why() -> None:
    assert "sliding" in str(can_share_prompts(model_of("gemma2", "eager"), None))
    mamba = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("mamba", vocab_size=60, hidden_size=16, num_hidden_layers=1, state_size=4)
    )
    assert "attention" in str(can_share_prompts(mamba, mamba.get_output_embeddings()))


class Squared(LlamaForCausalLM):
    """What no number of a configuration explains."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = super().forward(*args, **kwargs)
        out.logits = out.logits - 0.1 * out.logits**2
        return out


class HeadNotCalled(LlamaForCausalLM):
    """Logits out of the head's weights, the head itself is not run."""

    def forward(self, input_ids: Any, **kwargs: Any) -> Any:
        out = self.model(input_ids, **kwargs)
        return CausalLMOutputWithPast(logits=out.last_hidden_state @ self.lm_head.weight.T)


@pytest.mark.parametrize("kind", [Squared, HeadNotCalled])
def test_a_model_that_makes_its_logits_in_its_own_way_is_left_to_it(kind: Any) -> None:
    torch.manual_seed(0)
    model = kind(LlamaConfig(**SMALL)).double().eval()
    assert head_module.behind_head(model, model.get_output_embeddings(), torch.tensor([[3, 4]])) is None
    found = packed(model, share=True, temperature=0.7)
    for i, row in enumerate(ROWS):
        torch.testing.assert_close(found[i], plain(model, row, 0.7), rtol=1e-5, atol=1e-6)


def peak_bytes(work: Callable[[], object], trace: Path) -> int:
    """Most bytes of tensors at once while something runs, beyond those before: torch's profiler counts them."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    seen.export_chrome_trace(str(trace))
    events = [e for e in json.loads(trace.read_text())["traceEvents"] if e["name"] == "[memory]"]
    totals = [(e["ts"], e["args"]["Total Allocated"], e["args"]["Bytes"]) for e in events]
    first = min(totals)
    return max(total for _, total, _ in totals) - (first[1] - first[2])


def test_no_logits_of_all_tokens_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Forward and backward of N tokens, entropy with gradient: less than N x V numbers, where plain torch takes five.

    The vocabulary is large beside the model, so that logits are what memory goes to.
    """
    tokens, vocabulary = 512, 8000
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **{**SMALL, "vocab_size": vocabulary}))
    head = model.get_output_embeddings()
    rows = [Row([1, 2], [*range(3, 3 + tokens // 4)], -1) for _ in range(4)]
    segments = [Segment((i,), 2 + tokens // 4, tokens // 4) for i in range(4)]
    batch = make_batch(rows, segments, pad_id=0)

    def step() -> None:
        scores = score_tokens(model, head, batch, temperature=0.9, entropy="gradient", hits=True)
        (scores.logp.sum() + scores.entropy.sum()).backward()

    step()  # gradients are there, and the model is known
    whole = 4 * tokens * vocabulary
    monkeypatch.setattr(head_module, "block_tokens", lambda vocabulary, device: tokens // 16)
    assert peak_bytes(step, tmp_path / "blocks.json") < whole / 2
    monkeypatch.setattr(head_module, "block_tokens", lambda vocabulary, device: tokens)
    assert whole < peak_bytes(step, tmp_path / "one.json") < 3.5 * whole


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
