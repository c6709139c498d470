"""What a model is made of, by its configuration alone: parameters, cache, context, and what a forward pass keeps.

The model is made without storage (torch's ``meta`` device) and run on fake tensors, which have sizes and no content:
any architecture of transformers is counted so, of any size, in seconds. What was found is kept in the user's cache
directory, so that a second look imports neither torch nor transformers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dereason.content import remembered
from dereason.lm import embedded
from dereason.lm.local.adapter import adapter_base
from dereason.lm.local.context import Context, config_of, context_of, local_folder, trained_positions
from dereason.lm.local.room import position_limit

if TYPE_CHECKING:
    from dereason.lm.local.model import ModelSettings

_SHORT, _LONG = 32, 64  # tokens of the two passes that tell what a token keeps from what a pass keeps
_ATTENTION = "dereason_outline"


@dataclass(frozen=True)
class Shape:
    """Sizes of a model. Numbers of parameters, unless said otherwise.

    Attributes:
        positions: tokens that the configuration promises room for; None where there is no end.
        table: size of a learned table of positions; None without one.
        vocabulary: token ids that it makes logits of.
        hidden: width of the hidden states.
        layers: how many there are.
        heads: of queries in a layer.
        width: of all its queries together.
        parameters: all of them, a tied one once.
        embedding: the input embedding.
        head: the output layer, where it has weights of its own; 0 where they are the embedding's.
        linear: weights of linear layers but the output.
        edges: inputs + outputs of those layers, summed: a low-rank adapter of rank r has r times as many.
        cache: elements of keys and values that a token leaves, over all layers.
    """

    positions: int | None
    table: int | None
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    width: int
    parameters: int
    embedding: int
    head: int
    linear: int
    edges: int
    cache: int

    def context(self, settings: ModelSettings) -> Context | None:
        """The room for a text, by settings and sizes."""
        return context_of(settings, self.positions, self.table)


@dataclass(frozen=True)
class Kept:
    """What a forward pass keeps for the backward pass, in bytes; of the layers alone, without logits.

    Attributes:
        fixed: once a pass: weights in another precision.
        token: for each token.
    """

    fixed: float
    token: float


def shape_of(settings: ModelSettings) -> Shape | None:
    """The sizes of a model; None where its configuration is not on this machine, or is of another kind of model."""
    key = _key(settings)
    if key is None:
        return None

    def look() -> dict[str, Any] | None:
        config = config_of(settings)
        try:
            return None if config is None else asdict(_outline(config))
        except Exception:  # no causal language model, or sizes that make none: loading it says which
            return None

    found = remembered(f"shape {sorted(Shape.__dataclass_fields__)} {key}", look)
    return None if found is None else Shape(**found)


def kept_of(
    settings: ModelSettings, *, frozen: str, mixed: bool, rank: int = 0, modules: Any = "all-linear"
) -> Kept | None:
    """What a forward pass of a model keeps for its backward pass; None where that cannot be found out.

    Args:
        settings: of the model.
        frozen: torch's name of the type of its weights.
        mixed: whether it computes in bfloat16 by autocast.
        rank: of a low-rank adapter in whose place the weights stay as they are; 0 trains the weights.
        modules: which layers the adapter is on.
    """
    key = _key(settings)
    if key is None:
        return None

    def look() -> dict[str, Any] | None:
        config = config_of(settings)
        return None if config is None else _traced(config, frozen, mixed, rank, modules)

    found = remembered(f"kept {frozen} {mixed} {rank} {modules} {key}", look)
    return None if found is None else Kept(**found)


def _key(settings: ModelSettings) -> str | None:
    """What decides a model's sizes, as text; None where there is nothing to decide them."""
    if settings.backend == "api":
        return None
    if settings.name == embedded.NAME:
        return None if embedded.gguf_path() is None else embedded.converted_path().name
    if (base := adapter_base(settings)) is not None:
        return _key(base)
    folder = local_folder(settings)
    if folder is None:
        return None if settings.config is None else json.dumps(settings.config, sort_keys=True, default=str)
    try:
        return (folder / "config.json").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _outline(config: Any) -> Shape:
    import torch

    with torch.device("meta"):
        model = _made(config, torch.float32)
    text = config.get_text_config(decoder=True)
    words, out = model.get_input_embeddings(), model.get_output_embeddings()
    weights = {id(p): p.numel() for p in model.parameters()}
    own_head = out is not None and out.weight is not words.weight
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not out]
    return Shape(
        positions=trained_positions(config),
        table=position_limit(model),
        vocabulary=int(text.vocab_size),
        hidden=int(text.hidden_size),
        layers=int(text.num_hidden_layers),
        heads=_heads(text)[0],
        width=_heads(text)[0] * _heads(text)[2],
        parameters=sum(weights.values()),
        embedding=words.weight.numel(),
        head=out.weight.numel() if own_head else 0,
        linear=sum(m.weight.numel() for m in linear),
        edges=sum(m.in_features + m.out_features for m in linear),
        cache=2 * _heads(text)[1] * _heads(text)[2] * int(text.num_hidden_layers),
    )


