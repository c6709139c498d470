"""Critique: which problems failed, what is asked of them, what is accepted, and what is chosen."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from dereason.lm.base import Completion, LanguageModel
from dereason.lm.local.model import LocalModel, ModelSettings
from dereason.problems.schema import frame
from dereason.supervision.candidates import coverage, targets
from dereason.supervision.critique import (
    CONFIRMED,
    Diagnosis,
    critique_candidates,
    failed_problems,
    read_diagnosis,
    without_beginning,
)
from dereason.supervision.settings import CritiqueTargets, needs_student
from dereason.supervision.wording import DIAGNOSIS
from scripted import Say, ScriptedModel, make_desk

ATTEMPT = "Add the first two.\n\n2 + 3 = 5\n5 + 4 = 8\nSo it is \\boxed{8}"
PREFIX = "Add the first two.\n\n2 + 3 = 5\n"
DIAGNOSED = "Line 3 adds badly: 5 + 4 is 9.\nFirst wrong line: 3\nConclusion: wrong"
REPAIRED = "5 + 4 = 9\n\\boxed{9}"
FRESH = "2 + 3 = 5\n5 + 4 = 9\n\\boxed{9}"


def problem(id: str = "p0", **columns: object) -> dict[str, object]:
    return {"id": id, "question": f"What is 2 + 3 + 4? ({id})", "answer": "9", "domain": "d", "source": "s", **columns}


def rollout(
    response: str = ATTEMPT, verdict: str = "wrong", *, id: str = "p0", step: int = 1, index: int = 0
) -> dict[str, object]:
    return {
        "problem_id": id,
        "model": "student@1",
        "purpose": "rollout",
        "step": step,
        "index": index,
        "response": response,
        "tokens": len(response.split()),
        "hit_limit": False,
        "verdict": verdict,
    }


def entry(**changes: object) -> CritiqueTargets:
    texts = {
        "diagnosis": "DIAGNOSE {problem} | {attempt}",
        "repair": "REPAIR {problem} | {prefix} | {shown}",
        "new_trace": "SOLVE {problem} | {shown}",
    }
    critic = ModelSettings(name="critic")
    return CritiqueTargets.model_validate({"style": "critique", "critic": critic, "n": 1} | texts | changes)


def replies(diagnosis: object = DIAGNOSED, repair: object = REPAIRED, new_trace: object = FRESH) -> Say:
    """A critic by what it is asked; a list is one reply for each index."""
    by_kind = {"DIAGNOSE": diagnosis, "REPAIR": repair, "SOLVE": new_trace}

    def say(text: str, index: int) -> str | Completion:
        said = by_kind[text.split()[0]]
        found = said[index] if isinstance(said, list) else said
        assert isinstance(found, str | Completion)
        return found

    return say


@pytest.fixture(scope="module")
def student(tiny_model: Path) -> LocalModel:
    return LocalModel(ModelSettings(name=str(tiny_model)))


class Room:
    """A desk whose critic says what a test tells it to, and whose student is the tiny model."""

    def __init__(self, store: Path, student: LocalModel, say: Say) -> None:
        self.critic = ScriptedModel(say, "critic@1")

        def load(settings: ModelSettings, identity: str | None) -> LanguageModel:
            return self.critic if settings.name == "critic" else student

        self.desk = make_desk(store, load, student.settings)

    def build(
        self,
        asked: CritiqueTargets,
        rollouts: list[dict[str, object]] | None = None,
        problems: list[dict[str, object]] | None = None,
    ) -> pl.DataFrame:
        table = frame("sample", [rollout()] if rollouts is None else rollouts)
        return critique_candidates(self.desk, frame("problem", problems or [problem()]), asked, table)


def of(table: pl.DataFrame, origin: str) -> pl.DataFrame:
    return table.filter(pl.col("origin") == origin)


@pytest.mark.parametrize(
    ("verdicts", "failed"),
    [
        ([(1, "wrong"), (1, "wrong")], True),
        ([(1, "wrong"), (1, "correct")], False),
        ([(1, "unparsable"), (1, "truncated")], True),
        ([(1, "error"), (1, "error")], False),
        ([(1, "error"), (1, "wrong")], True),
        ([(1, "correct"), (2, "wrong")], True),  # the last group counts, in whatever order the table is
        ([(2, "correct"), (1, "wrong")], False),
        ([(2, "error"), (1, "wrong")], False),
    ],
)
def test_which_problems_failed(verdicts: list[tuple[int, str]], failed: bool) -> None:
    rows = [rollout(verdict=v, step=step, index=i) for i, (step, v) in enumerate(verdicts)]
    found, attempts = failed_problems(frame("problem", [problem()]), entry(), frame("sample", rows))
    assert found["id"].to_list() == ["p0"] * failed
    assert list(attempts) == ["p0"] * failed


def test_the_attempt_is_of_the_last_group_wrong_before_cut_and_short() -> None:
    rows = [
        rollout("brief", step=1),
        rollout("cut", "truncated", step=2, index=0),
        rollout("a long wrong one", step=2, index=1),
        rollout("a wrong one", step=2, index=2),
        rollout("  ", step=2, index=3),
        rollout(" ", "unparsable", id="p1"),
    ]
    problems = frame("problem", [problem(), problem("p1")])
    found, attempts = failed_problems(problems, entry(), frame("sample", rows))
    assert found["id"].to_list() == ["p0", "p1"]
    assert attempts == {"p0": "a wrong one"}


def test_the_draw_of_problems_follows_no_order() -> None:
    ids = [f"p{i:02}" for i in range(40)]
    rows = frame("sample", [rollout(id=id) for id in ids])

    def draw(order: list[str], **changes: object) -> list[str]:
        pool = frame("problem", [problem(id) for id in order])
        return failed_problems(pool, entry(max_problems=10, **changes), rows)[0]["id"].to_list()

    taken = draw(ids)
    assert len(taken) == 10
    assert taken == sorted(taken), "in the problems' order"
    assert sorted(draw(ids[::-1])) == taken, "and whatever that is, the same ones"
    assert taken not in (ids[:10], ids[-10:])
    assert draw(ids, seed=1) != taken
    assert set(draw(ids[:20])) >= set(taken) & set(ids[:20]), "others taken away, those that were taken stay"


@pytest.mark.parametrize("rollouts", [None, [], [rollout(verdict="correct")], [rollout(id="elsewhere")]])
def test_without_a_failed_group_nobody_is_asked(
    tmp_path: Path, student: LocalModel, rollouts: list[dict[str, object]] | None
) -> None:
    room = Room(tmp_path, student, replies())
    table = None if rollouts is None else frame("sample", rollouts)
    found = critique_candidates(room.desk, frame("problem", [problem()]), entry(), table)
    assert found.equals(frame("candidate", []))
    assert room.critic.asked == []


def test_the_three_kinds(tmp_path: Path, student: LocalModel) -> None:
    room = Room(tmp_path, student, replies())
    table = room.build(entry())
    question = "What is 2 + 3 + 4? (p0)"
    diagnose = f"DIAGNOSE {question} | [1] Add the first two.\n[2] 2 + 3 = 5\n[3] 5 + 4 = 8\n[4] So it is \\boxed{{8}}"
    assert room.critic.asked == [diagnose, f"REPAIR {question} | {PREFIX.strip()} | ", f"SOLVE {question} | "]
    chosen = {row.pop("origin"): row for row in targets(table).to_dicts()}
    assert list(chosen) == ["diagnosis", "repair", "new_trace"]
    # The student learns the critique of what the critic saw, and to go on behind what was right.
    assert (chosen["diagnosis"]["prompt"], chosen["diagnosis"]["prefix"]) == (diagnose, None)
    assert (chosen["repair"]["prompt"], chosen["repair"]["prefix"]) == (None, PREFIX)
    assert (chosen["new_trace"]["prompt"], chosen["new_trace"]["prefix"]) == (None, None)
    assert [row["response"] for row in chosen.values()] == [DIAGNOSED, REPAIRED, FRESH]
    assert [row["note"] for row in chosen.values()] == [
        *(CONFIRMED, "repair by critic@1, verified", "new trace by critic@1, verified")
    ]
    assert chosen["diagnosis"]["nll"] is None
    assert chosen["repair"]["nll"] > 0 < chosen["new_trace"]["nll"]
    assert [t["purpose"][0] for t in room.desk.drawn] == ["diagnosis", "repair", "new_trace"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("First wrong line: 3\nConclusion: wrong", Diagnosis(3, True)),
        ("**First wrong line:** 3.\n**Conclusion:** *Wrong*.", Diagnosis(3, True)),
        ("- first wrong line - **Line 12**\n- CONCLUSION: The attempt is incorrect.", Diagnosis(12, True)),
        ("First wrong line: #2\n\n### Conclusion\nwrong", Diagnosis(2, True)),
        ("The first wrong line is line number 2.\nConclusion: wrong", Diagnosis(2, True)),
        ("First wrong line: [3] 5 + 4 = 8\nConclusion: **wrong**", Diagnosis(3, True)),
        ("First wrong line: 3 - it adds badly\nConclusion: wrong", Diagnosis(3, True)),
        ("First wrong line:\n5 + 4 = 8\nConclusion: wrong", "it does not say which line is wrong first"),
        ("First wrong line: none\nConclusion: right", Diagnosis(None, False)),
        ("First wrong line: None.\nConclusion: correct!", Diagnosis(None, False)),
        ("<think>Conclusion: right</think>First wrong line: 3\nConclusion: wrong", Diagnosis(3, True)),
        ("First wrong line: 3\nSo.\nFirst wrong line: 3\nConclusion: wrong", Diagnosis(3, True)),
        ("First wrong line: its number, or none\nConclusion: right, or wrong", "it does not say what it concludes"),
        ("Conclusion: wrong", "it does not say which line is wrong first"),
        ("First wrong line: 3", "it does not say what it concludes"),
        ("First wrong line: 3\nFirst wrong line: 4\nConclusion: wrong", "it contradicts itself"),
        ("First wrong line: 3\nConclusion: right\nConclusion: wrong", "it contradicts itself"),
        ("First wrong line: 2 or 3\nConclusion: wrong", "it does not say which line is wrong first"),
        ("", "it does not say what it concludes"),
    ],
)
def test_reading_a_diagnosis(text: str, said: Diagnosis | str) -> None:
    assert read_diagnosis(text) == said


@pytest.mark.parametrize(
    ("reply", "verdict", "why"),
    [
        (DIAGNOSED, "correct", "agrees with the verdict"),
        ("All is well here.\nFirst wrong line: none\nConclusion: right", "wrong", "not verified (wrong)"),
        ("I cannot tell.", "unparsable", "not verified (unparsable)"),
        (Completion(0, 0, "Let us see", (), 7, True), "truncated", "not verified (truncated)"),
        (Completion(0, 0, DIAGNOSED + "\nAnd", (), 7, True), "correct", "refused (cut at the length limit)"),
        (DIAGNOSED.replace("line: 3", "line: 5"), "correct", "refused (there is no such line)"),
        (DIAGNOSED.replace("line: 3", "line: 0"), "correct", "refused (there is no such line)"),
        (DIAGNOSED.replace("line: 3", "line: none"), "correct", "refused (it names no wrong line)"),
        ("First wrong line: 3\nConclusion: wrong", "correct", "refused (fewer than 3 words of why)"),
    ],
)
def test_which_diagnoses_are_accepted(
    tmp_path: Path, student: LocalModel, reply: str | Completion, verdict: str, why: str
) -> None:
    table = Room(tmp_path, student, replies(diagnosis=reply)).build(entry(kinds=["diagnosis"]))
    (row,) = table.rows(named=True)
    accepted = why == "agrees with the verdict"
    assert (row["verdict"], row["accepted"], row["chosen"]) == (verdict, accepted, accepted)
    assert row["reason"].split(":")[0] == f"diagnosis by critic@1, {why}"


@pytest.mark.parametrize(
    ("reply", "response", "accepted", "why"),
    [
        (REPAIRED, REPAIRED, True, "verified"),
        (PREFIX + REPAIRED, REPAIRED, True, "verified"),
        ("Add the first two.\n 2 + 3 = 5\n" + REPAIRED, REPAIRED, True, "verified"),
        (PREFIX, "", False, "not verified (wrong)"),
        ("5 + 4 = 8\n\\boxed{8}", "5 + 4 = 8\n\\boxed{8}", False, "not verified (wrong)"),
        ("\\boxed{9}", "\\boxed{9}", False, "refused (fewer than 3 words before the answer)"),
        ("5 + 4 = 9", "5 + 4 = 9", False, "refused (its answer is not marked as one)"),
        ("The attempt has 5 + 4 = 9\n\\boxed{9}", None, False, "refused (it says 'the attempt')"),
    ],
)
def test_which_repairs_are_accepted(
    tmp_path: Path, student: LocalModel, reply: str, response: str | None, accepted: bool, why: str
) -> None:
    table = Room(tmp_path, student, replies(repair=reply)).build(entry(kinds=["diagnosis", "repair"]))
    (row,) = of(table, "repair").rows(named=True)
    assert row["response"] == (reply if response is None else response)
    assert (row["prefix"], row["accepted"], row["chosen"]) == (PREFIX, accepted, accepted)
    assert row["reason"].split(":")[0] == f"repair by critic@1, {why}"
    assert ("its copy of the beginning left out" in row["reason"]) == (reply.startswith("Add the first"))
    note = CONFIRMED if accepted else "diagnosis by critic@1, agrees with the verdict"
    assert targets(of(table, "diagnosis"))["note"].to_list() == [note]


def test_a_beginning_is_left_out_only_where_all_of_it_stands_there() -> None:
    assert without_beginning("a\n b\nc\nd", "a\n\nb\n") == "c\nd"
    assert without_beginning("a\nc", "a\nb\n") == "a\nc"
    assert without_beginning("a", "a\nb\n") == "a"
    assert without_beginning("a\nb\n", "a\nb\n") == ""


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (FRESH, "verified"),
        ("2 + 3 = 6\n\\boxed{6}", "not verified (wrong)"),
        ("\\boxed{9}", "refused (fewer than 3 words before the answer)"),
        (Completion(0, 0, FRESH + "\nNow", (), 7, True), "refused (cut at the length limit)"),
    ],
)
def test_which_new_traces_are_accepted(tmp_path: Path, student: LocalModel, reply: str | Completion, why: str) -> None:
    table = Room(tmp_path, student, replies(new_trace=reply)).build(entry(kinds=["new_trace"]))
    (row,) = table.rows(named=True)
    assert row["accepted"] == row["chosen"] == (why == "verified")
    assert row["reason"].split(":")[0] == f"new trace by critic@1, {why}"


def test_what_the_critic_is_shown(tmp_path: Path, student: LocalModel) -> None:
    problems = [problem(solution="Two and three and four."), problem("p1")]
    rollouts = [rollout(), rollout(id="p1")]
    for shown, seen in [("none", ("", "")), ("answer", ("9", "9")), ("solution", ("Two and three and four.", "9"))]:
        room = Room(tmp_path / shown, student, replies())
        room.build(entry(shown=shown), rollouts, problems)
        diagnoses, others = room.critic.asked[:2], room.critic.asked[2:]
        for k, asked in enumerate(others):
            given = asked.split(" | ")[-1]
            assert seen[k % 2] in given
            assert bool(given) == bool(seen[k % 2])
            assert ("9" in given) == (seen[k % 2] == "9")
        assert not any("9" in asked or "and three" in asked for asked in diagnoses), "a diagnosis has to find out alone"


def test_the_line_that_most_diagnoses_name_is_repaired(tmp_path: Path, student: LocalModel) -> None:
    def diagnosis(line: int, why: str = "It adds badly there.") -> str:
        return f"{why}\nFirst wrong line: {line}\nConclusion: wrong"

    said = [
        diagnosis(1, "Bad from the start."),
        diagnosis(3, "This one is longer than all."),
        diagnosis(3),
        diagnosis(9),
    ]
    room = Room(tmp_path, student, replies(said, [REPAIRED, "\\boxed{8}", "no", "no"], FRESH))
    table = room.build(entry(n=4))
    assert of(table, "repair")["prefix"].to_list() == [PREFIX] * 4
    found = of(table, "diagnosis")
    assert found["accepted"].to_list() == [True, True, True, False]
    assert found["chosen"].to_list() == [False, False, True, False], "confirmed, then the shortest"
    assert found["reason"].to_list()[:3] == [
        "diagnosis by critic@1, agrees with the verdict; not chosen: a confirmed one was taken",
        f"{CONFIRMED}; not chosen: a shorter one was taken",
        CONFIRMED,
    ]
    # Without a repair that verifies, the shortest is.
    room = Room(tmp_path / "2", student, replies(said, "no"))
    assert of(room.build(entry(n=4)), "diagnosis")["chosen"].to_list() == [True, False, False, False]


def test_what_is_wrong_from_its_first_line_on_is_not_repaired(tmp_path: Path, student: LocalModel) -> None:
    room = Room(tmp_path, student, replies(DIAGNOSED.replace("line: 3", "line: 1")))
    table = room.build(entry())
    assert set(table["origin"]) == {"diagnosis", "new_trace"}
    assert of(table, "diagnosis")["reason"][0].endswith("; nothing stands before its line to repair")
    assert len(room.critic.asked) == 2


def test_a_repair_needs_a_diagnosis_which_then_is_no_target(tmp_path: Path, student: LocalModel) -> None:
    table = Room(tmp_path, student, replies()).build(entry(kinds=["repair"]))
    assert targets(table)["origin"].to_list() == ["repair"]
    assert of(table, "diagnosis")["reason"].to_list() == [f"{CONFIRMED}; not chosen: asked for repairs alone"]
    assert needs_student(entry(kinds=["repair"]))
    assert not needs_student(entry(kinds=["diagnosis"]))
    assert needs_student(entry(kinds=["diagnosis"], student_nll=True))


def test_an_attempt_without_words_has_only_a_new_trace(tmp_path: Path, student: LocalModel) -> None:
    room = Room(tmp_path, student, replies())
    table = room.build(entry(), [rollout(" ", "unparsable")])
    assert table["origin"].to_list() == ["new_trace"]
    assert coverage(table, frame("problem", [problem()]), "critique")["targets"].to_list() == [1]


def test_the_likeliest_repair_and_new_trace_are_chosen(tmp_path: Path, student: LocalModel) -> None:
    said = [FRESH, "Two and three and four make nine: \\boxed{9}", "no idea"]
    repairs = [REPAIRED, "Nine is five and four.\n\\boxed{9}", "no idea"]
    room = Room(tmp_path, student, replies(repair=repairs, new_trace=said))
    table = room.build(entry(n=3))
    chat = room.desk.prompt.messages("What is 2 + 3 + 4? (p0)")
    for origin, texts, prefix in [("repair", repairs, PREFIX), ("new_trace", said, None)]:
        rows = of(table, origin)
        direct = [-lp.mean() for lp in student.reply_logps([chat] * 2, texts[:2], [prefix] * 2)]
        assert rows["nll"].to_list() == [*(pytest.approx(value, abs=1e-4) for value in direct), None]
        assert rows["chosen"].to_list() == [direct[0] < direct[1], direct[1] < direct[0], False]


def test_a_resumed_build_asks_for_nothing_twice(tmp_path: Path, student: LocalModel) -> None:
    problems = [problem(), problem("p1")]
    rollouts = [rollout(), rollout(id="p1")]
    say = replies()

    def breaks(text: str, index: int) -> str | Completion:
        if text.startswith("REPAIR") and "(p1)" in text:
            raise KeyboardInterrupt
        return say(text, index)

    with pytest.raises(KeyboardInterrupt):
        Room(tmp_path, student, breaks).build(entry(), rollouts, problems)
    second = Room(tmp_path, student, say)
    resumed = second.build(entry(), rollouts, problems)
    assert [asked.split()[0] for asked in second.critic.asked] == ["REPAIR", "SOLVE", "SOLVE"]
    third = Room(tmp_path, student, breaks)
    assert third.build(entry(), rollouts, problems).equals(resumed)
    assert third.critic.asked == []
    whole = Room(tmp_path / "whole", student, say).build(entry(), rollouts, problems)
    assert whole.drop("nll").equals(resumed.drop("nll"))


def test_the_default_diagnosis_asks_for_what_is_read() -> None:
    asked = DIAGNOSIS.lower()
    assert "first wrong line:" in asked
    assert "conclusion:" in asked
    assert isinstance(read_diagnosis(DIAGNOSIS), str), "a critic that repeats the question has said nothing"


def test_who_has_seen_the_answer_confirms_no_diagnosis(tmp_path: Path, student: LocalModel) -> None:
    """A repair would verify behind any line, so it says nothing of the diagnosis that named one."""
    seeing = entry(kinds=["diagnosis", "repair"], shown="answer")
    table = Room(tmp_path, student, replies()).build(seeing)
    assert of(table, "repair")["accepted"].all()
    assert CONFIRMED not in of(table, "diagnosis")["reason"].to_list()
