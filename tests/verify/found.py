"""What the comparison takes out of the place where an answer stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dereason.verify.kinds import Kind
from dereason.verify.locate import locate
from dereason.verify.single import single
from dereason.verify.span import Span
from dereason.verify.text import as_read, strip_markup, unmarked
from dereason.verify.units import parse_quantity


def found_in(response: str, *, kind: Kind, options: Sequence[str] | None = None) -> Span | None:
    """The span, with its text as the comparison reads it: one value of a number, else the text without its markup."""
    span = locate(response, kind=kind, options=options)
    if span is None:
        return None
    value = single(as_read(span.text)) if kind in (Kind.NUMBER, Kind.QUANTITY) else None
    text = strip_markup(span.text) if value is None else unmarked(value)
    if kind is Kind.NUMBER and value is not None and (quantity := parse_quantity(value)) is not None:
        text = quantity.magnitude if not quantity.unit[-1][0].startswith("money_") else text.lstrip("\u20ac\u00a3 ")
    return replace(span, text=" ".join(text.split()))
