"""Log-probabilities of response tokens: the one forward pass that SFT and every RL loss use.

Logits are computed only where a response token is predicted, prompts are run once for the rows that share them
where the model allows it, and nothing is padded that need not be.

Shape legend: B segments of T tokens, N response tokens of a micro-batch, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dereason.lm.local.packing import Batch, Row, Segment, make_batch

if TYPE_CHECKING:
    from torch import Tensor

Entropy = Literal["none", "value", "gradient"]


HEAD_COPIES = 6.0
"""Copies of the logits in float32 that a forward and backward pass holds at its peak."""


def head_bytes(tokens: int, vocabulary: int) -> float:
    """Bytes that the head takes at its peak for the log-probabilities of some tokens."""
    return HEAD_COPIES * tokens * vocabulary * 4


@dataclass(frozen=True)
class TokenScores:
    """What a forward pass says of N response tokens.

    Attributes:
        logp: (N,) log-probability of each token at the temperature asked for.
        entropy: (N,) entropy in nats of the distribution that it was drawn from; None where not asked for.
        hits: (N,) bool, whether the token is the most probable one; None where not asked for.
        router_loss: load-balancing loss of a mixture-of-experts model, a scalar; None where not asked for.
    """

    logp: Tensor
    entropy: Any = None
    hits: Any = None
    router_loss: Any = None


def score_tokens(
    model: Any,
    head: Any,
    batch: Batch,
    *,
    temperature: float = 1.0,
    entropy: Entropy = "none",
    hits: bool = False,
    router: bool = False,
) -> TokenScores:
    """Run one micro-batch.

    Args:
        model: what is called: the model, or the wrapper that a distributed backend put around it.
        head: the module that makes logits of hidden states (``get_output_embeddings()`` of the unwrapped model).
        batch: see :class:`~dereason.lm.local.packing.Batch`.
        temperature: logits are divided by it.
        entropy: whether it is computed, and with gradient.
        hits: whether to compare with the most probable tokens.
        router: whether to ask for the load-balancing loss.
    """
    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": False}
    if batch.visible is not None:
        inputs |= {"attention_mask": _mask(model, batch.visible), "position_ids": batch.position_ids}
    elif batch.input_ids.numel() > batch.tokens and router:
        inputs["attention_mask"] = batch.attention_mask  # the router's balance must not count padding
    # Without a mask attention is plainly causal: what stands after a token, padding too, is never seen.
    if router:
        inputs["output_router_logits"] = True
    with _logits_at(head, batch.predictors):
        out = model(**inputs)
    logits = out.logits
    if logits.shape[:2] == batch.input_ids.shape and logits.shape[:2] != (1, len(batch.predictors)):
        logits = logits.flatten(0, 1)[batch.predictors]  # a model that makes logits without calling its head
    else:
        logits = logits.reshape(len(batch.predictors), -1)
    logp, spread = token_logps(logits, batch.targets, temperature=temperature, entropy=entropy)
    best = logits.detach().argmax(-1) == batch.targets if hits else None
    return TokenScores(logp, spread, best, out.aux_loss if router else None)


def token_logps(
    logits_NV: Tensor, targets_N: Tensor, *, temperature: float = 1.0, entropy: Entropy = "none"
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities (N,) of the targets, and entropies (N,) in nats; half precision is computed in float32."""
    import torch

    logits = logits_NV.float() if logits_NV.dtype in (torch.float16, torch.bfloat16) else logits_NV
    if temperature != 1.0:
        logits = logits / temperature
    total = logits.logsumexp(-1)
    logp = logits.gather(1, targets_N[:, None])[:, 0] - total
    if entropy == "none":
        return logp, None
    with torch.set_grad_enabled(entropy == "gradient" and torch.is_grad_enabled()):
        kept = logits if entropy == "gradient" else logits.detach()
        norm = total if entropy == "gradient" else total.detach()
        spread = norm - (torch.exp(kept - norm[:, None]) * kept).sum(-1)
    return logp, spread


@contextmanager
def _logits_at(head: Any, predictors_N: Tensor) -> Iterator[None]:
    """Let the head see only the hidden states that predict a response token, as (1, N, hidden)."""
    if head is None:
        yield
        return

    def pick(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].flatten(0, 1)[predictors_N][None], *args[1:])

    handle = head.register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()


def _mask(model: Any, visible_BTT: Tensor) -> Tensor:
    """The mask in the form that the model's attention takes: bool for sdpa, a sum for eager."""
    import torch

    if _attention(model) == "sdpa":
        return visible_BTT[:, None]
    bias = torch.zeros(visible_BTT.shape, device=visible_BTT.device)  # float32 whatever is added to it
    return bias.masked_fill_(~visible_BTT, torch.finfo(bias.dtype).min)[:, None]


def _attention(model: Any) -> str | None:
    inner = getattr(model, "module", model)
    return getattr(inner.config.get_text_config(), "_attn_implementation", None)


def attention_pair_cost(model: Any) -> float:
    """What a pair of positions costs in attention, as a share of what a token costs in the other layers.

    Counted in multiplications: 2 · layers · width of the queries, against the parameters outside the embeddings.
    """
    config = model.config.get_text_config()
    layers = int(config.num_hidden_layers)
    heads = int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads) * heads
    embeddings = sum(p.numel() for p in model.get_input_embeddings().parameters())
    rest = sum(p.numel() for p in model.parameters()) - embeddings
    return 2 * layers * width / max(1, rest)


def can_share_prompts(model: Any, head: Any) -> str | None:
    """Why the model cannot run a prompt once for several responses; None where it can, which a small pass checks.

    Args:
        model: the unwrapped model.
        head: its output embeddings.
    """
    import torch

    config = model.config.get_text_config()
    if _attention(model) not in ("sdpa", "eager"):
        return f"its attention is {_attention(model)}, which takes no mask of our own"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        return f"it has layers of the kind {', '.join(sorted(kinds - {'full_attention'}))}"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return "its attention has a sliding window"
    forward = model.get_base_model().forward if hasattr(model, "get_base_model") else model.forward
    if "position_ids" not in inspect.signature(forward).parameters:
        return "it takes no position_ids"
    rows = [Row([1, 2, 3, 4], [5, 6, 7], 0), Row([1, 2, 3, 4], [7, 5], 0)]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            one, each = (
                score_tokens(model, head, make_batch(rows, segments, pad_id=0, device=model.device)).logp
                for segments in ([Segment((0, 1), 9, 5)], [Segment((0,), 7, 3), Segment((1,), 6, 2)])
            )
    except (TypeError, ValueError, RuntimeError) as exc:
        return f"a masked pass failed: {str(exc).splitlines()[0]}"
    finally:
        model.train(training)
    gap = float(((one - each).abs() / (1 + each.abs())).max())  # rounding grows with the number
    exact = model.device.type == "cpu" and model.dtype in (torch.float32, torch.float64)
    limit = 1e-3 if exact else 0.2  # bfloat16, by weights or by autocast, has 8 bits
    return None if gap < limit else f"a masked pass differs from a plain one by {gap:.2g}"
