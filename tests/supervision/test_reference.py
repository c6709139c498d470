"""Targets from the data itself."""

from __future__ import annotations

import contextlib
import json
from fractions import Fraction
from typing import Any

import pytest

from dereason.errors import DereasonError
from dereason.problems.schema import frame, validate
from dereason.supervision.reference import NotArithmetic, derive_steps, reference_targets


def one(style: Any, **fields: object) -> dict[str, Any]:
    row = {"id": "p", "question": "q", "answer": "3", "domain": "d", "source": "s", **fields}
    table = reference_targets(frame("problem", [row]), style)
    assert validate("target", table, "t").equals(table)
    return table.row(0, named=True)


def with_expression(expression: str) -> str:
    return json.dumps({"expression": expression, "num_terms": 2})


@pytest.mark.parametrize(
    ("expression", "lines", "value"),
    [
        ("74 - 71", ["74 - 71 = 3"], 3),
        ("4 - 1 - 7", ["4 - 1 = 3", "3 - 7 = -4"], -4),
        ("2 + 3 * 4", ["3 * 4 = 12", "2 + 12 = 14"], 14),
        ("( 56 + -33 ) - 84", ["56 + -33 = 23", "23 - 84 = -61"], -61),
        ("2 - -1", ["2 - -1 = 3"], 3),
        ("-( 2 + 3 ) * 4", ["2 + 3 = 5", "-5 * 4 = -20"], -20),
        ("478 / 1 + -682", ["478 / 1 = 478", "478 + -682 = -204"], -204),
        ("1 / 3 * 6", ["1 / 3 = 1/3", "(1/3) * 6 = 2"], 2),
        ("1/3 + 1/6", ["1 / 3 = 1/3", "1 / 6 = 1/6", "(1/3) + (1/6) = 1/2"], Fraction(1, 2)),
        ("7", [], 7),
        ("+7 ", [], 7),
    ],
)
def test_steps(expression: str, lines: list[str], value: int | Fraction) -> None:
    assert derive_steps(expression) == (lines, value)


@pytest.mark.parametrize(
    "expression",
    [
        "2 ** 3",
        "2 // 3",
        "1.5 + 1",
        "x + 1",
        "True + 1",
        "__import__('os')",
        "'a' * 3",
        "1 +",
        "",
        "1 = 1",
        "1 / (2 - 2)",
        "007 + 1",
        "1 + " * 100_000 + "1",
        "[1 for _ in 1]",
    ],
)
def test_only_plain_arithmetic(expression: str) -> None:
    with pytest.raises(NotArithmetic, match="the expression"):
        derive_steps(expression)


@pytest.mark.parametrize("expression", ["(" * 400 + "1" + ")" * 400, "-" * 998 + "1", "1-" * 499 + "1"])
def test_deep_expressions_are_worked_out_or_refused(expression: str) -> None:
    # How deep the parser goes depends on the version of Python; no other exception may come out.
    with contextlib.suppress(NotArithmetic):
        assert derive_steps(expression)[1] in (1, -498)


def test_random_expressions_against_python() -> None:
    import random

    rng = random.Random(0)

    def grow(depth: int) -> str:
        if depth == 0:
            return str(rng.randrange(-99, 100))
        left, right = grow(rng.randrange(depth)), grow(rng.randrange(depth))
        inner = f"{left} {rng.choice('+-*')} {right}"
        return rng.choice([inner, f"( {inner} )", f"-( {inner} )"])

    for _ in range(300):
        expression = grow(rng.randrange(1, 5))
        lines, value = derive_steps(expression)
        assert value == eval(expression)
        for line in lines:  # every line is true by itself
            left, right = line.split(" = ")
            assert eval(left) == int(right)
        assert len(lines) == sum(expression.count(f" {symbol} ") for symbol in "+-*")


def test_steps_target() -> None:
    target = one("steps", metadata=with_expression("74 - 71"), solution="ignored")
    assert target["response"] == "74 - 71 = 3\n\\boxed{3}"
    assert (target["origin"], target["accepted"]) == ("reference", True)
    assert target["note"] == "steps derived from the expression"


