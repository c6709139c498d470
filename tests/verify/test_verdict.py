"""Verdicts: the five of them, and that nothing a response says can raise."""

from __future__ import annotations

import random

import pytest

from dereason.problems.schema import Verdict
from dereason.statistics import beta_interval
from dereason.verify import verifier as module
from dereason.verify.verdict import judge_response, verdict_counts
from dereason.verify.verifier import Verifier


@pytest.mark.parametrize(
    ("response", "hit_limit", "verdict"),
    [
        (r"\boxed{7}", False, Verdict.CORRECT),
        (r"\boxed{7} and then", True, Verdict.CORRECT),
        (r"\boxed{8} and then", True, Verdict.WRONG),
        ("Final answer: 7\nCheck: 3 +", True, Verdict.CORRECT),
        ("#### 8\n", True, Verdict.WRONG),
        ("3 + 4 is 7", False, Verdict.CORRECT),
        ("3 + 4 is 7", True, Verdict.TRUNCATED),
        ("3 + 4 is 8", True, Verdict.TRUNCATED),
        ("3 + 4 is 8", False, Verdict.WRONG),
        ("well", False, Verdict.UNPARSABLE),
        ("well", True, Verdict.TRUNCATED),
        ("", False, Verdict.UNPARSABLE),
        (r"\boxed{7", False, Verdict.CORRECT),
        (r"\boxed{7", True, Verdict.TRUNCATED),
        (r"\boxed{7 or 8}", False, Verdict.WRONG),
        ("Final answer: 7", True, Verdict.TRUNCATED),  # it may have been going to be 72
        (r"\boxed{7}", True, Verdict.CORRECT),
    ],
)
def test_rules(response: str, hit_limit: bool, verdict: Verdict) -> None:
    judged = judge_response(response, hit_limit, "7")
    assert judged.verdict == verdict
    assert (judged.extracted is None) == (verdict in (Verdict.TRUNCATED, Verdict.UNPARSABLE))
    assert judged.reason


def test_choice_letter_counts_when_cut_off() -> None:
    options = ["one", "two"]
    assert judge_response("It is option B.", True, "B", options).verdict == Verdict.CORRECT
    assert judge_response("It is option A.", False, "two", options).verdict == Verdict.WRONG
    assert judge_response("There are 2", False, "B", options).verdict == Verdict.UNPARSABLE


def test_numeric_option_texts_do_not_allow_the_last_number() -> None:
    assert judge_response("we have 5 of them", False, "5", ["4", "5"]).verdict == Verdict.UNPARSABLE


def test_empty_options_mean_free_form() -> None:
    assert judge_response("7", False, "7", []).verdict == Verdict.CORRECT


def test_failure_is_an_error_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = judge_response(r"\boxed{A}", False, "Z", ["x", "y"])
    assert judged.verdict == Verdict.ERROR
    assert "names none of the 2 options" in judged.reason
    assert judge_response(r"\boxed{4}", False, " ").verdict == Verdict.ERROR

    def bomb(*_: object, **__: object) -> None:
        raise RecursionError("too deep")

    for name, extracted in (("compare", "4"), ("locate", None), ("kind_of", None)):
        with monkeypatch.context() as planted:
            planted.setattr(module, name, bomb)
            judged = Verifier().judge(r"\boxed{4}", False, "4")  # its own: the shared one may remember this pair
        assert (judged.verdict, judged.extracted) == (Verdict.ERROR, extracted)
        assert judged.reason == "verifier failed: RecursionError: too deep"


def test_no_response_raises() -> None:
    rng = random.Random(2)
    pieces = [r"\boxed{", "}", "{", "\\", "answer is ", "#### ", "7", ",", ".", "/", "$", "(B)", "\n", " "]
    pieces += [r"\frac", "-", "final answer:", "**", "%", "\u2212", "e9", "or", r"\text{", "\x00", "\ud800"]
    seen = set()
    for _ in range(3000):
        response = "".join(rng.choices(pieces, k=rng.randrange(12)))
        for reference, options in (("7", None), ("east", None), ("B", ["6", "7"])):
            judged = judge_response(response, rng.random() < 0.5, reference, options)
            assert judged.verdict != Verdict.ERROR, (response, judged)
            seen.add(judged.verdict)
    assert len(seen) == 4


def test_bombs_cost_nothing() -> None:
    for bomb in (
        "9**9**9**9",
        "1e999999999",
        "9" * 100_000,
        "{" * 50_000 + "x" + "}" * 50_000,
        "((" * 40_000,
    ):
        assert judge_response(f"\\boxed{{{bomb}}}", False, "4").verdict == Verdict.WRONG


def test_counts() -> None:
    counts = verdict_counts(["correct", Verdict.CORRECT, "error"])
    assert counts == {"correct": 2, "wrong": 0, "unparsable": 0, "truncated": 0, "error": 1}
    with pytest.raises(ValueError, match="maybe"):
        verdict_counts(["maybe"])


def test_beta_interval_against_integration() -> None:
    # The posterior's density on a fine grid of t = asin(sqrt(p)), which removes its poles at 0 and 1.
    import numpy as np

    for correct, n in ((0, 0), (0, 8), (3, 8), (8, 8), (32, 64)):
        t = np.linspace(0, np.pi / 2, 200_001)
        density = np.sin(t) ** (2 * correct) * np.cos(t) ** (2 * (n - correct))
        mass = np.cumsum(density) / density.sum()
        expected = [float(np.sin(t[np.searchsorted(mass, q)]) ** 2) for q in (0.05, 0.95)]
        assert beta_interval(correct, n, 0.9) == pytest.approx(expected, abs=1e-4)


def test_beta_interval_refuses_impossible_counts() -> None:
    for correct, n, level in ((3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)):
        with pytest.raises(ValueError, match="must lie"):
            beta_interval(correct, n, level)
