"""The hand-off between phases: what a phase saves is read again as the next one will read it, and compared.

Compared are the weights (bit for bit, where they are saved whole), the logits on a few short chats, the chat
template's hash, the ids that end a response, the padding id, and the size of the vocabulary.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dereason.errors import DereasonError
from dereason.lm.base import Message
from dereason.lm.dates import given_date, own_template, today
from dereason.lm.endings import stop_ids
from dereason.lm.local.model import HAND_OFF, ModelSettings, load_generation_config, load_tokenizer, load_weights
from dereason.lm.prompts import template_hash
from dereason.lm.rendering import chat_ids
from dereason.training.adapters import is_adapted, merged_state, save_adapter, whole_model

if TYPE_CHECKING:
    from torch import Tensor

PROBES: tuple[list[Message], ...] = (
    [{"role": "user", "content": "What is 17 * 3? Put the answer in \\boxed{}."}],
    [
        {"role": "user", "content": "Résumé: f(x) = x² − 4; list its roots.\n"},
        {"role": "assistant", "content": "−2, 2"},
    ],
)
"""Chats that the saved model is compared on."""

EXACT = 1e-4
"""Largest :func:`gap` where both sides compute in float32 on the CPU; of a merge in the embedded model it is 1e-6."""
ROUNDED = 0.25
"""The same where one side computes in 16 bits, or on another device: wide, because rounding alone reaches 0.06 there.
It finds a model that is another one; that the weights are the trained ones is checked bit for bit."""


def probe_logits(model: Any, tokenizer: Any) -> list[Tensor]:
    """Logits (T, V) of each probe, float32, on the CPU; the model is left as it was."""
    import torch

    training = model.training
    model.eval()
    found = []
    prepared = model.forward  # accelerate's, which opens autocast of its own; the saved model will have none
    model.forward = getattr(model, "_original_forward", prepared)
    with torch.no_grad():
        for chat in PROBES:
            ids = chat_ids(tokenizer, chat, {})
            found.append(model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float().cpu())
    model.forward = prepared
    model.train(training)
    return found


def gap(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """How far the second logits lie from the first: root mean square of the difference over that of the first.

    Both are taken less their mean over the vocabulary, which no probability depends on. Infinite where they are not
    comparable, or not finite.
    """
    import torch

    if any(a.shape != b.shape for a, b in zip(before, after, strict=True)):
        return math.inf
    first, second = (torch.cat([x - x.mean(-1, keepdim=True) for x in side]).double() for side in (before, after))
    found = float((first - second).norm() / first.norm())
    return found if math.isfinite(found) else math.inf


def write_model(
    live: Any,
    state: Mapping[str, Tensor],
    tokenizer: Any,
    out: Path,
    start: ModelSettings,
    *,
    merge: bool,
    logits: list[Tensor] | None,
) -> None:
    """Write weights (safetensors), config, generation config and tokenizer to ``out``, and check them.

    Args:
        live: the trained model, unwrapped.
        state: its state dict, whole.
        tokenizer: of the phase.
        out: the folder.
        start: what the phase began with; the generation config is its own, whatever a trainer set in between, and the
            ends of a response are what it stops at.
        merge: whether an adapter is added to the weights, or saved alone.
        logits: :func:`probe_logits` of ``live``; None where the weights are spread over processes.

    Raises:
        DereasonError: what was saved is not what was trained.
    """
    import torch

    out.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"adapter": "none"}
    base = live
    if is_adapted(live):
        facts["adapter"] = "merged" if merge else "kept"
        base = live.get_base_model()
        if logits is not None:
            with live.disable_adapter():
                facts["adapter_moves_logits"] = gap(logits, probe_logits(live, tokenizer))
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):  # loading draws; training must not notice
        if facts["adapter"] == "kept":
            save_adapter(live, state, out)
        elif facts["adapter"] == "merged":
            state = merged_state(live, state)
            whole_model(base, state).save_pretrained(out)
        else:
            live.save_pretrained(out, state_dict=dict(state))
        _generation_config(start, tokenizer).save_pretrained(out)
        with own_template(tokenizer):
            tokenizer.save_pretrained(out)
        whole = state if facts["adapter"] != "kept" else None
        bits = next(p for n, p in base.named_parameters() if "lora_" not in n).dtype
        exact = bits == torch.float32 and base.device.type == "cpu"
        facts |= check_saved(out, start, logits, whole, EXACT if exact else ROUNDED, given_date(tokenizer) or today())
    (out / HAND_OFF).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _generation_config(start: ModelSettings, tokenizer: Any) -> Any:
    """The start's own, which every other program stops by too: with the ends that the model was trained to write."""
    config = load_generation_config(start)
    stops = list(stop_ids(config, tokenizer, {}))
    config.eos_token_id = stops[0] if len(stops) == 1 else stops
    return config


def check_saved(
    out: Path,
    start: ModelSettings,
    logits: Sequence[Tensor] | None,
    state: Mapping[str, Tensor] | None,
    bound: float,
    day: date,
) -> dict[str, Any]:
    """Load a saved model as the next phase does, in float32 on the CPU, and compare.

    Args:
        out: the folder.
        start: what the phase began with: template, stop ids, padding and vocabulary have to be its own.
        logits: of the trained model on :data:`PROBES`, or None.
        state: weights that the folder has to hold, or None.
        bound: largest :func:`gap`.
        day: told to a chat template that prints today's date.

    Returns:
        What was found.

    Raises:
        DereasonError: something differs.
    """
    saved = ModelSettings(name=str(out), dtype="float32", device="cpu")
    model, tokenizer = load_weights(saved), load_tokenizer(saved, day)
    wanted = load_tokenizer(start, day)
    eos = model.generation_config.eos_token_id
    stops = stop_ids(model.generation_config, tokenizer, {})
    found = {
        "template": template_hash(tokenizer, {}),
        "stop_ids": list(stops),
        "generation_eos": sorted(eos) if isinstance(eos, list) else [eos],
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "vocabulary": len(tokenizer),
    }
    ends = stop_ids(load_generation_config(start), wanted, {})
    expected = {
        "template": template_hash(wanted, {}),
        "stop_ids": list(ends),
        "generation_eos": list(ends),
        "eos_token_id": wanted.eos_token_id,
        "pad_token_id": wanted.pad_token_id,
        "vocabulary": len(wanted),
    }
    for name, value in expected.items():
        if found[name] != value:
            raise _refused(out, f"its {name} is {found[name]}, and the phase began with {value}")
    if state is not None:
        _same_weights(out, model, state)
    if logits is not None:
        found["logits_gap"] = gap(logits, probe_logits(model, tokenizer))
        if not found["logits_gap"] <= bound:
            raise _refused(out, f"its logits differ from the trained model's by {100 * found['logits_gap']:.2g} %")
    return found


def _same_weights(out: Path, model: Any, state: Mapping[str, Tensor]) -> None:
    """Every tensor as it was trained; a tied one may stand under one of its names."""
    found = model.state_dict()
    for name, tensor in found.items():
        if name not in state:
            raise _refused(out, f"it has a weight {name} that the trained model does not have")
        mine = state[name].cpu()
        if mine.shape != tensor.shape or not bool((mine.to(tensor.dtype) == tensor).all()):
            raise _refused(out, f"its weight {name} is not the trained one")
    if missing := sorted(set(state) - set(found)):
        raise _refused(out, f"it lacks the weight {missing[0]}")


def _refused(out: Path, what: str) -> DereasonError:
    return DereasonError(
        f"{out}: the saved model is not the one that was trained: {what}",
        "start again: the phase goes on from its last checkpoint and saves once more; if it says so again, report it",
    )
