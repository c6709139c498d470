"""Whether a response marks several different answers: it hedges, or lists what might be right."""

from __future__ import annotations

from collections.abc import Sequence

from dereason.verify.locate import locate
from dereason.verify.reading import kind_of
from dereason.verify.span import MARKS
from dereason.verify.verdict import Judgement
from dereason.verify.verifier import Item, Verifier

MOST = 8
"""So many marked answers of a response are compared with the last one."""


def marked_answers(response: str, item: Item, last: tuple[int, int] | None = None) -> list[str]:
    """Texts of a response's marked answers, the one that counts first; at most :data:`MOST`.

    Each is the answer that :func:`~dereason.verify.locate.locate` finds where the ones before it are blanked out.

    Args:
        response: the text.
        item: says what the reference's kind is.
        last: where the first of them stands, if that is known.
    """
    kind = kind_of(item.reference, item.options or None)
    found: list[str] = []
    while len(found) < MOST:
        if last is None:
            span = locate(response, kind=kind, options=item.options or None, marks=MARKS)
            if span is None:
                break
            last = span.start, span.end
        start, end = last
        found.append(response[start:end])
        response, last = response[:start] + " " * (end - start) + response[end:], None
    return found


def several_answers(verifier: Verifier, items: Sequence[Item], judged: Sequence[Judgement]) -> list[bool]:
    """Which responses mark several different answers.

    One differs from another where both are of one kind and the rules call them unequal: "5 apples" is no other answer
    than 5, and what cannot be compared is none.

    Args:
        verifier: compares.
        items: the responses.
        judged: what the verifier said of them.
    """
    pairs, owners = [], []
    for i, (item, judgement) in enumerate(zip(items, judged, strict=True)):
        if judgement.how in MARKS and judgement.start is not None and judgement.end is not None:
            first, *others = marked_answers(item.response, item, (judgement.start, judgement.end))
            for other in dict.fromkeys(others):
                if other != first and kind_of(other) == kind_of(first):
                    pairs.append((other, first, None))
                    owners.append(i)
    several = [False] * len(items)
    for i, comparison in zip(owners, verifier.equivalent_many(pairs) if pairs else [], strict=True):
        several[i] |= comparison.equal is False
    return several
