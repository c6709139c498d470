"""How far two computations of one gradient may lie apart where one of them passes through float32."""

from __future__ import annotations

from collections.abc import Mapping

import torch

EPS = torch.finfo(torch.float32).eps


def assert_same_gradient(
    found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], *, terms: int, factor: float = 1.0
) -> None:
    """Every tensor is the other one times ``factor``, up to the rounding of sums of ``terms`` numbers in float32.

    Each term brings an error of about EPS, up as often as down, so they add up to about sqrt(terms) EPS; four times
    that is allowed. It is a share of the tensor's largest entry, not of each: an entry in which terms cancel keeps
    their errors. A wrong formula is off by a per cent and more.
    """
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        expected = tensor * factor
        bound = 4 * terms**0.5 * EPS * float(expected.abs().max())
        torch.testing.assert_close(
            found[name], expected, rtol=0, atol=bound, msg=lambda text, name=name: f"{name}: {text}"
        )
