"""A model in true float32 for a moment: where two ways of computing are compared, rounding must not decide.

In 16 bits two right ways differ by several per cent, as much as a wrong one may: a bound that lets the first pass lets
the second pass too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def in_float32(model: Any) -> Iterator[bool]:
    """Inside, the model computes in float32 (float64 where its weights are): without autocast, without TF32.

    Weights of 16 bits are raised, those of a layer only while it runs, so that it takes memory for one layer and for
    what stands outside the layers. They come back bit for bit.

    Yields:
        False where something stays as it was: quantised weights compute as they do.
    """
    import torch

    precision = torch.get_float32_matmul_precision()
    forward = vars(model).pop("forward", None)  # accelerate's, which opens autocast of its own
    attention = attention_name(model)
    layers = _layers(model)
    inside = {id(m) for layer in layers for m in layer.modules()}
    with ExitStack() as undo:
        undo.callback(torch.set_float32_matmul_precision, precision)
        torch.set_float32_matmul_precision("highest")
        if forward is not None:
            undo.callback(setattr, model, "forward", forward)
        if "flash" in (attention or ""):  # which has no float32
            undo.callback(model.set_attn_implementation, attention)
            model.set_attn_implementation("sdpa")
        undo.enter_context(torch.autocast(model.device.type, enabled=False))
        undo.callback(_raised([m for m in model.modules() if id(m) not in inside]))
        for layer in layers:
            undo.callback(_raise_while_running(layer))
        yield all(p.is_floating_point() and p.element_size() > 1 for p in model.parameters())


def attention_name(model: Any) -> str | None:
    """What transformers calls the attention that a model computes with; a wrapper may be around the model."""
    inner = getattr(model, "module", model)
    return getattr(inner.config.get_text_config(), "_attn_implementation", None)


def _layers(model: Any) -> list[Any]:
    """The members of the outermost lists of modules."""
    import torch

    found: list[Any] = []
    inside: set[int] = set()
    for module in model.modules():  # a module comes before what it holds
        if isinstance(module, torch.nn.ModuleList) and id(module) not in inside:
            found += list(module)
            inside |= {id(m) for m in module.modules()}
    return found


def _raised(modules: list[Any]) -> Any:
    """Raise what the modules themselves hold in 16 bits; returns what undoes it."""
    import torch

    held = []
    for module in modules:
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.dtype in (torch.float16, torch.bfloat16):
                held.append((tensor, tensor.data))
                tensor.data = tensor.data.float()

    def undo() -> None:
        for tensor, data in held:
            tensor.data = data

    return undo


def _raise_while_running(layer: Any) -> Any:
    """Hooks that raise a layer's weights before it runs and put them back after; returns what removes them."""
    undo: list[Any] = []

    def before(module: Any, args: Any) -> None:
        undo.append(_raised(list(module.modules())))

    def after(module: Any, args: Any, output: Any) -> None:
        undo.pop()()

    hooks = [layer.register_forward_pre_hook(before), layer.register_forward_hook(after, always_call=True)]

    def remove() -> None:
        for hook in hooks:
            hook.remove()

    return remove
