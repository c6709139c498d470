"""The student's likelihood of candidates: as SFT would see them, stored, and never measured twice."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from dereason.errors import DereasonError
from dereason.lm.local.model import LocalModel, ModelSettings
from dereason.lm.prompts import Prompt
from dereason.problems.schema import frame
from dereason.supervision import likelihood
from dereason.supervision.desk import Desk
from dereason.supervision.likelihood import score
from dereason.training.sft import make_row
from scripted import make_desk

PROMPT = Prompt(system="Be brief.")


class Counted(LocalModel):
    """A student that counts what it scores, and breaks off at a given call."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.model.double()
        self.scored: list[str] = []
        self.calls_left = 99

    def reply_logps(self, chats: Any, replies: Sequence[str], *args: Any, **kwargs: Any) -> Any:
        if not self.calls_left:
            raise KeyboardInterrupt
        self.calls_left -= 1
        self.scored += replies
        return super().reply_logps(chats, replies, *args, **kwargs)


@pytest.fixture
def student(tiny_model: Path) -> Counted:
    return Counted(ModelSettings(name=str(tiny_model)))


def pool() -> pl.DataFrame:
    row: dict[str, object] = {"answer": "4", "domain": "d", "source": "s"}
    return frame(
        "problem",
        [
            row | {"id": "a", "question": "What is 2 + 2?"},
            row | {"id": "b", "question": "Which is even?", "options": ["one", "two"]},
        ],
    )


def rows(*texts: str, **columns: object) -> pl.DataFrame:
    base = {"problem_id": "a", "origin": "human", "raw": False, "accepted": True, "chosen": True, **columns}
    return frame("candidate", [base | {"index": i, "response": text} for i, text in enumerate(texts)])


def desk_of(student: LocalModel, store: Path) -> Desk:
    return make_desk(store, lambda settings, identity: student, student.settings, PROMPT)


def test_it_is_the_loss_that_sft_begins_with(student: Counted, tmp_path: Path) -> None:
    own = "Check this attempt: 2 + 2 = 5"
    table = pl.concat(
        [
            rows("2 + 2 = 4\n\\boxed{4}"),
            rows("So \\boxed{B}.", problem_id="b", tokens=3),
            rows("The first line is wrong.", prompt=own),
            rows(" and so \\boxed{4}", prefix="2 + 2 makes 4,"),
        ]
    )
    scored = score(desk_of(student, tmp_path), table, pool(), pl.lit(True))
    chats = [
        PROMPT.messages("What is 2 + 2?"),
        PROMPT.messages("Which is even?", ["one", "two"]),
        PROMPT.wrap(own),
        PROMPT.messages("What is 2 + 2?"),
    ]
    found = scored.select("response", "prefix", "nll", "tokens").rows()
    for chat, (response, prefix, nll, tokens) in zip(chats, found, strict=True):
        row = make_row(student.tokenizer, chat, response, PROMPT, "a", prefix)
        ids = torch.tensor([[*row.prompt, *row.response]])
        with torch.inference_mode():
            logits = student.model(input_ids=ids).logits[0, len(row.prompt) - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(row.response))
        assert nll == pytest.approx(loss.item(), rel=1e-9)
        assert tokens == (3 if tokens == 3 else len(row.response))
    assert scored["tokens"][1] == 3  # what was generated stays
    assert student.tokenizer.eos_token_id in row.response  # the end is scored too
    assert scored.drop("nll", "tokens").equals(table.drop("nll", "tokens"))


def test_only_what_is_asked_for_is_scored(student: Counted, tmp_path: Path) -> None:
    table = pl.concat([rows("one", nll=0.25), rows("two", "three")])
    desk = desk_of(student, tmp_path)
    scored = score(desk, table, pool(), pl.col("response") == "three")
    assert student.scored == ["three"]
    assert scored["nll"][0] == 0.25
    assert scored["nll"].is_null().to_list() == [False, True, False]
    again = score(desk, table, pool(), pl.Series([False, True, True]))
    assert student.scored == ["three", "two"]
    assert again["nll"][2] == scored["nll"][2]


def test_an_interrupted_measurement_goes_on(student: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "CHUNK", 2)
    table = rows("one", "two", "one", "three words here", "four", "five", "six and a half")
    whole = score(desk_of(student, tmp_path / "whole"), table, pool(), pl.lit(True))
    assert student.scored == ["one", "two", "three words here", "four", "five", "six and a half"]
    desk = desk_of(student, tmp_path / "cut")
    student.scored, student.calls_left = [], 2
    with pytest.raises(KeyboardInterrupt):
        score(desk, table, pool(), pl.lit(True))
    assert student.scored == ["one", "two", "three words here", "four"]
    student.scored, student.calls_left = [], 99
    assert score(desk, table, pool(), pl.lit(True)).equals(whole)
    assert student.scored == ["five", "six and a half"]
    student.calls_left = 0  # nothing is left to score: the student is not asked, and need not be loaded
    desk.load = lambda settings, identity: pytest.fail("loaded")
    assert score(desk, table, pool(), pl.lit(True)).equals(whole)


def test_another_prompt_is_another_measurement(student: Counted, tmp_path: Path) -> None:
    desk = desk_of(student, tmp_path)
    plain = score(desk, rows("one"), pool(), pl.lit(True))["nll"][0]
    desk.prompt = Prompt(suffix="")
    assert score(desk, rows("one"), pool(), pl.lit(True))["nll"][0] != plain
    assert student.scored == ["one", "one"]


def test_a_candidate_of_an_unknown_problem_is_named(student: Counted, tmp_path: Path) -> None:
    with pytest.raises(DereasonError, match="problem 'z'"):
        score(desk_of(student, tmp_path), rows("one", problem_id="z"), pool(), pl.lit(True))


def test_a_student_that_changed_in_its_place_is_measured_anew(tiny_model: Path, tmp_path: Path) -> None:
    place = tmp_path / "student"
    shutil.copytree(tiny_model, place)
    before = Counted(ModelSettings(name=str(place)))
    first = score(desk_of(before, tmp_path / "store"), rows("2 + 2 = 4"), pool(), pl.lit(True))
    with torch.no_grad():
        before.model.model.norm.weight.mul_(2)
    before.model.float().save_pretrained(place)
    after = Counted(ModelSettings(name=str(place)))
    again = score(desk_of(after, tmp_path / "store"), rows("2 + 2 = 4"), pool(), pl.lit(True))
    assert after.scored == ["2 + 2 = 4"]
    assert first["nll"].item() != again["nll"].item()


def test_scores_that_cannot_be_read_are_measured_again(student: Counted, tmp_path: Path) -> None:
    whole = score(desk_of(student, tmp_path), rows("2 + 2 = 4"), pool(), pl.lit(True))
    (chunk,) = tmp_path.rglob("chunk-*.parquet")
    chunk.write_bytes(b"PAR1")
    assert score(desk_of(student, tmp_path), rows("2 + 2 = 4"), pool(), pl.lit(True)).equals(whole)
