"""Precision and recall on labelled pairs: a fast sample of ``benchmarks/verifier_quality.py``, with floors."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared/data"
PAIRS = 2500
# Each kind's recall over all pairs is 1 or nearly; a sample has few pairs of some kinds.
RECALL = 0.99
PRECISION = 0.999


@pytest.fixture(scope="module")
def quality() -> Iterator[Any]:
    if not DATA.is_dir():
        pytest.skip(f"no real data: {DATA} is absent")
    before = list(sys.path)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("verifier_quality")
    sys.path[:] = before


@pytest.fixture(scope="module")
def outcomes(quality: Any) -> Any:
    # Not those that are held out: nobody mends a rule by them.
    pairs = [pair for pair in quality.labelled_pairs(DATA, seed=7) if not quality.held_out(pair)]
    pairs = quality.sample(pairs, PAIRS)
    # The limit is wall time: it must not decide on a busy machine.
    with quality.Verifier(quality.VerifierSettings(time_limit=300)) as verifier:
        return quality.judge(pairs, verifier)


def test_floors_of_every_kind(quality: Any, outcomes: Any) -> None:
    table = {row.kind: row for row in quality.table(outcomes)}
    assert set(table) == {
        *("number", "quantity", "choice", "boolean", "set", "interval", "tuple", "matrix", "equation"),
        *("expression", "text", "all"),
    }
    misses = [(o.pair, o.judged) for o in outcomes if o.missed]
    for row in table.values():
        assert row.positives >= 20, row
        assert row.negatives >= 20, row
        assert row.precision >= PRECISION, (row, misses)
        assert row.recall >= RECALL, (row, misses)
        assert row.errors == 0, (row, misses)


def test_the_labels_are_not_trivial(outcomes: Any) -> None:
    causes = Counter((o.pair.kind, o.pair.cause, o.pair.equal) for o in outcomes)
    assert len(causes) > 200
    assert {equal for _, _, equal in causes} == {True, False}
    # Most right answers are written in another way than the reference.
    right = [o.pair for o in outcomes if o.pair.equal and o.pair.kind != "choice"]
    assert sum(pair.reference not in pair.response for pair in right) > len(right) / 2


def test_the_table_counts_misses(quality: Any, outcomes: Any) -> None:
    """A verifier that says "correct" to everything is seen to be bad, one that says nothing too."""
    judged = {True: quality.Judgement("correct", "x", "forged"), False: quality.Judgement("error", None, "forged")}
    pairs = [o.pair for o in outcomes]
    yes = quality.table([quality.Outcome(pair, judged[True]) for pair in pairs])[-1]
    assert yes.recall == 1
    assert yes.precision == pytest.approx(sum(pair.equal for pair in pairs) / len(pairs))
    no = quality.table([quality.Outcome(pair, judged[False]) for pair in pairs])[-1]
    assert (no.recall, no.precision, no.errors) == (0, 1, len(pairs))
