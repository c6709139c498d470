r"""Targets and raw traces from what the data itself carries: no model is asked.

Three styles:

``solution``  the problem's own worked solution, ended by ``\boxed{answer}``
``steps``     steps derived from an arithmetic expression in the metadata, one line for each operation
``answer``    the bare ``\boxed{answer}``

A problem that lacks what its style needs gets the next best (``steps``: the solution, then the bare answer;
``solution``: the bare answer), and the target's note says so: targets of different kinds teach different things,
and must be seen as such.
"""

from __future__ import annotations

import ast
import json
import operator
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Literal

import polars as pl

from dereason.errors import DereasonError
from dereason.problems.schema import Origin, Verdict, frame
from dereason.supervision.candidates import targets
from dereason.supervision.desk import Desk
from dereason.supervision.settings import DataTargets
from dereason.verify.kinds import Kind
from dereason.verify.locate import locate
from dereason.verify.numbers import parse_number
from dereason.verify.reading import kind_of
from dereason.verify.verifier import ComparisonError, Verifier, default_verifier, item_of

Style = Literal["solution", "steps", "answer"]
STYLES: tuple[Style, ...] = ("solution", "steps", "answer")

NOTE_STEPS = "steps derived from the expression"
NOTE_SOLUTION = "worked solution"
NOTE_ANSWER = "bare answer"

# An expression of this length has hundreds of operations; a longer one only tries the parser's recursion.
MAX_EXPRESSION = 1000


class NotArithmetic(Exception):
    """The text is no expression of the kind that we take apart; the message says why."""


def reference_targets(problems: pl.DataFrame, style: Style, verifier: Verifier | None = None) -> pl.DataFrame:
    """Targets in the order of the problems, one each, the refused ones too.

    Args:
        problems: a problem table.
        style: see the module's docstring.
        verifier: judges the responses; the process-wide one where none is given.

    Returns:
        A target table. ``accepted`` says whether the verifier finds the response correct; a worked solution
        whose own boxed or ``####`` answer contradicts the reference is left as it is and not accepted.

    Raises:
        DereasonError: an unknown style.
    """
    return targets(reference_candidates(problems, style, verifier).with_columns(chosen=pl.lit(True)))


def data_candidates(desk: Desk, problems: pl.DataFrame, entry: DataTargets) -> pl.DataFrame:
    """What the data carries, a candidate a problem; chosen where the verifier accepts it, or all with ``keep: all``.

    Args:
        desk: gives the verifier.
        problems: PROBLEM table of those to cover.
        entry: the style, and what is kept.

    Returns:
        CANDIDATE table; see :func:`reference_candidates`.
    """
    chosen = pl.lit(True) if entry.keep == "all" else pl.col("accepted")
    return reference_candidates(problems, entry.style, desk.verifier).with_columns(chosen=chosen)


def reference_candidates(problems: pl.DataFrame, style: Style, verifier: Verifier | None = None) -> pl.DataFrame:
    """Candidates in the order of the problems, one each, none chosen.

    Args:
        problems, style, verifier: as in :func:`reference_targets`.

    Returns:
        CANDIDATE table. ``model``, ``tokens`` and ``nll`` are null; ``reason`` says what the response is, and behind
        a colon why the verifier accepts it or not.

    Raises:
        DereasonError: an unknown style.
    """
    if style not in STYLES:
        raise DereasonError(f"unknown target style {style!r}", f"use one of {', '.join(STYLES)}")
    verifier = verifier or default_verifier()
    rows = list(problems.iter_rows(named=True))
    made = [_response(problem, style, verifier) for problem in rows]
    judged = verifier.judge_many(
        [item_of(response, False, row) for row, (response, _, _) in zip(rows, made, strict=True)]
    )
    return frame(
        "candidate",
        [
            {
                "problem_id": row["id"],
                "origin": origin,
                "index": 0,
                "raw": False,
                "response": response,
                "verdict": str(judgement.verdict),
                "accepted": judgement.verdict == Verdict.CORRECT,
                "chosen": False,
                "reason": f"{note}: {judgement.reason}",
            }
            for row, (response, origin, note), judgement in zip(rows, made, judged, strict=True)
        ],
    )


