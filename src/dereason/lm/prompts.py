"""From a question to a chat: the one prompt that every phase and the evaluation share."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from dereason.errors import DereasonError
from dereason.lm.base import Message
from dereason.lm.rendering import chat_ids, chat_text
from dereason.lm.tags import tags_of
from dereason.lm.thoughts import before_reply, fit_thoughts
from dereason.settings import Settings

PLAIN_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ message['content'] + '\n' }}{% endif %}{% endfor %}"
)
"""Chat template given to models that come without one (ours): a turn a line.

No blank lines: many tokenizers make one token of two line ends, but not in front of a text, so that a prompt and the
same prompt with a reply would begin differently.
"""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Prompt(Settings):
    """How a question is put to the model, in every phase and in evaluation alike."""

    system: str | None = None
    """System message; null leaves the chat template's own default in place."""
    suffix: str = "Please reason step by step, and put your final answer within \\boxed{}."
    """Text put under the question, on a line of its own."""
    chat_template_kwargs: dict[str, Any] = {}
    """Extra arguments of the model's chat template, for example `enable_thinking: false`."""
    date: datetime.date | None = None
    """The day that chat templates which print today's date are told, in every phase; null takes the day on which the
    run was first started and keeps it."""

    def messages(self, question: str, options: Sequence[str] | None = None) -> list[Message]:
        """The chat for one problem; options are listed under the question with letters from A on."""
        lines = [question.strip()]
        listed = [] if options is None else list(options)  # a cell of a table has no truth value
        if len(listed) > len(LETTERS):
            raise DereasonError(
                f"the question {question.strip()[:60]!r} has {len(listed)} options, and letters end at {len(LETTERS)}",
                "leave the question out, or give it fewer options",
            )
        lines += [f"({letter}) {option}" for letter, option in zip(LETTERS, listed, strict=False)]
        if self.suffix:
            lines.append(self.suffix)
        return self.wrap("\n".join(lines))

    def wrap(self, text: str) -> list[Message]:
        """The chat whose user's message is this text, under the same system message."""
        chat: list[Message] = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*chat, {"role": "user", "content": text}]


def encode_reply(
    tokenizer: Any, chat: Sequence[Message], response: str, kwargs: dict[str, Any], prefix: str = ""
) -> tuple[list[int], list[int]]:
    """Token ids of a chat with a reply: what is given, and what has to be predicted.

    The reply stands as the template writes it, but for thoughts: these stand as the target has them, fitted to what
    the template writes before a reply. Some templates leave a reply's thoughts out, or write an empty one.

    Args:
        tokenizer: with a chat template.
        chat: up to the user's message.
        response: the reply, behind the prefix.
        kwargs: extra arguments of the chat template.
        prefix: how the reply begins. It counts as given; a token across its end is predicted.

    Returns:
        The ids as generation begins with them (and the prefix), and what the template puts after them (its end
        token included).

    Raises:
        DereasonError: the template does not put the reply behind the prompt that generation begins with.
    """
    head = chat_ids(tokenizer, chat, kwargs, reply_follows=True)
    before = before_reply(tokenizer, kwargs)
    reply = fit_thoughts(before, prefix + response)
    prefix = prefix and reply[: max(0, len(reply) - len(response))]
    whole = chat_ids(tokenizer, [*chat, {"role": "assistant", "content": reply}], kwargs)
    written = tags_of(tokenizer.decode(whole[len(head) :]))
    if (whole[: len(head)] != head or written != tags_of(reply)) and (written or tags_of(before + reply)):
        whole = _composed(tokenizer, chat, head, reply, kwargs)
    tail = whole[len(head) :]
    if whole[: len(head)] != head or not tail:
        raise DereasonError(
            "the chat template does not put a reply behind the prompt that generation begins with: the model would be "
            "trained on another prompt than it is asked",
            "set prompt.chat_template_kwargs (for example enable_thinking: false), or take a model whose template does",
        )

    def text(count: int) -> str:
        # Cleaning up spaces would look at later tokens: the text of a beginning has to be a beginning of the text.
        return str(tokenizer.decode(tail[:count], skip_special_tokens=True, clean_up_tokenization_spaces=False))

    if not prefix:
        return head, tail
    # templates may strip, and tokenizers rewrite (Unicode's composed and decomposed letters)
    as_written = tokenizer.decode(
        tokenizer.encode(prefix, add_special_tokens=False), clean_up_tokenization_spaces=False
    )
    forms = [form for p in (prefix, as_written) for form in (p, p.lstrip())]
    given = next((form for form in forms if text(len(tail)).startswith(form)), None)
    if given is None:
        raise DereasonError("the chat template rewrites the beginning of a reply", "leave out `repair` (targets.kinds)")
    low, high = 0, len(tail)  # the most tokens whose text is inside the prefix
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(text(middle)) <= len(given) else (low, middle - 1)
    return head + tail[:low], tail[low:]


def _composed(
    tokenizer: Any, chat: Sequence[Message], head: list[int], reply: str, kwargs: dict[str, Any]
) -> list[int]:
    """Ids of a prompt as generation begins with it, of a reply as it is, and what the template writes behind one."""
    plain = "It is 12"
    probe: list[Message] = [{"role": "user", "content": "5 + 7?"}, {"role": "assistant", "content": plain}]
    _, found, behind = chat_text(tokenizer, probe, kwargs, reply_follows=False).rpartition(plain)
    if not found:  # the template leaves replies out
        return []
    together = list(tokenizer.encode(chat_text(tokenizer, chat, kwargs) + reply + behind, add_special_tokens=False))
    if together[: len(head)] == head:
        return together
    # a token across the border is none that generation would write
    return head + list(tokenizer.encode(reply + behind, add_special_tokens=False))


def check_template(name: str, found: str, expected: str | None) -> None:
    """Refuse a model that renders chats differently from the one that the run began with.

    Raises:
        DereasonError: the hashes differ; ``expected`` None passes everything.
    """
    if expected is not None and found != expected:
        raise DereasonError(
            f"{name} renders chats differently (template {found}) from the model that the run began with ({expected})",
            "use the same chat template in every phase and in evaluation; accuracy would measure the template",
        )


def template_hash(tokenizer: Any, kwargs: dict[str, Any]) -> str:
    """Hash of everything that decides how a chat becomes token ids.

    Covers the chat template, its arguments, the special tokens, and the ids of one probe chat with a reply
    (a tokenizer that was re-saved with another vocabulary or normaliser gives other ids).
    """
    probe: list[Message] = [
        {"role": "user", "content": "What is 12 + 30?\nPut it in \\boxed{}."},
        {"role": "assistant", "content": "12 + 30 = 42\n\\boxed{42}"},
    ]
    ids = chat_ids(tokenizer, probe, kwargs)
    content = {
        "template": tokenizer.chat_template,
        "kwargs": kwargs,
        "special": {k: str(v) for k, v in sorted(tokenizer.special_tokens_map.items())},
        "probe": ids,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
