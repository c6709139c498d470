r"""Which answers are marked, and what a reward sees of a response under the marks that count."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dereason.problems.schema import Verdict
from dereason.verify.locate import locate
from dereason.verify.reading import kind_of
from dereason.verify.span import MARKS, Mark
from dereason.verify.verifier import Item, Verifier

CHOICES = ["Paris", "Rome", "Oslo", "Bern"]
LONG = "We had three boxes of apples and gave some of them to the neighbours, who were glad, and so what is left is 42"

# response, reference, options, hit_limit, lenient verdict, how, verdict under all marks
SAID: list[tuple[str, str, Sequence[str] | None, bool, str, str | None, str]] = [
    (r"So \boxed{42}. Wait, let me try 7. And 9.", "42", None, False, "correct", "boxed", "correct"),
    ("Adding gives 42", "42", None, False, "correct", "number", "unparsable"),
    ("Adding gives 41", "42", None, False, "wrong", "number", "unparsable"),
    ("Adding gives 42 and", "42", None, True, "truncated", None, "truncated"),
    ("Thus the answer is 41. Hmm, no. 20 and 22 make 42", "42", None, False, "wrong", "final_answer", "wrong"),
    ("The answer is 42. Is it? 6 times 7", "42", None, False, "correct", "final_answer", "correct"),
    ("The answer is 4", "42", None, True, "truncated", None, "truncated"),
    ("6*7 = 42\n#### 42", "42", None, False, "correct", "hash", "correct"),
    ("<answer>42</answer> or 43", "42", None, False, "correct", "tag", "correct"),
    ("<answer>42 or 43</answer>", "42", None, False, "wrong", "tag", "wrong"),
    (r"<answer>it is \boxed{42}</answer>", "42", None, False, "correct", "tag", "correct"),
    # prose in a tag, maybe never closed, marks nothing: else a tag at the head would pay every text's last number
    (f"<answer>{LONG}</answer>", "42", None, False, "correct", "number", "unparsable"),
    (f"<answer>{LONG}", "42", None, False, "correct", "number", "unparsable"),
    (rf"\boxed{{42}} <answer>{LONG}", "42", None, False, "correct", "number", "unparsable"),
    (r"\boxed{41} or \boxed{42}", "42", None, False, "wrong", "boxed", "wrong"),
    ("40, 41, 42, 43", "42", None, False, "wrong", "number", "unparsable"),
    ("So it must be C.", "C", CHOICES, False, "correct", "letter", "correct"),
    ("C", "C", CHOICES, False, "correct", "letter", "correct"),
    ("A. Paris\nB. Rome\nC. Oslo\nD. Bern", "D", CHOICES, False, "unparsable", None, "unparsable"),
    ("The answer is A, B, C or D.", "A", CHOICES, False, "wrong", "final_answer", "wrong"),
    ("<answer>A. Paris B. Rome C. Oslo D. Bern</answer>", "A", CHOICES, False, "wrong", "tag", "wrong"),
    ("<answer>Paris, Rome</answer>", "A", CHOICES, False, "wrong", "tag", "wrong"),
    (r"\boxed{A B C D}", "A", CHOICES, False, "wrong", "boxed", "wrong"),
    ("A\nB\nC\nD", "D", CHOICES, False, "unparsable", None, "unparsable"),
    ("An incorrect answer: C", "C", CHOICES, False, "unparsable", None, "unparsable"),
    ("Wrong answers: A, C, D. Correct: B", "B", CHOICES, False, "correct", "letter", "correct"),
    ('{"answer": "A", "answer": "B"}', "A", CHOICES, False, "wrong", "final_answer", "wrong"),
    ("<answer>B) Rome because (A) fails</answer>", "B", CHOICES, False, "correct", "tag", "correct"),
    ("A good city is north", "A", CHOICES, False, "unparsable", None, "unparsable"),
    ("Blue whale", "blue whale", None, False, "correct", "alone", "unparsable"),
    ("<think>\\boxed{42}</think> I do not know", "42", None, False, "unparsable", None, "unparsable"),
    ("<think>\\boxed{42}</think>", "42", None, False, "correct", "boxed", "correct"),
    ("", "42", None, False, "unparsable", None, "unparsable"),
]


@pytest.mark.parametrize("case", SAID, ids=lambda case: case[0][:40])
def test_both_verdicts(case: tuple[str, str, Sequence[str] | None, bool, str, str | None, str]) -> None:
    response, reference, options, cut, lenient, how, paid = case
    item = Item(response, cut, reference, options)
    with Verifier() as verifier:
        (judged,) = verifier.judge_many([item])
        assert (judged.verdict, judged.how) == (lenient, how)
        assert judged.strict is (paid == "correct")
        assert judged.columns()["strict"] is judged.strict
        assert [j.verdict for j in verifier.rewarded([item], [judged], MARKS)] == [paid]
        assert [j.verdict for j in verifier.judge_many([item], MARKS)] == [paid]
        for mark in MARKS:  # what was found at a mark is what is found when it alone counts
            (alone,) = verifier.judge_many([item], [mark])
            assert alone.how in (None, mark)
            assert verifier.rewarded([item], [judged], [mark]) == [alone] or alone.how is None
            assert judged.how != mark or alone == judged
        assert verifier.rewarded([item], [judged], None) == [judged]


@pytest.mark.parametrize(
    ("response", "marks", "found"),
    [
        (r"\boxed{42} The answer is 7.", ["boxed"], "42"),
        (r"\boxed{42} <answer>7</answer>", ["boxed"], "42"),
        (r"\boxed{42} <answer>7</answer>", MARKS, "7"),
        (r"\boxed{42} The answer is 7.", ["final_answer"], "7"),
        ("The answer is 7.\n#### 42", ["hash"], "42"),
        ('{"answer": 7}', ["final_answer"], "7"),
        ('{"answer": 7}', ["hash", "boxed"], None),
        ("The answer is 7.", ["boxed"], None),
        (r"<answer>\boxed{42}</answer>", ["boxed"], "42"),
        (rf"\boxed{{42}} <answer>{LONG}", ["boxed"], "42"),
    ],
)
def test_other_marks_do_not_exist(response: str, marks: Sequence[Mark], found: str | None) -> None:
    span = locate(response, kind=kind_of("42", None), marks=marks)
    assert (span and span.text) == found
    assert span is None or response[span.start : span.end] == found


def test_a_box_that_names_no_option_is_what_counts_where_boxes_alone_do() -> None:
    with Verifier() as verifier:
        item = Item(r"\boxed{x} The answer is C.", False, "C", CHOICES)
        (judged,) = verifier.judge_many([item])
        assert judged.strict
        assert [j.verdict for j in verifier.rewarded([item], [judged], ["boxed"])] == [Verdict.WRONG]


def test_the_rewarded_judgement_looks_again_only_where_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text whose answer is marked is located and compared once for both judgements."""
    from dereason.verify import verifier as module

    calls: list[str] = []
    search = module.locate

    def counted(response: str, **kw: object) -> object:
        calls.append(response)
        return search(response, **kw)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "locate", counted)
    items = [Item(text, False, "42") for text in (r"\boxed{42}", r"\boxed{41}", "it is 42", "no")]
    items.append(Item("it is 42", False, "41", accepted=("42",)))
    with Verifier() as verifier:
        judged = verifier.judge_many(items)
        calls.clear()
        paid = verifier.rewarded(items, judged, MARKS)
    assert calls == ["it is 42", "it is 42", "it is 42"], "unmarked ones, the last against both of its references"
    assert [j.verdict for j in paid] == ["correct", "wrong", "unparsable", "unparsable", "unparsable"]
