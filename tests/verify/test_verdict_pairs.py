"""Pairs of a response and a reference with the right verdict, through the function that users call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dereason.problems.schema import Verdict
from dereason.verify.verifier import Item, Verifier

DATA = Path(__file__).parents[3] / "shared/data/verdicts"


@pytest.mark.parametrize(("name", "floor"), [("failing", 0.99), ("holding", 0.998)])
def test_pairs_written_for_the_purpose(name: str, floor: float) -> None:
    path = DATA / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip(f"no {path}: the pairs lie beside the project")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with Verifier() as verifier:
        judged = verifier.judge_many([Item(r["response"], False, r["answer"], r.get("options")) for r in rows])
    right = [(j.verdict is Verdict.CORRECT) == (r["expected"] == "correct") for r, j in zip(rows, judged, strict=True)]
    false = [r for r, ok in zip(rows, right, strict=True) if not ok and r["expected"] != "correct"]
    assert false == [], "accepted, and wrong"
    assert sum(right) / len(rows) >= floor, [r for r, ok in zip(rows, right, strict=True) if not ok]
