"""Chat templates that print today's date (Llama 3.2, Granite) print one day, whenever they are rendered.

Such a template asks for ``strftime_now(format)``, which transformers answers with the clock: a run that crosses
midnight would go on with other prompts. Here a macro of that name, which knows one day alone, stands in front of the
template while it is used, and is taken away when a model is saved. An endpoint renders with its own clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

_ASKS = re.compile(r"\bstrftime_now\b")
_DEFINES = re.compile(r"\bmacro\s+strftime_now\b")
_GIVEN = re.compile(r"\A\{#- The day is (\d{4}-\d\d-\d\d)\. -#\}.*?\{%- endmacro %\}\n", re.DOTALL)
_DIRECTIVES = "aAwdbBmyYHIMpSfjUWcxXGuV"  # of the C standard; what a platform adds is left as it stands
_SHORT = "dmyHIMSjUW"  # those that glibc writes without leading zeros behind a dash


def today() -> date:
    """The day of the clock, here."""
    return date.today()


def give_date(tokenizer: Any, day: date) -> None:
    """Let a template that asks for today's date be told this day; another template is left as it is."""
    _change(tokenizer, lambda text: _prefix(day) + text if _ASKS.search(text) and not _DEFINES.search(text) else text)


def given_date(tokenizer: Any) -> date | None:
    """The day that the template is told; None where it was told none."""
    found = next(filter(None, map(_GIVEN.match, _texts(tokenizer.chat_template))), None)
    return date.fromisoformat(found[1]) if found else None


@contextmanager
def own_template(tokenizer: Any) -> Iterator[None]:
    """The tokenizer with the template that it came with, to be saved: it prints the day on which it is used."""
    before = tokenizer.chat_template
    _change(tokenizer, lambda text: _GIVEN.sub("", text))
    try:
        yield
    finally:
        tokenizer.chat_template = before


def _texts(template: Any) -> list[str]:
    if isinstance(template, dict):  # some have several, by name
        return list(template.values())
    return [template] if isinstance(template, str) else []


def _change(tokenizer: Any, how: Callable[[str], str]) -> None:
    template = tokenizer.chat_template
    if isinstance(template, dict):
        tokenizer.chat_template = {name: how(text) for name, text in template.items()}
    elif isinstance(template, str):
        tokenizer.chat_template = how(template)


def _prefix(day: date) -> str:
    """The macro; its last line end is trimmed, so that the template begins as if nothing stood before it."""
    written = {f"%{letter}": day.strftime(f"%{letter}") for letter in _DIRECTIVES}
    written |= {f"%-{letter}": day.strftime(f"%{letter}").lstrip("0") or "0" for letter in _SHORT}
    replacing = "".join(f"|replace({name!r}, {value!r})" for name, value in written.items())
    # %% is put aside first, so that %%d stays %d
    return (
        f"{{#- The day is {day.isoformat()}. -#}}{{%- macro strftime_now(format) -%}}"
        f"{{{{- format|replace('%%', '\\0'){replacing}|replace('\\0', '%') -}}}}{{%- endmacro %}}\n"
    )
