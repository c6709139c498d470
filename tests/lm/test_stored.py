"""What a folder holds of an interrupted call is taken by that call, and by no other one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from dereason.difficulty.judge import SCORES, Judge, judge_scores
from dereason.errors import DereasonError
from dereason.lm.base import LanguageModel, Message, Sampling
from dereason.lm.prompts import Prompt
from dereason.problems.schema import frame
from dereason.verify.samples import draw_samples
from scripted import ScriptedModel


def pool(*questions: str) -> pl.DataFrame:
    row: dict[str, object] = {"domain": "d", "source": "s", "answer": "4"}
    return frame("problem", [row | {"id": f"p{i}", "question": q} for i, q in enumerate(questions)])


class LengthJudge:
    """A question with n characters has the score n; counts what it is asked."""

    def __init__(self, identity: str = "judge@1", template: str = "t") -> None:
        self.identity, self.template, self.asked = identity, template, 0

    def template_hash(self) -> str:
        return self.template

    def choice_probabilities(
        self, prompts: Sequence[Sequence[Message]], choices: Sequence[str], batch_size: int
    ) -> Iterator[np.ndarray]:
        self.asked += len(prompts)
        lengths = [len(chat[0]["content"].split("Problem: ")[1].split("\n")[0]) for chat in prompts]
        yield np.eye(len(SCORES))[[n - 1 for n in lengths]]


def scores(judge: Any, table: pl.DataFrame, store: Path, **settings: Any) -> list[int]:
    return list(judge_scores(judge, table, Judge(batch_size=2, **settings), store=store)["judge_mode"])


def test_a_judge_takes_no_other_pools_scores(tmp_path: Path) -> None:
    assert scores(LengthJudge(), pool("a", "aa", "aaa"), tmp_path) == [1, 2, 3]
    assert scores(LengthJudge(), pool("aaaa", "a", "aa"), tmp_path) == [4, 1, 2]
    again = LengthJudge()
    assert scores(again, pool("aaaa", "a", "aa"), tmp_path) == [4, 1, 2]
    assert again.asked == 0


@pytest.mark.parametrize(
    ("judge", "settings"),
    [(LengthJudge("judge@2"), {}), (LengthJudge(template="u"), {}), (LengthJudge(), {"rubric": "Rate this."})],
)
def test_another_judge_scores_anew(tmp_path: Path, judge: LengthJudge, settings: dict[str, Any]) -> None:
    scores(LengthJudge(), pool("a", "aa", "aaa"), tmp_path)
    scores(judge, pool("a", "aa", "aaa"), tmp_path, **settings)
    assert judge.asked == 3


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"no array at all, but some text"])
def test_scores_that_cannot_be_read_are_asked_again(tmp_path: Path, content: bytes) -> None:
    table = pool("a", "aa", "aaa")
    scores(LengthJudge(), table, tmp_path)
    (tmp_path / "scores-000000.npy").write_bytes(content)
    again = LengthJudge()
    assert (scores(again, table, tmp_path), again.asked) == ([1, 2, 3], 2)


def draw(
    lm: LanguageModel, store: Path, n: int = 1, temperature: float = 1.0, purpose: str = "profile"
) -> pl.DataFrame:
    how = Sampling(temperature=temperature)
    table = pool("1 + 3", "2 + 2")
    return draw_samples(lm, table, Prompt(), n=n, sampling=how, seed=0, purpose=purpose, store=store)


def test_another_model_draws_anew(tmp_path: Path) -> None:
    draw(ScriptedModel(lambda text, i: "\\boxed{3}", "one@1"), tmp_path)
    table = draw(ScriptedModel(lambda text, i: "\\boxed{4}", "two@1"), tmp_path)
    assert set(table["model"]) == {"two@1"}
    assert set(table["verdict"]) == {"correct"}
    assert set(draw(ScriptedModel(lambda text, i: "", "two@1"), tmp_path, purpose="eval")["purpose"]) == {"eval"}


def test_responses_that_cannot_be_read_are_drawn_again(tmp_path: Path) -> None:
    lm = ScriptedModel(lambda text, i: "\\boxed{4}")
    whole = draw(lm, tmp_path)
    (tmp_path / "batch-000001.parquet").write_bytes(b"PAR1 cut")
    assert draw(lm, tmp_path).equals(whole)
    assert len(lm.asked) == 3


def test_several_greedy_responses_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DereasonError, match=r"n is 2 and sampling\.temperature is 0.*set n to 1, or a temperature"):
        draw(ScriptedModel(lambda text, i: "x"), tmp_path, n=2, temperature=0.0)
    assert draw(ScriptedModel(lambda text, i: "x"), tmp_path, n=1, temperature=0.0).height == 2
