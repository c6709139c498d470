"""No text crashes the verifier or makes it slow: random texts of the pieces that answers are made of."""

from __future__ import annotations

import re
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from dereason.problems.schema import Verdict
from dereason.verify.equivalence import compare
from dereason.verify.reading import kind_of, read
from dereason.verify.verifier import Item, Verifier
from dereason.verify.workers import Outcome

PIECES = re.findall(
    r"\S+",
    r"""
    \boxed{ \frac{ \sqrt{ \text{ \mathrm{ \begin{pmatrix} \end{pmatrix} \begin{aligned} \SI{ \ce{ \left( \right) \{ \}
    \\ \, \; \! \pm \times \cdot \approx \le \infty \cup \in \to \hat{i} \log_ \ln \sin ^{ _{ { } ( ) [ ] | & $ $$ \$
    % \% = < > + - * / ^ _ ! , . : ; ~ ' " ` # #### ** __ 0 1 5 12 999 1,234 0.5 1e9 9**9 10^{10^{10}} x y e i mgh AB
    h m kg m/s cm^2 M H2O Na+ dollars apples yes no and or not about between Answer: <answer> </answer> <think>
    </think> {"answer": (A) B. C €
    """,
)
TEXT = st.builds(
    lambda pieces, gap: gap.join(pieces),
    st.lists(st.sampled_from([*PIECES, "the answer is", "at most", "\n"]) | st.text(max_size=4), max_size=40),
    st.sampled_from(["", " "]),
)
LIMIT = 2.0
"""Seconds for one pair on a busy machine; the slowest takes some milliseconds."""


@settings(derandomize=True, database=None, deadline=None, max_examples=400)
@given(response=TEXT, reference=TEXT, options=st.none() | st.lists(TEXT.filter(str.strip), min_size=2, max_size=5))
def test_no_text_crashes_or_hangs(response: str, reference: str, options: list[str] | None) -> None:
    began = time.process_time()
    kind_of(reference, options)
    read(response, kind_of(reference))
    if reference.strip():
        try:
            assert compare(response, reference, options).equal in (True, False, None)
        except ValueError as exc:
            refused = str(exc)
        else:
            refused = ""
        assert not refused or "names none of" in refused or "more than the" in refused
    assert time.process_time() - began < LIMIT


@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(items=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3))
def test_every_response_gets_a_verdict(items: list[tuple[str, str]]) -> None:
    # Without workers: what needs one is an error that says so, and everything else is decided in process.
    with Verifier() as verifier:
        verifier._pool.run = lambda tasks: [Outcome(None, "not asked")] * len(tasks)  # type: ignore[method-assign]
        judged = verifier.judge_many([Item(response, False, reference) for response, reference in items])
    for one in judged:
        assert one.verdict in set(Verdict)
        if one.verdict is Verdict.ERROR:
            assert any(words in one.reason for words in ("not asked", "reference is empty", "more than the")), one


@settings(derandomize=True, database=None, deadline=None, max_examples=300)
@given(text=TEXT)
def test_a_text_equals_itself(text: str) -> None:
    if text.strip() and "more" not in text:
        assert compare(text, text).equal is True
