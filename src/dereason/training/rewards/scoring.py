"""How probable is an answer after a reasoning? The one thing that rewards without a verifier ask of the model.

A reasoning is a rollout through its last ``\\boxed{``; an answer is what stands in the box. :func:`answer_logps`
scores U answers after each of P reasonings: the tokens that all reasonings share (the prompt) are run once, each
reasoning once, and the answers of a row side by side in one forward pass, each seeing its own row and itself alone.

Shape legend: P reasonings, U answers, L prefix tokens, Q packed answer tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dereason.errors import DereasonError
from dereason.lm.local.prefill import inputs_behind, prefill
from dereason.verify.locate import find_box

if TYPE_CHECKING:
    from torch import Tensor

# Answers are packed into passes of as many tokens as have so many logits, which are made in blocks.
MAX_LOGITS = 1 << 26

BOX = "\\boxed{"


def split_at_box(tokenizer: Any, completion_ids: Sequence[int]) -> tuple[list[int], str] | None:
    r"""A rollout as (ids through the last ``\boxed{``, content of the box), or None where no box is closed.

    The ids are those that were sampled; where the opening brace shares its token with the answer, the part of
    that token before the answer is encoded anew.
    """
    ids = list(completion_ids)
    text = _text(tokenizer, ids)
    found = find_box(text)
    if found is None:
        return None
    start, end = found
    low, high = 0, len(ids)  # the fewest tokens whose text reaches the answer
    while low < high:
        middle = (low + high) // 2
        if len(_text(tokenizer, ids[:middle])) < start:
            low = middle + 1
        else:
            high = middle
    head = ids[:low]
    if _text(tokenizer, head) != text[:start]:
        head = ids[: low - 1]
        head += encode(tokenizer, text[len(_text(tokenizer, head)) : start])
    return head, text[start:end]


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    # Cleaning up spaces would look at later tokens: the text of a prefix has to be a prefix of the text.
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text in the middle of a sequence: no special tokens."""
    return list(tokenizer.encode(text, add_special_tokens=False))


def encode_answer(tokenizer: Any, answer: str) -> list[int]:
    r"""Token ids of an answer as they follow ``\boxed{``.

    Encoded behind the box, so that a tokenizer that puts a space before every text does not; where the brace and
    the answer's first character make one token, the answer alone is encoded.
    """
    box = encode(tokenizer, BOX)
    whole = encode(tokenizer, BOX + answer)
    return whole[len(box) :] if whole[: len(box)] == box else encode(tokenizer, answer)


def answer_logps(
    model: Any,
    prefixes: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    temperature: float,
    pad_id: int,
    rows: int = 64,
) -> list[list[np.ndarray]]:
    """Log-probability of every token of every answer after every prefix.

    Args:
        model: a causal language model of transformers, in eval mode.
        prefixes: token ids, P of them, none empty.
        answers: token ids, U of them; an empty one has probability 1.
        temperature: the logits are divided by it, as in sampling.
        pad_id: of the tokenizer.
        rows: prefixes run at once.

    Returns:
        [prefix][answer] arrays of float64, one number per answer token. No gradient is kept.

    Raises:
        DereasonError: the model cannot take the packed answers' mask (its attention is neither SDPA nor eager, or
            its sliding window is shorter than the text).
    """
    import torch

    if hasattr(model, "get_base_model"):  # peft's own forward hides the cache; the adapter sits inside the base
        model = model.get_base_model()
    _check_attention(model, max(map(len, prefixes)) + sum(map(len, answers)))
    out: list[list[np.ndarray]] = []
    with torch.inference_mode():
        for start in range(0, len(prefixes), rows):
            out += _chunk_logps(model, prefixes[start : start + rows], answers, temperature, pad_id)
    return out


def _chunk_logps(
    model: Any, prefixes: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], temperature: float, pad_id: int
) -> list[list[np.ndarray]]:
    cache, logits_PV, mask_PL, positions_P = prefill(model, prefixes, pad_id)
    firsts = [a[0] for a in answers if a]
    first_P = dict(zip(firsts, _gather(logits_PV, firsts, temperature).T, strict=True))
    out = [[np.empty(len(a)) for a in answers] for _ in prefixes]
    for u, answer in enumerate(answers):
        for p in range(len(prefixes)):
            if answer:
                out[p][u][0] = first_P[answer[0]][p]
    # The last token of an answer predicts nothing that is asked for, so it is not run.
    budget = max(1, MAX_LOGITS // (len(prefixes) * logits_PV.size(1)))
    for members in _pack([len(a) - 1 for a in answers], budget):
        offsets = np.cumsum([0, *(len(answers[u]) - 1 for u in members)])
        scored = _packed_logps(model, cache, mask_PL, positions_P, [answers[u] for u in members], temperature)
        for k, u in enumerate(members):
            for p in range(len(prefixes)):
                out[p][u][1:] = scored[p, offsets[k] : offsets[k + 1]]
        cache.crop(-scored.shape[1])
    return out


def _pack(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Answers with something to run, in groups of at most ``budget`` tokens (a longer answer alone)."""
    groups: list[list[int]] = []
    filled = budget
    for u, length in enumerate(lengths):
        if length <= 0:
            continue
        if filled + length > budget:
            groups.append([])
            filled = 0
        groups[-1].append(u)
        filled += length
    return groups


def _packed_logps(
    model: Any, cache: Any, mask_PL: Tensor, positions_P: Tensor, answers: list[Sequence[int]], temperature: float
) -> np.ndarray:
    """Log-probabilities (P, Q) of answers side by side behind each cached prefix, none seeing another.

    Those of an answer's first token, which the prefix predicts, are not among them.
    """
    import torch

    from dereason.lm.local.head import run_scored

    device, rows = mask_PL.device, mask_PL.size(0)
    pieces = [answer[:-1] for answer in answers]
    ids = torch.tensor([t for piece in pieces for t in piece], device=device)
    offset = torch.tensor([i for piece in pieces for i in range(len(piece))], device=device)
    owner = torch.tensor([k for k, piece in enumerate(pieces) for _ in piece], device=device)
    own = (owner[:, None] == owner[None]) & (offset[:, None] >= offset[None])
    seen = torch.cat(
        [mask_PL.bool()[:, None].expand(rows, len(ids), mask_PL.size(1)), own.expand(rows, len(ids), len(ids))], 2
    )
    bias = torch.zeros(seen.shape, dtype=model.dtype, device=device)
    bias.masked_fill_(~seen, torch.finfo(model.dtype).min)
    targets = torch.tensor([t for answer in answers for t in answer[1:]], device=device)
    inputs = inputs_behind(
        model,
        cache,
        input_ids=ids.expand(rows, -1),
        attention_mask=bias[:, None],
        position_ids=positions_P[:, None] + offset,
    )
    (logp, _, _), _ = run_scored(
        model,
        model.get_output_embeddings(),
        torch.arange(rows * len(ids), device=device),
        targets.repeat(rows),
        inputs,
        temperature=temperature,
    )
    return np.asarray(logp.view(rows, -1).double().cpu())


def _gather(logits_PV: Tensor, tokens: Sequence[int], temperature: float) -> np.ndarray:
    """Log-probabilities (P, len(tokens)) of each token after each prefix."""
    import torch

    scaled = logits_PV if logits_PV.dtype == torch.float64 else logits_PV.float()
    scaled = scaled / temperature
    return np.asarray((scaled[:, list(tokens)] - scaled.logsumexp(-1)[:, None]).double().cpu())


def _check_attention(model: Any, length: int) -> None:
    kind = getattr(model.config, "_attn_implementation", "sdpa")
    if kind not in ("sdpa", "eager"):
        raise DereasonError(
            f"verifier-free rewards score several answers in one pass, which attention {kind!r} cannot mask",
            "load the model with attn_implementation sdpa or eager",
        )
    window = getattr(model.config, "sliding_window", None)
    if window is not None and length > window:
        raise DereasonError(
            f"verifier-free rewards would need {length} positions, and the model's sliding window has {window}",
            "shorten max_new_tokens, or take a reward with a verifier",
        )
