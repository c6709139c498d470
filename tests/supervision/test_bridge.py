"""Bridge: what is rewritten, what is refused, what is chosen, and the comparison before and after."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dereason.lm.base import Completion, LanguageModel
from dereason.lm.local.model import LocalModel, ModelSettings
from dereason.lm.prompts import Prompt
from dereason.problems.schema import Origin, frame
from dereason.supervision.bridge import FALLBACK, MAX_ATTEMPT, NO_ATTEMPT, bridge_candidates, bridge_facts
from dereason.supervision.candidates import coverage, targets
from dereason.supervision.desk import Desk
from dereason.supervision.settings import BridgeTargets
from dereason.supervision.wording import BRIDGE
from scripted import Say, ScriptedModel, make_desk

TEACHER = ModelSettings(name="teacher")
GOOD = "First add: 2 + 3 = 5.\nThe final answer is \\boxed{5}"
SHOWN = "P {problem} | T {trace} | A {attempt}"


def problem(id: str = "p0", **columns: object) -> dict[str, object]:
    return {"id": id, "question": f"What is 2 + 3? ({id})", "answer": "5", "domain": "d", "source": "s", **columns}


def solved(id: str = "p0", solution: str = "2 + 3 makes 5.\n\\boxed{5}", **columns: object) -> dict[str, object]:
    return problem(id, solution=solution, solution_origin="human", **columns)


def entry(**changes: object) -> BridgeTargets:
    return BridgeTargets.model_validate(
        {"style": "bridge", "teacher": TEACHER, "n": 1, "instructions": SHOWN} | changes
    )


@pytest.fixture(scope="module")
def student(tiny_model: Path) -> LocalModel:
    return LocalModel(ModelSettings(name=str(tiny_model)))


class Room:
    """A desk whose teacher says what a test tells it to, and whose student is the tiny model."""

    def __init__(self, store: Path, student: LocalModel, say: Say) -> None:
        self.teacher = ScriptedModel(say, "teacher@1")
        self.student = student

        def load(settings: ModelSettings, identity: str | None) -> LanguageModel:
            return self.teacher if settings.name == "teacher" else student

        self.desk: Desk = make_desk(store, load, student.settings, Prompt(system="Be the student."))

    def build(
        self, rows: list[dict[str, object]], asked: BridgeTargets, attempts: list[dict[str, object]] | None = None
    ) -> pl.DataFrame:
        samples = None if attempts is None else frame("sample", attempts)
        return bridge_candidates(self.desk, frame("problem", rows), asked, samples)


def attempt(response: str, verdict: str = "wrong", index: int = 0, **columns: object) -> dict[str, object]:
    return {
        "problem_id": "p0",
        "index": index,
        "response": response,
        "tokens": len(response.split()),
        "verdict": verdict,
        **columns,
    }


def test_the_teacher_sees_the_problem_the_trace_and_the_most_telling_failure(
    tmp_path: Path, student: LocalModel
) -> None:
    room = Room(tmp_path, student, lambda text, i: GOOD)
    attempts = [
        attempt("short", "unparsable", 0),
        attempt("it is 7 I would say", "wrong", 1),
        attempt("it is 6", "wrong", 2),
        attempt("it is 5", "correct", 3),
        attempt(" ", "unparsable", 4),
        attempt("x" * (MAX_ATTEMPT + 9), "truncated", 0, problem_id="p1", tokens=1),
    ]
    rows = [solved(), solved("p1", options=["4", "5"], answer="B", solution="B it is: \\boxed{B}"), solved("p2")]
    room.build(rows, entry(), attempts)
    first, second, third = room.teacher.asked
    assert first == "P What is 2 + 3? (p0) | T 2 + 3 makes 5.\n\\boxed{5} | A it is 6"
    assert second.startswith("P What is 2 + 3? (p1)\n(A) 4\n(B) 5 | T B it is")
    assert second.endswith(f"| A {'x' * MAX_ATTEMPT} [...]")
    assert third.endswith(f"| A {NO_ATTEMPT}")


@pytest.mark.parametrize(
    ("response", "why"),
    [
        (GOOD, None),
        ("2+3=5\n\\boxed{5}", None),
        ("First add: 2 + 3 = 6.\n\\boxed{6}", "not verified (wrong)"),
        ("\\boxed{5}", "refused (fewer than 3 words before the answer)"),
        ("Therefore, the final answer is:\n$\\boxed{5}$", "refused (fewer than 3 words before the answer)"),
        ("\\boxed{5}\nBecause two and three make five.", "refused (fewer than 3 words before the answer)"),
        ("First, 2 + 3 = 6.\nThe final answer is \\boxed{5}", "refused (a calculation in it is false)"),
        ("First we add, 2 + 3 = 5.", "refused (its answer is not marked as one)"),
        ("As the student saw, 2 + 3 = 5.\n\\boxed{5}", "refused (it says 'the student')"),
        (Completion(0, 0, GOOD + "\nAnd then", (), 7, True), "refused (cut at the length limit)"),
        ("<think>The student is lost.</think>" + GOOD, None),
    ],
)
def test_what_is_accepted(tmp_path: Path, student: LocalModel, response: str | Completion, why: str | None) -> None:
    room = Room(tmp_path, student, lambda text, i: response)
    table = room.build([solved()], entry())
    raw, rewrite = table.rows(named=True)
    assert (raw["raw"], raw["origin"], raw["verdict"], raw["accepted"], raw["chosen"]) == (
        *(True, "human", "correct", True, False),
    )
    assert (rewrite["raw"], rewrite["origin"], rewrite["model"]) == (False, "bridge", "teacher@1")
    assert rewrite["accepted"] == rewrite["chosen"] == (why is None)
    assert rewrite["reason"].split(":")[0] == f"rewrite by teacher@1, {why or 'verified'}"
    assert "<think>" not in rewrite["response"]
    cover = coverage(table, frame("problem", [solved()]), "bridge")
    assert cover["targets"].to_list() == [int(why is None)]
    assert targets(table)["note"].to_list() == ["rewrite by teacher@1, verified"] * (why is None)


def test_a_phrase_of_the_problem_is_no_stray_one(tmp_path: Path, student: LocalModel) -> None:
    said = "The student has 2 + 3 = 5 pens.\n\\boxed{5}"
    room = Room(tmp_path, student, lambda text, i: said)
    rows = [solved(), solved("p1", question="The student has 2 pens and gets 3. How many?")]
    table = room.build(rows, entry()).filter(~pl.col("raw"))
    assert table["accepted"].to_list() == [False, True]
    room = Room(tmp_path / "none", student, lambda text, i: said)
    assert room.build(rows, entry(stray=[])).filter(~pl.col("raw"))["accepted"].all()


def test_a_problem_without_a_correct_trace_is_not_asked(tmp_path: Path, student: LocalModel) -> None:
    room = Room(tmp_path, student, lambda text, i: GOOD)
    rows = [problem("bare"), solved("false", "2 + 3 = 6.\n\\boxed{6}"), solved("p0")]
    table = room.build(rows, entry(fallback="raw"))
    assert len(room.teacher.asked) == 1
    assert "(p0)" in room.teacher.asked[0]
    cover = coverage(table, frame("problem", rows), "bridge")
    assert cover["reason"].to_list() == ["no raw trace", "the raw trace is not correct", None]
    assert table.filter("raw")["verdict"].to_list() == [None, "wrong", "correct"]
    facts = bridge_facts(table)
    assert facts is not None
    assert (facts["raw"]["verified"], facts["raw"]["of"], facts["n"]) == (1, 2, 1)
    # ... and if there is none at all, nobody is asked.
    room = Room(tmp_path / "none", student, lambda text, i: GOOD)
    table = room.build(rows[:2], entry())
    assert (table.height, table["chosen"].any(), room.teacher.asked) == (2, False, [])


def test_steps_are_traces_and_a_solution_stands_in_for_them(tmp_path: Path, student: LocalModel) -> None:
    room = Room(tmp_path, student, lambda text, i: GOOD)
    rows = [problem("p0", metadata=json.dumps({"expression": "2 + 3"})), solved("p1"), problem("p2")]
    table = room.build(rows, entry(traces="steps", instructions="{problem} {trace}"))
    assert room.teacher.asked[0].endswith("2 + 3 = 5\n\\boxed{5}")
    assert room.teacher.asked[1].endswith("2 + 3 makes 5.\n\\boxed{5}")
    assert table.filter("chosen")["problem_id"].to_list() == ["p0", "p1"]


def test_a_teacher_writes_traces_and_the_shortest_correct_one_is_rewritten(tmp_path: Path, student: LocalModel) -> None:
    traces = ["We see that 2 + 3 = 5, so \\boxed{5}", "2 + 3 = 5, so \\boxed{5}", "\\boxed{6}", "So \\boxed{5}"]

    def say(text: str, index: int) -> str | Completion:
        if text.startswith("What is 2 + 3? (p1)"):
            return "\\boxed{6}"
        if not text.startswith("P "):
            return Completion(0, 3, traces[3], (), 7, True, generated=2) if index == 3 else traces[index]
        return "no answer at all"

    room = Room(tmp_path, student, say)
    table = room.build([solved(), solved("p1")], entry(traces="teacher", fallback="raw"))
    assert room.teacher.asked[0].endswith(Prompt().suffix), "a raw trace is asked for as every response is"
    assert [a for a in room.teacher.asked if a.startswith("P ")] == [
        f"P What is 2 + 3? (p0) | T {traces[1]} | A {NO_ATTEMPT}"
    ]
    raw = table.filter("raw")
    assert raw["verdict"].to_list() == ["correct", "correct", "wrong", "correct"] + ["wrong"] * 4
    assert raw["accepted"].to_list() == [False, True] + [False] * 6
    assert raw["reason"][0].endswith("not rewritten: a shorter one was")
    chosen = targets(table)
    assert chosen["response"].to_list() == [traces[1]]
    assert chosen["origin"].to_list() == ["teacher"]
    cover = coverage(table, frame("problem", [solved(), solved("p1")]), "bridge")
    assert cover["reason"].to_list() == [None, "the raw trace is not correct"]


def nll(student: LocalModel, desk: Desk, question: str, text: str) -> tuple[float, int]:
    """By a plain forward pass over what the chat template makes."""
    import torch

    chat = desk.prompt.messages(question)
    tokenizer = student.tokenizer
    head = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    whole = tokenizer.apply_chat_template([*chat, {"role": "assistant", "content": text}], return_dict=True)[
        "input_ids"
    ]
    with torch.inference_mode():
        logps = student.model(torch.tensor([whole])).logits.double().log_softmax(-1)[0]
    picked = [logps[at - 1, whole[at]].item() for at in range(len(head), len(whole))]
    return -float(np.mean(picked)), len(picked)


def test_the_rewrite_that_the_student_finds_likeliest_is_chosen(tmp_path: Path, student: LocalModel) -> None:
    said = [GOOD, "We add 2 and 3.\n\\boxed{5}", "Three and two is five.\n\\boxed{5}", "So it is \\boxed{6}"]
    room = Room(tmp_path, student, lambda text, i: said[i])
    table = room.build([solved()], entry(n=4))
    rewrites = table.filter(~pl.col("raw"))
    question = "What is 2 + 3? (p0)"
    direct = [nll(student, room.desk, question, text) for text in said[:3]]
    assert rewrites["nll"].to_list()[:3] == pytest.approx([value for value, _ in direct], abs=1e-4)
    assert rewrites["tokens"].to_list() == [*(n for _, n in direct), 4], "of what was scored: the student's tokens"
    assert rewrites["nll"][3] is None
    best = int(np.argmin([value for value, _ in direct]))
    assert rewrites["chosen"].to_list() == [i == best for i in range(4)]
    assert rewrites["reason"][(best + 1) % 3].endswith("not chosen: one that the student finds likelier was taken")
    raw = table.filter("raw").row(0, named=True)
    assert (raw["nll"], raw["tokens"]) == pytest.approx(nll(student, room.desk, question, raw["response"]), abs=1e-4)


@pytest.mark.parametrize("fallback", ["none", "raw"])
def test_the_raw_trace_stands_in_only_if_asked_for(tmp_path: Path, student: LocalModel, fallback: str) -> None:
    room = Room(tmp_path, student, lambda text, i: GOOD if "(p1)" in text else "no")
    rows = [solved(), solved("p1")]
    table = room.build(rows, entry(fallback=fallback))
    chosen = targets(table).sort("problem_id")
    if fallback == "none":
        assert chosen["problem_id"].to_list() == ["p1"]
        return
    assert chosen["origin"].to_list() == ["human", "bridge"]
    assert chosen["note"][0] == FALLBACK
    assert chosen["response"][0] == rows[0]["solution"]
    assert chosen["nll"].null_count() == 0
    assert coverage(table, frame("problem", rows), "bridge")["targets"].to_list() == [1, 1]


def test_a_resumed_build_asks_for_nothing_twice(tmp_path: Path, student: LocalModel) -> None:
    rows = [solved(f"p{i}") for i in range(3)]

    def breaks(text: str, index: int) -> str:
        if "(p2)" in text:
            raise KeyboardInterrupt
        return GOOD

    room = Room(tmp_path, student, breaks)
    with pytest.raises(KeyboardInterrupt):
        room.build(rows, entry())
    second = Room(tmp_path, student, lambda text, i: GOOD)
    resumed = second.build(rows, entry())
    assert [text.split(" |")[0] for text in second.teacher.asked] == ["P What is 2 + 3? (p2)"]
    again = Room(tmp_path, student, breaks)
    assert again.build(rows, entry()).equals(resumed)
    assert again.teacher.asked == []
    whole = Room(tmp_path / "whole", student, lambda text, i: GOOD).build(rows, entry())
    assert whole.drop("nll").equals(resumed.drop("nll"))
    assert whole["nll"].to_list() == pytest.approx(resumed["nll"].to_list(), abs=1e-5)


def facts_table(pairs: list[tuple[float, float]]) -> pl.DataFrame:
    rows: list[dict[str, object]] = []
    for i, (before, after) in enumerate(pairs):
        base = {
            "problem_id": f"p{i}",
            "index": 0,
            "response": "r",
            "verdict": "correct",
            "accepted": True,
            "chosen": False,
        }
        rows.append(base | {"origin": "human", "raw": True, "tokens": 10, "nll": before})
        rows.append(base | {"origin": "bridge", "raw": False, "tokens": 20, "nll": after, "chosen": True})
        rows.append(base | {"origin": "bridge", "raw": False, "tokens": 99, "nll": after + 1, "index": 1})
        rows.append(base | {"origin": "bridge", "raw": False, "verdict": "wrong", "accepted": False, "index": 2})
    return frame("candidate", rows)


def test_facts_compare_the_same_problems_before_and_after() -> None:
    pairs = [(2.0, 1.0), (3.0, 2.5), (1.0, 1.25), (2.0, 1.5)]
    table = facts_table(pairs)
    lonely = {"problem_id": "z", "origin": "human", "index": 0, "raw": True, "response": "r", "verdict": "correct"}
    table = pl.concat(
        [table, frame("candidate", [lonely | {"accepted": True, "chosen": False, "nll": 99.0, "tokens": 1}])]
    )
    facts = bridge_facts(table)
    assert facts is not None
    before, after = np.array(pairs).T
    assert facts["n"] == 4
    assert facts["raw"] == {
        "verified": 5,
        "of": 5,
        "tokens": 10,
        "nll": before.mean(),
        "perplexity": pytest.approx(np.exp(before.mean())),
    }
    assert facts["rewrite"]["verified"] == 8
    assert facts["rewrite"]["of"] == 12
    assert facts["rewrite"]["tokens"] == 20
    assert facts["rewrite"]["nll"] == after.mean()
    assert facts["rewrite"]["nll_accepted"] == after.mean() + 0.5
    difference = facts["difference"]
    assert difference["nll"] == (after - before).mean()
    # Four values can be drawn in 4^4 ways: the quantiles of the exact distribution of the mean.
    values = after - before
    exact = values[np.indices((4, 4, 4, 4)).reshape(4, -1)].mean(0)
    assert difference["low"] == pytest.approx(np.quantile(exact, 0.025), abs=0.07)
    assert difference["high"] == pytest.approx(np.quantile(exact, 0.975), abs=0.07)
    assert bridge_facts(table.sample(fraction=1, shuffle=True, seed=1)) == facts


def test_facts_of_little_or_nothing() -> None:
    assert bridge_facts(frame("candidate", [])) is None
    one = bridge_facts(facts_table([(2.0, 1.0)]))
    assert one is not None
    assert one["difference"] == {"nll": -1.0, "low": None, "high": None, "level": 0.95}
    none = bridge_facts(facts_table([(2.0, 1.0)]).with_columns(chosen=pl.lit(False)))
    assert none is not None
    assert (none["n"], none["raw"]["nll"], none["rewrite"]["verified"], none["difference"]["nll"]) == (0, None, 2, None)
    json.dumps([one, none])


def test_the_default_wording_fills_every_slot(tmp_path: Path, student: LocalModel) -> None:
    room = Room(tmp_path, student, lambda text, i: GOOD)
    room.build([solved()], entry(instructions=BRIDGE))
    (asked,) = room.teacher.asked
    assert "{" not in asked.replace("\\boxed{", "")
    assert all(part in asked for part in ("(p0)", "2 + 3 makes 5.", NO_ATTEMPT))
    assert room.desk.drawn[0]["purpose"].unique().to_list() == [str(Origin.BRIDGE)]
