"""Log-probabilities out of hidden states, a block of tokens at a time: the logits of all tokens never exist at once.

N tokens have N x V logits, and with a vocabulary of 150,000 these, their gradient and what lies between outweigh model
and moments together. So the head is run on blocks of tokens inside the model's own forward pass (where a sharded
model's weights are whole and autocast is the model's), each block's log-probabilities are kept and its logits are not:
backward makes them again. Where one block holds all of a pass's tokens, its logits are kept and nothing is run twice.

It is the model's head that runs, as a module: with its bias, its adapter, its hooks. What the model does to logits
behind its head (a soft cap, a scale) is found out once, by giving it numbers in place of logits
(:func:`behind_head`); a model that does what no candidate does makes its logits itself.

Shape legend: N tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers.integrations import is_deepspeed_zero3_enabled

from dereason.lm.local.footprint import BLOCK_CPU, BLOCK_GPU

if TYPE_CHECKING:
    from dereason.lm.local.forward import Entropy

Post = Callable[[Tensor], Tensor]
Scored = tuple[Tensor, Tensor | None, Tensor | None]
"""Log-probability, entropy and hit of each token, as in :class:`~dereason.lm.local.forward.TokenScores`."""

_known: WeakKeyDictionary[Any, Post | None] = WeakKeyDictionary()


def block_tokens(vocabulary: int, device: Any) -> int:
    """Tokens of a block: their logits in float32 are a 64th of a GPU's memory, or 128 MiB elsewhere."""
    numbers = BLOCK_CPU
    if device.type == "cuda":
        numbers = int(torch.cuda.get_device_properties(device).total_memory * BLOCK_GPU) // 4
    return max(1, numbers // max(1, vocabulary))


def token_logps(
    logits_NV: Tensor, targets_N: Tensor, *, temperature: float = 1.0, entropy: Entropy = "none"
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities (N,) of the targets, and entropies (N,) in nats; half precision is computed in float32.

    Besides the logits and their gradient, nothing of their size is made.
    """
    logp, spread = _TokenLogps.apply(logits_NV, targets_N, temperature, entropy)
    return logp, None if entropy == "none" else spread


class _TokenLogps(torch.autograd.Function):
    """``z_y - log Σ exp z`` and ``log Σ exp z - Σ p z`` of z = logits / temperature, with their gradients by hand::

    d logp / dz = onehot(y) - p        d entropy / dz = -p (log p + entropy)
    """

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor, temperature: float, entropy: Entropy) -> Any:
        dtype = torch.float64 if logits_NV.dtype == torch.float64 else torch.float32
        logp, total, spread = (logits_NV.new_zeros(len(targets_N), dtype=dtype) for _ in range(3))
        for rows in _rows(logits_NV):
            z = _scaled(logits_NV[rows], temperature)
            total[rows] = z.logsumexp(-1)
            logp[rows] = z.gather(1, targets_N[rows, None])[:, 0] - total[rows]
            if entropy != "none":
                spread[rows] = total[rows] - (torch.exp(z - total[rows, None]).mul_(z)).sum(-1)
        ctx.save_for_backward(logits_NV, targets_N, total, spread)
        ctx.temperature, ctx.entropy = temperature, entropy
        if entropy != "gradient":
            ctx.mark_non_differentiable(spread)
        return logp, spread

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, logp_N: Tensor, spread_N: Tensor) -> Any:
        logits_NV, targets_N, total, spread = ctx.saved_tensors
        grad_NV = torch.empty_like(logits_NV)
        for rows in _rows(logits_NV):
            z = _scaled(logits_NV[rows], ctx.temperature) - total[rows, None]  # log p
            if ctx.entropy == "gradient":
                p = z.exp()
                z.add_(spread[rows, None]).mul_(spread_N[rows, None]).add_(logp_N[rows, None]).neg_().mul_(p)
            else:
                z.exp_().mul_(-logp_N[rows, None])
            z.scatter_add_(1, targets_N[rows, None], logp_N[rows, None])
            grad_NV[rows] = z if ctx.temperature == 1.0 else z.div_(ctx.temperature)
        return grad_NV, None, None, None


def _rows(logits_NV: Tensor) -> Iterator[slice]:
    """The rows in pieces, so that what is computed of them stays small beside them."""
    size = max(1, min(block_tokens(logits_NV.size(1), logits_NV.device), -(-len(logits_NV) // 4)))
    for start in range(0, len(logits_NV), size):
        yield slice(start, start + size)


def _scaled(logits_NV: Tensor, temperature: float) -> Tensor:
    z = logits_NV.float() if logits_NV.dtype in (torch.float16, torch.bfloat16) else logits_NV
    return z if temperature == 1.0 else z / temperature


# -- behind the head -----------------------------------------------------------------------------------------------


def behind_head(model: Any, head: Any, input_ids: Tensor) -> Post | None:
    """What a model does to each logit that its head makes; None where that is no function of the one number known here.

    The first call for a head runs two tokens, in which the head's output is replaced by numbers from -60 to 60, and
    compares what the model makes of them with: nothing; times, divided by, or softly capped at a number that stands in
    its configuration. Every process of a sharded model calls this at the same moment.

    Args:
        model: what is called: the model, or the wrapper around it.
        head: ``get_output_embeddings()`` of the unwrapped model, or None.
        input_ids: (B, T) of any text.
    """
    if head is None or is_deepspeed_zero3_enabled():  # ZeRO-3 frees the head's weights before backward asks for them
        return None
    if head not in _known:
        _known[head] = _examine(model, head, input_ids[:1, :2])
    return _known[head]


def _examine(model: Any, head: Any, input_ids: Tensor) -> Post | None:
    shown: list[Tensor] = []

    def replace(module: Any, args: Any, output: Any) -> Any:
        ramp = torch.linspace(-60.0, 60.0, output.numel(), device=output.device).to(output.dtype)
        shown.append(ramp.view(output.shape))
        return shown[-1]

    hook = head.register_forward_hook(replace)
    devices = [input_ids.device] if input_ids.device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices):  # dropout must not take training's random numbers
            made = model(input_ids=input_ids, use_cache=False).logits
    finally:
        hook.remove()
    if len(shown) != 1 or shown[0].dim() != 3 or made.shape != shown[0].shape:
        return None
    eps = max(torch.finfo(x.dtype).eps for x in (shown[0], made))
    made = made.double()
    bound = 4 * eps * (1 + made.abs())
    for post in _candidates(unwrapped(model).config.get_text_config()):
        if bool(((post(shown[0]).double() - made).abs() <= bound).all()):
            return post
    return None


def _candidates(config: Any) -> Iterator[Post]:
    yield _unchanged
    numbers = {float(v) for v in config.to_dict().values() if isinstance(v, int | float) and 0 < v < 1e6}
    for number in sorted(numbers - {1.0}):
        yield partial(_times, factor=number)
        yield partial(_over, divisor=number)
        yield partial(_capped, cap=number)


def _unchanged(logits: Tensor) -> Tensor:
    return logits


def _times(logits: Tensor, factor: float) -> Tensor:
    return logits * factor


def _over(logits: Tensor, divisor: float) -> Tensor:
    return logits / divisor


def _capped(logits: Tensor, cap: float) -> Tensor:
    return torch.tanh(logits / cap) * cap


def unwrapped(model: Any) -> Any:
    """The model inside the wrapper that a distributed backend put around it."""
    return getattr(model, "module", model)


# -- blocks --------------------------------------------------------------------------------------------------------


def run_scored(
    model: Any,
    head: Any,
    predictors_N: Tensor,
    targets_N: Tensor,
    inputs: dict[str, Any],
    *,
    temperature: float = 1.0,
    entropy: Entropy = "none",
    hits: bool = False,
) -> tuple[Scored, Any]:
    """A model's forward pass that ends in log-probabilities.

    Args:
        model: what is called: the model, or the wrapper around it.
        head: ``get_output_embeddings()`` of the unwrapped model, or None.
        predictors_N: flat positions b * T + t whose output predicts each target.
        targets_N: token ids.
        inputs: what the model is called with, ``input_ids`` among it.
        temperature: logits are divided by it.
        entropy: whether it is computed, and with gradient.
        hits: whether to compare with the most probable tokens.

    Returns:
        the targets' log-probabilities, entropies and hits; the model's output, whose logits are of no use.
    """
    post = behind_head(model, head, inputs["input_ids"])
    score = partial(_score, temperature=temperature, entropy=entropy, hits=hits)
    if post is None:
        with _logits_at(head, predictors_N):
            out = model(**inputs)
        logits = out.logits
        if logits.shape[:2] == inputs["input_ids"].shape and logits.shape[:2] != (1, len(predictors_N)):
            logits = logits.flatten(0, 1)[predictors_N]  # it makes logits without calling its head
        return score(logits.reshape(len(predictors_N), -1), targets_N), out
    blocks = _Blocks(post, predictors_N, targets_N, score)
    hooks = [
        head.register_forward_pre_hook(blocks.run),
        # before those of a sharded model, which look at what goes out
        unwrapped(model).register_forward_hook(blocks.tie, prepend=True),
    ]
    try:
        out = model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    logp, spread, best = blocks.scored
    if logp.requires_grad:
        logp = logp + out.logits.to(logp.dtype)
    return (logp, spread, best), out


class _Blocks:
    """The hooks of one forward pass: before the head runs, it is run on the blocks, and then on no token at all."""

    def __init__(self, post: Post, predictors_N: Tensor, targets_N: Tensor, score: Any) -> None:
        self.post, self.predictors, self.targets, self.score = post, predictors_N, targets_N, score
        self.scored: tuple[Any, Any, Any]

    def run(self, head: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The blocks. Its ``forward`` is called: a sharded module's hooks would free its weights after the first."""
        hidden = args[0].flatten(0, -2)[self.predictors]
        nothing = hidden[None, :0]
        block = partial(self._block, head.forward)
        count = -(-len(hidden) // block_tokens(head.forward(nothing).size(-1), hidden.device))
        if count > 1 and torch.is_grad_enabled():
            block = partial(checkpoint, block, use_reentrant=False)
        parts = [block(h, t) for h, t in zip(hidden.chunk(count), self.targets.chunk(count), strict=True)]
        logp, spread, best = (None if part[0] is None else torch.cat(part) for part in zip(*parts, strict=True))
        self.scored = (logp, spread, best)
        return (nothing, *args[1:])

    def _block(self, forward: Any, hidden: Tensor, targets: Tensor) -> Scored:
        return self.score(self.post(forward(hidden[None])).flatten(0, 1), targets)

    def tie(self, module: Any, args: Any, output: Any) -> Any:
        """After the model: zeros that hang on the log-probabilities go out in place of logits.

        DDP and FSDP look for what backward will reach in what a module returns, the head too.
        """
        logp = self.scored[0]
        zeros = torch.where(torch.ones_like(logp, dtype=torch.bool), torch.zeros_like(logp), logp)
        output.logits = zeros + output.logits.sum() if torch.distributed.is_initialized() else zeros
        return output


def _score(logits_NV: Tensor, targets_N: Tensor, *, temperature: float, entropy: Entropy, hits: bool) -> Scored:
    logp, spread = token_logps(logits_NV, targets_N, temperature=temperature, entropy=entropy)
    return logp, spread, logits_NV.detach().argmax(-1) == targets_N if hits else None


@contextmanager
def _logits_at(head: Any, predictors_N: Tensor) -> Iterator[None]:
    """Let the head see only the hidden states that predict a response token, as (1, N, hidden)."""
    if head is None:
        yield
        return

    def pick(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].flatten(0, -2)[predictors_N][None], *args[1:])

    handle = head.register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()
