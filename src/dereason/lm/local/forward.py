"""Log-probabilities of response tokens: the one forward pass that SFT and every RL loss use.

Logits are computed only where a response token is predicted, prompts are run once for the rows that share them
where the model allows it, and nothing is padded that need not be.

Shape legend: B segments of T tokens, N response tokens of a micro-batch, V vocabulary.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from dereason.lm.local.exact import attention_name, in_float32
from dereason.lm.local.packing import Batch, Row, Segment, make_batch

if TYPE_CHECKING:
    from torch import Tensor

Entropy = Literal["none", "value", "gradient"]


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
    from dereason.lm.local.head import run_scored

    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": False}
    if batch.visible is not None:
        inputs |= {"attention_mask": _mask(model, batch.visible), "position_ids": batch.position_ids}
    elif batch.input_ids.numel() > batch.tokens and router:
        inputs["attention_mask"] = batch.attention_mask  # the router's balance must not count padding
    # Without a mask attention is plainly causal: what stands after a token, padding too, is never seen.
    if router:
        inputs["output_router_logits"] = True
    (logp, spread, best), out = run_scored(
        model, head, batch.predictors, batch.targets, inputs, temperature=temperature, entropy=entropy, hits=hits
    )
    return TokenScores(logp, spread, best, out.aux_loss if router else None)


def _mask(model: Any, visible_BTT: Tensor) -> Tensor:
    """The mask in the form that the model's attention takes: bool for sdpa, a sum for eager."""
    import torch

    if attention_name(model) == "sdpa":
        return visible_BTT[:, None]
    bias = torch.zeros(visible_BTT.shape, device=visible_BTT.device)  # float32 whatever is added to it
    return bias.masked_fill_(~visible_BTT, torch.finfo(bias.dtype).min)[:, None]


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
    if attention_name(model) not in ("sdpa", "eager"):
        return f"its attention is {attention_name(model)}, which takes no mask of our own"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        return f"it has layers of the kind {', '.join(sorted(kinds - {'full_attention'}))}"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return "its attention has a sliding window"
    forward = model.get_base_model().forward if hasattr(model, "get_base_model") else model.forward
    if "position_ids" not in inspect.signature(forward).parameters:
        return "it takes no position_ids"
    rows = [Row([1, 2, 3, 4], [5, 6, 7], 0), Row([1, 2, 3, 4], [7, 5], 0)]
    shared = make_batch(rows, [Segment((0, 1), 9, 5)], pad_id=0, device=model.device)
    apart = make_batch(rows, [Segment((0,), 7, 3), Segment((1,), 6, 2)], pad_id=0, device=model.device)
    # the second response sees the first: what a model that ignores the mask computes
    unmasked = replace(shared, visible=torch.ones_like(shared.visible).tril())
    training = model.training
    model.eval()
    types: set[Any] = set()
    hook = None if head is None else head.register_forward_pre_hook(lambda _, args: types.add(args[0].dtype))
    try:
        with torch.no_grad(), in_float32(model) as exact:
            each, one, wrong = (score_tokens(model, head, batch).logp for batch in (apart, shared, unmasked))
    except (TypeError, ValueError, RuntimeError) as exc:
        return f"a masked pass failed: {str(exc).splitlines()[0]}"
    finally:
        model.train(training)
        if hook is not None:
            hook.remove()
    gap, contaminated = (float(((x - each).abs() / (1 + each.abs())).max()) for x in (one, wrong))
    if not gap < contaminated / 10:
        return "in a masked pass responses see each other"
    # quantised weights compute in 16 bits whatever they are asked, and so do those that FSDP2 gathers
    limit = 1e-3 if exact and types <= {torch.float32, torch.float64} else 0.2
    return None if gap < limit else f"a masked pass differs from a plain one by {gap:.2g}"
