"""Rotary positions whose frequencies depend on the longest row of a forward pass.

``longrope`` has two sets of frequencies (Phi-3, Phi-4-mini): transformers takes the second for all rows of a pass, and
all their positions, as soon as one is longer than what the model was trained on first. So rows on the two sides of
that edge do not share a pass here, and longer ones run alone: each is then what it is by itself. ``dynamic`` goes on
from whatever was longest before, and is refused beyond its edge.
"""

from __future__ import annotations

from typing import Any

from dereason.errors import DereasonError


def rope_edge(model: Any, longest: int) -> int | None:
    """Tokens up to which a sequence may share a forward pass; None: with sequences up to ``longest`` all may.

    Args:
        model: a causal language model of transformers.
        longest: tokens of the longest sequence that will be run.

    Raises:
        DereasonError: beyond the edge, frequencies would depend on what the model was shown before.
    """
    config = model.config.get_text_config(decoder=True)
    given = getattr(config, "rope_parameters", None) or {}
    # some models have other rotary positions in each kind of layer
    several = [p for p in given.values() if isinstance(p, dict)] or [given]
    edges: dict[str, int] = {}
    for parameters in several:
        kind = str(parameters.get("rope_type"))
        if kind == "longrope":
            edge = parameters.get("original_max_position_embeddings") or config.max_position_embeddings
        elif "dynamic" in kind:
            edge = config.max_position_embeddings
        else:
            continue
        if longest > edge:
            edges[kind] = min(int(edge), edges.get(kind, int(edge)))
    if unsteady := [kind for kind in edges if kind != "longrope"]:
        raise DereasonError(
            f"{type(model).__name__} has rotary positions of the type {unsteady[0]}, which beyond "
            f"{edges[unsteady[0]]} tokens depend on what the model was shown before, and {longest} are asked for",
            "lower max_new_tokens or max_length, or set another rope_type in its config.json (yarn)",
        )
    return min(edges.values(), default=None)
