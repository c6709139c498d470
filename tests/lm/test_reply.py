"""A chat with a reply as token ids, what of it is given, and its log-probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dereason.errors import DereasonError
from dereason.lm.local.model import LocalModel, ModelSettings, load_tokenizer
from dereason.lm.prompts import PLAIN_TEMPLATE, Prompt, encode_reply
from dereason.lm.rendering import chat_ids

CHAT = Prompt(suffix="").messages("What is 2 + 2?")
TEXT = "2 + 2 makes 4, so π ≈ 3 is no help 😀.\n\n  It is \\boxed{4}"

TURN = "{% for m in messages %}{{ '<' + m['role'] + '>' + WHAT + eos_token }}{% endfor %}"
ASK = "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"


def template(what: str) -> str:
    """A chat template that writes this for a turn's content."""
    return TURN.replace("WHAT", what) + ASK


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(ModelSettings(name=str(tiny_model)))


@pytest.fixture
def with_template(tiny_model: Path) -> Any:
    """A tokenizer whose template a test may change."""
    return load_tokenizer(ModelSettings(name=str(tiny_model)))


def decode(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def test_a_reply_is_what_the_template_puts_behind_the_prompt(tokenizer: Any) -> None:
    head, tail = encode_reply(tokenizer, CHAT, TEXT, {})
    kwargs = {"tokenize": True, "return_dict": True}
    assert head == tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, **kwargs)["input_ids"]
    whole = tokenizer.apply_chat_template([*CHAT, {"role": "assistant", "content": TEXT}], **kwargs)["input_ids"]
    assert head + tail == whole
    assert tokenizer.eos_token_id in tail


def test_a_prefix_is_given_wherever_it_ends(tokenizer: Any) -> None:
    head, whole = encode_reply(tokenizer, CHAT, TEXT, {})
    for end in range(len(TEXT)):
        prefix = TEXT[:end]
        given, predicted = encode_reply(tokenizer, CHAT, TEXT[end:], {}, prefix)
        assert given + predicted == head + whole
        inside = given[len(head) :]
        # All that is given is inside the prefix, and one token more would not be.
        assert prefix.startswith(decode(tokenizer, inside).rstrip("\N{REPLACEMENT CHARACTER}"))
        assert len(decode(tokenizer, whole[: len(inside) + 1])) > end
        assert predicted[0] not in tokenizer.all_special_ids


def test_a_token_across_the_end_of_the_prefix_is_predicted(tokenizer: Any) -> None:
    head, _ = encode_reply(tokenizer, CHAT, TEXT, {})
    given, predicted = encode_reply(tokenizer, CHAT, "kes 4", {}, "2 + 2 ma")
    assert decode(tokenizer, given[len(head) :]) == "2 + 2"
    assert decode(tokenizer, predicted).startswith(" makes 4")


def test_templates_may_strip_a_reply(with_template: Any) -> None:
    with_template.chat_template = template("m['content'] | trim")
    head, _ = encode_reply(with_template, CHAT, "x", {})
    given, predicted = encode_reply(with_template, CHAT, " makes 4", {}, "\n2 + 2")
    assert decode(with_template, given[len(head) :]) == "2 + 2"
    assert decode(with_template, predicted) == " makes 4"


@pytest.mark.parametrize(
    ("written", "cause"),
    [
        ("m['content'] | upper", "rewrites the beginning of a reply"),
        ("(m['content'] if m['role'] == 'user' else '')", "rewrites the beginning of a reply"),
    ],
)
def test_a_template_that_rewrites_the_prefix_is_refused(with_template: Any, written: str, cause: str) -> None:
    with_template.chat_template = template(written)
    with pytest.raises(DereasonError, match=cause):
        encode_reply(with_template, CHAT, " makes 4", {}, "two and two")


def test_a_template_that_asks_otherwise_than_it_replies_is_refused(with_template: Any) -> None:
    with_template.chat_template = TURN.replace("WHAT", "m['content']") + ASK.replace("<assistant>", "<model>")
    with pytest.raises(DereasonError, match="does not put a reply behind the prompt"):
        encode_reply(with_template, CHAT, "4", {})


def test_log_probabilities_are_those_of_a_plain_forward_pass(tiny_model: Path) -> None:
    lm = LocalModel(ModelSettings(name=str(tiny_model)))
    lm.model.double()
    chats = [Prompt(suffix="").messages(f"What is {i} + 2{'?' * i}") for i in range(4)]
    replies = ["\\boxed{2}", TEXT, "makes 4", TEXT * 3]
    prefixes = [None, None, "2 + 2 ", "So: "]
    told: list[tuple[int, int]] = []
    found = lm.reply_logps(chats, replies, prefixes, batch_size=3, progress=lambda d, n, words: told.append((d, n)))
    for chat, reply, prefix, got in zip(chats, replies, prefixes, found, strict=True):
        given, predicted = encode_reply(lm.tokenizer, chat, reply, {}, prefix or "")
        with torch.inference_mode():
            logits = lm.model(input_ids=torch.tensor([given + predicted])).logits[0, len(given) - 1 : -1]
        logps = torch.log_softmax(logits, -1)[range(len(predicted)), predicted]
        assert got.dtype == np.float64
        assert got == pytest.approx(logps.numpy(), rel=1e-9, abs=1e-9)
    assert told[-1] == (4, 4)
    alone = lm.reply_logps(chats, replies, prefixes, batch_size=1)
    assert all(a == pytest.approx(b, rel=1e-9, abs=1e-9) for a, b in zip(alone, found, strict=True))
    assert lm.reply_logps([], []) == []


