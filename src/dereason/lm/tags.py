"""The tags around what a model thinks aloud. Imports nothing heavy: the verifier's workers read it."""

from __future__ import annotations

import re

_NAMES = r"(?:think|thinking|thoughts?|reasoning|scratchpad|seed:think)"
TAG = re.compile(
    rf"""
    (?P<opening><{_NAMES}> | <\|begin_of_thought\|> | \[THINK\] | \u25c1think\u25b7
        | <\|channel\|>analysis<\|message\|>)
    | </{_NAMES}> | <\|end_of_thought\|> | \[/THINK\] | \u25c1/think\u25b7 | <\|channel\|>final<\|message\|>
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""A tag that opens a thought (group ``opening``) or closes one."""


def tags_of(text: str) -> list[str]:
    """The tags of a text, in order."""
    return [match.group() for match in TAG.finditer(text)]
