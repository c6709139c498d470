"""What the tests of rewards share: a tokenizer of words, a scripted judge, and calls as TRL makes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dereason.lm.base import Completion
from dereason.lm.local.model import ModelSettings
from dereason.problems.schema import Verdict
from dereason.training.rewards.settings import (
    Correctness,
    Format,
    Judge,
    LengthShaped,
    Overlong,
    Rewards,
    build,
)
from dereason.verify.verdict import Judgement


class Words:
    """A tokenizer whose tokens are words."""

    eos_token_id = 0

    def encode(self, text: str, add_special_tokens: bool = True) -> list[str]:
        return (["<bos>"] if add_special_tokens else []) + text.split()


class Scripted:
    """A judging model whose reply is a function of the prompt."""

    identity = "scripted"

    def __init__(self, reply: Any) -> None:
        self.reply = reply
        self.asked: list[str] = []

    def generate(self, prompts: Sequence[Any], *_: Any, **kw: Any) -> Iterator[tuple[int, list[Completion]]]:
        texts = [chat[-1]["content"] for chat in prompts]
        self.asked += texts
        yield 0, [Completion(i, 0, self.reply(text), (1,), 1, False) for i, text in enumerate(texts)]


def judgement(verdict: Verdict, extracted: str | None = None) -> Judgement:
    return Judgement(verdict, extracted, "planted")


def call(function: Any, n: int, **columns: Any) -> list[float | None]:
    """Call a reward as TRL does, with n equal rows where nothing else is said."""
    batch: dict[str, Any] = {
        "prompts": [[{"role": "user", "content": "q"}]] * n,
        "completions": [[{"role": "assistant", "content": r"so \boxed{4}"}]] * n,
        "completion_ids": [[5, 6, 0]] * n,
        "answer": ["4"] * n,
        "options": [[]] * n,
        "trainer_state": None,
        "log_extra": None,
    }
    return list(function(**{**batch, **columns}))


def every_reward(lm: Any = None) -> list[Any]:
    settings = [
        Correctness(),
        LengthShaped(),
        Format(),
        Format(shape="think"),
        Format(shape="regex", pattern=".*"),
        Overlong(buffer=4),
        Judge(model=ModelSettings(name="scripted"), when="always"),
    ]
    model = lm or Scripted(lambda _: "Final Decision: Yes")
    return build(Rewards(of=settings), tokenizer=Words(), max_new_tokens=8, load=lambda *_: model)
