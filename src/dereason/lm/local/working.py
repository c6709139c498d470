"""A copy of a model in the precision that it computes in, to decode with while its own weights are those that learn.

Trained weights are float32. Under autocast every step of decoding would read all of them and cast them, and leave the
residual stream, and with it the cache, in float32: a copy in 16 bits is half as much to read, and its cache is in 16
bits too. It holds memory only while it is used.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class WorkingCopy:
    """See the module's docstring. Weights that are not float32 (below an adapter, quantised) are shared, not copied."""

    def __init__(self, model: Any, dtype: Any) -> None:
        """A copy without weights.

        Args:
            model: a causal language model of transformers, unwrapped.
            dtype: what its float32 weights become.
        """
        self.dtype = dtype
        self._depth = 0
        # what deepcopy finds here it does not copy: the weights are replaced, buffers and configuration shared
        known: dict[int, Any] = {id(b): b for b in model.buffers()} | {id(model.config): model.config}
        self._pairs = []
        for p in model.parameters():
            own = p
            if p.dtype == torch.float32:
                own = torch.nn.Parameter(torch.empty(0, dtype=dtype, device=p.device), requires_grad=False)
                self._pairs.append((p, own))
            known[id(p)] = own
        self._model = copy.deepcopy(model, known)
        vars(self._model).pop("forward", None)  # accelerate's, which runs the original under autocast
        self._model.eval()

    @contextmanager
    def filled(self) -> Iterator[Any]:
        """The copy, with the weights as they are when the outermost of these contexts is entered."""
        if not self._depth:
            for p, own in self._pairs:
                own.data = p.detach().to(self.dtype)
        self._depth += 1
        try:
            yield self._model
        finally:
            self._depth -= 1
            if not self._depth:
                for _, own in self._pairs:
                    own.data = own.data.new_empty(0)
