"""Where two stages' answers were found by other rules, a run says so beside the accuracies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dereason.cli.show import show_result
from dereason.pipeline.summary import moved_rules


def row(stage: str, found_by: dict[str, float], arm: str = "a", seed: int = 0) -> dict[str, Any]:
    return {"arm": arm, "seed": seed, "stage": stage, "found_by": found_by}


def test_a_tenth_of_the_answers_by_other_rules_is_said() -> None:
    base = {"number": 0.8, "boxed": 0.2}
    rows = [
        row("base", base),
        row("1-sft", {"number": 0.71, "boxed": 0.29}),
        row("2-rl", {"boxed": 0.95, "number": 0.05}),
        row("base", base, "b"),
        row("1-sft", {}, "b"),  # it answered nothing: there is nothing to compare
        row("2-rl", {"number": 0.7, "hash": 0.3}, "b"),
    ]
    first, second = moved_rules(rows)
    assert first.startswith("arm a, seed 0, 2-rl: 75 % of its answers were found by other rules than the base's")
    assert "number (80 %), here boxed (95 %)" in first
    assert second.startswith("arm b, seed 0, 2-rl: 30 %")


def test_the_terminal_shows_both_accuracies_and_the_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = row("base", {"number": 0.7, "tag": 0.3}) | {"accuracy": 0.443, "low": 0.4, "high": 0.5, "level": 0.95}
    result |= {"strict": {"accuracy": 0.251, "low": 0.2, "high": 0.3}, "verdicts": {"correct": 9, "wrong": 3}}
    moved = {"arm": "a", "seed": 0, "from": "base", "to": "1-rl", "difference": 0.031, "low": -0.01, "high": 0.07}
    moved |= {"strict": {"difference": 0.123, "low": 0.08, "high": 0.16}}
    summary = {
        "model": {"name": "small", "note": ""},
        "problems": {"test": {"n": 40}},
        "results": [result | {"answered_accuracy": 0.75}],
        "comparisons": [moved, moved | {"strict": None}],
        "reasoning": None,
        "profile": None,
        "warnings": [],
        "seconds": 1.0,
        "tokens": {"generated": 1, "trained": 1},
        "peak_memory_bytes": 1,
    }
    show_result(summary, tmp_path)
    shown = capsys.readouterr().out
    assert "44.3 %" in shown
    assert "25.1 %" in shown
    assert "answers found by number 70 %, tag 30 %" in shown
    assert shown.count("strict: +12.3 points [+8.0, +16.0]") == 1