def _made(config: Any, dtype: Any) -> Any:
    from transformers import AttentionInterface, AutoModelForCausalLM
    from transformers.utils import logging as notices

    notices.set_verbosity_error()
    AttentionInterface.register(_ATTENTION, _attention)
    try:  # to attention that it does not know transformers gives no mask: nothing here has content to make one of
        return AutoModelForCausalLM.from_config(deepcopy(config), dtype=dtype, attn_implementation=_ATTENTION)
    except KeyError:  # models with classes of their own for each kind of attention
        return AutoModelForCausalLM.from_config(deepcopy(config), dtype=dtype)


def _attention(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **more: Any) -> tuple[Any, None]:
    """Causal attention by torch's fused kernel, whose memory every kernel but `eager` has."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    kept = {name: more.get(name) for name in ("scaling", "position_bias")}
    return sdpa_attention_forward(module, query, key, value, None, is_causal=True, **kept)


def _heads(text: Any) -> tuple[int, int, int]:
    """Heads of queries, heads of keys and values, and the size of a head; zeros where there is no attention."""
    heads = int(getattr(text, "num_attention_heads", None) or 0)
    if not heads:
        return 0, 0, 0
    groups = int(getattr(text, "num_key_value_heads", None) or heads)
    return heads, groups, int(getattr(text, "head_dim", None) or text.hidden_size // heads)


def _traced(config: Any, frozen: str, mixed: bool, rank: int, modules: Any) -> dict[str, Any] | None:
    """What passes of two lengths keep, as a line through both; autocast on a CPU stands for that on a GPU."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)  # it says what is caught here
    try:
        with FakeTensorMode():
            model = _made(config, getattr(torch, frozen)).train()
            body = model.get_decoder()
            weights = list(model.parameters()) + _adapted(model, rank, modules)
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                sizes = [_pass(weights, body, length) for length in (_SHORT, _LONG)]
    except Exception:  # a model whose pass depends on what the numbers are, as some mixtures of experts do
        return None
    token = (sizes[1] - sizes[0]) / (_LONG - _SHORT)
    return {"fixed": max(0.0, sizes[0] - token * _SHORT), "token": token}


def _adapted(model: Any, rank: int, modules: Any) -> list[Any]:
    """Freeze a model below low-rank adapters that compute as peft's do; returns the adapters' weights."""
    import torch

    added: list[Any] = []
    if not rank:
        return added
    model.requires_grad_(False)
    for name, layer in list(model.named_modules()):
        chosen = modules == "all-linear" or name.rsplit(".", 1)[-1] in modules
        if isinstance(layer, torch.nn.Linear) and layer is not model.get_output_embeddings() and chosen:
            down = torch.nn.Parameter(torch.empty(rank, layer.in_features))
            up = torch.nn.Parameter(torch.empty(layer.out_features, rank))
            layer.forward = partial(_with_adapter, layer.forward, down, up)
            added += [down, up]
    return added


def _with_adapter(base: Any, down: Any, up: Any, rows: Any) -> Any:
    from torch.nn.functional import linear

    out = base(rows)
    return (out + linear(linear(rows.to(down.dtype), down), up) * 1.0).to(out.dtype)


def _pass(weights: Sequence[Any], body: Any, length: int) -> int:
    """Bytes that a forward pass over some tokens keeps besides the weights themselves."""
    import torch

    own = {p.untyped_storage()._cdata for p in weights}
    kept: dict[int, tuple[int, Any]] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = (storage.nbytes(), tensor)  # held, so that no other takes its number
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        body(input_ids=torch.zeros((1, length), dtype=torch.long), use_cache=False)
    return sum(size for size, _ in kept.values())
