"""From a question to a chat: the one prompt that every phase and the evaluation share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from dereason.errors import DereasonError
from dereason.lm.base import Message
from dereason.settings import Settings

PLAIN_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
)
"""Chat template given to models that come without one (ours): turns joined by blank lines."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Prompt(Settings):
    """How a question is put to the model, in every phase and in evaluation alike."""

    system: str | None = None
    """System message; null leaves the chat template's own default in place."""
    suffix: str = "Please reason step by step, and put your final answer within \\boxed{}."
    """Text put under the question, on a line of its own."""
    chat_template_kwargs: dict[str, Any] = {}
    """Extra arguments of the model's chat template, for example `enable_thinking: false`."""

    def messages(self, question: str, options: Sequence[str] | None = None) -> list[Message]:
        """The chat for one problem; options are listed under the question with letters from A on."""
        lines = [question.strip()]
        if options:
            lines += [f"({LETTERS[i]}) {option}" for i, option in enumerate(options)]
        if self.suffix:
            lines.append(self.suffix)
        chat: list[Message] = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*chat, {"role": "user", "content": "\n".join(lines)}]


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
    probe = [
        {"role": "user", "content": "What is 12 + 30?\nPut it in \\boxed{}."},
        {"role": "assistant", "content": "12 + 30 = 42\n\\boxed{42}"},
    ]
    ids = tokenizer.apply_chat_template(probe, tokenize=True, return_dict=True, **kwargs)["input_ids"]
    content = {
        "template": tokenizer.chat_template,
        "kwargs": kwargs,
        "special": {k: str(v) for k, v in sorted(tokenizer.special_tokens_map.items())},
        "probe": list(ids),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
