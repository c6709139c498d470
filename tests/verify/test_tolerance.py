"""Several accepted references, and numbers that need only be near: per problem, per source and for all."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dereason.errors import DereasonError
from dereason.problems.schema import Verdict
from dereason.verify.tolerance import Tolerance
from dereason.verify.verifier import Item, Verifier, VerifierSettings, item_of

FOUR = Tolerance(relative=0.04)


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    return Verifier()


@pytest.mark.parametrize(
    ("answer", "reference", "tolerance", "right"),
    [
        ("3.14", "3.15", Tolerance(), False),
        ("103", "100", FOUR, True),
        ("104", "100", FOUR, True),  # the limit is within
        ("96", "100", FOUR, True),
        ("104.1", "100", FOUR, False),
        ("-103", "100", FOUR, False),
        ("0.001", "0", FOUR, False),  # a share of nothing is nothing
        ("0.001", "0", Tolerance(absolute=0.01), True),
        ("1.1", "1", Tolerance(absolute=0.1), True),
        ("1.11", "1", Tolerance(absolute=0.1), False),
        ("3.1416", r"3.14", Tolerance(significant=3), True),
        ("3.146", "3.14", Tolerance(significant=3), False),
        ("1234", "1230", Tolerance(significant=3), True),
        (r"\pi", "3.14", FOUR, True),
        ("3.14", r"\pi", FOUR, True),
        ("3.14", r"\pi r", FOUR, False),
        (r"\sqrt{2}", "1.414", Tolerance(), False),
        ("9.8 m/s^2", "9.81 m/s^2", FOUR, True),
        ("980 cm/s^2", "9.81 m/s^2", FOUR, True),
        ("9.8 m/s", "9.81 m/s^2", FOUR, False),
        ("50%", "0.51", FOUR, True),
        ("(1.01, 2)", "(1, 2)", FOUR, True),
        ("(1.1, 2)", "(1, 2)", FOUR, False),
        ("about 100", "100", FOUR, False),
    ],
)
def test_tolerance(verifier: Verifier, answer: str, reference: str, tolerance: Tolerance, right: bool) -> None:
    judged = verifier.judge(f"\\boxed{{{answer}}}", False, reference, tolerance=tolerance)
    assert (judged.verdict is Verdict.CORRECT) is right, judged


def test_whose_tolerance_counts() -> None:
    settings = VerifierSettings(
        tolerance=Tolerance(absolute=1), tolerance_by_source={"scibench": Tolerance(relative=0.05)}
    )
    with Verifier(settings) as verifier:

        def right(source: str, tolerance: Tolerance | None = None) -> bool:
            item = Item(r"\boxed{104}", False, "100", source=source, tolerance=tolerance)
            return verifier.judge_many([item])[0].verdict is Verdict.CORRECT

        assert right("scibench")
        assert not right("gsm8k")
        assert right("gsm8k", Tolerance(absolute=4))
        assert not right("scibench", Tolerance())
    assert settings.key() != VerifierSettings().key()
    limits = {"time_limit", "memory_limit", "tolerance", "tolerance_by_source"}
    assert set(VerifierSettings().key()) == limits | {"answer_check", "answer_check_by_source", "checks"}


def test_any_accepted_reference_counts(verifier: Verifier) -> None:
    one = verifier.judge("The answer is Paris.", False, "Lutetia", accepted=["Paris", "Lutèce"])
    assert one.verdict is Verdict.CORRECT
    # Of another kind than the first reference: it is looked for as such.
    assert verifier.judge("It is 5 m/s.", False, "fast", accepted=["5 m/s"]).verdict is Verdict.CORRECT
    none = verifier.judge("The answer is London.", False, "Lutetia", accepted=["Paris"])
    assert none.verdict is Verdict.WRONG
    assert "Lutetia" in none.reason


def test_a_problem_says_what_it_accepts(verifier: Verifier) -> None:
    metadata = json.dumps({"accepted": ["1/3"], "tolerance": {"relative": 0.01}})
    problem = {"id": "p", "answer": "30\\%", "options": None, "source": "s", "metadata": metadata}
    assert verifier.judge_many([item_of(r"\boxed{0.3333}", False, problem)])[0].verdict is Verdict.CORRECT
    assert verifier.judge_many([item_of(r"\boxed{0.31}", False, problem)])[0].verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("metadata", "named"),
    [({"accepted": "1/3"}, "accepted"), ({"accepted": [3]}, "accepted"), ({"tolerance": {"relative": 2}}, "tolerance")],
)
def test_what_is_no_tolerance_is_refused(metadata: dict[str, object], named: str) -> None:
    with pytest.raises(DereasonError, match=f"p7.*{named}"):
        item_of("", False, {"id": "p7", "answer": "1", "metadata": json.dumps(metadata)})


@pytest.mark.parametrize("metadata", [{"accepted": True}, ["accepted"], 3, None, "", "no JSON"])
def test_a_column_metadata_of_another_type_says_nothing(metadata: object) -> None:
    """A data set that plain TRL is given may have one."""
    item = item_of("2", False, {"answer": "2", "metadata": metadata})
    assert replace(item, metadata=None) == Item("2", False, "2")
