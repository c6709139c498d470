"""Finished calls of an endpoint, kept as they come: one JSON line a call, on the disk before it is used.

A call is found again by a hash of everything that decides its answer, so any step of a run that asks the same question
gets the stored answer. Lines are only ever added. A process killed in the middle of a line leaves a broken last line,
which is not read; the next writer ends it. Several processes may write to one file: a line is one write. A line that
holds no call is as if it were not there: what it answered is asked again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dereason.characters import whole_text
from dereason.errors import DereasonError

MOST_TOKENS = 2**31 - 1
"""More tokens than a response can have: what the tables hold."""


@dataclass(frozen=True)
class Answer:
    """One choice of a finished call.

    Attributes:
        text: the response.
        tokens: generated tokens.
        hit_limit: True where the length limit ended it.
        refusal: what was said in place of a response; empty where there is one.
        first: log-probability (nats) of the likeliest first tokens, where the call asked for them.
    """

    text: str
    tokens: int
    hit_limit: bool = False
    refusal: str = ""
    first: dict[str, float] | None = None


@dataclass(frozen=True)
class Call:
    """A finished call.

    Attributes:
        key: hash of the question; see :func:`question_key`.
        at: number of its first choice among those that the question may be asked for, 0...
        answers: its choices, in order.
        prompt_tokens: tokens of the prompt.
        served: the model that the endpoint says answered.
    """

    key: str
    at: int
    answers: tuple[Answer, ...]
    prompt_tokens: int
    served: str = ""


def question_key(**decides: Any) -> str:
    """Hash of everything that decides the answer to a question."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


class CallStore:
    """The calls of one model in one file. Holds where the answers are, not the answers."""

    def __init__(self, folder: Path, identity: str) -> None:
        """Open the file, or begin it, and read where its calls are.

        Args:
            folder: of all models' files; made where it is missing.
            identity: of the model; the file is named after it.
        """
        name = re.sub(r"[^\w.@-]+", "-", identity)[:80].strip("-.")
        self.path = folder / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}.jsonl"
        self.calls = 0
        self.prompt_tokens = 0
        self.tokens = 0
        self.served: set[str] = set()
        """What the endpoint has called the model that answered."""
        self._places: dict[str, dict[int, tuple[int, int]]] = {}
        """Key -> choice -> (where its line begins, which answer of the line)."""
        self._end = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        _sync(folder)
        self.refresh()

    def known(self, key: str) -> set[int]:
        """Which choices of a question are stored."""
        return set(self._places.get(key, ()))

    def read(self, key: str, choice: int) -> tuple[Answer, int]:
        """A stored choice, and the prompt tokens of its call."""
        start, which = self._places[key][choice]
        with self.path.open("rb") as handle:
            handle.seek(start)
            call = _call(handle.readline())
        if call is None:
            raise DereasonError(f"{self.path} changed while it was read", "start again, and leave the file alone")
        return call.answers[which], call.prompt_tokens

    def add(self, call: Call) -> None:
        """Write a call; it is on the disk when this returns.

        Raises:
            OSError: it could not be written whole (a full disk).
        """
        fields = {"when": datetime.now(UTC).isoformat(timespec="seconds"), **asdict(call)}
        # What is left at its default is left out: the lines are for people too.
        fields["answers"] = [
            {k: v for k, v in asdict(a).items() if k in ("text", "tokens") or v not in (False, "", None)}
            for a in call.answers
        ]
        line = json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        file = os.open(self.path, os.O_RDWR | os.O_APPEND)
        try:
            if (size := os.fstat(file).st_size) and os.pread(file, 1, size - 1) != b"\n":
                os.write(file, b"\n")  # somebody was killed in the middle of a line
            if os.write(file, line) != len(line):
                raise OSError(errno.ENOSPC, "No space left on device", str(self.path))
            os.fsync(file)
        finally:
            os.close(file)
        self.refresh()

    def refresh(self) -> None:
        """Read what was added since, by this store, by another one of the same file, or by another process."""
        with self.path.open("rb") as handle:
            handle.seek(self._end)
            for line in handle:
                if not line.endswith(b"\n"):
                    break  # being written, or left by somebody who was killed: the next writer ends it
                if (call := _call(line)) is not None:
                    self._note(call, self._end)
                self._end += len(line)

    def _note(self, call: Call, start: int) -> None:
        places = self._places.setdefault(call.key, {})
        for which in range(len(call.answers)):
            places.setdefault(call.at + which, (start, which))  # the first that was written stays
        self.calls += 1
        self.served |= {call.served} - {""}
        self.prompt_tokens += call.prompt_tokens
        self.tokens += sum(a.tokens for a in call.answers)


def runs(choices: Sequence[int]) -> list[tuple[int, int]]:
    """Sorted numbers as stretches without gaps: (first, how many)."""
    found: list[tuple[int, int]] = []
    for choice in choices:
        if found and sum(found[-1]) == choice:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((choice, 1))
    return found


def _call(line: bytes) -> Call | None:
    """The call of a line; None where it holds none. Texts are whole, whoever wrote them."""
    try:
        fields = json.loads(line.decode("utf-8", "surrogatepass"))
        answers = tuple(Answer(**answer) for answer in fields["answers"])
        call = Call(fields["key"], fields["at"], answers, fields["prompt_tokens"], fields["served"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not (_is_number(call.at) and _is_number(call.prompt_tokens) and all(map(_is_answer, answers))):
        return None
    if not (isinstance(call.key, str) and isinstance(call.served, str)):
        return None
    return replace(call, answers=tuple(map(_whole, answers)), served=whole_text(call.served))


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS


def _is_answer(answer: Answer) -> bool:
    first = {} if answer.first is None else answer.first
    return (
        isinstance(answer.text, str)
        and isinstance(answer.refusal, str)
        and isinstance(answer.hit_limit, bool)
        and _is_number(answer.tokens)
        and isinstance(first, dict)
        and all(isinstance(logp, float) and logp < 1 for logp in first.values())
    )


def _whole(answer: Answer) -> Answer:
    first = None if answer.first is None else {whole_text(token): logp for token, logp in answer.first.items()}
    return replace(answer, text=whole_text(answer.text), refusal=whole_text(answer.refusal), first=first)


def _sync(folder: Path) -> None:
    """Put a new file's name on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
