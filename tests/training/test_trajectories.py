"""What training does, against what it did when it was recorded: see tests/trajectories.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from trajectories import CASES, OFTEN, SHARED, differences, load, run_all, run_shared, table

RECORDED = load()


def test_trajectories_are_the_recorded_ones(tmp_path: Path) -> None:
    assert RECORDED.keys() == CASES.keys(), "python tests/trajectories.py --record"
    moved = [line for name, steps in run_all(OFTEN, tmp_path) for line in differences(name, RECORDED[name], steps)]
    assert not moved, table(moved)


@pytest.mark.slow
def test_two_processes_give_what_one_gave(tmp_path: Path) -> None:
    found = run_shared(tmp_path)
    assert found.keys() == set(SHARED)
    moved = [line for name, steps in found.items() for line in differences(name, RECORDED[name], steps)]
    assert not moved, table(moved)


def test_a_number_that_moves_is_named() -> None:
    name = "joint luffy"
    step = RECORDED[name][0]
    other = step | {"gradient_product": step["gradient_product"] + 1e-9 * step["gradient_norm"]}
    assert [line[:3] for line in differences(name, [step], [other])] == [(name, 0, "gradient_product")]
    assert differences(name, [step], [step | {"loss": float("nan")}])