def test_steps_fall_back_to_the_solution_then_to_the_answer() -> None:
    target = one("steps", solution="It is 3.", solution_origin="human")
    assert target["response"] == "It is 3.\n\\boxed{3}"
    assert (target["origin"], target["note"]) == ("human", "worked solution (no expression)")
    target = one("steps", metadata="{}")
    assert target["response"] == "\\boxed{3}"
    assert (target["origin"], target["accepted"]) == ("reference", True)
    assert target["note"] == "bare answer (no expression, no worked solution)"


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        (with_expression("74 - 72"), "the expression does not give the reference"),
        (with_expression("2 ** 3"), "the expression is not plain arithmetic"),
        (with_expression("3 / 0"), "the expression divides by zero"),
        ("not JSON", "no expression"),
        ('["expression"]', "no expression"),
        ('{"expression": 3}', "no expression"),
    ],
)
def test_unusable_expressions(metadata: str, why: str) -> None:
    assert one("steps", metadata=metadata)["note"] == f"bare answer ({why}, no worked solution)"


def test_fractional_reference() -> None:
    target = one("steps", answer="0.5", metadata=with_expression("1 / 2"))
    assert target["response"] == "1 / 2 = 1/2\n\\boxed{0.5}"
    assert target["accepted"]


@pytest.mark.parametrize(
    ("solution", "response", "accepted"),
    [
        ("It is 3.", "It is 3.\n\\boxed{3}", True),
        ("So \\boxed{3.0}.", "So \\boxed{3.0}.", True),
        ("It is 3.\n#### 3", "It is 3.\n\\boxed{3}", True),
        ("It is 4.\n#### 4", "It is 4.\n#### 4", False),
        ("So \\boxed{4}.", "So \\boxed{4}.", False),
        ("We use 3 of the 5.  \n", "We use 3 of the 5.\n\\boxed{3}", True),
    ],
)
def test_solution(solution: str, response: str, accepted: bool) -> None:
    target = one("solution", solution=solution)
    assert (target["response"], target["accepted"]) == (response, accepted)
    assert (target["origin"], target["note"]) == ("reference", "worked solution")


def test_solution_whose_box_only_looks_different() -> None:
    target = one("solution", answer="3x", solution="So \\boxed{x+2x}.")
    assert (target["response"], target["accepted"]) == ("So \\boxed{x+2x}.", True)
    target = one("solution", answer="3x", solution="So \\boxed{x+3x}.")
    assert (target["response"], target["accepted"]) == ("So \\boxed{x+3x}.", False)
    # Of two texts it cannot tell, so the reference has the last word.
    target = one("solution", answer="the heart", solution="So \\boxed{it is the heart muscle}.")
    assert (target["response"], target["accepted"]) == ("So \\boxed{it is the heart muscle}.\n\\boxed{the heart}", True)


def test_solution_with_options() -> None:
    target = one("solution", answer="B", options=["2", "3"], solution="Two is too few.")
    assert target["response"] == "Two is too few.\n\\boxed{B}"
    assert target["accepted"]
    assert not one("solution", answer="B", options=["2", "3"], solution="It is \\boxed{A}.")["accepted"]


def test_missing_solution() -> None:
    for solution in (None, "  "):
        assert one("solution", solution=solution)["note"] == "bare answer (no worked solution)"


def test_answer() -> None:
    target = one("answer", solution="long", metadata=with_expression("74 - 71"))
    assert (target["response"], target["note"], target["accepted"]) == ("\\boxed{3}", "bare answer", True)
    assert not one("answer", answer="Z", options=["x", "y"])["accepted"]
    assert not one("answer", answer="}{")["accepted"]


def test_order_and_style() -> None:
    pool = frame(
        "problem",
        [{"id": f"p{i}", "question": "q", "answer": "1", "domain": "d", "source": "s"} for i in (2, 0, 1)],
    )
    assert reference_targets(pool, "answer")["problem_id"].to_list() == ["p2", "p0", "p1"]
    assert reference_targets(pool.clear(), "steps").schema == reference_targets(pool, "steps").schema
    with pytest.raises(DereasonError, match="solution, steps, answer"):
        reference_targets(pool, "story")  # type: ignore[arg-type]


def test_real_problems_of_reasoning_gym() -> None:
    gym = pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    for name in ("chain_sum", "products", "basic_arithmetic"):
        rows: list[dict[str, object]] = [
            {
                "id": f"{name}/{i}",
                "question": item["question"],
                "answer": item["answer"],
                "domain": name,
                "source": "reasoning_gym",
                "metadata": json.dumps(item["metadata"]),
            }
            for i, item in enumerate(gym.create_dataset(name, size=60, seed=5))
        ]
        table = reference_targets(frame("problem", rows), "steps")
        assert table["accepted"].all()
        derived = (table["note"] == "steps derived from the expression").sum()
        # A few quotients of basic_arithmetic are rounded in its reference; no step leads there.
        assert derived == 60 if name != "basic_arithmetic" else derived >= 54
