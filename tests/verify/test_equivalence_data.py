"""The references of MATH: each equals itself however it is dressed, and hardly ever another one."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from dereason.verify.equivalence import compare
from dereason.verify.kinds import Kind
from dereason.verify.reading import kind_of
from dereason.verify.text import normalise

DATA = Path(__file__).parents[3] / "shared" / "data" / "math"


@pytest.fixture(scope="module")
def references() -> list[str]:
    if not DATA.exists():
        pytest.skip(f"no real data at {DATA}")
    lines = [line for name in ("test500", "train") for line in (DATA / f"{name}.jsonl").read_text().splitlines()]
    return sorted({answer for line in lines if (answer := json.loads(line)["answer"]).strip()})


def test_every_reference_equals_itself(references: list[str]) -> None:
    for reference in references:
        dressed = reference if "$" in reference else f"${reference}$"
        for answer in (reference, f" {reference}.", dressed, reference.replace("\\frac", "\\dfrac")):
            found = compare(answer, reference)
            assert found.equal is True, (answer, reference, found)


def test_kinds(references: list[str]) -> None:
    counts = Counter(kind_of(reference) for reference in references)
    assert len(references) == 3632
    assert counts[Kind.NUMBER] > 1_880
    # The kinds that MATH lacks: no truth value, no options, no board.
    assert counts[Kind.BOOLEAN] == counts[Kind.CHOICE] == counts[Kind.LITERAL] == 0
    for kind in set(Kind) - {Kind.BOOLEAN, Kind.CHOICE, Kind.LITERAL}:
        assert counts[kind] >= 40, kind
    # What no rule compares by meaning: names, letters, times and ratios.
    assert counts[Kind.TEXT] < 60


def test_another_reference_is_hardly_ever_equal(references: list[str]) -> None:
    rng = random.Random(0)
    by_kind: dict[Kind, list[str]] = {}
    for reference in references:
        by_kind.setdefault(kind_of(reference), []).append(reference)
    equal, undecided, n = set(), set(), 0
    for group in [references, *by_kind.values()]:
        for _ in range(1_500):
            a, b = rng.sample(group, 2)
            if normalise(a) == normalise(b):
                continue
            n += 1
            found, swapped = compare(a, b), compare(b, a)
            assert found.equal is swapped.equal, (a, b)
            if found.equal:
                equal.add((a, b))
            elif found.equal is None:
                undecided.add((a, b))
    assert n > 14_000
    # Looked at one by one: other spellings of the same answer ("120^{\circ}" and "120^\circ", "\frac15"), a number
    # with and without its unit, and the tuple (-2,1) for the list -2,1.
    assert len(equal) < 25
    for a, b in equal:
        kinds = {kind_of(a), kind_of(b)}
        assert len(kinds) == 1 or kinds in ({Kind.NUMBER, Kind.QUANTITY}, {Kind.SET, Kind.TUPLE}), (a, b)
    assert len(undecided) < 30
