"""Linear layers with their weights laid out for oneDNN while tokens are decoded on a CPU.

A step of decoding multiplies a few dozen rows with every weight matrix once. MKL rearranges the matrix in each call,
which at that height costs as much as the product. oneDNN takes a matrix that was rearranged beforehand: on 2 cores,
64 rows and the embedded model, 99 ms a step in place of 167. The sums are float32 as before, in another order.

torch reaches these kernels when it compiles a frozen model; here they are called directly. The price is a second copy
of the linear layers' weights, which is made anew for each call of the engine: training changes weights in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from dereason.memory import available_bytes

_MIN_WEIGHTS = 1 << 14  # smaller layers gain nothing
_ROWS = 64  # the height that the layout is tuned for; any height runs


class PackedLinears:
    """The rearranged weights of a model's linear layers; none where it does not pay or cannot be done."""

    def __init__(self, model: Any, tokens: int) -> None:
        """Rearrange.

        Args:
            model: stays as it is.
            tokens: about how many tokens will be run; rearranging costs as much as a few dozen.
        """
        import torch

        self._forwards: list[tuple[Any, Callable[[Any], Any]]] = []
        if tokens < 512 or model.device.type != "cpu" or not torch.backends.mkldnn.is_available():
            return
        layers = [
            m
            for m in model.modules()
            # a forward of the instance's own is somebody's hook, a parametrisation is another class
            if type(m) is torch.nn.Linear
            and "forward" not in vars(m)
            and m.weight.dtype == torch.float32
            and m.weight.device.type == "cpu"
            and m.weight.numel() >= _MIN_WEIGHTS
        ]
        if 4 * sum(m.weight.numel() for m in layers) > available_bytes() / 2:
            return
        with torch.inference_mode():
            for together in _siblings(model, layers):
                product = _Product(together)
                self._forwards += [(layer, partial(product.part, k)) for k, layer in enumerate(together)]

    @contextmanager
    def active(self) -> Iterator[None]:
        """The model's linear layers run on the rearranged weights inside this context."""
        try:
            for layer, forward in self._forwards:
                layer.forward = forward
            yield
        finally:
            for layer, _ in self._forwards:
                vars(layer).pop("forward", None)


def _siblings(model: Any, layers: list[Any]) -> list[list[Any]]:
    """The layers, those together that by their names are called one after the other with one input."""
    groups: list[list[Any]] = []
    left = set(layers)
    for parent in model.modules():
        for names in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
            found: list[Any] = [getattr(parent, name, None) for name in names]
            if left.issuperset(found) and len({(m.in_features, m.bias is None) for m in found}) == 1:
                groups.append(found)
                left.difference_update(found)
    return groups + [[layer] for layer in layers if layer in left]


class _Product:
    """One matrix product for layers that share their input: the first that is called computes it for all."""

    def __init__(self, layers: list[Any]) -> None:
        import torch

        weight = torch.cat([layer.weight for layer in layers]) if len(layers) > 1 else layers[0].weight.detach()
        self.bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
        self.sizes = [layer.out_features for layer in layers]
        self.input: Any = None
        self.outputs: list[Any] = []

    def part(self, k: int, rows: Any) -> Any:
        """Output of layer k. An output is handed out once: the same input again is computed again."""
        import torch

        if rows is not self.input or self.outputs[k] is None:
            out = torch.ops.mkldnn._linear_pointwise(rows, self.packed, self.bias, "none", [], "")
            if len(self.sizes) == 1:
                return out
            self.input, self.outputs = rows, list(out.split(self.sizes, -1))
        output, self.outputs[k] = self.outputs[k], None
        if not any(part is not None for part in self.outputs):
            self.input, self.outputs = None, []
        return output