def _response(problem: dict[str, Any], style: Style, verifier: Verifier) -> tuple[str, str, str]:
    """The response, its origin, and what it is."""
    answer, options = problem["answer"], problem["options"]
    lacking = []
    response, origin, note = _box(answer), str(Origin.REFERENCE), NOTE_ANSWER
    if style == "steps":
        try:
            response, note = "\n".join([*_checked_steps(problem), _box(answer)]), NOTE_STEPS
        except NotArithmetic as exc:
            lacking.append(str(exc))
    if style == "solution" or lacking:
        if problem["solution"] and problem["solution"].strip():
            response, note = _with_box(problem["solution"], answer, options, verifier), NOTE_SOLUTION
            origin = problem["solution_origin"] or origin
        else:
            lacking.append("no worked solution")
    return response, origin, note + (f" ({', '.join(lacking)})" if lacking else "")


def _box(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


def _with_box(solution: str, answer: str, options: Sequence[str] | None, verifier: Verifier) -> str:
    """The solution ended by the boxed answer, unless it has a box that is right, or an answer that is wrong.

    A closing ``#### X`` line gives way to the box: two answer formats in one target would teach both.
    """
    solution = solution.strip()
    kind = kind_of(answer, options)
    found = locate(solution, kind=kind, options=options)
    if found is not None and found.how in ("boxed", "hash"):
        try:
            right, _ = verifier.equivalent(found.text, answer, options)
        except ComparisonError:  # the verifier will say so of the whole target
            return solution
        if right and found.how == "boxed":
            return solution
        # Texts may mean the same in ways that the verifier does not see; for every other kind it has rules.
        if not right and kind is not Kind.TEXT:
            return solution
        if right and found.how == "hash" and not solution[found.end :].strip():
            solution = solution[: solution.rindex("####", 0, found.end)].rstrip()
    return f"{solution}\n{_box(answer)}"


def _checked_steps(problem: dict[str, Any]) -> list[str]:
    """The lines of the derivation, whose result equals the reference."""
    expression = _expression(problem["metadata"])
    lines, value = derive_steps(expression)
    reference = parse_number(problem["answer"])
    if reference is None or reference.absolute() != value:
        raise NotArithmetic("the expression does not give the reference")
    return lines


def _expression(metadata: str | None) -> str:
    try:
        found = json.loads(metadata) if metadata else None
    except ValueError:
        found = None
    expression = found.get("expression") if isinstance(found, dict) else None
    if not isinstance(expression, str) or not expression.strip():
        raise NotArithmetic("no expression")
    return expression


def derive_steps(expression: str) -> tuple[list[str], Fraction]:
    """An arithmetic expression, worked out one operation a line in the order of evaluation.

    Args:
        expression: integers, ``+ - * /``, signs and parentheses, as in ``( 56 + -33 ) - 84``.

    Returns:
        The lines (``56 + -33 = 23``, ``23 - 84 = -61``) and the value. Values are exact: a quotient that is
        no integer is written ``a/b``, in parentheses where it is an operand. A sign takes no line of its own.

    Raises:
        NotArithmetic: anything else stands in the expression, or it divides by zero.
    """
    if len(expression) > MAX_EXPRESSION:
        raise NotArithmetic("the expression is too long")
    lines: list[str] = []
    try:
        value = _evaluate(ast.parse(expression.strip(), mode="eval").body, lines)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        raise NotArithmetic("the expression is not plain arithmetic") from exc
    except ZeroDivisionError as exc:
        raise NotArithmetic("the expression divides by zero") from exc
    return lines, value


_OPERATIONS: dict[type[ast.operator], tuple[str, Callable[[Fraction, Fraction], Fraction]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
}


def _evaluate(node: ast.expr, lines: list[str]) -> Fraction:
    match node:
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand, lines)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _evaluate(operand, lines)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
            a, b = _evaluate(left, lines), _evaluate(right, lines)
            symbol, operation = _OPERATIONS[type(op)]
            value = operation(a, b)
            lines.append(f"{_operand(a)} {symbol} {_operand(b)} = {value}")
            return value
    raise NotArithmetic("the expression is not plain arithmetic")


def _operand(value: Fraction) -> str:
    return str(value) if value.denominator == 1 else f"({value})"
