"""What is read out of the body of a reply: the answers, as every server that calls itself compatible writes them.

A reply was paid for, so what can be read is read: a choice that is broken costs itself alone, a count or a
log-probability that is none is left out, and a character that is no Unicode is replaced.

What is left out: streams, tools, images.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dereason.characters import REPLACEMENT, whole_text
from dereason.lm.calls import MOST_TOKENS, Answer

_LENGTH = (
    "length",
    "max_tokens",
    "max_output_tokens",
    "max_completion_tokens",
    "max_new_tokens",
    "max_length",
    "model_length",
    "model_context_window_exceeded",
)
"""How servers say, in any case, that the length limit ended a response."""

_FILTERED = (
    "content_filter",
    "content_filtered",
    "refusal",
    "safety",
    "recitation",
    "blocklist",
    "prohibited_content",
    "spii",
    "guardrail_intervened",
)
"""How they say that they keep it to themselves."""

_TEXT = ("text", "content", "value", "thinking", "reasoning", "summary", "refusal")
"""Fields of a part of a message that hold its text."""


class NoReply(Exception):
    """A body without an answer; the text says why, and how it begins."""


@dataclass(frozen=True)
class Reply:
    """What a call gave: at least one answer; ``replaced``: characters of them that were no Unicode."""

    answers: tuple[Answer, ...]
    prompt_tokens: int
    served: str
    replaced: int = 0


def about_tokens(text: str) -> int:
    """About how many tokens a text has: a quarter of its bytes."""
    return -(-len(text.encode("utf-8", "replace")) // 4)


def read_reply(content: bytes, length: int) -> Reply:
    """The answers in the body of a reply.

    Args:
        content: the body.
        length: most tokens of an answer.

    Raises:
        NoReply: it is no JSON, or none of its choices can be read.
    """
    text = content.decode("utf-8-sig", "replace")
    try:
        reply = json.loads(text)
        return _reply(reply, length)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise NoReply(f"the reply is no completion ({type(error).__name__}): {text[:200]!r}") from error


def _reply(reply: dict[str, Any], length: int) -> Reply:
    choices = [choice for choice in reply["choices"] or [] if isinstance(choice, Mapping)]
    places = {id(choice): at for at, choice in enumerate(choices)}
    choices.sort(key=lambda c: c["index"] if isinstance(c.get("index"), int) else places[id(c)])
    usage = reply.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    told = _count(usage.get("completion_tokens", usage.get("output_tokens")))
    full = told is not None and len(choices) == 1 and told >= length
    read = [_answer(choice, full) for choice in choices if _ended(choice) != "error"]
    if not read:
        raise LookupError("no choices")
    answers = [answer for answer, _ in read]
    return Reply(
        tuple(answers if told is None else _shared_out(answers, told, length)),
        _count(usage.get("prompt_tokens", usage.get("input_tokens"))) or 0,
        whole_text(str(reply.get("model") or "")),
        sum(replaced for _, replaced in read),
    )


def _count(value: Any) -> int | None:
    """A number of tokens; None where it can be none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_TOKENS:
        return None
    return int(value)


def _ended(choice: Mapping[str, Any]) -> str:
    """Why the response ended, in lower case; empty where it is not said."""
    said = choice.get("finish_reason") or choice.get("stop_reason")
    if isinstance(said, Mapping):
        said = said.get("type")
    return said.rsplit(".", 1)[-1].strip().lower() if isinstance(said, str) else ""


def _answer(choice: Mapping[str, Any], full: bool) -> tuple[Answer, int]:
    """A choice as we keep it, and how many characters were replaced; its tokens are a guess until the total is shared.

    Args:
        choice: of the reply.
        full: the response has as many tokens as it may, which tells why it ended where that is not said.
    """
    message, ended = choice.get("message"), _ended(choice)
    if not isinstance(message, Mapping):
        message = {"content": choice.get("text") if message is None else message}
    hit_limit = ended in _LENGTH or (full and not ended)
    content, thought, refusal = _parts(message.get("content"))
    thought = _text(message.get("reasoning_content")) or _text(message.get("reasoning")) or thought
    refusal = _text(message.get("refusal")) or refusal or (ended if ended in _FILTERED else "")
    if not refusal and content is None and not thought and not hit_limit:
        refusal, content = f"no content (finish_reason {ended or None})", ""
    if refusal:
        return Answer("", about_tokens(content or ""), refusal=whole_text(refusal)), 0
    text = content or ""
    if thought:
        # A limit that fell inside the thought leaves it open, as a local thinker's text is.
        text = f"<think>\n{thought}" + ("" if hit_limit and not text else f"\n</think>\n\n{text}")
    whole = whole_text(text)
    return Answer(whole, about_tokens(whole), hit_limit, first=_first(choice)), whole.count(REPLACEMENT) - text.count(
        REPLACEMENT
    )


def _parts(content: Any) -> tuple[str | None, str, str]:
    """Text, thought and refusal of a message's content, which some endpoints give as a list of parts."""
    if content is None:
        return None, "", ""
    found = {"text": "", "thought": "", "refusal": ""}
    for part in content if isinstance(content, list) else [content]:
        kind = str(part.get("type")) if isinstance(part, Mapping) else ""
        if "think" in kind or "reason" in kind or (isinstance(part, Mapping) and part.get("thought") is True):
            found["thought"] += _text(part)
        else:
            found["refusal" if kind == "refusal" else "text"] += _text(part)
    return found["text"], found["thought"], found["refusal"]


def _text(value: Any) -> str:
    """The text in a text, a part or a list of parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_text(part) for part in value)
    if isinstance(value, Mapping):
        return next((text for name in _TEXT if (text := _text(value.get(name)))), "")
    return "" if value is None or isinstance(value, bool) else str(value)


def _first(choice: Mapping[str, Any]) -> dict[str, float] | None:
    """Log-probabilities of the likeliest first tokens, where the reply has them: one alone says too little."""
    logprobs = choice.get("logprobs")
    places = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    if not isinstance(places, list) or not places or not isinstance(places[0], Mapping):
        return None
    listed = places[0].get("top_logprobs")
    if not isinstance(listed, list) or not listed:
        return None
    found = {}
    for entry in [*listed, places[0]]:
        if isinstance(entry, Mapping) and isinstance(entry.get("token"), str):
            logp = entry.get("logprob")
            # Rounding makes certain tokens a little more than certain; -inf says what not being listed says.
            if isinstance(logp, int | float) and not isinstance(logp, bool) and -math.inf < logp < 0.01:
                found[whole_text(entry["token"])] = float(logp)
    return found or None


def _shared_out(answers: list[Answer], total: int, length: int) -> list[Answer]:
    """The reply's tokens over its answers, sum exact: those that hit the limit have it, the others share by text."""
    at_limit = [a.hit_limit for a in answers]
    fixed = length * sum(at_limit)
    if fixed > total or (all(at_limit) and fixed < total):  # the endpoint's own limit was hit, not ours
        at_limit, fixed = [False] * len(answers), 0
    weights = [0 if hit else max(1, len(a.text)) for a, hit in zip(answers, at_limit, strict=True)]
    found, given, seen = [], 0, 0
    for answer, weight in zip(answers, weights, strict=True):
        seen += weight
        share = (total - fixed) * seen // sum(weights) - given if weight else 0
        given += share
        found.append(replace(answer, tokens=share if weight else length))
    return found
