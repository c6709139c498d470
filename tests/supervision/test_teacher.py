"""Targets from a teacher and from the student: asked once, judged, chosen, resumed."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from dereason.lm.base import Completion, LanguageModel, Sampling
from dereason.lm.local.model import LocalModel, ModelSettings
from dereason.lm.prompts import Prompt
from dereason.problems.schema import frame
from dereason.supervision.candidates import coverage, targets
from dereason.supervision.desk import Desk
from dereason.supervision.reference import data_candidates
from dereason.supervision.settings import DataTargets, SelfTargets, TeacherTargets
from dereason.supervision.teacher import self_candidates, teacher_candidates
from scripted import ScriptedModel, make_desk

TEACHER = ModelSettings(name="teacher")


def pool(count: int = 3) -> pl.DataFrame:
    row: dict[str, object] = {"domain": "d", "source": "s"}
    return frame("problem", [row | {"id": f"p{i}", "question": f"{i} + 1", "answer": f"{i + 1}"} for i in range(count)])


def solve(text: str, index: int) -> str:
    """Right at even indices, longer at each; wrong at odd ones."""
    value = int(text.split()[0]) + 1 + index % 2
    return f"{'so ' * index}it is \\boxed{{{value}}}"


def desk_of(lm: LanguageModel, store: Path, student: ModelSettings | None = None) -> Desk:
    return make_desk(store, lambda settings, identity: lm, student, Prompt(suffix=""))


def test_a_teacher_is_asked_once_and_its_best_correct_response_is_chosen(tmp_path: Path) -> None:
    lm = ScriptedModel(solve)
    entry = TeacherTargets(style="teacher", teacher=TEACHER, n=4, choose="shortest")
    desk = desk_of(lm, tmp_path)
    table = teacher_candidates(desk, pool(), entry)
    assert table["problem_id"].to_list() == [f"p{i}" for i in range(3) for _ in range(4)]
    assert table["accepted"].to_list() == [True, False] * 6
    made = targets(table)
    assert made["response"].to_list() == [solve(f"{i} + 1", 0) for i in range(3)]
    assert made["note"].unique().to_list() == ["response of scripted@1, verified"]
    assert made["model"].unique().to_list() == ["scripted@1"]
    assert made["nll"].is_null().all()
    assert [(a["name"], a["responses"]) for a in desk.asked] == [("teacher", 12)]
    # what was asked is in the store: the same build asks nobody
    again = desk_of(lm, tmp_path)
    assert teacher_candidates(again, pool(), entry).equals(table)
    assert len(lm.asked) == 3


def test_a_killed_build_asks_only_for_what_is_missing(tmp_path: Path) -> None:
    def dies(text: str, index: int) -> str:
        if text.startswith("2"):
            raise KeyboardInterrupt
        return solve(text, index)

    entry = TeacherTargets(style="teacher", teacher=TEACHER, n=2)
    with pytest.raises(KeyboardInterrupt):
        teacher_candidates(desk_of(ScriptedModel(dies), tmp_path / "cut"), pool(), entry)
    lm = ScriptedModel(solve)
    resumed = teacher_candidates(desk_of(lm, tmp_path / "cut"), pool(), entry)
    assert lm.asked == ["2 + 1"]
    assert resumed.equals(teacher_candidates(desk_of(lm, tmp_path / "whole"), pool(), entry))


def test_unfiltered_responses_are_kept_only_when_asked_for(tmp_path: Path) -> None:
    def refuses(text: str, index: int) -> str | Completion:
        if text.startswith("0"):
            return Completion(0, index, "", (), 3, False, refusal="not today")
        return "no idea \\boxed{77}"

    desk = desk_of(ScriptedModel(refuses), tmp_path)
    entry = TeacherTargets(style="teacher", teacher=TEACHER)
    filtered = teacher_candidates(desk, pool(), entry)
    assert not filtered["chosen"].any()
    assert coverage(filtered, pool(), "teacher")["reason"].to_list() == [
        "every response is empty or was refused by the model",
        "no response is correct",
        "no response is correct",
    ]
    everything = teacher_candidates(desk, pool(), entry.model_copy(update={"keep": "all"}))
    assert targets(everything).select("problem_id", "accepted", "note").rows() == [
        ("p1", False, "response of scripted@1, not verified (wrong)"),
        ("p2", False, "response of scripted@1, not verified (wrong)"),
    ]


def test_the_likeliest_response_is_found_with_the_students_weights(tiny_model: Path, tmp_path: Path) -> None:
    student = LocalModel(ModelSettings(name=str(tiny_model)))
    teacher = ScriptedModel(solve)

    def load(settings: ModelSettings, identity: str | None) -> LanguageModel:
        return teacher if settings == TEACHER else student

    desk = make_desk(tmp_path, load, student.settings, Prompt(suffix=""))
    entry = TeacherTargets(style="teacher", teacher=TEACHER, n=6, choose="likelihood", per_problem=2)
    table = teacher_candidates(desk, pool(2), entry)
    assert table["nll"].is_not_null().equals(table["accepted"])  # nothing else is measured
    for _, group in table.filter("accepted").group_by("problem_id"):
        assert group.filter("chosen")["nll"].max() < group.filter(~pl.col("chosen"))["nll"].min()  # type: ignore[operator]
        assert group["chosen"].sum() == 2
    assert targets(table)["nll"].is_not_null().all()
    unfiltered = teacher_candidates(desk, pool(2), entry.model_copy(update={"keep": "all"}))
    assert unfiltered["nll"].is_not_null().all()


def profile(*rows: tuple[str, int, str, str]) -> pl.DataFrame:
    base = {"model": "student@1", "purpose": "profile", "tokens": 2, "hit_limit": False, "reason": "boxed: same number"}
    names = ("problem_id", "index", "response", "verdict")
    return frame("sample", [base | dict(zip(names, row, strict=True)) for row in rows])


def test_the_students_own_correct_responses(tmp_path: Path) -> None:
    drawn_before = profile(
        ("p1", 3, "\\boxed{2}", "correct"),
        ("p1", 5, "\\boxed{9}", "wrong"),
        ("p1", 6, "it is \\boxed{2}", "correct"),  # what the script says at index 0
        ("elsewhere", 0, "\\boxed{5}", "correct"),
    )
    student = ScriptedModel(solve, "student@1")
    entry = SelfTargets(style="self", n=2, per_problem=2)
    table = self_candidates(desk_of(student, tmp_path / "both"), pool(), entry, drawn_before)
    assert table.select("problem_id", "index").rows() == [
        *[("p0", i) for i in range(2)],
        *[("p1", i) for i in range(4)],
        *[("p2", i) for i in range(2)],
    ]
    assert table["tokens"].to_list() == [3, 4, 2, 2, 3, 4, 3, 4]
    made = targets(table)
    assert made.select("problem_id", "response").rows() == [
        ("p0", "it is \\boxed{1}"),
        ("p1", "\\boxed{2}"),
        ("p1", "it is \\boxed{2}"),
        ("p2", "it is \\boxed{3}"),
    ]
    assert made["origin"].unique().to_list() == ["self"]
    assert made["note"].unique().to_list() == ["own response of student@1, verified"]

    ignored = entry.model_copy(update={"from_profile": False})
    assert self_candidates(desk_of(student, tmp_path / "own"), pool(), ignored, drawn_before).height == 6
    assert self_candidates(desk_of(student, tmp_path / "none"), pool(), entry, None).height == 6


def test_the_profile_alone_costs_nothing(tmp_path: Path) -> None:
    student = ScriptedModel(solve)
    desk = desk_of(student, tmp_path)
    entry = SelfTargets(style="self", n=0)
    table = self_candidates(desk, pool(), entry, profile(("p1", 0, "\\boxed{2}", "correct")))
    assert targets(table)["problem_id"].to_list() == ["p1"]
    assert (student.asked, desk.asked) == ([], [])
    assert coverage(table, pool(), "self")["reason"].to_list()[0] == "there is no response to choose from"
    assert self_candidates(desk, pool(), entry, None).is_empty()


def test_a_real_student_draws_for_itself(tiny_model: Path, tmp_path: Path) -> None:
    lm = LocalModel(ModelSettings(name=str(tiny_model)))
    entry = SelfTargets(style="self", n=2, sampling=Sampling(max_new_tokens=5))
    desk = desk_of(lm, tmp_path, lm.settings)
    table = self_candidates(desk, pool(), entry, None)
    assert table["response"].to_list() == pl.concat(desk.drawn)["response"].to_list()
    assert table["model"].unique().to_list() == [lm.identity]
    assert not table["chosen"].any()  # a random model is never right


def test_what_the_data_carries(tmp_path: Path) -> None:
    problems = pool().with_columns(
        solution=pl.Series(["1, so \\boxed{1}", "so \\boxed{5}", None]),
        solution_origin=pl.Series(["human", "human", None]),
    )
    desk = desk_of(ScriptedModel(solve), tmp_path)
    table = data_candidates(desk, problems, DataTargets())
    assert table["chosen"].to_list() == table["accepted"].to_list() == [True, False, True]
    assert table["model"].is_null().all()
    assert table["origin"].to_list() == ["human", "human", "reference"]
    assert targets(table)["note"].to_list() == ["worked solution", "bare answer (no worked solution)"]
    assert coverage(table, problems, "solution")["reason"].to_list() == [None, "no target is correct", None]
    assert data_candidates(desk, problems, DataTargets(keep="all"))["chosen"].all()


def test_a_target_whose_thought_is_dropped_holds_what_was_said_and_nothing_else(tmp_path: Path) -> None:
    def thinks(text: str, index: int) -> str:
        return f"Sure. <think>\n{'hm ' * 100}\n</think>\n\n{solve(text, index)}"

    entry = TeacherTargets(style="teacher", teacher=TEACHER, thoughts="drop")
    table = teacher_candidates(desk_of(ScriptedModel(thinks), tmp_path), pool(), entry)
    assert targets(table)["response"].to_list() == [f"Sure.\n\n{solve(f'{i} + 1', 0)}" for i in range(3)]
