"""How far a number may be from the reference. By default not at all."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction

from pydantic import Field

from dereason.settings import Settings


class Tolerance(Settings):
    """How far a number may be from the reference's, or the value of an expression without variables.

    Where several are given, one is enough.
    """

    relative: float | None = Field(default=None, gt=0, lt=1)
    """Share of the reference's size by which the answer may differ: 0.04 for 4 %; null for none."""
    absolute: float | None = Field(default=None, gt=0)
    """Amount by which the answer may differ, in the reference's unit; null for none."""
    significant: int | None = Field(default=None, ge=1, le=15)
    """Significant figures to which both are rounded before they are compared; null for none."""

    def __bool__(self) -> bool:
        """Whether anything but the exact value is allowed."""
        return any(limit is not None for limit in (self.relative, self.absolute, self.significant))

    def allows(self, answer: Fraction | float, reference: Fraction | float) -> bool:
        """Whether the answer is near enough."""
        difference, size = abs(Fraction(answer) - Fraction(reference)), abs(Fraction(reference))
        # A limit of 0.1 is 1/10 here, so that 1.1 is within it of 1.
        if self.relative is not None and difference <= Fraction(str(self.relative)) * size:
            return True
        if self.absolute is not None and difference <= Fraction(str(self.absolute)):
            return True
        return self.significant is not None and _rounded(answer, self.significant) == _rounded(
            reference, self.significant
        )


def _rounded(value: Fraction | float, figures: int) -> Decimal:
    exact = Fraction(value)
    # One figure more than asked would round twice; the quotient has thirty.
    quotient = Context(prec=figures + 30).divide(Decimal(exact.numerator), Decimal(exact.denominator))
    return Context(prec=figures, rounding=ROUND_HALF_EVEN).plus(quotient)


EXACT = Tolerance()
