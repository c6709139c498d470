"""The names of checks: the closed list that data may name, and how a function of the user's is named.

A data file may name a built-in check and nothing else: whoever writes data must not be able to have code run. A recipe
and a command line, which the user writes, may name a function besides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dereason.errors import DereasonError
from dereason.problems.gym import EQUAL, GYM, OURS, SCORED

_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True)
class Check:
    """What decides whether an answer is right."""

    name: str
    """``reasoning_gym:FAMILY``, or ``package.module:function``."""
    parameters: tuple[str, ...] = ("answer",)
    """What a function wants to know, by the names of its parameters."""

    @property
    def whole(self) -> bool:
        """Whether it reads the whole response: no answer is looked for in it."""
        return "answer" not in self.parameters

    @property
    def family(self) -> str | None:
        """The reasoning-gym family of a built-in check."""
        before, _, family = self.name.partition(":")
        return family if before == GYM else None


def own_check(metadata: Mapping[str, Any], where: str) -> Check | None:
    """The check that a problem's metadata name, themselves or in the field ``metadata`` of a row that was read.

    Args:
        metadata: of the problem.
        where: file and row, for messages.

    Raises:
        DereasonError: they name what is none of the closed list.
    """
    name, inner = metadata.get("answer_check"), metadata.get("metadata")
    if name is None and isinstance(inner, str) and "answer_check" in inner:
        try:
            inner = json.loads(inner)
        except (ValueError, RecursionError):
            inner = None
    if name is None and isinstance(inner, dict):
        name = inner.get("answer_check")
    return None if name is None else built_in(name, where)


def built_in(name: object, where: str) -> Check | None:
    """The check that data name; None where that is equality with the reference.

    Args:
        name: what stands in the data.
        where: file and row, for messages.

    Raises:
        DereasonError: it is none of the closed list.
    """
    before, _, family = name.partition(":") if isinstance(name, str) else ("", "", "")
    if before != GYM or family not in SCORED | OURS | EQUAL:
        shown = repr(name)
        function = isinstance(name, str) and _FUNCTION.fullmatch(name) and before != GYM
        raise DereasonError(
            f"{where}: 'answer_check' is {shown if len(shown) <= 60 else shown[:59] + '…'}, "
            + ("a function, which data may not name" if function else "no built-in check"),
            "name a function in the recipe (verifier.answer_check) or with --set, and take the field out of the data"
            if function
            else f"give {GYM}:FAMILY with a family of reasoning-gym, or name that field otherwise",
        )
    return None if family in EQUAL else Check(f"{GYM}:{family}")


def is_function(name: str) -> bool:
    """Whether a name has the form of a function's, and is none of the built-in checks."""
    return bool(_FUNCTION.fullmatch(name)) and not name.startswith(f"{GYM}:")


def is_check(name: str) -> bool:
    """Whether a recipe or a command line may name this: a function, or a built-in check."""
    before, _, family = name.partition(":")
    return family in SCORED | OURS | EQUAL if before == GYM else is_function(name)
