"""Symbolic comparison by math-verify. It runs inside the workers of :mod:`dereason.verify.workers` only.

sympy may take any time and any memory on a short expression (``9^{9^{9^9}}``), so nothing here belongs into the
process that trains or evaluates. math-verify's own time limits are off: they rest on ``SIGALRM``, which does not
interrupt one long integer operation. The worker is killed instead.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from dereason.verify.equivalence import compare
from dereason.verify.tolerance import Tolerance

# math-verify takes 15 digits and treats 0.333333 as 1/3. Here decimals are exact, and two constants are the same
# number when 50 digits agree.
PRECISION = 50

# Powers as programs write them: 2**10, and 9**9**9, which is 9**(9**9).
_POWERS = re.compile(r"[A-Za-z0-9.]+(?:\s*\*\*\s*-?[A-Za-z0-9.]+)+")
# Names that LaTeX writes with a backslash; without it the parser reads "ln" as l times n.
_NAMES = re.compile(r"(?<![A-Za-z\\])(arc)?(sinh?|cosh?|tanh?|cot|sec|csc|ln|log|exp|pi|theta)(?![A-Za-z])")
# In a function math-verify takes degrees for radians.
_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s?\^?\s?\{?\s?\\(?:circ|degree)(?![A-Za-z])\s?\}?")

_swallowed: list[BaseException] = []


def load() -> Callable[[list[Any]], list[Any]]:
    """Import sympy and math-verify, warm them up, and return what a worker does with a task.

    A task is ``[answer, reference, options, tolerance]``, its result ``[equal, reason]``; see
    :func:`dereason.verify.equivalence.compare` for both.
    """
    math_verify_equal(r"\frac{x}{2} + \sqrt{x}", "0.5x + x^{1/2}")  # builds the parser's tables
    return decide


def decide(task: list[Any]) -> list[Any]:
    """Compare one pair with every rule, the symbolic ones included."""
    answer, reference, options, tolerance = task
    found = compare(answer, reference, options, symbolic=math_verify_equal, tolerance=Tolerance(**tolerance))
    return [found.equal, found.reason]


def math_verify_equal(answer_latex: str, reference_latex: str) -> bool:
    """Whether math-verify takes two scalar expressions for the same.

    Decimals are exact here (0.333333 is not 1/3). An expression that cannot be parsed equals nothing.

    Raises:
        MemoryError, RecursionError: sympy ran out of one of them, even where math-verify made that a "no".
        Exception: whatever else sympy raises while it compares.
    """
    verify = _math_verify()[1]
    _swallowed.clear()
    reference, answer = _parse(reference_latex), _parse(answer_latex)
    equal = bool(reference and answer) and verify(
        reference, answer, float_rounding=PRECISION, numeric_precision=PRECISION, timeout_seconds=0, raise_on_error=True
    )
    if _swallowed and not equal:
        raise _swallowed[0]
    return bool(equal) and not _both_vanish(reference[0], answer[0])


def math_verify_opinion(answer: str, reference: str) -> bool | None:
    """math-verify's opinion of two answers; None where it reads either as no mathematics, or cannot compare them."""
    if not (_parse(reference) and _parse(answer)):
        return None
    try:
        return math_verify_equal(answer, reference)
    except MemoryError:  # the worker's limit, which the caller is told of
        raise
    except Exception:  # it raises of many kinds where it cannot compare: then it has no opinion
        return None


def _both_vanish(reference: Any, answer: Any) -> bool:
    """Whether two different constants are so small that PRECISION decimals take both for zero."""
    from sympy import Expr, N

    if not all(isinstance(side, Expr) and not side.free_symbols for side in (reference, answer)):
        return False
    left, right = (0 if side.is_zero else N(side, PRECISION) for side in (reference, answer))
    size = max(abs(left), abs(right))
    return bool(size < 10 ** (20 - PRECISION) and abs(left - right) > size * 10 ** (5 - PRECISION))


def _parse(latex: str) -> list[Any]:
    parse, _, config = _math_verify()
    plain = _POWERS.sub(_tower, latex.replace("$", " ")).replace("**", "^")
    plain = _DEGREES.sub(r"(\\frac{\1}{180} \\pi)", plain)
    plain = " ".join(_NAMES.sub(r"\\\g<0>", plain).split())
    # math-verify looks for mathematics in text; between dollar signs it takes the whole of it.
    found = parse(f"${plain}$", [config], fallback_mode="no_fallback", parsing_timeout=0)
    return [_exact(expression) for expression in found]


def _tower(match: re.Match[str]) -> str:
    *bases, top = (part.strip() for part in match.group().split("**"))
    return "^{".join([*bases, top]) + "}" * len(bases)


def _exact(expression: Any) -> Any:
    """The same expression with its decimals as fractions, and i as the imaginary unit."""
    from sympy import Basic, Float, I, Rational, Symbol

    if not isinstance(expression, Basic):
        return expression
    exact: dict[Any, Any] = {decimal: Rational(str(decimal)) for decimal in expression.atoms(Float)}
    # Not the index of a sum.
    exact |= {symbol: I for symbol in expression.free_symbols if isinstance(symbol, Symbol) and symbol.name == "i"}
    return expression.xreplace(exact) if exact else expression


@cache
def _math_verify() -> tuple[Any, Any, Any]:
    """``parse``, ``verify`` and the extraction settings of math-verify."""
    import math_verify
    from math_verify import grader, parser

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its time limits are off
    # math-verify answers "not equal" to every exception inside sympy. Running out of memory or of stack is no
    # answer, so these two are noted where they pass.
    for module, name in ((parser, "latex2sympy"), (grader, "simplify"), (grader, "solve")):
        setattr(module, name, _noting(getattr(module, name)))
    return math_verify.parse, math_verify.verify, math_verify.LatexExtractionConfig()


def _noting(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def noting(*args: Any, **kw: Any) -> Any:
        try:
            return function(*args, **kw)
        except (MemoryError, RecursionError) as exc:
            _swallowed.append(type(exc)())  # without its traceback, which would keep the frames' memory
            raise

    return noting