KEEPS = "m['content']"
DROPS = "m['content'].split('</think>')[-1] | trim"
# a thought before every reply, an empty one where the reply has none
HYBRID = (
    "('<think>\\n' + (m['content'].split('</think>')[0].split('<think>')[-1].strip('\\n') if '</think>' in m['content']"
    " else '') + '\\n</think>\\n\\n' + m['content'].split('</think>')[-1].lstrip('\\n') "
    "if m['role'] == 'assistant' else m['content'])"
)
OPENS = "<think>\n"
CLOSED = "<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("written", "before", "target", "trained"),
    [
        # the template drops thoughts, or would write an empty one: the target stands as it is
        (DROPS, "", "<think>2 and 2</think>It is 4", "<think>2 and 2</think>It is 4"),
        (HYBRID, "", "It is 4", "It is 4"),
        (HYBRID, "", "<think>\nso\n</think>\n\nIt is 4", "<think>\nso\n</think>\n\nIt is 4"),
        (HYBRID, CLOSED, "It is 4", "It is 4"),
        # a thought that was never opened
        (KEEPS, "", "so</think>It is 4", "<think>\nso</think>It is 4"),
        (KEEPS, "", "so[/THINK]It is 4", "[THINK]\nso[/THINK]It is 4"),
        (KEEPS, "", "<|channel|>final<|message|>4", "<|channel|>final<|message|>4"),
        # one that the template opened
        (DROPS, OPENS, "<think>\nso\n</think>\n\nIt is 4", "so\n</think>\n\nIt is 4"),
        (KEEPS, OPENS, " <think>so</think>It is 4", "so</think>It is 4"),
        (HYBRID, OPENS, "so\n</think>\n\nIt is 4", "so\n</think>\n\nIt is 4"),
        (
            KEEPS,
            OPENS,
            "It is 4",
            "the chat template opens a thought before the reply, and the target does not close it",
        ),
        (KEEPS, CLOSED, "<think>so</think>4", "has closed a thought before the reply already"),
        (KEEPS, "", "<think>so, hm", "the target opens a thought and does not close it"),
        (KEEPS, OPENS, "<think>so, hm", "the target opens a thought and does not close it"),
    ],
)
def test_a_target_thinks_behind_what_the_template_writes(
    with_template: Any, written: str, before: str, target: str, trained: str
) -> None:
    with_template.chat_template = template(written) + "{% if add_generation_prompt %}{{ BEFORE }}{% endif %}".replace(
        "BEFORE", repr(before)
    )
    if "thought" in trained:
        with pytest.raises(DereasonError, match=trained):
            encode_reply(with_template, CHAT, target, {})
        return
    head, tail = encode_reply(with_template, CHAT, target, {})
    assert head == chat_ids(with_template, CHAT, {}, reply_follows=True), "as generation begins"
    said = with_template.decode(head + tail, clean_up_tokenization_spaces=False)
    assert said.rpartition("<assistant>")[2].strip() == (before + trained + with_template.eos_token).strip()
    # a beginning that is given is a beginning of what is trained
    given, predicted = encode_reply(with_template, CHAT, target[-2:], {}, target[:-2])
    assert (given + predicted, given[: len(head)]) == (head + tail, head)
    assert decode(with_template, predicted).strip() == target[-2:].strip()


def test_a_prefix_that_the_tokenizer_writes_otherwise_is_still_given(with_template: Any) -> None:
    """A normaliser composes letters: what comes back is not what was given, letter by letter."""
    from tokenizers.normalizers import NFC

    with_template.backend_tokenizer.normalizer = NFC()
    prefix = "Cafe\u0301 has 2.\n"
    head, _ = encode_reply(with_template, CHAT, "x", {})
    given, predicted = encode_reply(with_template, CHAT, "So 4.", {}, prefix)
    assert decode(with_template, given[len(head) :]) == "Caf\u00e9 has 2.\n"
    assert decode(with_template, predicted).rstrip() == "So 4."


def test_a_model_without_a_template_of_its_own_can_be_trained_on_replies(with_template: Any) -> None:
    with_template.chat_template = PLAIN_TEMPLATE
    head, tail = encode_reply(with_template, CHAT, TEXT, {})
    assert decode(with_template, head + tail) == f"What is 2 + 2?\n{TEXT}"
